"""What tests of money need."""

from itertools import product
from string import ascii_uppercase

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper

_CODES = product("QRSTUVWXYZ", ascii_uppercase, ascii_uppercase)


@pytest.fixture
def currency() -> str:
    """One of this test alone, whose prices are its own."""
    return "".join(next(_CODES))


def wait_until_somebody_waits_for(ours: BaseDatabaseWrapper) -> None:
    """Until another session waits for a lock that this connection has."""
    with ours.cursor() as cursor:
        waiting = False
        while not waiting:
            cursor.execute(
                "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            [waiting] = cursor.fetchone()
