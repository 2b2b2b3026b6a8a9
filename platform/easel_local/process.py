"""One operating-system process, started again whenever it dies, until it is told to stop."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Looked up before any fork: the child of a threaded program should do as little as it can.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run. `env` is the whole environment. With `log`, output goes to that file and not to the console."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None
    log: Path | None = None
    uid: int | None = None
    gid: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends when our process is killed before it could stop this one (Linux).
    orphan_signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pause before a restart: doubles from `first_seconds` to `max_seconds`; a long life starts it afresh."""

    first_seconds: float = 0.5
    max_seconds: float = 10.0
    reset_after_seconds: float = 30.0


class Reporter(Protocol):
    """Where a process's lines and the events of its life go; called from several threads."""

    def line(self, name: str, line: bytes) -> None: ...

    def event(self, event: str, **fields: object) -> None: ...


class KeptProcess:
    """Starts the process of a spec and restarts it when it dies."""

    def __init__(
        self, spec: ProcessSpec, *, reporter: Reporter, backoff: Backoff, on_start: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.deaths = 0
        self._reporter = reporter
        self._backoff = backoff
        self._on_start = on_start
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # no process may appear after `request_stop` has looked for one
        self._stopping = threading.Event()
        # The kernel ties a child to the thread that forked it, so this thread lives as long as the child.
        self._thread = threading.Thread(target=self._keep, name=f"keep-{spec.name}", daemon=True)

    @property
    def pid(self) -> int | None:
        popen = self._popen
        return popen.pid if popen is not None and popen.returncode is None else None

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Ask the process to end, and do not restart it."""
        self._stopping.set()
        with self._lock:
            if self._popen is not None:
                self._popen.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """End it and everything in its process group at once."""
        self._stopping.set()
        with self._lock:
            if self._popen is not None and self._popen.returncode is None:
                _kill_group(self._popen.pid)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the end; true when there is no process any more."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _keep(self) -> None:
        delay = self._backoff.first_seconds
        while True:
            born = time.monotonic()
            died = self._run_once()
            if self._stopping.is_set():
                return
            self.deaths += 1
            if time.monotonic() - born >= self._backoff.reset_after_seconds:
                delay = self._backoff.first_seconds
            self._reporter.event("process died", process=self.spec.name, **died, restart_in_seconds=delay)
            if self._stopping.wait(delay):
                return
            delay = min(delay * 2, self._backoff.max_seconds)

    def _run_once(self) -> dict[str, object]:
        """Run the process to its end; says how it ended."""
        with self._lock:
            if self._stopping.is_set():
                return {}
            try:
                popen = self._popen = _spawn(self.spec)
            except OSError as error:
                return {"error": str(error)}
        pump = None
        if popen.stdout is not None:
            pump = threading.Thread(target=self._pump, args=(popen.stdout,), daemon=True)
            pump.start()
        self._on_start()
        exit_code = popen.wait()
        _kill_group(popen.pid)  # what it started and left behind
        if pump is not None:
            pump.join(1.0)
        return {"exit_code": exit_code}

    def _pump(self, output: BinaryIO) -> None:
        with output:
            for line in output:
                self._reporter.line(self.spec.name, line)


def _spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    owner_pid = os.getpid()

    def die_with_owner() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(spec.orphan_signal), 0, 0, 0)
            if os.getppid() != owner_pid:  # the owner died before the line above
                os._exit(1)

    log = spec.log.open("ab") if spec.log is not None else None
    try:
        return subprocess.Popen(  # noqa: S603 - the callers compose argv themselves
            list(spec.argv),
            env=dict(spec.env),
            cwd=spec.cwd,
            user=spec.uid,
            group=spec.gid,
            extra_groups=[] if spec.uid is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log if log is not None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we decide the order of the end.
            start_new_session=True,
            # Runs after the change of user, which would clear it.
            preexec_fn=die_with_owner,
        )
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    finally:
        if log is not None:
            log.close()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
