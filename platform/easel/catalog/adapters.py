"""Verbs on a tenant's LoRA adapters: add a version, find, retire."""

import hashlib
import io
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Q

from billing.models import StoredObject
from billing.usage.storage import objects_deleted, objects_stored
from easel.catalog.errors import (
    AdapterInUse,
    AdapterNameInvalid,
    AdapterNotFound,
    AdapterRetired,
    AdapterTooLarge,
)
from easel.catalog.lora import AdapterRefused, canonical
from easel.catalog.models import Adapter, AdapterVersion, ModelVersion
from easel.serving import routing
from easel.serving.models import Arm, Experiment
from easel.storage import store
from tenants.models import SLUG, Project, Tenant


def adapter_add_version(
    *,
    project: Project,
    name: str,
    data: bytes,
    model_name: str | None,
    bytes_max: int,
    rank_max: int,
    now: datetime,
) -> AdapterVersion:
    """Checks an uploaded file and makes it the newest version of the adapter `name`, made on first use.

    The same file again is the same version again. A retired adapter comes back with its next upload. Its storage is
    charged to `project`. Raises `AdapterNameInvalid`, `AdapterTooLarge`, `AdapterRefused`, `ModelNotFound`.
    """
    tenant = project.tenant
    if not re.fullmatch(SLUG, name):
        raise AdapterNameInvalid(param="name")
    if len(data) > bytes_max:
        raise AdapterTooLarge(f"the file has {len(data)} bytes; the limit is {bytes_max}", param="file")
    version = routing.main_version(model_name)
    table = canonical(data, targets=version.lora_targets, rank_max=rank_max)
    content = table.to_safetensors()
    sha256 = hashlib.sha256(content).hexdigest()
    storage_key = f"{tenant.slug}/adapters/{sha256}.safetensors"
    with transaction.atomic():
        _lock(storage_key)
        # By content, so that a crash between here and the commit leaves nothing that the next upload won't overwrite.
        store().put(storage_key, io.BytesIO(content), "application/octet-stream")
        objects_stored(project=project, kind=StoredObject.Kind.ADAPTER, sizes={storage_key: len(content)}, now=now)
        adapter, _ = Adapter.objects.get_or_create(
            tenant=tenant, name=name, defaults={"model": version.model, "created_at": now}
        )
        adapter = Adapter.objects.select_for_update().get(pk=adapter.pk)
        if adapter.model_id != version.model_id:
            raise AdapterRefused("adapter_wrong_base", f"the adapter {name} is one of {adapter.model.name}'s")
        if adapter.retired_at is not None:
            adapter.retired_at = None
            adapter.save(update_fields=["retired_at"])
        upload_sha256 = hashlib.sha256(data).hexdigest()
        same = adapter.versions.filter(upload_sha256=upload_sha256).first()
        if same is not None:
            return same
        newest = adapter.versions.order_by("-number").first()
        return AdapterVersion.objects.create(
            id=uuid4(),
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


def adapter_retire(*, tenant: Tenant, name: str, now: datetime) -> Adapter:
    """Ends the use of an adapter in new requests; running ones finish. Raises `AdapterNotFound`, `AdapterInUse`."""
    adapter = adapter_get(tenant=tenant, name=name)
    running = Arm.objects.filter(experiment__tenant=tenant, experiment__state=Experiment.State.RUNNING)
    if arm := running.filter(adapters__contains=[{"name": name}]).select_related("experiment").first():
        raise AdapterInUse(f"the experiment {arm.experiment.name} uses the adapter {name}: stop it first")
    Adapter.objects.filter(pk=adapter.pk, retired_at=None).update(retired_at=now)
    return adapter_get(tenant=tenant, name=name)


def adapter_files_delete_retired(*, in_use: Collection[UUID], now: datetime) -> int:
    """Deletes the files that only retired adapters name, and ends their charge; returns how many.

    `in_use` are the adapter versions of unfinished jobs: theirs stay for the next time.
    """
    living = AdapterVersion.objects.filter(Q(adapter__retired_at=None) | Q(id__in=in_use))
    stored = StoredObject.objects.filter(kind=StoredObject.Kind.ADAPTER, deleted_at=None)
    retired = stored.exclude(storage_key__in=living.values("storage_key")).values_list("storage_key", flat=True)
    deleted = 0
    for storage_key in list(retired[:1000]):
        with transaction.atomic():
            _lock(storage_key)
            # Looked at again under the lock, since an upload may have brought the adapter back meanwhile.
            if living.filter(storage_key=storage_key).exists():
                continue
            store().delete(storage_key)
            deleted += objects_deleted(storage_keys=[storage_key], now=now)
    return deleted


def adapters_erase(*, tenant: Tenant, now: datetime) -> None:
    """Retires a tenant's adapters, deletes their files and their names; what was drawn with them keeps their ids."""
    for adapter in tenant.adapters.prefetch_related("versions"):
        keys = [version.storage_key for version in adapter.versions.all()]
        store().delete_all(keys)
        objects_deleted(storage_keys=keys, now=now)
        Adapter.objects.filter(pk=adapter.pk).update(name=erased_name(adapter.pk), retired_at=adapter.retired_at or now)


def erased_name(row_id: UUID) -> str:
    """What an erased tenant's things are called: a DNS label that tells nothing."""
    return f"erased-{row_id.hex}"


def _lock(storage_key: str) -> None:
    """Until the end of the transaction, this file is neither written nor deleted by another one."""
    with connection.cursor() as cursor:
        # PostgreSQL waits while the storage takes the file, for longer than it would for a process that hangs.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '10min'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('easel adapter file'), hashtext(%s))", [storage_key])


def adapter_get(*, tenant: Tenant, name: str) -> Adapter:
    """Raises `AdapterNotFound`, also for another tenant's."""
    adapter = Adapter.objects.select_related("model").filter(tenant=tenant, name=name).first()
    if adapter is None:
        raise AdapterNotFound(f"there is no adapter {name!r}: GET /v1/adapters lists yours", param="adapters")
    return adapter


def adapters_resolve(*, tenant: Tenant, names: Sequence[str], version: ModelVersion) -> list[AdapterVersion]:
    """The newest version of each named adapter, in the order named.

    Raises `AdapterNotFound` (unknown, or another tenant's), `AdapterRetired`, and `AdapterRefused` for one that
    was made for another model.
    """
    found = []
    for name in names:
        adapter = adapter_get(tenant=tenant, name=name)
        if adapter.retired_at is not None:
            raise AdapterRetired(f"the adapter {name!r} is retired", param="adapters")
        if adapter.model_id != version.model_id:
            raise AdapterRefused(
                "adapter_wrong_base",
                f"the adapter {name!r} is for {adapter.model.name}, not {version.model.name}",
            )
        found.append(adapter.versions.select_related("adapter").order_by("-number")[0])
    return found
