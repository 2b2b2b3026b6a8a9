"""Warm-up of a loaded model, and the measurements from which the engine's policies decide."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog
import torch
from torch import Tensor

from inference.adapter_linear import RowAdapters
from inference.adapters import AdapterTable
from inference.model import LoadedModel
from inference.residency import AdapterCosts

_PX, _RANK = 256, 16
_MEMORY_SHARE = 0.8  # of the memory that is free once the model is loaded: for the tokens of a step

log = structlog.get_logger()


def warm_up(model: LoadedModel) -> None:
    """Generate one small image, so that the first real one does not pay for lazy initialisation, and measure costs.

    Sets `costs`, `work_per_second` and `tokens_max` of the model.
    """
    with model.stream():
        (caption,) = model.encode([model.prompt_ids("warm up")])
        # Not square, or the compiler would assume that all images are.
        latents = model.initial_latents(0, _PX + model.token_px, _PX)
        model.decode([latents])
        model.synchronize()
    model.preview(latents)
    model.record_graphs(model.sequence(caption, _PX, _PX, RowAdapters()))
    _measure(model, caption)
    model.synchronize()


def _measure(model: LoadedModel, caption: Tensor) -> None:
    """Time a step of rows without adapters, with unmerged adapters and with merged ones."""
    model.load(0, _zero_adapter(model))
    # Enough rows to keep a GPU busy: otherwise the time of its launches would be taken for the cost of the work.
    rows, px = (4, 2 * _PX) if model.device.type == "cuda" else (2, _PX)
    latents = [model.initial_latents(seed, px, px) for seed in range(rows)]
    sequences = [model.sequence(caption, px, px, RowAdapters())] * rows
    tokens = rows * model.step_tokens(px, px, len(caption))

    def step_seconds(*adapters: RowAdapters) -> float:
        """Time a step in which the rows use `adapters` by turns."""
        by_row = [adapters[row % len(adapters)] for row in range(rows)]
        return _seconds(model, lambda: model.velocity(latents, [0.5] * rows, sequences, by_row))

    bytes_free, bytes_before = _memory(model.device)
    base = step_seconds(RowAdapters())
    if bytes_free:
        bytes_used = torch.cuda.max_memory_allocated(model.device) - bytes_before
        model.tokens_max = int(_MEMORY_SHARE * bytes_free / bytes_used * tokens)
    model.work_per_second = rows * model.step_work(px, px, len(caption)) / base
    if model.merged_slots > 1:
        scaled_slots = ((0, 1.0),)
        model.merge(0, scaled_slots)
        merge = _seconds(model, lambda: model.merge(1, scaled_slots))
        unmerged = step_seconds(RowAdapters(scaled_slots))
        merged = step_seconds(RowAdapters(merged=0), RowAdapters(merged=1))
        model.costs = AdapterCosts(
            unmerged_per_token_seconds=max(0.0, unmerged - base) / tokens,
            merge_seconds=merge,
            merged_per_step_seconds=max(0.0, merged - base) / rows,
        )
    log.info(
        "model_measured",
        gflops_per_second=round(model.work_per_second / 1e9, 1),
        tokens_max=model.tokens_max,
        **{name: round(value, 9) for name, value in asdict(model.costs).items()},
    )


def _zero_adapter(model: LoadedModel) -> AdapterTable:
    """Make an adapter of zeros on every linear layer of the main blocks."""
    matrices = {
        path: (torch.zeros(_RANK, width, dtype=model.dtype), torch.zeros(height, _RANK, dtype=model.dtype))
        for path, (height, width) in model.targets.shapes.items()
        if path.startswith("layers.")
    }
    return AdapterTable("", matrices)


def _memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes of the device that are free, and those that tensors use; zeros for a CPU."""
    if device.type != "cuda":
        return 0, 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.mem_get_info(device)[0], torch.cuda.memory_allocated(device)


def _seconds(model: LoadedModel, work: Callable[[], Any]) -> float:
    """Time `work`: the shortest of three runs, after one that is not counted."""
    times = []
    for _ in range(4):
        started = time.perf_counter()
        work()
        model.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])
