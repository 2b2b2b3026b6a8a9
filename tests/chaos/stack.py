"""A complete Easel with two of each process that may run twice; every process can be killed or paused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer

import django
import httpx
import psutil
import psycopg

from core.schema import schema_migrate
from easel_local.postgres import Postgres
from easel_local.process import Backoff, ProcessSpec
from easel_local.processes import worker
from easel_local.redis_server import RedisServer
from easel_local.stack import free_port
from easel_local.supervisor import Supervisor
from tests.chaos.schedule import LEASE_SECONDS, SERVICES, WORKERS, Fault
from tests.template import migrated_home

_START_SECONDS = 180
_POLL_SECONDS = 0.1
_SOON = Backoff(first_seconds=0.2, max_seconds=1.0)


class Stack:
    """Runs in `home` until stopped; whatever dies is started again within a second."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.postgres, self.redis = Postgres(home), RedisServer(home)
        self.urls = {name: f"http://127.0.0.1:{free_port()}" for name in ("api-1", "api-2")}
        self.log = home / "chaos.log"
        self._supervisors: list[Supervisor] = []
        self._paused: dict[str, list[psutil.Process]] = {}

    def start(self) -> None:
        migrated_home(self.home)
        self.postgres.prepare()
        self.redis.prepare()
        self._supervise([self.postgres.spec(), self.redis.spec()], grace_seconds=15)
        self.wait_for(lambda: self.postgres.ready() and self.redis.ready(), "the servers")
        os.environ.update(
            EASEL_HOME=str(self.home),
            EASEL_SECRET_KEY="only for chaos",
            EASEL_LEASE_SECONDS=str(LEASE_SECONDS),
            EASEL_LOG_FORMAT="json",
            EASEL_TORCH_THREADS="1",
            EASEL_WORKER_CONCURRENCY="4",
            EASEL_STOP_GRACE_SECONDS="1",
            DATABASE_URL=self.postgres.url,
            REDIS_URL=self.redis.url,
            DJANGO_SETTINGS_MODULE="easel.settings",
        )
        _migrate()
        workers_env = _workers_env()
        # At the end everything has been checked already, so that these processes need no time to finish their work.
        self._supervise(
            [*map(self._service, SERVICES), *(_worker(name, workers_env) for name in WORKERS)], grace_seconds=0.5
        )
        self.wait_for(self.is_whole, "the stack")

    def stop(self) -> None:
        self.resume_all()
        for supervisor in reversed(self._supervisors):
            supervisor.stop()

    def is_whole(self) -> bool:
        """Every process runs, both APIs are ready, and both workers have beaten."""
        try:
            ready = all(httpx.get(f"{url}/healthz/ready", timeout=2).status_code == 200 for url in self.urls.values())
        except httpx.TransportError:
            return False
        return ready and len(self.live_workers()) == len(WORKERS)

    def live_workers(self) -> set[str]:
        """Names, which end in the process's id, of the workers that run and have beaten just now."""
        pids = {pid for name, pid in self.pids().items() if name in WORKERS}
        beaten = self.rows("SELECT name FROM catalog_worker WHERE beat_at > now() - interval '3 seconds'")
        return {name for (name,) in beaten if int(name.rpartition("-")[2]) in pids}

    def pids(self) -> dict[str, int]:
        return {name: pid for supervisor in self._supervisors for name, pid in supervisor.pids().items()}

    def rows(self, query: str, *values: object) -> list[tuple]:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def strike(self, fault: Fault) -> bool:
        """Kills or pauses a process; False when it is not there to be struck."""
        pid = self.pids().get(fault.target)
        if pid is None or (fault.kind == "pause" and fault.target in self._paused):
            return False
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if fault.kind == "kill":
                os.kill(pid, signal.SIGKILL)
                return True
            process = psutil.Process(pid)
            # PostgreSQL is as many processes as it has connections.
            stopped = self._paused[fault.target] = [process, *process.children(recursive=True)]
            for each in stopped:
                with suppress(psutil.NoSuchProcess):
                    each.suspend()
            timer = Timer(fault.seconds, self._resume, [fault.target])
            timer.daemon = True
            timer.start()
            return True
        return False

    def resume_all(self) -> None:
        for name in list(self._paused):
            self._resume(name)

    def wait_for(self, happened: Callable[[], object], what: str, *, seconds: float = _START_SECONDS) -> None:
        """Raises `TimeoutError` when it has not happened in that time."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(psycopg.OperationalError):
                if happened():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}; {self.log} says why")
            time.sleep(_POLL_SECONDS)

    def _resume(self, name: str) -> None:
        for process in self._paused.pop(name, []):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _supervise(self, specs: list[ProcessSpec], *, grace_seconds: float) -> None:
        supervisor = Supervisor(specs, out=self.log.open("ab"), backoff=_SOON, grace_seconds=grace_seconds)
        self._supervisors.append(supervisor)
        supervisor.start()

    def _service(self, name: str) -> ProcessSpec:
        # The first of each kind hands out URLs of the first API, the second of the second.
        api = name if name in self.urls else f"api-{name[-1]}" if name[-1].isdigit() else "api-1"
        port = self.urls[api].rpartition(":")[2]
        env = {**os.environ, "EASEL_PORT": port}
        arguments = ["api", "--port", port] if name == api else [name.partition("-")[0]]
        return ProcessSpec(name=name, argv=[sys.executable, "-m", "easel.cli.main", *arguments], env=env)


def _worker(name: str, workers_env: dict[str, str]) -> ProcessSpec:
    spec = worker({**os.environ, **workers_env}, name=name, metrics_port=free_port())
    # Without this variable a worker is named after its process, so that each restart has a name of its own.
    env = {key: value for key, value in spec.env.items() if key != "EASEL_WORKER_NAME"}
    return ProcessSpec(name=name, argv=spec.argv, env=env)


def _migrate() -> None:
    """Finishes the copied database as `easel migrate` does, in this process, which needs Django in any case."""
    django.setup()
    from easel.seed import seed

    schema_migrate(provider_name="Easel")
    seed()


def _workers_env() -> dict[str, str]:
    from easel.serving.pool_workers import local_workers

    return local_workers()[0]["env"]


def audit() -> str:
    """Returns what `easel audit --json` prints if it finds something wrong, otherwise an empty text."""
    argv = [sys.executable, "-m", "easel.cli.main", "audit", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr
