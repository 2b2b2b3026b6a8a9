"""The workload of every system: a seeded mix of sizes, prompts, tenants and adapters, Poisson in time."""

import random
from dataclasses import dataclass

import torch

from inference.adapters import AdapterTable, AdapterTargets

STEPS = 8
# Sides in pixels and their weights: many small ones and few large, as previews and finals are.
SIZES_PX = {96: 3, 128: 3, 192: 2, 256: 2, 384: 1}
RANK = 8
_PROMPTS = (
    "a red circle",
    "a blue star on the left",
    "two green squares and a yellow triangle",
    "a small white ring above a large purple heart on a dark background",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One image, with an adapter or without; it arrives `after_seconds` after the first one."""

    after_seconds: float
    tenant: str
    prompt: str
    px: int
    seed: int
    adapter: int | None


def asks(count: int, *, adapters: int, per_second: float = float("inf"), seed: int = 0) -> list[Ask]:
    """`count` images with adapters by a Zipf law of exponent 1; of two images one is the flooding tenant's."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, adapters + 1)]
    after_seconds, found = 0.0, []
    for i in range(count):
        found.append(
            Ask(
                after_seconds=after_seconds,
                tenant="flood" if rng.random() < 0.5 else f"tenant{rng.randrange(4)}",
                prompt=rng.choice(_PROMPTS),
                px=rng.choices(list(SIZES_PX), list(SIZES_PX.values()))[0],
                seed=i,
                adapter=rng.choices(range(adapters), weights)[0],
            )
        )
        after_seconds += rng.expovariate(per_second) if per_second < float("inf") else 0.0
    return found


def adapter_table(targets: AdapterTargets, number: int) -> AdapterTable:
    """A random adapter on the layers that the bundled ones change."""
    generator = torch.Generator().manual_seed(number)
    matrices = {
        path: (
            (0.02 * torch.randn(RANK, width, generator=generator)).to(targets.dtype),
            (0.02 * torch.randn(height, RANK, generator=generator)).to(targets.dtype),
        )
        for path, (height, width) in targets.shapes.items()
        if path.startswith("layers.") and "adaLN" not in path
    }
    return AdapterTable(f"{number:064x}", matrices)
