"""A tenant that a test gets by copying is as the platform's own verbs make it, in every table."""

import uuid

from django.apps import apps
from django.forms.models import model_to_dict

from billing.ledger.postings import credit_grant
from billing.models import Entry
from easel.observability.audit import accounts_match_entries, grants_match_credit, ledger_balances
from tenants.accounts import tenant_create
from tests.conftest import NOW
from tests.copies import tenant_copy


def made():
    tenant, project = tenant_create(slug=f"made-{uuid.uuid4().hex[:12]}", now=NOW)
    credit_grant(tenant=tenant, amount_micros=5_000_000, reference=uuid.uuid4(), now=NOW)
    return tenant, project


def rows_of(tenant):
    """All rows of a tenant, by table."""
    found = {Entry: list(Entry.objects.filter(transaction__tenant=tenant).order_by("id").values())}
    for model in apps.get_models():
        if model is type(tenant):
            found[model] = list(model.objects.filter(pk=tenant.pk).values())
        elif any(field.name == "tenant" for field in model._meta.concrete_fields):
            found[model] = list(model._base_manager.filter(tenant=tenant).order_by("pk").values())
    return {model._meta.label: rows for model, rows in found.items() if rows}


def own_columns(rows, others):
    """The columns of each row in which it differs from the other tenant's."""
    return {
        table: [
            {name for name in one if one[name] != other[name]} for one, other in zip(found, others[table], strict=True)
        ]
        for table, found in rows.items()
    }


def test_a_copy_has_the_rows_of_its_original_and_differs_in_just_what_two_tenants_differ_in():
    (original, project), (another, _) = made(), made()
    copied, its_project = tenant_copy(original, project, slug=f"copied-{uuid.uuid4().hex[:12]}")
    rows, others, copies = rows_of(original), rows_of(another), rows_of(copied)
    assert {"tenants.Tenant", "tenants.Quota", "tenants.Project", "billing.CreditGrant"} < rows.keys()
    assert copies.keys() == rows.keys() == others.keys()
    assert own_columns(rows, copies) == own_columns(rows, others)
    assert model_to_dict(copied) == model_to_dict(type(copied).objects.get(pk=copied.pk))
    assert model_to_dict(its_project) == model_to_dict(type(project).objects.get(tenant=copied))
    assert its_project.tenant is copied
    for check in (ledger_balances, accounts_match_entries, grants_match_credit):
        assert not [line for line in check(NOW) if str(copied.pk) in line]
