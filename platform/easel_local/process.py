"""One operating-system process that is restarted whenever it dies, until a stop is requested."""

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
from typing import Any, BinaryIO, Protocol

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Loaded before any fork: between fork and exec the child of a threaded program may do very little.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A command line and how to run it. `env` is the whole environment; with `log`, output is appended to that file."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None
    log: Path | None = None
    user: tuple[int, int] | None = None  # the uid and gid to run as, by default ours
    stop_signal: signal.Signals = signal.SIGTERM
    # The kernel sends this signal if our process is killed before it could stop this one (Linux only).
    orphan_signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pause before a restart: doubles up to `max_seconds`; starts over after a life of `reset_after_seconds`."""

    first_seconds: float = 0.5
    max_seconds: float = 10.0
    reset_after_seconds: float = 30.0


class Reporter(Protocol):
    """Receiver of a process's output lines and of restart events; several threads call it."""

    def line(self, name: str, line: bytes) -> None: ...

    def event(self, event: str, **fields: object) -> None: ...


class SupervisedProcess:
    """Runs the process of a spec and restarts it when it dies."""

    def __init__(
        self, spec: ProcessSpec, *, reporter: Reporter, backoff: Backoff, on_start: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.deaths = 0
        self._reporter = reporter
        self._backoff = backoff
        self._on_start = on_start
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # keeps `_run_once` from spawning after `request_stop` has looked
        self._stopping = threading.Event()
        # The kernel's parent-death signal follows the thread that forked, so this thread lives as long as the child.
        self._thread = threading.Thread(target=self._supervise, name=f"supervise-{spec.name}", daemon=True)

    @property
    def pid(self) -> int | None:
        popen = self._popen
        return popen.pid if popen is not None and popen.returncode is None else None

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Send the stop signal, and do not restart the process."""
        self._stopping.set()
        with self._lock:
            if self._popen is not None:
                self._popen.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kill its process group."""
        self._stopping.set()
        with self._lock:
            if self._popen is not None and self._popen.returncode is None:
                _kill_group(self._popen.pid)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the end; true if the process has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _supervise(self) -> None:
        delay = self._backoff.first_seconds
        while True:
            started = time.monotonic()
            end = self._run_once()
            if self._stopping.is_set():
                return
            self.deaths += 1
            if time.monotonic() - started >= self._backoff.reset_after_seconds:
                delay = self._backoff.first_seconds
            self._reporter.event("process died", process=self.spec.name, **end, restart_in_seconds=delay)
            if self._stopping.wait(delay):
                return
            delay = min(delay * 2, self._backoff.max_seconds)

    def _run_once(self) -> dict[str, object]:
        """Run the process to its end; return its exit code, or the error if it could not start."""
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
        _kill_group(popen.pid)  # its own children may outlive it
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
            **as_user(spec.user),
            stdin=subprocess.DEVNULL,
            stdout=log if log is not None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop processes in order.
            start_new_session=True,
            # Runs after the change of user, which clears the parent-death signal.
            preexec_fn=die_with_owner,
        )
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    finally:
        if log is not None:
            log.close()


def as_user(user: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of `subprocess` that run a program as another user, without our groups."""
    return {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
