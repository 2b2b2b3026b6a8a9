"""The cores of a CPU, as GNU OpenMP lends them to PyTorch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def lent(work: Callable[[], T]) -> T:
    """Do tensor work in a thread that ends with it, and gives its cores back.

    Every thread that ever computed keeps a team of as many threads as there are cores. With more threads in all teams
    than cores none of them spins at the end of a parallel loop any more, each goes to sleep and is woken: steps took
    twice as long beside a team that did nothing.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
