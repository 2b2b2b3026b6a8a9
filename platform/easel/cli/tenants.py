"""`easel tenant`, `key`, `project` and `block-list`: tenants, their credit, limits, data and credentials."""

from datetime import datetime
from typing import Any

import click

from easel.actions import limits, tenants
from easel.actions.action import tenant_of
from easel.cli.action_commands import command_of, group_of
from easel.cli.credit import tenant_billing, tenant_budget
from easel.cli.django_ready import django_ready
from easel.cli.tables import Rows, list_command
from easel.cli.tenant_data import tenant_erase, tenant_export

tenant = group_of("tenant")
key = group_of("key")
project = group_of("project")
block_list = group_of("block-list")


@list_command(tenant)
def tenant_list() -> Rows:
    """List tenants with their credit, holds and revenue."""
    from billing.ledger.accounts import balances_by_kind
    from billing.money import from_micros
    from tenants.models import Tenant

    return [
        {
            "tenant": found.slug,
            "currency": found.currency,
            **{kind: f"{from_micros(balances[kind]):.6f}" for kind in ("credit", "held", "revenue")},
            "suspended": found.suspended_at is not None,
        }
        for found in Tenant.objects.order_by("slug")
        for balances in [balances_by_kind(found)]
    ]


def _limits(row: Any, now: datetime) -> list[dict[str, Any]]:
    from tenants.quotas import LIMITS

    owner = tenant_of(row)
    return [
        {
            "of": quota.api_key.key_id if quota.api_key else owner.slug,
            **{limit: getattr(quota, limit) for limit in LIMITS},
        }
        for quota in owner.quotas.select_related("api_key").order_by("id")
    ]


def _share(row: Any, now: datetime) -> list[dict[str, Any]]:
    return [{"tenant": row.slug, "weight": row.fair_share_weight, "running_jobs_max": row.running_jobs_max}]


def _retention(row: Any, now: datetime) -> list[dict[str, Any]]:
    from django.conf import settings

    from tenants.retention import retention_of

    holds = retention_of(row, default=settings.EASEL)
    return [{"tenant": row.slug, "output_days": holds.output_days, "job_days": holds.job_days}]


def _origins(row: Any, now: datetime) -> list[dict[str, Any]]:
    return [{"tenant": row.slug, "origins": row.origins}]


def _listed(row: Any, now: datetime) -> list[dict[str, Any]]:
    row.refresh_from_db(fields=["listed_models"])
    return [{"tenant": row.slug, "listed": row.listed_models}]


def _image_urls(row: Any, now: datetime) -> list[dict[str, Any]]:
    from tenants.models import image_url_minutes

    row.refresh_from_db(fields=["image_url_minutes"])
    return [{"tenant": row.slug, "minutes": image_url_minutes(row)}]


for command in (
    command_of(limits.set_limits, show=_limits),
    command_of(limits.set_share, show=_share),
    command_of(limits.set_retention, show=_retention),
    command_of(limits.set_origins, show=_origins),
    command_of(tenants.set_listed_models, show=_listed),
    command_of(tenants.set_image_urls, show=_image_urls),
    tenant_budget,
    tenant_billing,
    tenant_export,
    tenant_erase,
):
    tenant.add_command(command)


@tenant.command("manifests")
@click.argument("name")
@click.option("--image", required=True, help="The worker's image, with its tag.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Workers at most.")
@click.option("--gpu-resource", default="nvidia.com/gpu", show_default=True, help="Or nvidia.com/mig-1g.18gb.")
@click.option("--weights", default="Tongyi-MAI/Z-Image-Turbo", show_default=True, help="Fetched from this hub id.")
def manifests(name: str, **options: Any) -> None:
    """Print the Kubernetes namespace of a tenant's own pool.

    It is for `kubectl apply -f -`, and contains a password.
    """
    with django_ready():
        from django.conf import settings

        from easel.actions.subjects import tenant_named
        from easel.catalog.errors import PoolNotFound
        from easel.cli.tenant_manifests import tenant_manifests
        from easel.serving.pool_workers import pool_worker

        pool = tenant_named(name).pools.first()
        if pool is None:
            raise PoolNotFound(f"{name} has no pool of its own: `easel pool dedicate {name}` makes one")
        text = tenant_manifests(
            pool=pool,
            worker_env=pool_worker(pool)["env"],
            api_stores=settings.EASEL.storage_url.startswith("file:"),
            **options,
        )
    click.echo(text, nl=False)


@list_command(key, of_tenant=True)
def key_list(tenant: Any) -> Rows:
    """List a tenant's keys; their secrets are not stored."""
    return [
        {
            "key_id": found.key_id,
            "name": found.name,
            "project": found.project.slug,
            "scopes": ",".join(found.scopes),
            "lenient": found.is_lenient,
            "expires_at": found.expires_at.isoformat(timespec="seconds") if found.expires_at else "",
            "addresses": ",".join(found.addresses),
            "created_at": found.created_at.isoformat(timespec="seconds"),
            "revoked": found.revoked_at is not None,
        }
        for found in tenant.api_keys.select_related("project").order_by("created_at")
    ]


@list_command(project, of_tenant=True)
def project_list(tenant: Any) -> Rows:
    """List a tenant's projects with their labels."""
    return [
        {
            "project": found.slug,
            "labels": ",".join(f"{name}={value}" for name, value in found.labels.items()),
            "created_at": found.created_at.isoformat(timespec="seconds"),
        }
        for found in tenant.projects.order_by("slug")
    ]


@list_command(block_list)
def block_list_list() -> Rows:
    """List the entries."""
    from tenants.models import BlockListEntry

    return [
        {
            "id": str(entry.pk),
            "tenant": entry.tenant.slug if entry.tenant else "(all)",
            "kind": entry.kind,
            "pattern": entry.pattern,
            "reason": entry.reason,
        }
        for entry in BlockListEntry.objects.select_related("tenant").order_by("created_at")
    ]
