"""Fills the environment with what the settings need, and starts the embedded servers where none are given."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from easel.ops.embedded import servers
from easel.ops.home import home_of, secret_key
from tenants.errors import DomainError


class SchemaMissing(DomainError):
    """The database is not of this version: `easel migrate` brings it there, and `easel up` does so by itself."""

    code = "schema_missing"


@contextmanager
def environment(*, own_servers: bool = False) -> Iterator[None]:
    """Inside, `os.environ` has DATABASE_URL, REDIS_URL, EASEL_HOME and EASEL_SECRET_KEY. Does not import Django.

    SIGTERM ends the body like `sys.exit`, so that what was started here is stopped. Raises `ServersUnavailable`.
    """
    home = home_of(os.environ)
    os.environ["EASEL_HOME"] = str(home)
    with _sigterm_exits(), servers(home, os.environ, own=own_servers) as endpoints:
        os.environ["DATABASE_URL"] = endpoints.database_url
        os.environ["REDIS_URL"] = endpoints.redis_url
        if not os.environ.get("EASEL_SECRET_KEY"):
            os.environ["EASEL_SECRET_KEY"] = secret_key(home)
        yield


@contextmanager
def django_ready(*, service: str | None = None) -> Iterator[None]:
    """Inside, Django is set up on the servers of `environment`, with the logs of `service` on stdout.

    Without a service this is a command, whose stdout is its answer: what it logs goes to stderr.
    """
    with environment():
        import django
        from django.db import ProgrammingError, connections

        from easel.ops import logs

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")
        logs.configure(service=service or "easel", out=sys.stdout if service else sys.stderr)
        django.setup()
        try:
            yield
        except ProgrammingError as error:
            if "does not exist" not in str(error):
                raise
            raise SchemaMissing from error
        finally:
            # Before the server goes, where it is ours: the pool would log that it lost its connections.
            for connection in connections.all(initialized_only=True):
                connection.close()
                connection.close_pool()  # type: ignore[attr-defined]  # of PostgreSQL's wrapper


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
