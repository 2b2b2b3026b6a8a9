"""A way around GNU OpenMP's thread teams, on a CPU."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_fresh_thread(work: Callable[[], T]) -> T:
    """Run tensor work in a new thread that ends with it, and return or raise what `work` does.

    GNU OpenMP gives every thread that computes a team of one thread per core, and frees the team when its owner ends.
    While all teams together have more threads than there are cores, no thread spins at the end of a parallel loop;
    each sleeps and has to be woken. A step took twice as long beside a team that did nothing.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
