"""Data-parallel training in one process per core: each has the whole model and its own rows.

Kernels this small gain nothing from two OpenMP threads, and compiled ones hold the GIL, so that two Python threads
would run one after the other.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

WORKERS = min(2, os.cpu_count() or 1)


def run_on_all_cores(function: Callable[..., None], *arguments: Any) -> None:
    """Call a module's function in `WORKERS` processes of one process group, and wait for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run, args=(Path(folder) / "rendezvous", function, arguments), nprocs=WORKERS)


def _run(rank: int, rendezvous: Path, function: Callable[..., None], arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORKERS)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process from 0; process 0 writes files and prints progress."""
    return dist.get_rank()


def seed_rows(part: int, step: int) -> int:
    """Seed torch so that each process samples other rows, and return the seed for numpy."""
    seed = (part * 1_000_000 + step) * WORKERS + rank()
    torch.manual_seed(seed)
    return seed


def backward(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    """Set each parameter's gradient to the mean over all processes, and return the mean loss."""
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([loss.detach().reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    dist.all_reduce(flat)
    flat /= WORKERS
    mean: Tensor
    mean, *pieces = flat.split([1, *(gradient.numel() for gradient in gradients)])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return mean.item()


def first_process_value(value: float) -> float:
    """Return the value that process 0 passed, in every process."""
    shared = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return shared.item()


def wait_for_all() -> None:
    """Wait until every process has called this, for instance after process 0 has written a file."""
    dist.barrier()
