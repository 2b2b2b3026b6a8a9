"""A small Z-Image that really draws: where its checkpoint and its two example adapters lie."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

CHECKPOINT_DIR = _HERE / "checkpoint"
ADAPTERS_DIR = _HERE / "adapters"

__all__ = ["ADAPTERS_DIR", "CHECKPOINT_DIR"]
