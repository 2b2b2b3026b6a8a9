"""Logins that may read the views: PostgreSQL roles in the group `easel_reporting`."""

import re

from django.db import ProgrammingError, connection, transaction
from psycopg import errors, sql

from core.errors import DomainError

GROUP = "easel_reporting"
NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class LoginRefused(DomainError, code="login_refused"):
    """The login can't be created; the message says why, and what to do.

    Do what the message says.
    """


def login_set(*, name: str, password: str) -> None:
    """Create a role that can log in and read the views, or set the password of an existing one.

    Raises `LoginRefused`, also for a role that was not created here, so that nobody takes over another login.
    """
    if not NAME.fullmatch(name) or name.startswith("pg_") or name == GROUP:
        raise LoginRefused(f"{name!r} is no name for a login: use lower-case letters, digits and _")
    try:
        with transaction.atomic():
            _set(name, password)
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.InsufficientPrivilege):
            raise
        raise LoginRefused("DATABASE_URL's user may not create roles: run this as one with CREATEROLE") from error


def _set(name: str, password: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [GROUP])
        if not cursor.fetchone()[0]:
            raise LoginRefused(
                f"the role {GROUP} is missing: as a user with CREATEROLE, run CREATE ROLE {GROUP} NOLOGIN,"
                " then `easel migrate` again"
            )
        cursor.execute(
            "SELECT rolsuper, EXISTS (SELECT FROM pg_auth_members JOIN pg_roles readers ON readers.oid = roleid"
            " WHERE member = role.oid AND readers.rolname = %s) FROM pg_roles role WHERE rolname = %s",
            [GROUP, name],
        )
        found = cursor.fetchone()
        if found is not None and (found[0] or not found[1]):
            raise LoginRefused(f"the role {name} exists and is not for reports: choose another name")
        role, group = sql.Identifier(name), sql.Identifier(GROUP)
        if found is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(role, group))
        cursor.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
        # A query that reads too much is ended, and a query by mistake can write nothing.
        cursor.execute("CALL reporting_login_bound(%s)", [name])
