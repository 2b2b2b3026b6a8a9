"""Embedded PostgreSQL and Redis servers: the first process that needs them starts them, later ones share them."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from easel_local.home import run_dir, write_private
from easel_local.supervisor import Supervisor

if TYPE_CHECKING:
    from easel_local.postgres import Postgres
    from easel_local.redis_server import RedisServer

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.05
_DEATHS_MAX = 3  # a server that died this often before it was ready is reported as failed
_LOG_TAIL_LINES = 20


class ServersUnavailable(Exception):
    """The servers could not be started; the message says why and ends with the failed server's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """URLs of the servers, with passwords."""

    database_url: str
    redis_url: str


@contextmanager
def servers(home: Path, env: Mapping[str, str], *, own: bool = False) -> Iterator[Endpoints]:
    """Provide the servers of `home` for the length of the `with`.

    A server whose URL is in `env` is used from there. The others are started here and stopped at the end, unless
    another process owns running ones: then those are shared. A long-running caller passes `own=True`: it waits until
    short-lived owners have stopped theirs, since shared servers stop with their owner. Raises `ServersUnavailable`.
    """
    given = {name: url for name in ("database_url", "redis_url") if (url := env.get(name.upper()))}
    if len(given) == 2:
        yield Endpoints(**given)
        return
    home = home.resolve()
    with ExitStack() as stack:
        lock = stack.enter_context(_open(run_dir(home) / "servers.lock"))
        users = stack.enter_context(_open(run_dir(home) / "servers.users"))
        found = _join_or_own(home, lock, users, own=own)
        if found is not None:
            yield _merged(given, found)
            return
        started = stack.enter_context(_started(home, given))
        if not own:
            # endpoints.json is gone by then, so no new process joins; those that share the servers may finish.
            stack.callback(fcntl.flock, users, fcntl.LOCK_EX)
        stack.callback(_endpoints_file(home).unlink, missing_ok=True)
        write_private(_endpoints_file(home), json.dumps({"owner_pid": os.getpid(), **started}))
        yield _merged(given, started)


def _join_or_own(home: Path, lock: IO[str], users: IO[str], *, own: bool) -> Mapping[str, str] | None:
    """Return the endpoints of a running owner, or None when this process has become the owner."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _endpoints_file(home).unlink(missing_ok=True)  # left by an owner that was killed
            return None
        if not own:
            fcntl.flock(users, fcntl.LOCK_SH)
            found = _published(home)
            if found is not None:
                return found
            fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(_POLL_SECONDS)
    raise ServersUnavailable(f"another process holds {lock.name} but its servers didn't come up")


@contextmanager
def _started(home: Path, given: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    # Imported here: on Kubernetes, where both URLs are given, neither wheel is installed.
    from easel_local.postgres import Postgres, PostgresUnusable
    from easel_local.redis_server import RedisServer

    kinds: dict[str, type[Postgres | RedisServer]] = {"database_url": Postgres, "redis_url": RedisServer}
    started = {name: kind(home) for name, kind in kinds.items() if name not in given}
    try:
        for server in started.values():
            server.prepare()
    except PostgresUnusable as error:
        raise ServersUnavailable(str(error)) from error
    specs = [server.spec() for server in started.values()]
    # The log goes to stderr, since stdout may carry a command's JSON.
    supervisor = Supervisor(specs, grace_seconds=_STOP_SECONDS, out=sys.stderr.buffer)
    try:
        supervisor.start()
        for server in started.values():
            _await_ready(supervisor, server)
        yield {name: server.url for name, server in started.items()}
    finally:
        supervisor.stop()


def _await_ready(supervisor: Supervisor, server: "Postgres | RedisServer") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.ready():
        if time.monotonic() > deadline or supervisor.deaths()[server.name] >= _DEATHS_MAX:
            tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
            raise ServersUnavailable(f"{server.name} did not start; {server.log} ends with:\n{tail}")
        time.sleep(_POLL_SECONDS)


def _merged(given: Mapping[str, str], endpoints: Mapping[str, str]) -> Endpoints:
    urls = {**endpoints, **given}
    for name in ("database_url", "redis_url"):
        if name not in urls:
            raise ServersUnavailable(f"the running stack was given its {name.upper()}: set the same here")
    return Endpoints(**urls)


def _open(path: Path) -> IO[str]:
    # The kernel drops the lock when the process ends, so a crash leaves no stale lock.
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")


def _endpoints_file(home: Path) -> Path:
    return run_dir(home) / "endpoints.json"


def _published(home: Path) -> Mapping[str, str] | None:
    """Return the endpoints that a living owner has published, or None."""
    try:
        found = json.loads(_endpoints_file(home).read_text())
        os.kill(found["owner_pid"], 0)
    except PermissionError:
        pass  # the owner is alive and runs as another user
    except (FileNotFoundError, ProcessLookupError):
        return None
    return {name: value for name, value in found.items() if name != "owner_pid"}
