"""`easel tenant` and `easel key`: who may call the API, and with what credit."""

import json
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from core.errors import DomainError
from easel.cli.amounts import Amount
from easel.cli.committed import committed
from easel.cli.credit import CREDIT_COMMANDS
from easel.cli.django_ready import django_ready
from easel.cli.limits import NO_LIMIT, WholeLimit, tenant_limit
from easel.cli.tables import as_json_option, print_rows
from easel.cli.tenant_data import tenant_erase, tenant_export, tenant_retention

SCOPES = ("generate", "adapters", "usage", "billing")


class RunningJobs(WholeLimit):
    """A whole number from 1, or `none`: who may run nothing is suspended, not limited."""

    name = "jobs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number is not NO_LIMIT and not 1 <= number < 2**31:
            self.fail(f"{value} is not between 1 and 2147483647", param, ctx)
        return number


class TenantNotFound(DomainError):
    """There is no such tenant: `easel tenant list` shows them."""

    code, http_status = "tenant_not_found", 404


class KeyNotFound(DomainError):
    """There is no such live key: `easel key list TENANT` shows them."""

    code, http_status = "key_not_found", 404


@click.group()
def tenant() -> None:
    """Create tenants, list them; their credit, limits and budgets."""


@tenant.command("create")
@click.argument("name")
@click.option("--credit", type=Amount(), help="Credit to begin with, in the tenant's currency.")
@click.option("--project", "projects", multiple=True, help="A project besides `default`; may be repeated.")
@as_json_option
def tenant_create(name: str, credit: Decimal | None, projects: tuple[str, ...], as_json: bool) -> None:
    """Create a tenant with a key. NAME is a DNS label; the key is shown this once."""
    with committed() as act:
        from django.conf import settings

        from tenants import accounts, keys

        made, project = accounts.tenant_create(slug=name, now=act.now)
        for slug in projects:
            accounts.project_create(tenant=made, slug=slug, now=act.now)
        if credit is not None:
            _grant(made, credit, act.now)
        _, secret = keys.key_issue(project=project, pepper=settings.EASEL.secret_key, now=act.now, name="first")
        act.record("tenant.create", name, tenant=made, details={"credit": str(credit or 0)})
    answer = {"tenant": made.slug, "api_key": secret}
    click.echo(
        json.dumps(answer) if as_json else f"tenant   {made.slug}\napi key  {secret}\nThe key is shown only now."
    )


@tenant.command("suspend")
@click.argument("name")
def tenant_suspend(name: str) -> None:
    """Refuse a tenant's keys; its running jobs finish."""
    with committed() as act:
        from tenants import accounts

        if accounts.tenant_suspend(tenant=tenant_named(name), now=act.now):
            act.record("tenant.suspend", name, tenant=tenant_named(name))
    click.echo(f"{name} is suspended")


@tenant.command("resume")
@click.argument("name")
def tenant_resume(name: str) -> None:
    """Let a suspended tenant's keys in again."""
    with committed() as act:
        from tenants import accounts

        if accounts.tenant_resume(tenant=tenant_named(name)):
            act.record("tenant.resume", name, tenant=tenant_named(name))
    click.echo(f"{name} may call again")


@tenant.command("list")
@as_json_option
def tenant_list(as_json: bool) -> None:
    """List tenants with what they can spend and what is held for their running jobs."""
    with django_ready():
        from billing.ledger.accounts import balances_by_kind
        from billing.money import from_micros
        from tenants.models import Tenant

        rows = [
            {
                "tenant": found.slug,
                "currency": found.currency,
                **{kind: f"{from_micros(balances[kind]):.6f}" for kind in ("credit", "held", "revenue")},
                "suspended": found.suspended_at is not None,
            }
            for found in Tenant.objects.order_by("slug")
            for balances in [balances_by_kind(found)]
        ]
    print_rows(rows, as_json)


tenant.add_command(tenant_limit)
for command in CREDIT_COMMANDS:
    tenant.add_command(command)
tenant.add_command(tenant_retention)
tenant.add_command(tenant_export)
tenant.add_command(tenant_erase)


@tenant.command("share")
@click.argument("name")
@click.option("--weight", type=click.IntRange(1, 1000), help="Of GPU seconds where tenants wait for the same pool.")
@click.option("--running-jobs-max", type=RunningJobs(), help="Jobs in workers' hands at once, or none; others wait.")
@as_json_option
def tenant_share(name: str, weight: int | None, running_jobs_max: Any, as_json: bool) -> None:
    """Set a tenant's part of busy pools, or show it; it holds from the next job that is released."""
    with committed() as act:
        from tenants import accounts

        found = tenant_named(name)
        changes: dict[str, int | None] = {} if weight is None else {"fair_share_weight": weight}
        if running_jobs_max is not None:
            changes["running_jobs_max"] = None if running_jobs_max is NO_LIMIT else running_jobs_max
        if changes:
            accounts.tenant_share(tenant=found, changes=changes)
            act.record("tenant.share", name, tenant=found, details=changes)
        rows = [{"tenant": name, "weight": found.fair_share_weight, "running_jobs_max": found.running_jobs_max}]
    print_rows(rows, as_json)


