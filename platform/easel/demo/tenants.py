"""The demo's tenants with credit and a key, its dedicated pool, and the audit of the result."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction

from billing.ledger.accounts import balances_by_kind
from billing.ledger.postings import credit_grant
from easel.catalog.models import Pool
from easel.catalog.pools import dedicated_pool_create
from easel.jobs.queue import pool_load
from easel.observability.audit import audit
from easel.serving.pool_workers import PoolWorker, pool_worker
from easel.serving.routing import main_version
from tenants import accounts, keys
from tenants.models import Project, Tenant

_CREDIT_MICROS = 10_000_000
_KEY_NAME = "demo"


def demo_tenants(projects: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Create a key for each tenant, and the tenants, projects and credit that are missing. Returns each tenant's key.

    It revokes the key of an earlier demo, since nobody has its text any more.
    """
    now = datetime.now(UTC)
    secrets = {}
    with transaction.atomic():
        for slug, names in projects.items():
            tenant = Tenant.objects.filter(slug=slug).first() or accounts.tenant_create(slug=slug, now=now)[0]
            known = set(Project.objects.filter(tenant=tenant).values_list("slug", flat=True))
            for name in sorted(set(names) - known):
                accounts.project_create(tenant=tenant, slug=name, now=now)
            missing = _CREDIT_MICROS - balances_by_kind(tenant)["credit"]
            if missing > _CREDIT_MICROS // 2:
                credit_grant(tenant=tenant, amount_micros=missing, reference=uuid.uuid4(), now=now)
            tenant.api_keys.filter(name=_KEY_NAME, revoked_at=None).update(revoked_at=now)
            project = Project.objects.get(tenant=tenant, slug="default")
            _, secrets[slug] = keys.key_issue(
                project=project, pepper=settings.EASEL.secret_key, now=now, name=_KEY_NAME
            )
    return secrets


def dedicated_worker(slug: str) -> PoolWorker:
    """Return the environment of a worker of the tenant's own pool. Creates the pool where it is missing."""
    tenant = Tenant.objects.get(slug=slug)
    pool = Pool.objects.filter(tenant=tenant).first() or dedicated_pool_create(
        tenant=tenant, version=main_version(None), gpu_class=settings.EASEL.gpu_class, now=datetime.now(UTC)
    )
    return pool_worker(pool)


def worker_is_ready(pool: str) -> bool:
    """Return True if a worker of the pool can take a job."""
    return pool_load(pool=Pool.objects.get(slug=pool), now=datetime.now(UTC)).room > 0


def broken_invariants() -> list[str]:
    """Every violation that `easel audit` would report."""
    return [line for lines in audit(now=datetime.now(UTC)).values() for line in lines]
