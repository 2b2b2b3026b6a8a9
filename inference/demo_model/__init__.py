"""A small Z-Image that really generates pictures: the folders of its checkpoint and of its two example adapters."""

from pathlib import Path

CHECKPOINT_DIR = Path(__file__).resolve().parent / "checkpoint"
ADAPTERS_DIR = CHECKPOINT_DIR.with_name("adapters")
