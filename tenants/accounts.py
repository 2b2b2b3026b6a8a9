"""Creates, suspends, closes and configures tenants and their projects."""

import re
from collections.abc import Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from core.errors import DomainError
from core.models import IdempotentRequest
from tenants.models import SLUG, ApiKey, BlockListEntry, ListedModels, Project, Quota, Tenant

PIXELS_MAX = 1792 * 1024  # limit of a new tenant: the largest of the sizes that clients of OpenAI offer


class SlugInvalid(DomainError, code="slug_invalid"):
    """A name must be 1 to 40 lower-case letters, digits and inner hyphens, like a DNS label.

    Choose a name of lower-case letters, digits and inner hyphens.
    """


class TenantClosed(DomainError, code="tenant_closed", http_status=409):
    """This account is closed and being erased: create another one.

    Create another account; a closed one is not opened again.
    """


class SlugTaken(DomainError, code="slug_taken", http_status=409):
    """This name is taken: choose another.

    Choose another name.
    """


def tenant_create(*, slug: str, now: datetime, name: str = "", currency: str = "USD") -> tuple[Tenant, Project]:
    """Create a tenant with its first project, `default`. Raises `SlugInvalid`, `SlugTaken`."""
    if not re.fullmatch(SLUG, slug):
        raise SlugInvalid(param="name")
    with transaction.atomic():
        tenant, created = Tenant.objects.get_or_create(
            slug=slug, defaults={"name": name or slug, "currency": currency, "created_at": now}
        )
        if not created:
            raise SlugTaken(param="name")
        Quota.objects.create(tenant=tenant, pixels_max=PIXELS_MAX, updated_at=now)
        return tenant, project_create(tenant=tenant, slug="default", now=now)


def project_create(*, tenant: Tenant, slug: str, now: datetime, labels: Mapping[str, str] | None = None) -> Project:
    """Add a project to a tenant. Raises `SlugInvalid`, `SlugTaken`."""
    if not re.fullmatch(SLUG, slug):
        raise SlugInvalid(param="project")
    project, created = Project.objects.get_or_create(
        tenant=tenant, slug=slug, defaults={"labels": dict(labels or {}), "created_at": now}
    )
    if not created:
        raise SlugTaken(param="project")
    return project


def tenant_suspend(*, tenant: Tenant, now: datetime) -> bool:
    """Refuse the tenant's keys from now on; its running jobs finish. False if it is suspended already."""
    return Tenant.objects.filter(pk=tenant.pk, suspended_at=None).update(suspended_at=now) == 1


def tenant_resume(*, tenant: Tenant) -> bool:
    """Accept the tenant's keys again; False if it isn't suspended. Raises `TenantClosed`."""
    if Tenant.objects.filter(pk=tenant.pk).exclude(erase_requested_at=None).exists():
        raise TenantClosed
    return Tenant.objects.filter(pk=tenant.pk).exclude(suspended_at=None).update(suspended_at=None) == 1


def tenant_image_urls(*, tenant: Tenant, minutes: int | None) -> bool:
    """Set the minutes that URLs of a tenant's images are valid; None: the platform's. True if that is a change."""
    rows = Tenant.objects.filter(pk=tenant.pk).exclude(image_url_minutes=minutes)
    if minutes is not None:
        rows = Tenant.objects.filter(Q(image_url_minutes=None) | ~Q(image_url_minutes=minutes), pk=tenant.pk)
    return rows.update(image_url_minutes=minutes) == 1


def tenant_close(*, tenant: Tenant, now: datetime) -> None:
    """Suspend a locked tenant permanently and revoke its keys, before it is erased."""
    Tenant.objects.filter(pk=tenant.pk).update(suspended_at=tenant.suspended_at or now, erase_requested_at=now)
    ApiKey.objects.filter(tenant=tenant, revoked_at=None).update(revoked_at=now)


def tenant_forget(*, tenant: Tenant, now: datetime) -> None:
    """Erase a closed tenant's data of this room, except the rows that its costs refer to."""
    BlockListEntry.objects.filter(tenant=tenant).delete()
    IdempotentRequest.objects.filter(tenant=tenant).delete()
    ApiKey.objects.filter(tenant=tenant).update(name="")
    Tenant.objects.filter(pk=tenant.pk).update(name="", caller_salt=None, origins=[], erased_at=now)


def tenant_list_models(*, tenant: Tenant, listed: ListedModels) -> bool:
    """Set which names a tenant's list of models shows; False if it shows these already."""
    rows = Tenant.objects.filter(pk=tenant.pk).exclude(listed_models=listed)
    return rows.update(listed_models=listed) == 1


def tenant_share(*, tenant: Tenant, changes: Mapping[str, int | None]) -> Tenant:
    """Set `fair_share_weight` (at least 1) and `running_jobs_max` (at least 1; None: unlimited) for busy pools."""
    for field, value in changes.items():
        setattr(tenant, field, value)
    tenant.save(update_fields=[*changes])
    return tenant
