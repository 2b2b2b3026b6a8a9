"""A sign of life for processes that serve no port."""

import threading
from pathlib import Path


class Pulse(threading.Event):
    """The signal to stop. A loop asks for it on every turn, and each time `file` is touched.

    A liveness probe looks at the file's age: a loop that hangs asks no more.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def is_set(self) -> bool:
        self._file.touch()
        return super().is_set()
