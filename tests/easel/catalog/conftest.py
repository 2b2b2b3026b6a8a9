"""LoRA files of every format, made for the tiny transformer of the tests."""

from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import save

from easel.catalog.checkpoint import zimage_targets
from tests.conftest import TRANSFORMER

TARGETS = zimage_targets(TRANSFORMER)
RANK = 4
Weights = dict[str, np.ndarray]


@pytest.fixture
def weights() -> Callable[..., Weights]:
    """Canonical weights for some modules: `weights("layers.0.attention.to_q")`."""

    def make(*modules: str, rank: int = RANK) -> Weights:
        rng = np.random.default_rng(0)
        made = {}
        for module in modules or ("layers.0.attention.to_q", "layers.1.feed_forward.w2"):
            height, width = TARGETS[module]
            made[f"{module}.lora_A.weight"] = rng.standard_normal((rank, width), dtype=np.float32)
            made[f"{module}.lora_B.weight"] = rng.standard_normal((height, rank), dtype=np.float32)
        return made

    return make


def renamed(weights: Weights, rename: Callable[[str], str]) -> bytes:
    return save({rename(name): value for name, value in weights.items()})
