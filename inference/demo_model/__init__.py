"""A small Z-Image that really generates pictures: the folders of its checkpoint and of its two example adapters."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

CHECKPOINT_DIR = _HERE / "checkpoint"
ADAPTERS_DIR = _HERE / "adapters"

__all__ = ["ADAPTERS_DIR", "CHECKPOINT_DIR"]
