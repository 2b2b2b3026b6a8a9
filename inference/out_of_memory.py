"""Work on many items that falls back to halves of them where the device's memory is too small."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from inference.errors import OutOfMemory

T = TypeVar("T")


def run_in_halves(
    work: Callable[[Sequence[T]], None], items: Sequence[T], on_error: Callable[[T, Exception], None]
) -> None:
    """Call `work` with all `items`, or after `OutOfMemory` with each half of them, down to single items.

    Any other exception fails every item of its call. `on_error` receives each failed item; nothing is raised.
    """
    try:
        work(items)
    except OutOfMemory as error:
        if len(items) == 1:
            on_error(items[0], error)
        else:
            run_in_halves(work, items[: len(items) // 2], on_error)
            run_in_halves(work, items[len(items) // 2 :], on_error)
    except Exception as error:
        for item in items:
            on_error(item, error)
