"""What a test gets by copying is as the platform's own verbs make it, in every table."""

import uuid

from django.apps import apps
from django.forms.models import model_to_dict

from billing.ledger.postings import credit_grant
from billing.models import Entry
from easel.catalog.models import Pool
from easel.jobs.lifecycle import beat
from easel.observability.audit import accounts_match_entries, grants_match_credit, ledger_balances
from easel.seed import DEMO_LIMITS
from easel.serving.versions import version_register
from tenants.accounts import tenant_create
from tests.conftest import NOW, worker_beat, written_checkpoint
from tests.copies import pool_copy, tenant_copy, version_copy


def name():
    return f"made-{uuid.uuid4().hex[:12]}"


def rows_of(field, owner):
    """All rows of an owner, by table: its own, those with a foreign key `field` to it, and the ledger's entries."""
    found = {}
    for model in apps.get_models():
        if model is type(owner):
            found[model] = model.objects.filter(pk=owner.pk)
        elif any(one.name == field and one.related_model is type(owner) for one in model._meta.concrete_fields):
            found[model] = model._base_manager.filter(**{field: owner})
    if field == "tenant":
        found[Entry] = Entry.objects.filter(transaction__tenant=owner)
    rows = {model._meta.label: list(query.order_by("pk").values()) for model, query in found.items()}
    return {table: one for table, one in rows.items() if one}


def own_columns(rows, others):
    """The columns of each row in which it differs from the other owner's."""
    return {
        table: [
            {column for column in one if one[column] != other[column]}
            for one, other in zip(found, others[table], strict=True)
        ]
        for table, found in rows.items()
    }


def is_like_what_verbs_make(field, made, another, copied, *, tables):
    """Copies differ from their original in just what two that the verbs made differ in."""
    rows, others, copies = (rows_of(field, owner) for owner in (made, another, copied))
    assert rows.keys() == others.keys() == copies.keys() >= tables
    assert own_columns(rows, copies) == own_columns(rows, others)
    assert model_to_dict(copied) == model_to_dict(type(copied).objects.get(pk=copied.pk))


def test_a_copied_tenant_has_its_credit_and_its_books_are_in_order():
    def made():
        tenant, project = tenant_create(slug=name(), now=NOW)
        credit_grant(tenant=tenant, amount_micros=5_000_000, reference=uuid.uuid4(), now=NOW)
        return tenant, project

    (original, project), (another, _) = made(), made()
    copied, its_project = tenant_copy(original, project, slug=name())
    tables = {"tenants.Tenant", "tenants.Quota", "tenants.Project", "billing.LedgerAccount", "billing.CreditGrant"}
    is_like_what_verbs_make("tenant", original, another, copied, tables=tables)
    assert its_project.tenant is copied
    assert model_to_dict(its_project) == model_to_dict(type(project).objects.get(tenant=copied))
    for check in (ledger_balances, accounts_match_entries, grants_match_credit):
        assert not [line for line in check(NOW) if str(copied.pk) in line]


def test_a_copied_pool_has_its_live_worker_and_a_copied_model_its_version_and_route(tmp_path):
    def made():
        slug = name()
        pool = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="cpu", created_at=NOW)
        beat(pool=pool, report=worker_beat(), now=NOW, lease_seconds=15)
        (tmp_path / slug).mkdir()
        terms = {"checkpoint": written_checkpoint(tmp_path / slug), "pool": pool, "limits": DEMO_LIMITS, "now": NOW}
        return pool, version_register(model_name=slug, **terms)

    (pool, version), (another, another_version) = made(), made()
    slug = name()
    copied = pool_copy(pool, slug=slug, namespace=f"easel-{slug}")
    copied_version = version_copy(version, name=slug, pool=copied, checkpoint=str(tmp_path))
    tables = {"catalog.Pool", "catalog.Worker", "catalog.WorkerDay", "catalog.ModelVersion"}
    is_like_what_verbs_make("pool", pool, another, copied, tables=tables)
    tables = {"catalog.Model", "catalog.ModelVersion", "serving.Route"}
    is_like_what_verbs_make("model", version.model, another_version.model, copied_version.model, tables=tables)
    assert model_to_dict(copied_version) == model_to_dict(type(version).objects.get(pk=copied_version.pk))
