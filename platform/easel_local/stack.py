"""A whole Easel on one machine: servers, control plane, worker."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from easel_local import processes
from easel_local.environment import environment
from easel_local.home import home_of, run_dir, write_private
from easel_local.process import ProcessSpec
from easel_local.supervisor import Supervisor, signals_call

if TYPE_CHECKING:  # it imports Django, which stays out of the supervisor
    from easel.catalog.pool_workers import PoolWorker

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
        """The pools that this stack runs a worker of."""
        return {name.removeprefix("worker-") for name in self.metrics_ports}

    def add_worker(self, told: "PoolWorker") -> None:
        """Start one more worker, as `easel.catalog.pool_workers` says of its pool."""
        self.supervisor.add(_worker(told, self.metrics_ports))

    def is_ready(self) -> bool:
        return is_ready(self.url)

    def wait_ready(self, timeout_seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait until the API says it is ready; false when the time is up or `stop` is set."""
        stop = stop or threading.Event()
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline and not stop.is_set():
            if self.is_ready():
                return True
            stop.wait(_POLL_SECONDS)
        return False


@contextmanager
def running_stack(*, port: int, with_worker: bool = True, out: BinaryIO | None = None) -> Iterator[Stack]:
    """Start everything, migrated and seeded, for the length of the `with`; `os.environ` is filled meanwhile.

    What the processes log goes to `out`, by default stdout.

    Raises `StackUnavailable` when the port is taken or another stack runs on this EASEL_HOME, and
    `ServersUnavailable`.
    """
    home = home_of(os.environ)
    with ExitStack() as stack:
        _claim(home, stack)
        if not port_is_free(port):
            raise StackUnavailable(f"port {port} can't be used: choose another with --port or EASEL_PORT")
        os.environ["EASEL_PORT"] = str(port)
        if sys.stdout.isatty():
            os.environ.setdefault("EASEL_LOG_FORMAT", "console")
        stack.enter_context(environment(own_servers=True))
        workers = _migrate()
        url = f"http://{_HOST}:{port}"
        metrics_ports: dict[str, int] = {}
        specs = processes.control_plane(os.environ, port=port)
        if with_worker:
            specs += [_worker(told, metrics_ports) for told in workers]

        def record() -> None:
            about = {"url": url, "port": port, "pid": os.getpid(), "processes": supervisor.pids()}
            write_private(_state_file(home), json.dumps({**about, "worker_metrics_ports": metrics_ports}))

        supervisor = Supervisor(specs, out=out, on_change=_one_at_a_time(record))
        stack.callback(_state_file(home).unlink, missing_ok=True)
        stack.callback(supervisor.stop)
        supervisor.start()
        yield Stack(url=url, supervisor=supervisor, metrics_ports=metrics_ports)


def serve(*, port: int, with_worker: bool, on_ready: Callable[[str], None]) -> None:
    """Run a stack until SIGINT or SIGTERM. Raises what `running_stack` does."""
    with running_stack(port=port, with_worker=with_worker) as stack:
        keep_serving(stack, on_ready=on_ready)


def keep_serving(stack: Stack, *, on_ready: Callable[[str], None]) -> None:
    """Block until SIGINT or SIGTERM; says once when the API is ready."""
    stop = threading.Event()

    def announce() -> None:
        if stack.wait_ready(float("inf"), stop):
            on_ready(stack.url)

    with signals_call(stop.set):
        threading.Thread(target=announce, name="announce", daemon=True).start()
        stop.wait()


def recorded(home: Path) -> dict[str, object] | None:
    """What a running stack wrote about itself; None when there is none."""
    try:
        state: dict[str, object] = json.loads(_state_file(home).read_text())
    except FileNotFoundError:
        return None
    return state


def is_ready(url: str) -> bool:
    """Whether the API at `url` answers that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/healthz/ready", timeout=_PROBE_SECONDS) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _claim(home: Path, stack: ExitStack) -> None:
    """One stack per home. The lock ends with the process, whatever ended it."""
    descriptor = os.open(run_dir(home) / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        state = recorded(home) or {}
        raise StackUnavailable(
            f"easel is already running on {home} at {state.get('url', 'a port not known yet')};"
            " set EASEL_HOME to run another"
        ) from None


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _migrate() -> list["PoolWorker"]:
    """Migrate and seed; returns what the workers of this machine are to be told."""
    # Apart from us: Django would stay in the supervisor's memory for as long as the stack runs.
    argv = [sys.executable, "-m", "easel.cli.main", "migrate", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    try:
        told: list[PoolWorker] = json.loads(done.stdout.splitlines()[-1])["workers"]
    except (IndexError, ValueError):
        raise StackUnavailable(f"the database could not be migrated; the reason is above\n{done.stdout}") from None
    return told


def _worker(told: "PoolWorker", metrics_ports: dict[str, int]) -> ProcessSpec:
    """A worker's process, named after its pool; its metrics port is noted in `metrics_ports`."""
    name = f"worker-{told['pool']}"
    metrics_ports[name] = free_port()
    return processes.worker({**os.environ, **told["env"]}, name=name, metrics_port=metrics_ports[name])


def _one_at_a_time(action: Callable[[], None]) -> Callable[[], None]:
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            action()

    return guarded


def _state_file(home: Path) -> Path:
    return run_dir(home) / "stack.json"
