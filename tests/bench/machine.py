"""The machine's speed, measured by a fixed loop of pure Python, so that figures of two machines can be compared."""

import time

_ADDITIONS = 1_000_000
_TRIES = 5


def python_loop_ms() -> float:
    """CPU milliseconds of a million additions and remainders in one thread: the fastest of five tries.

    CPU time rather than time on the clock: other programs on the machine may interrupt the loop.
    """
    return 1000 * min(_loop_seconds() for _ in range(_TRIES))


def _loop_seconds() -> float:
    begun = time.thread_time()
    total = 0
    for number in range(_ADDITIONS):
        total += number % 7
    return time.thread_time() - begun
