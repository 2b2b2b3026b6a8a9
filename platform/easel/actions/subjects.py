"""The rows that actions are done to, as a command finds them."""

import uuid
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

from core.errors import DomainError, NotFound
from easel.actions.action import Subject
from easel.catalog.errors import ModelNotFound, PoolNotFound, VersionNotFound
from easel.serving.errors import RolloutNotFound

KEY_HELP = "This key alone: the part between `easel_sk_` and the next underscore."


class TenantNotFound(DomainError, code="tenant_not_found", http_status=404):
    """There is no such tenant: `easel tenant list` shows them.

    Take the name from `easel tenant list`.
    """


class KeyNotFound(DomainError, code="key_not_found", http_status=404):
    """There is no such live key: `easel key list TENANT` shows them.

    Take the key from `easel key list TENANT`.
    """


class EntryNotFound(DomainError, code="block_list_entry_not_found", http_status=404):
    """There is no such entry: `easel block-list list` shows them.

    Take the entry from `easel block-list list`.
    """


class RecordNotFound(DomainError, code="usage_record_not_found", http_status=404):
    """There is no such usage record: `easel usage list JOB` shows a job's.

    Take the record from `easel usage list JOB`.
    """


def tenant_named(slug: str) -> Any:
    """Find a tenant. Raises `TenantNotFound`."""
    missing = TenantNotFound(f"there is no tenant {slug!r}: `easel tenant list` shows them")
    return _find("tenants.Tenant", missing=missing, slug=slug)


def live_key(key_id: str) -> Any:
    """Find a key that is not revoked. Raises `KeyNotFound`."""
    return _find("tenants.ApiKey", "tenant", "project", missing=KeyNotFound(), key_id=key_id, revoked_at=None)


def tenant_or_key(slug: str, *, key: str | None = None) -> Any:
    """Return the tenant, or its key of this id. Raises `TenantNotFound`, `KeyNotFound`."""
    owner = tenant_named(slug)
    if not key:
        return owner
    missing = KeyNotFound(f"{slug} has no key {key!r}: `easel key list {slug}` shows them")
    return _find("tenants.ApiKey", "tenant", missing=missing, tenant=owner, key_id=key)


def model_named(name: str) -> Any:
    """Find a model. Raises `ModelNotFound`."""
    return version_named(name).model


def alias_named(name: str, *, tenant: str | None = None) -> Any:
    """Find an alias of a tenant, or the platform's. Raises `TenantNotFound`, `AliasNotFound`."""
    from easel.serving.aliases import alias_find

    return alias_find(name=name, tenant=tenant_named(tenant) if tenant else None)


def version_named(text: str) -> Any:
    """Return the version `name@number`, or the newest of `name`; the name may be an alias of the platform's.

    Raises `ModelNotFound`, `VersionNotFound`.
    """
    from easel.catalog.models import ModelVersion
    from easel.serving.aliases import model_name_of

    given, _, version = text.partition("@")
    name = model_name_of(given, tenant=None)
    live = ModelVersion.objects.filter(model__name=name, retired_at=None).select_related("model", "pool")
    if not live:
        raise ModelNotFound(f"there is no model {name!r}: `easel model list` shows them")
    found = live.filter(number=version).first() if version.isascii() and version.isdigit() else None
    if version and found is None:
        raise VersionNotFound(f"{name} has no live version {version!r}: `easel model list` shows them")
    return found or live.order_by("-number")[0]


def running_rollout(model_name: str) -> Any:
    """Find the running rollout of a model. Raises `RolloutNotFound`."""
    from easel.serving.aliases import model_name_of

    missing = RolloutNotFound("No rollout of this model is running: `easel rollout list` shows them.")
    name = model_name_of(model_name, tenant=None)
    return _find("serving.Rollout", "candidate__model", missing=missing, model__name=name, state="running")


def pool_named(slug: str) -> Any:
    """Find a pool. Raises `PoolNotFound`."""
    missing = PoolNotFound(f"there is no pool {slug!r}: `easel pool list` shows them")
    return _find("catalog.Pool", "tenant", missing=missing, slug=slug)


