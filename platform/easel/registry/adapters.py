"""Verbs on a tenant's LoRA adapters: add a version, find, retire."""

import hashlib
import io
import re
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

from django.db import transaction

from easel.registry import routing
from easel.registry.errors import AdapterNameInvalid, AdapterNotFound, AdapterRetired, AdapterTooLarge
from easel.registry.lora import AdapterRefused, canonical
from easel.registry.models import Adapter, AdapterVersion, ModelVersion
from easel.storage import store
from tenants.models import SLUG, Tenant


def adapter_add_version(
    *,
    tenant: Tenant,
    name: str,
    data: bytes,
    model_name: str | None,
    bytes_max: int,
    rank_max: int,
    now: datetime,
) -> AdapterVersion:
    """Checks an uploaded file and makes it the newest version of the adapter `name`, made on first use.

    The same file again is the same version again. A retired adapter comes back with its next upload. Raises
    `AdapterNameInvalid`, `AdapterTooLarge`, `AdapterRefused`, `ModelNotFound`.
    """
    if not re.fullmatch(SLUG, name):
        raise AdapterNameInvalid(param="name")
    if len(data) > bytes_max:
        raise AdapterTooLarge(f"the file has {len(data)} bytes; the limit is {bytes_max}", param="file")
    version = routing.version_for(model_name)
    table = canonical(data, targets=version.lora_targets, rank_max=rank_max)
    content = table.to_safetensors()
    sha256 = hashlib.sha256(content).hexdigest()
    # By content, so that a crash between here and the commit leaves nothing that the next upload won't overwrite.
    storage_key = f"{tenant.slug}/adapters/{sha256}.safetensors"
    store().put(storage_key, io.BytesIO(content), "application/octet-stream")
    with transaction.atomic():
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
    """Ends the use of an adapter in new requests; running ones finish. Raises `AdapterNotFound`."""
    adapter = adapter_get(tenant=tenant, name=name)
    Adapter.objects.filter(pk=adapter.pk, retired_at=None).update(retired_at=now)
    return adapter_get(tenant=tenant, name=name)


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
