"""Each connection touches the rows of the tenant whose request uses it now."""

import uuid
from contextlib import nullcontext
from contextvars import copy_context

import pytest
from django.db import DataError, connection, transaction

from core.pipeline import query_rows, run_pipelined
from core.tenant_scope import ROLE, platform_scope, scope_begin, scope_enter


def role_and_tenant():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('easel.tenant', true)")
        return cursor.fetchone()


def in_pipeline():
    return run_pipelined(query_rows("SELECT current_user, current_setting('easel.tenant', true)"))[0][0]


@pytest.mark.parametrize("is_pipelined", [False, True])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_connection_has_the_scope_of_who_uses_it_now(is_pipelined, in_transaction):
    """Also after an error, and when it comes from the pool after another request."""
    ask = in_pipeline if is_pipelined else role_and_tenant
    owner = role_and_tenant()[0]
    first, second = uuid.uuid4(), uuid.uuid4()

    def asked():
        with transaction.atomic() if in_transaction else nullcontext():
            return ask()

    def fails():
        with pytest.raises(DataError), transaction.atomic() if in_transaction else nullcontext():
            assert ask()[0] == ROLE
            run_pipelined(query_rows("SELECT 1 / %(zero)s", zero=0))

    def requests():
        assert asked()[0] == owner
        for tenant_id in (first, second, first):
            scope_begin()
            assert asked()[0] == owner
            scope_enter(tenant_id)
            assert asked() == (ROLE, str(tenant_id))
            with platform_scope():
                assert asked()[0] == owner
            fails()
            assert asked() == (ROLE, str(tenant_id))
            connection.close()  # to the pool
        scope_begin()
        assert asked()[0] == owner

    copy_context().run(requests)
    assert asked()[0] == owner


def test_a_scope_that_changes_within_a_transaction_is_a_defect():
    def changes():
        scope_begin()
        scope_enter(uuid.uuid4())
        with transaction.atomic():
            role_and_tenant()
            with platform_scope(), pytest.raises(RuntimeError, match="within a transaction"):
                role_and_tenant()

    copy_context().run(changes)
