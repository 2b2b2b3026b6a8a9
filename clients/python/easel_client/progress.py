"""Shows how far a run is: a bar where `rich` is installed and a terminal shows it, else a line per request."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run. The counts are of requests.

    `done` includes those that an earlier run had finished (`resumed`) and those that failed (`failed`). `waiting` is
    the reason why nothing is sent at the moment, or None. `latest` says what happened last.
    """

    total: int
    done: int
    resumed: int
    failed: int
    running: int
    waiting: str | None
    latest: str


OnProgress = Callable[[Progress], None]


def shown(progress: "bool | OnProgress") -> "AbstractContextManager[OnProgress]":
    """Return a context that gives a function to call at every change."""
    if callable(progress):
        return nullcontext(progress)
    if not progress:
        return nullcontext(lambda _: None)
    if sys.stderr.isatty():
        try:
            return _Bar()
        except ImportError:
            pass
    return nullcontext(_Lines())


class _Lines:
    """Prints a line when a request ends and when the run begins to wait."""

    def __init__(self) -> None:
        self._before: tuple[int, str | None] = (0, None)

    def __call__(self, progress: Progress) -> None:
        done, waiting = self._before
        self._before = progress.done, progress.waiting
        if progress.waiting and progress.waiting != waiting:
            print(f"waiting: {progress.waiting}", file=sys.stderr, flush=True)
        elif progress.done > done:
            print(f"[{progress.done}/{progress.total}] {progress.latest}", file=sys.stderr, flush=True)


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns: tuple[Any, ...] = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __call__(self, progress: Progress) -> None:
        words = [f"{progress.running} running"]
        words += [f"{progress.resumed} of an earlier run"] if progress.resumed else []
        words += [f"{progress.failed} failed"] if progress.failed else []
        words += [f"waiting: {progress.waiting}"] if progress.waiting else []
        self._bar.update(self._task, total=progress.total, completed=progress.done, description=", ".join(words))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()
