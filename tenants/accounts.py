"""Verbs on tenants and projects."""

import re
from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from core.errors import DomainError
from core.models import IdempotentRequest
from tenants.models import (
    SLUG,
    ApiKey,
    BlockListEntry,
    Project,
    Quota,
    Tenant,
)

PIXELS_MAX = 1024 * 1024  # what a new tenant may ask for


class SlugInvalid(DomainError):
    """A name is 1 to 40 lower-case letters, digits and inner hyphens, as a DNS label is."""

    code = "slug_invalid"


class TenantClosed(DomainError):
    """This account is closed and erased: make another one."""

    code, http_status = "tenant_closed", 409


class SlugTaken(DomainError):
    """This name is taken: choose another."""

    code, http_status = "slug_taken", 409


def tenant_create(*, slug: str, now: datetime, name: str = "", currency: str = "USD") -> tuple[Tenant, Project]:
    """Makes a tenant with its first project, `default`. Raises `SlugInvalid`, `SlugTaken`."""
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
    """Adds a project to a tenant. Raises `SlugInvalid`, `SlugTaken`."""
    if not re.fullmatch(SLUG, slug):
        raise SlugInvalid(param="project")
    project, created = Project.objects.get_or_create(
        tenant=tenant, slug=slug, defaults={"labels": dict(labels or {}), "created_at": now}
    )
    if not created:
        raise SlugTaken(param="project")
    return project


def tenant_suspend(*, tenant: Tenant, now: datetime) -> bool:
    """Refuses the tenant's keys from now on; its running jobs finish. False when it is suspended already."""
    return Tenant.objects.filter(pk=tenant.pk, suspended_at=None).update(suspended_at=now) == 1


def tenant_resume(*, tenant: Tenant) -> bool:
    """Lets the tenant's keys in again; False when it isn't suspended. Raises `TenantClosed`."""
    if Tenant.objects.filter(pk=tenant.pk).exclude(erase_requested_at=None).exists():
        raise TenantClosed
    return Tenant.objects.filter(pk=tenant.pk).exclude(suspended_at=None).update(suspended_at=None) == 1


def tenant_close(*, tenant: Tenant, now: datetime) -> None:
    """Suspends a locked tenant for good and revokes its keys: it is to be erased."""
    Tenant.objects.filter(pk=tenant.pk).update(suspended_at=tenant.suspended_at or now, erase_requested_at=now)
    ApiKey.objects.filter(tenant=tenant, revoked_at=None).update(revoked_at=now)


def tenant_forget(*, tenant: Tenant, now: datetime) -> None:
    """Deletes what a closed tenant has here besides what its costs are attributed to: it is erased."""
    BlockListEntry.objects.filter(tenant=tenant).delete()
    IdempotentRequest.objects.filter(tenant=tenant).delete()
    ApiKey.objects.filter(tenant=tenant).update(name="")
    Tenant.objects.filter(pk=tenant.pk).update(name="", caller_salt=None, erased_at=now)


def tenant_share(*, tenant: Tenant, changes: Mapping[str, int | None]) -> Tenant:
    """Sets `fair_share_weight` (from 1) and `running_jobs_max` (from 1; None: any): its part of pools that are busy."""
    for field, value in changes.items():
        setattr(tenant, field, value)
    tenant.save(update_fields=[*changes])
    return tenant
