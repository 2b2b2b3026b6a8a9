"""Sets Django up for a command or a process, on the servers of the environment."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import DomainError
from easel.cli.loading import loading_modules
from easel_local.environment import environment


class SchemaMissing(DomainError, code="schema_missing"):
    """The database is not of this version: `easel migrate` brings it there, and `easel up` does so by itself.

    Run `easel migrate`.
    """


@contextmanager
def django_ready(*, service: str | None = None) -> Iterator[None]:
    """Set Django up on the servers of `environment`, with the logs of `service` on stdout.

    Without a service this is a command: its stdout is its answer, and its logs go to stderr.
    """
    with environment():
        with loading_modules():
            import django
            from django.db import ProgrammingError, connections

            from easel.observability import logs

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
            # Before the server stops, if it is ours: the pool would log that it lost its connections.
            for connection in connections.all(initialized_only=True):
                connection.close()
                connection.close_pool()  # type: ignore[attr-defined]  # of PostgreSQL's wrapper
