"""The tenant whose rows a request may touch in PostgreSQL, whatever its queries say.

Once a request of the API has authenticated its key, the database connections that work for it run as the role ROLE, to
which row-level security shows one tenant's rows (`core.row_security`). Pages of operators, commands and the other
processes run as the tables' owner, who sees all.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import psycopg
from psycopg import generators
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus

ROLE = "easel_api"
SETTING = "easel.tenant"
_SET = "SELECT set_config('role', {role}, {is_local}), set_config('easel.tenant', {tenant}, {is_local})"
_SET_LOCAL = _SET.format(role="%(role)s", tenant="%(tenant)s", is_local=True)


class RequestScope:
    """The tenant of a request; None until its key is authenticated. All threads and tasks of the request share it."""

    __slots__ = ("tenant_id",)

    def __init__(self, tenant_id: UUID | None = None) -> None:
        self.tenant_id = tenant_id


_scope: ContextVar[RequestScope | None] = ContextVar("tenant_scope", default=None)


def scope_begin() -> None:
    """Begin a request, whose tenant is not known yet."""
    _scope.set(RequestScope())


def scope_enter(tenant_id: UUID) -> None:
    """Leave the rest of this request only its tenant's rows. Does nothing outside a request."""
    scope = _scope.get()
    if scope is not None:
        scope.tenant_id = tenant_id


def tenant_in_scope() -> UUID | None:
    """Return the tenant whose rows may be touched now; None where all may."""
    scope = _scope.get()
    return scope.tenant_id if scope is not None else None


@contextmanager
def platform_scope() -> Iterator[None]:
    """Read rows of other tenants on purpose, as the tables' owner. Not within a transaction that has begun."""
    token = _scope.set(None)
    try:
        yield
    finally:
        _scope.reset(token)


class ScopedConnection(psycopg.Connection[Any]):
    """A connection whose queries touch the rows of the tenant in scope, whoever used it before.

    In a transaction, role and tenant are set in the packet of its BEGIN and end with it, also after an error. A query
    outside of one needs a round trip more where the scope is another than that of the last such query.
    """

    _session_scope: UUID | None = None
    _transaction_scope: UUID | None = None
    _pipeline_is_scoped = False

    def scope_query(self) -> tuple[str, dict[str, str]] | None:
        """Return the query with which a pipeline must begin; None if the connection is in scope."""
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            return None
        scope = tenant_in_scope()
        self._pipeline_is_scoped, self._transaction_scope = True, scope
        return None if scope == self._session_scope else (_SET_LOCAL, _parameters(scope))

    def _start_query(self) -> Generator[Any, Any, None]:
        scope, pipeline = tenant_in_scope(), self._pipeline
        if pipeline is not None and pipeline.command_queue:  # what is queued begins with BEGIN and the scope
            return
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            if not self._autocommit and scope != self._transaction_scope:
                raise RuntimeError("the tenant in scope changed within a transaction")
        elif pipeline is not None:
            yield from self._pipeline_begin()
        elif self._autocommit:
            yield from self._session_begin(scope)
        else:
            yield from self._transaction_begin(scope)

    def _session_begin(self, scope: UUID | None) -> Generator[Any, Any, None]:
        if scope != self._session_scope:
            yield from self._exec_command(_set_sql(scope, is_local=False))
            self._session_scope = scope

    def _transaction_begin(self, scope: UUID | None) -> Generator[Any, Any, None]:
        begin = self._get_tx_start_command()
        if scope == self._session_scope:
            yield from self._exec_command(begin)
        else:
            self._check_connection_ok()
            self.pgconn.send_query(begin + b"; " + _set_sql(scope, is_local=True))
            results = yield from generators.execute(self.pgconn)
            if results[-1].status == ExecStatus.FATAL_ERROR:
                raise error_from_result(results[-1], encoding=self.pgconn._encoding)
        self._transaction_scope = scope

    def _pipeline_begin(self) -> Generator[Any, Any, None]:
        """Send BEGIN together with the first query of a pipeline, where psycopg would wait for its answer.

        An error in that pipeline leaves a failed transaction, as it does after a BEGIN that was answered.
        """
        if not self._pipeline_is_scoped:
            raise RuntimeError("a pipeline begins with scope_query()")
        self._pipeline_is_scoped = False
        if not self._autocommit:
            yield from self._exec_command(self._get_tx_start_command())


def _parameters(scope: UUID | None) -> dict[str, str]:
    return {"role": "none", "tenant": ""} if scope is None else {"role": ROLE, "tenant": str(scope)}


def _set_sql(scope: UUID | None, *, is_local: bool) -> bytes:
    quoted = {name: f"'{value}'" for name, value in _parameters(scope).items()}
    return _SET.format(**quoted, is_local=is_local).encode()
