"""Verbs on a tenant's LoRA adapters: add a version, find, delete files, erase."""

import hashlib
import io
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from billing.models import StoredObject
from billing.usage.storage import objects_deleted, objects_stored
from core.locks import lock_take_passing
from core.pages import page_after
from easel.catalog.errors import (
    AdapterBaseWrong,
    AdapterNameInvalid,
    AdapterNotFound,
    AdapterRetired,
    AdapterTooLarge,
)
from easel.catalog.lora import canonical
from easel.catalog.models import Adapter, AdapterVersion, ModelVersion
from easel.storage import store
from tenants.models import SLUG, Project, Tenant


def adapter_add_version(
    *, project: Project, name: str, data: bytes, base: ModelVersion, bytes_max: int, rank_max: int, now: datetime
) -> AdapterVersion:
    """Check an uploaded file and make it the newest version of the adapter `name`, creating the adapter if needed.

    The file must fit `base` and thereby every version of its model. An equal file returns the existing version. An
    upload brings a retired adapter back. Its storage is charged to `project`. Raises `AdapterNameInvalid`,
    `AdapterTooLarge`, `AdapterRefused`.
    """
    tenant = project.tenant
    if not re.fullmatch(SLUG, name):
        raise AdapterNameInvalid(param="name")
    if len(data) > bytes_max:
        raise AdapterTooLarge(f"the file has {len(data)} bytes; the limit is {bytes_max}", param="file")
    table = canonical(data, targets=base.lora_targets, rank_max=rank_max)
    content = table.to_safetensors()
    sha256 = hashlib.sha256(content).hexdigest()
    storage_key = f"{tenant.slug}/adapters/{sha256}.safetensors"
    with transaction.atomic():
        _lock(storage_key)
        # The key is the content's hash: if we crash before the commit, the next upload of the file overwrites this one.
        store().put(storage_key, io.BytesIO(content), "application/octet-stream")
        objects_stored(project=project, kind=StoredObject.Kind.ADAPTER, sizes={storage_key: len(content)}, now=now)
        new = {"model": base.model, "created_at": now}
        adapter, _ = Adapter.objects.get_or_create(tenant=tenant, name=name, defaults=new)
        adapter = Adapter.objects.select_for_update().get(pk=adapter.pk)
        _check_base(adapter, base)
        if adapter.retired_at is not None:
            adapter.retired_at = None
            adapter.save(update_fields=["retired_at"])
        upload_sha256 = hashlib.sha256(data).hexdigest()
        if existing := adapter.versions.filter(upload_sha256=upload_sha256).first():
            return existing
        newest = adapter.versions.order_by("-number").first()
        return AdapterVersion.objects.create(
            adapter=adapter,
            number=newest.number + 1 if newest else 1,
            upload_sha256=upload_sha256,
            sha256=sha256,
            size_bytes=len(content),
            rank_max=table.rank_max,
            modules=len(table.modules),
            storage_key=storage_key,
            created_at=now,
        )


def _check_base(adapter: Adapter, base: ModelVersion) -> None:
    if adapter.model_id != base.model_id:
        reason = f"the adapter {adapter.name!r} is for {adapter.model.name}, not {base.model.name}"
        raise AdapterBaseWrong(reason)


def adapter_files_delete_retired(*, in_use: Collection[UUID], now: datetime) -> int:
    """Delete files that only retired adapters refer to, and end their storage charge; return the number deleted.

    `in_use` are the adapter versions of unfinished jobs: their files are not deleted.
    """
    live = AdapterVersion.objects.filter(Q(adapter__retired_at=None) | Q(id__in=in_use))
    stored = StoredObject.objects.filter(kind=StoredObject.Kind.ADAPTER, deleted_at=None)
    retired = stored.exclude(storage_key__in=live.values("storage_key")).values_list("storage_key", flat=True)
    deleted = 0
    for storage_key in list(retired[:1000]):
        with transaction.atomic():
            _lock(storage_key)
            # Checked again under the lock, since an upload may have brought the adapter back meanwhile.
            if live.filter(storage_key=storage_key).exists():
                continue
            store().delete(storage_key)
            deleted += objects_deleted(storage_keys=[storage_key], now=now)
    return deleted


def adapters_erase(*, tenant: Tenant, now: datetime) -> None:
    """Retires a tenant's adapters and deletes their files and names; jobs that used them still refer to their ids."""
    for adapter in tenant.adapters.prefetch_related("versions"):
        keys = [version.storage_key for version in adapter.versions.all()]
        store().delete_all(keys)
        objects_deleted(storage_keys=keys, now=now)
        Adapter.objects.filter(pk=adapter.pk).update(name=erased_name(adapter.pk), retired_at=adapter.retired_at or now)


def erased_name(row_id: UUID) -> str:
    """Return the name that replaces an erased tenant's own name of a row: a DNS label derived from the row's id."""
    return f"erased-{row_id.hex}"


def _lock(storage_key: str) -> None:
    """Keep other transactions from writing or deleting this file until the end of ours."""
    with connection.cursor() as cursor:
        # The transaction is idle while the file is uploaded: that may take longer than the default timeout of 15 s.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '10min'")
    lock_take_passing(f"adapter file {storage_key}")


def adapter_get(*, tenant: Tenant, name: str) -> Adapter:
    """Find a tenant's adapter. Raises `AdapterNotFound`, also for another tenant's adapter."""
    adapter = Adapter.objects.select_related("model").filter(tenant=tenant, name=name).first()
    if adapter is None:
        raise AdapterNotFound(f"there is no adapter {name!r}: GET /v1/adapters lists yours", param="adapters")
    return adapter


def adapters_page(*, tenant: Tenant, limit: int, after: UUID | None) -> tuple[list[Adapter], bool]:
    """List a tenant's adapters by name, those after `after`; return True too if more follow.

    Raises `AdapterNotFound`.
    """
    rows = Adapter.objects.filter(tenant=tenant).select_related("model").prefetch_related("versions")
    last = rows.filter(pk=after).first() if after is not None else None
    if after is not None and last is None:
        raise AdapterNotFound(f"there is no adapter {after}: GET /v1/adapters lists yours", param="after")
    return page_after(rows, order=("name", "id"), after=last, limit=limit)


def adapters_resolve(*, tenant: Tenant, names: Sequence[str], version: ModelVersion) -> list[AdapterVersion]:
    """Find the newest version of each named adapter, in the order of `names`.

    Raises `AdapterNotFound` for an unknown adapter or another tenant's, `AdapterRetired`, and `AdapterBaseWrong` for an
    adapter of another model.
    """
    found = []
    for name in names:
        adapter = adapter_get(tenant=tenant, name=name)
        if adapter.retired_at is not None:
            raise AdapterRetired(f"the adapter {name!r} is retired", param="adapters")
        _check_base(adapter, version)
        found.append(adapter.versions.select_related("adapter").order_by("-number")[0])
    return found
