"""Records what a run of `generate_many` has done, in a file that survives a crash at any moment.

The file has a line of JSON for the run and one for each change after it. Only whole lines count: a line that a crash
cut is written again. One process at a time writes it.
"""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from easel_client.errors import EaselError

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, two processes on one folder are the caller's to avoid
    fcntl = None  # type: ignore[assignment]

FILE = "easel-run.jsonl"
_VERSION = 1


class FolderInUse(EaselError):
    """Another process is generating into the folder."""

    code = "folder_in_use"


class JournalUnreadable(EaselError):
    """The file of a run is of another version or another server, or is no such file."""

    code = "journal_unreadable"


@dataclass(slots=True)
class Entry:
    """One request of a run. `attempt` counts its jobs; `sent_at` is the unix time at which the last one was asked for.

    `files` is set once all of its images are written, and `error` when its last job ended without images.
    """

    attempt: int = 0
    sent_at: float | None = None
    job: str | None = None
    files: list[str] | None = None
    seeds: list[int] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    error: str | None = None


class Journal:
    """The entries of a run by their keys, in `folder`. Made where there is none."""

    def __init__(self, folder: Path, *, server: str, now: float) -> None:
        """Open the file, or make it. Raises `FolderInUse`, `JournalUnreadable`."""
        self.path = folder / FILE
        self._entries: dict[str, Entry] = {}
        self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115 - open until `close`
        try:
            self._lock()
            self._file.seek(0)
            lines = self._file.read().split(b"\n")
            # What follows the last line break was cut by a crash.
            self._file.truncate(sum(len(line) + 1 for line in lines[:-1]))
            self.run = self._begin(server, now) if lines == [b""] or len(lines) == 1 else self._read(lines[:-1], server)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderInUse(f"another process is generating into {self.path.parent}") from error

    def _begin(self, server: str, now: float) -> str:
        run = uuid.uuid4().hex
        self._append({"easel_run": run, "version": _VERSION, "server": server, "begun_at": now})
        return run

    def _read(self, lines: list[bytes], server: str) -> str:
        try:
            head, *changes = (json.loads(line) for line in lines)
            run, version, its_server = str(head["easel_run"]), head["version"], head["server"]
            for change in changes:
                self._apply(change.pop("item"), change)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalUnreadable(f"{self.path} is not the file of a run: {error!r}") from error
        if version != _VERSION:
            raise JournalUnreadable(f"{self.path} is of version {version}, and this client reads version {_VERSION}")
        if its_server != server:
            raise JournalUnreadable(f"{self.path} is of a run on {its_server}; use another folder for {server}")
        return run

    def _apply(self, key: str, change: Mapping[str, Any]) -> None:
        entry = self._entries.setdefault(key, Entry())
        for name, value in change.items():
            setattr(entry, name, value)

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __getitem__(self, key: str) -> Entry:
        return self._entries.setdefault(key, Entry())

    def write(self, key: str, **change: Any) -> None:
        """Record a change of an entry; it is on the disk when this returns. Callers take turns."""
        self._append({"item": key, **change})
        self._apply(key, change)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
