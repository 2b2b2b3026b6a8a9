import uuid

import pytest
from django.db import DatabaseError, transaction

from tenants.accounts import SlugInvalid, SlugTaken, project_create, tenant_create
from tenants.models import Tenant
from tests.conftest import NOW


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a.b", "é", "a" * 41, "a\n", "a b"])
def test_a_name_that_is_no_dns_label_is_refused(slug):
    with pytest.raises(SlugInvalid):
        tenant_create(slug=slug, now=NOW)


@pytest.mark.parametrize("slug", ["Acme", "a" * 41, "a-", "a\n"])
def test_the_database_refuses_it_too(slug):
    with pytest.raises(DatabaseError), transaction.atomic():
        Tenant.objects.create(slug=slug, name="x", created_at=NOW)


def test_a_name_is_taken_once():
    slug = f"t-{uuid.uuid4().hex[:12]}"
    tenant_create(slug=slug, now=NOW)
    with pytest.raises(SlugTaken):
        tenant_create(slug=slug, now=NOW)


def test_two_tenants_may_name_a_project_alike(alice, bob):
    for customer in (alice, bob):
        project_create(tenant=customer.tenant, slug="posters", now=NOW, labels={"department": "design"})
    with pytest.raises(SlugTaken):
        project_create(tenant=alice.tenant, slug="posters", now=NOW)