def adapter_named(slug: str, name: str) -> Any:
    """Find a tenant's adapter. Raises `TenantNotFound`, `AdapterNotFound`."""
    from easel.catalog.adapters import adapter_get

    return adapter_get(tenant=tenant_named(slug), name=name)


def batch_with_id(text: str) -> Any:
    """Find a batch by its name, `batch_…`. Raises `BatchNotFound`."""
    from easel.batches.queries import batch_named

    return batch_named(text)


def statement_with_id(text: str) -> Any:
    """Find a statement by its id or number. Raises `StatementNotFound`."""
    from billing.invoices import queries

    return queries.statement_by_id(_uuid(text))


def entry_with_id(text: str) -> Any:
    """Find an entry of the block lists. Raises `EntryNotFound`."""
    return _find("tenants.BlockListEntry", "tenant", missing=EntryNotFound(), pk=_uuid(text))


def usage_record_with_id(text: str) -> Any:
    """Find a usage record. Raises `RecordNotFound`."""
    return _find("billing.UsageRecord", "tenant", "project", missing=RecordNotFound(), pk=_uuid(text))


def row_with_id(label: str, text: str) -> Any:
    """Return the row of a model by its primary key. Raises `NotFound`."""
    model = apps.get_model(label)
    try:
        return model._default_manager.get(pk=text)
    except (model.DoesNotExist, ValidationError, ValueError) as error:
        raise NotFound(f"there is no {model._meta.verbose_name} {text!r}") from error


def _find(label: str, *related: str, missing: DomainError, **conditions: Any) -> Any:
    """Return the first row of a model that meets the conditions, with its related rows. Raises `missing`."""
    found = apps.get_model(label)._default_manager.select_related(*related).filter(**conditions).first()
    if found is None:
        raise missing
    return found


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NotFound(f"{text!r} is not a UUID") from error


def _by_id(label: str) -> Subject:
    return Subject(model=label, arguments=("ID",), find=lambda text: row_with_id(label, text))


TENANT = Subject(model="tenants.Tenant", arguments=("TENANT",), find=tenant_named)
PRICE_LIST = Subject(
    model="billing.PriceBook",
    arguments=(),
    find=lambda *, tenant=None: tenant_named(tenant) if tenant else None,
    options={"tenant": "Prices of this tenant's own, in force by a contract that names them."},
)
TENANT_OR_KEY = Subject(model="tenants.Tenant", arguments=("TENANT",), find=tenant_or_key, options={"key": KEY_HELP})
KEY = Subject(model="tenants.ApiKey", arguments=("KEY_ID",), find=live_key)
MODEL = Subject(model="catalog.Model", arguments=("MODEL",), find=model_named)
ALIAS = Subject(
    model="serving.Alias",
    arguments=("ALIAS",),
    find=alias_named,
    options={"tenant": "This tenant's own alias, and not the platform's."},
)
VERSION = Subject(model="catalog.ModelVersion", arguments=("MODEL@VERSION",), find=version_named)
ROLLOUT = Subject(model="serving.Rollout", arguments=("MODEL",), find=running_rollout)
POOL = Subject(model="catalog.Pool", arguments=("POOL",), find=pool_named)
ADAPTER = Subject(model="catalog.Adapter", arguments=("TENANT", "NAME"), find=adapter_named)
STATEMENT = Subject(model="billing.Statement", arguments=("ID",), find=statement_with_id)
BLOCK_LIST_ENTRY = Subject(model="tenants.BlockListEntry", arguments=("ID",), find=entry_with_id)
USAGE_RECORD = Subject(model="jobs.Job", arguments=("RECORD",), find=usage_record_with_id)
JOB = _by_id("jobs.Job")
BATCH = Subject(model="batches.Batch", arguments=("ID",), find=batch_with_id)
WEBHOOK = _by_id("webhooks.WebhookEndpoint")
DELIVERY = _by_id("webhooks.WebhookDelivery")