@tenant.command("manifests")
@click.argument("name")
@click.option("--image", required=True, help="The worker's image, with its tag.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Workers at most.")
@click.option("--gpu-resource", default="nvidia.com/gpu", show_default=True, help="Or nvidia.com/mig-1g.18gb.")
@click.option("--weights", default="Tongyi-MAI/Z-Image-Turbo", show_default=True, help="Fetched from this hub id.")
def tenant_manifests(name: str, image: str, gpus: int, gpu_resource: str, weights: str) -> None:
    """Print the Kubernetes namespace of a tenant's own pool, for `kubectl apply -f -`. It holds a password."""
    with django_ready():
        from django.conf import settings

        from easel.catalog.errors import PoolNotFound
        from easel.cli.tenant_manifests import tenant_manifests as rendered
        from easel.serving.pool_workers import pool_worker

        pool = tenant_named(name).pools.first()
        if pool is None:
            raise PoolNotFound(f"{name} has no pool of its own: `easel pool dedicate {name}` makes one")
        text = rendered(
            pool=pool,
            worker_env=pool_worker(pool)["env"],
            image=image,
            gpus=gpus,
            gpu_resource=gpu_resource,
            weights=weights,
            api_stores=settings.EASEL.storage_url.startswith("file:"),
        )
    click.echo(text, nl=False)


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command("create")
@click.argument("tenant_name", metavar="TENANT")
@click.option("--project", default="default", show_default=True, help="What the key's requests are charged to.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="May be repeated; by default all.")
@click.option("--name", default="", help="What the key is for.")
@as_json_option
def key_create(tenant_name: str, project: str, scopes: tuple[str, ...], name: str, as_json: bool) -> None:
    """Create an API key; its text is shown this once."""
    with committed() as act:
        from django.conf import settings

        from easel.jobs.errors import ProjectNotFound
        from tenants import keys

        owner = tenant_named(tenant_name)
        found = owner.projects.filter(slug=project).first()
        if found is None:
            raise ProjectNotFound(f"{tenant_name} has no project {project!r}")
        made, secret = keys.key_issue(
            project=found, pepper=settings.EASEL.secret_key, now=act.now, name=name, scopes=scopes or SCOPES
        )
        act.record("key.create", made.key_id, tenant=owner, details={"scopes": made.scopes, "project": project})
    answer = {"key_id": made.key_id, "api_key": secret}
    click.echo(json.dumps(answer) if as_json else f"{secret}\nThe key is shown only now.")


@key.command("list")
@click.argument("tenant_name", metavar="TENANT")
@as_json_option
def key_list(tenant_name: str, as_json: bool) -> None:
    """List a tenant's keys; their secrets are not kept."""
    with django_ready():
        rows = [
            {
                "key_id": found.key_id,
                "name": found.name,
                "project": found.project.slug,
                "scopes": ",".join(found.scopes),
                "created_at": found.created_at.isoformat(timespec="seconds"),
                "revoked": found.revoked_at is not None,
            }
            for found in tenant_named(tenant_name).api_keys.select_related("project").order_by("created_at")
        ]
    print_rows(rows, as_json)


@key.command("revoke")
@click.argument("key_id")
def key_revoke(key_id: str) -> None:
    """Revoke a key for good. KEY_ID is the part between `easel_sk_` and the next underscore."""
    with committed() as act:
        from tenants import keys

        found = _live_key(key_id)
        keys.key_revoke(key_id=key_id, now=act.now)
        act.record("key.revoke", key_id, tenant=found.tenant)
    click.echo(f"{key_id} is revoked")


@key.command("rotate")
@click.argument("key_id")
@as_json_option
def key_rotate(key_id: str, as_json: bool) -> None:
    """Replace a key by a new one of the same scopes and project; the old one ends at once."""
    with committed() as act:
        from django.conf import settings

        from tenants import keys

        found = _live_key(key_id)
        made, secret = keys.key_rotate(key=found, pepper=settings.EASEL.secret_key, now=act.now)
        act.record("key.rotate", key_id, tenant=found.tenant, details={"new": made.key_id})
    answer = {"key_id": made.key_id, "api_key": secret}
    click.echo(json.dumps(answer) if as_json else f"{secret}\nThe key is shown only now.")


def _live_key(key_id: str) -> Any:
    from tenants.models import ApiKey

    found = ApiKey.objects.select_related("tenant", "project").filter(key_id=key_id, revoked_at=None).first()
    if found is None:
        raise KeyNotFound
    return found


def _grant(owner: Any, amount: Decimal, now: datetime) -> None:
    from billing.ledger.postings import credit_grant
    from billing.money import to_micros

    credit_grant(tenant=owner, amount_micros=to_micros(amount), reference=uuid.uuid4(), now=now)


def tenant_named(slug: str) -> Any:
    from tenants.models import Tenant

    found = Tenant.objects.filter(slug=slug).first()
    if found is None:
        raise TenantNotFound(f"there is no tenant {slug!r}: `easel tenant list` shows them")
    return found
