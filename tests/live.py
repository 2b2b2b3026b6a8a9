"""A whole Easel as a newcomer starts it: `easel up` on servers of its own, called over HTTP."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from easel_client import Easel
from easel_local.stack import free_port
from easel_local.status import stack_status
from tests.commands import Commands

_START_SECONDS = 120
_POLL_SECONDS = 0.1
# None of what the tests' own process set for its own servers.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(slots=True)
class LiveEasel:
    """A running `easel up` and its commands."""

    home: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    commands: Commands | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        with (self.home / "stack.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_easel(), "up", "--port", str(self.port), *options], env=self._env(), stdout=log, stderr=log
            )
        self.wait_for(lambda: self.status()["up"], seconds=_START_SECONDS)
        if "--no-worker" not in options:
            self.wait_for(self.has_room, seconds=_START_SECONDS)

    def stop(self) -> int:
        assert self.process is not None
        if self.commands is not None:
            self.commands.close()
            self.commands = None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command that runs until it is asked to end."""
        with (self.home / "spawned.log").open("ab") as log:
            return subprocess.Popen([*_easel(), *arguments], env=self._env(), stdout=log, stderr=log)

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The result of a command on this Easel, which is up."""
        if self.commands is None:
            self.commands = Commands(self._env())
        return self.commands.run(*arguments, stdin=stdin)

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The result of a command as a shell starts it, in an interpreter of its own."""
        return subprocess.run([*_easel(), *arguments], env=self._env(), capture_output=True, text=True, check=False)

    def run(self, code: str) -> None:
        """Runs Python in a process that knows this Easel's servers, as its commands do."""
        done = subprocess.run(
            [sys.executable, "-c", code], env=self._env(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def json(self, *arguments: str) -> Any:
        done = self.command(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        """What `easel status --json` says, without its process."""
        return stack_status(self.home).as_json()

    def has_room(self) -> bool:
        """Whether a worker has reported, as it does when its model is warm."""
        return "easel_worker_load_seconds{" in httpx.get(f"{self.url}/metrics").text

    def metrics(self, url: str = "") -> dict[str, float]:
        """Samples by name and labels, as they are exposed: of the API, or of a worker at `url`."""
        text = httpx.get(url or f"{self.url}/metrics").text
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {sample: float(value) for sample, _, value in lines}

    def device_seconds(self, tenant: str) -> float:
        """What the shared pool's worker attributed to a tenant."""
        port = json.loads((self.home / "run" / "stack.json").read_text())["worker_metrics_ports"]["worker-shared"]
        samples = self.metrics(f"http://127.0.0.1:{port}/metrics")
        return samples.get(f'easel_gpu_busy_seconds_total{{tenant="{tenant}"}}', 0.0)

    def log_lines(self) -> list[str]:
        """What the processes logged, up to now."""
        return (self.home / "stack.log").read_text().splitlines()

    def tenant(self) -> Easel:
        """A new tenant with credit."""
        made = self.json("tenant", "create", f"t-{uuid.uuid4().hex[:12]}", "--credit", "10")
        return Easel(self.url, made["api_key"])

    def wait_for(self, happened: Callable[[], object], *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, (self.home / "stack.log").read_text()[-5000:]
            assert self.process is None or self.process.poll() is None, (self.home / "stack.log").read_text()[-5000:]
            time.sleep(_POLL_SECONDS)

    def _env(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {**inherited, "EASEL_HOME": str(self.home), **self.settings}


def _easel() -> list[str]:
    return [sys.executable, "-m", "easel.cli.main"]


@contextmanager
def new_home() -> Iterator[Path]:
    """Not in pytest's folder: under root, each run of pytest that starts shuts that to the user of PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="easel-home-", ignore_cleanup_errors=True) as home:
        yield Path(home)


@contextmanager
def live_easel() -> Iterator[LiveEasel]:
    """A running stack. Leases are short, for tests that kill; webhooks may come to this machine."""
    with new_home() as home:
        live = LiveEasel(home, free_port(), {"EASEL_LEASE_SECONDS": "4", "EASEL_WEBHOOK_ALLOW": "127.0.0.0/8"})
        live.start()
        try:
            yield live
        finally:
            live.stop()


def all_costs(caller: Easel, *, group_by: str) -> Any:
    """Return a caller's costs of all time. Those of the month, the default, are none if it ends during the test."""
    return caller.costs.get(group_by=group_by, start="2020-01-01")
