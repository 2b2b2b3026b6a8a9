"""A whole Easel on one machine: servers, control plane, workers."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from easel_local import processes
from easel_local.environment import environment
from easel_local.home import home_of, run_dir, write_private
from easel_local.process import ProcessSpec
from easel_local.processes import PoolWorker
from easel_local.supervisor import Supervisor, signals_call

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.2
_PROBE_SECONDS = 2.0


class StackUnavailable(Exception):
    """The stack can't be started; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack."""

    url: str
    supervisor: Supervisor
    metrics_ports: dict[str, int]

    @property
    def workers(self) -> set[str]:
        """Slugs of the pools that have a worker in this stack."""
        return {name.removeprefix("worker-") for name in self.metrics_ports}

    def add_worker(self, worker: PoolWorker) -> None:
        """Start one more worker."""
        self.supervisor.add(_worker(worker, self.metrics_ports))

    def is_ready(self) -> bool:
        return is_ready(self.url)


@contextmanager
def running_stack(*, port: int, with_worker: bool = True, log: Path | None = None) -> Iterator[Stack]:
    """Migrate, seed and run everything for the length of the `with`; sets variables in `os.environ`.

    The processes log to stdout, or to a new file `log`; the log of the run before is renamed to end in `.1`.

    Raises `StackUnavailable` if the port is taken or another stack runs on this EASEL_HOME, and `ServersUnavailable`.
    """
    home = home_of(os.environ)
    with ExitStack() as stack:
        _claim(home, stack)
        if not port_is_free(port):
            raise StackUnavailable(f"port {port} is in use: choose another with --port or EASEL_PORT")
        # Nothing of the home is opened for writing before the claim: until then it belongs to a running stack.
        out = stack.enter_context(_new_log(log)) if log is not None else None
        os.environ["EASEL_PORT"] = str(port)
        if sys.stdout.isatty():
            os.environ.setdefault("EASEL_LOG_FORMAT", "console")
        stack.enter_context(environment(own_servers=True))
        workers = _migrate()
        url = f"http://{_HOST}:{port}"
        metrics_ports: dict[str, int] = {}
        specs = processes.control_plane(os.environ, port=port)
        if with_worker:
            specs += [_worker(worker, metrics_ports) for worker in workers]

        recording = threading.Lock()  # several processes may start at once

        def record() -> None:
            with recording:
                about = {"url": url, "port": port, "pid": os.getpid(), "processes": supervisor.pids()}
                write_private(_state_file(home), json.dumps({**about, "worker_metrics_ports": metrics_ports}))

        supervisor = Supervisor(specs, out=out, on_change=record)
        stack.callback(_state_file(home).unlink, missing_ok=True)
        stack.callback(supervisor.stop)
        supervisor.start()
        yield Stack(url=url, supervisor=supervisor, metrics_ports=metrics_ports)


def serve(*, port: int, with_worker: bool, on_ready: Callable[[str], None]) -> None:
    """Run a stack until SIGINT or SIGTERM. Raises what `running_stack` does."""
    with running_stack(port=port, with_worker=with_worker) as stack:
        keep_serving(stack, on_ready=on_ready)


def keep_serving(stack: Stack, *, on_ready: Callable[[str], None]) -> None:
    """Block until SIGINT or SIGTERM; call `on_ready` once, when the API is ready."""
    stop = threading.Event()

    def announce() -> None:
        while not stack.is_ready():
            if stop.wait(_POLL_SECONDS):
                return
        on_ready(stack.url)

    with signals_call(stop.set):
        threading.Thread(target=announce, name="announce", daemon=True).start()
        stop.wait()


def recorded(home: Path) -> dict[str, object] | None:
    """Return the state file of a running stack, or None."""
    with suppress(FileNotFoundError):
        return dict(json.loads(_state_file(home).read_text()))
    return None


def is_ready(url: str) -> bool:
    """Return True if the API at `url` answers that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/healthz/ready", timeout=_PROBE_SECONDS) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:  # among them URLError and HTTPError
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _claim(home: Path, stack: ExitStack) -> None:
    """Lock the home, so that it has at most one stack. The kernel drops the lock when the process ends."""
    descriptor = os.open(run_dir(home) / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        state = recorded(home) or {}
        url = state.get("url", "a port not known yet")
        running = f"easel is already running on {home} at {url}; set EASEL_HOME to run another"
        raise StackUnavailable(running) from None


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _new_log(path: Path) -> BinaryIO:
    """Open an empty log after renaming the log of the run before."""
    with suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def _migrate() -> list[PoolWorker]:
    """Migrate and seed; return the workers that this machine is to run."""
    # In a process of its own, since Django would stay in the supervisor's memory for as long as the stack runs.
    argv = [sys.executable, "-m", "easel.cli.main", "migrate", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    try:
        return list(json.loads(done.stdout.splitlines()[-1])["workers"])
    except (IndexError, ValueError):
        raise StackUnavailable(f"the database could not be migrated; the reason is above\n{done.stdout}") from None


def _worker(worker: PoolWorker, metrics_ports: dict[str, int]) -> ProcessSpec:
    """Return the process of a worker, named after its pool; add its metrics port to `metrics_ports`."""
    name = f"worker-{worker['pool']}"
    metrics_ports[name] = free_port()
    return processes.worker({**os.environ, **worker["env"]}, name=name, metrics_port=metrics_ports[name])


def _state_file(home: Path) -> Path:
    return run_dir(home) / "stack.json"
