"""Locks by name, until the end of the transaction: rows of `core_lock`.

They aren't PostgreSQL's advisory locks, because every role that can log in may take any advisory lock. A row is locked
only by a role with rights on its table: the login of a report has none.
"""

from django.db import connection

from core.models import Lock
from core.pipeline import PipelinedQuery, Rows, query_rows

# Creates the row, or locks the one that is there: ON CONFLICT DO UPDATE locks a row even if WHERE leaves it as it is.
_TAKE = """
INSERT INTO core_lock (name) VALUES (%(lock)s) ON CONFLICT (name) DO UPDATE SET name = excluded.name WHERE false
"""


def lock_query(name: str) -> PipelinedQuery[Rows]:
    """Wait until no other transaction holds this lock, then hold it until the end of this one. The row stays."""
    return query_rows(_TAKE, lock=name)


def lock_take(name: str) -> None:
    """Take a lock of one of few names; see `lock_query`."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, {"lock": name})


def lock_take_passing(name: str) -> None:
    """Take a lock of one of many names, of which no row stays.

    The row is deleted in the transaction that made it. Until that ends, another transaction that inserts the same name
    waits, because the name is unique.
    """
    lock_take(name)
    Lock.objects.filter(name=name).delete()
