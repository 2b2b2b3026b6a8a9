import contextvars

import pytest
from django.db import DatabaseError, transaction

from core.origins import ORIGIN
from tenants.accounts import tenant_close, tenant_forget
from tenants.models import ORIGINS_MAX, Tenant
from tenants.origins import OriginInvalid, origins_by_tenant, origins_set
from tests.conftest import NOW

APP, OTHER = "https://app.example", "http://localhost:5173"


def test_origins_replace_those_before(alice):
    assert origins_set(tenant=alice.tenant, origins=[OTHER]) == [OTHER]
    assert origins_set(tenant=alice.tenant, origins=[f"{APP}/", APP, OTHER]) == [APP, OTHER]
    assert Tenant.objects.get(pk=alice.tenant.pk).origins == [APP, OTHER]
    assert origins_set(tenant=alice.tenant, origins=[]) == []


def test_one_that_is_none_changes_nothing(alice):
    origins_set(tenant=alice.tenant, origins=[APP])
    with pytest.raises(OriginInvalid, match="scheme://host"):
        origins_set(tenant=alice.tenant, origins=[OTHER, "*"])
    assert Tenant.objects.get(pk=alice.tenant.pk).origins == [APP]


def test_a_tenant_has_so_many(alice):
    many = [f"https://{number}.example" for number in range(ORIGINS_MAX + 1)]
    assert len(origins_set(tenant=alice.tenant, origins=many[1:])) == ORIGINS_MAX
    with pytest.raises(OriginInvalid, match=str(ORIGINS_MAX)):
        origins_set(tenant=alice.tenant, origins=many)


@pytest.mark.parametrize(
    "origins",
    [["*"], [""], [APP, "app.example"], [f"{APP}/page"], [f"{APP} {OTHER} x"], ["https://App.example"], [f"{APP}\n"]],
)
def test_the_database_refuses_what_is_no_origin_too(alice, origins):
    with pytest.raises(DatabaseError, match="tenant_origins_are_origins"), transaction.atomic():
        Tenant.objects.filter(pk=alice.tenant.pk).update(origins=origins)


def test_the_database_refuses_too_many_too(alice):
    with pytest.raises(DatabaseError, match="tenant_has_few_origins"), transaction.atomic():
        Tenant.objects.filter(pk=alice.tenant.pk).update(origins=[f"https://{n}.example" for n in range(21)])


def origins_now():
    """In a context of its own, as each request has: the revision that it reads is not that of other tests."""
    return contextvars.copy_context().run(origins_by_tenant)


def test_a_change_is_seen_at_once(alice):
    origins_set(tenant=alice.tenant, origins=[APP])
    assert origins_now()[alice.tenant.slug] == {APP}
    origins_set(tenant=alice.tenant, origins=[OTHER])
    assert origins_now()[alice.tenant.slug] == {OTHER}


def test_an_erased_tenant_has_no_origins(alice):
    origins_set(tenant=alice.tenant, origins=[APP])
    tenant_close(tenant=alice.tenant, now=NOW)
    tenant_forget(tenant=alice.tenant, now=NOW)
    assert Tenant.objects.get(pk=alice.tenant.pk).origins == []
    assert alice.tenant.slug not in origins_now()


def test_the_form_is_written_where_both_languages_read_it():
    assert "\\d" not in ORIGIN  # which is of Unicode in Python, and of ASCII in PostgreSQL
