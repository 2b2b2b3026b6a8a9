"""`easel tenant` and `easel key`: who may call the API, and with what credit."""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from easel.ops.environment import django_ready
from tenants.errors import DomainError

SCOPES = ("generate", "adapters", "usage")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
Function = Callable[..., None]


class Amount(click.ParamType[Decimal]):
    """A positive amount of money with at most six places."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount, for example 10 or 2.50", param, ctx)
        if not amount.is_finite() or amount <= 0 or amount >= 10**9 or amount != round(amount, 6):
            self.fail(f"{value} is not between 0.000001 and 999999999", param, ctx)
        return amount


class TenantNotFound(DomainError):
    """There is no such tenant: `easel tenant list` shows them."""

    code, http_status = "tenant_not_found", 404


class KeyNotFound(DomainError):
    """There is no such live key: `easel key list TENANT` shows them."""

    code, http_status = "key_not_found", 404


@click.group()
def tenant() -> None:
    """Create tenants, list them, add credit."""


@tenant.command("create")
@click.argument("name")
@click.option("--credit", type=Amount(), help="Credit to begin with, in the tenant's currency.")
@click.option("--project", "projects", multiple=True, help="A project besides `default`; may be repeated.")
@as_json_option
def tenant_create(name: str, credit: Decimal | None, projects: tuple[str, ...], as_json: bool) -> None:
    """Create a tenant with a key. NAME is a DNS label; the key is shown this once."""
    with _committed() as now:
        from django.conf import settings

        from tenants import accounts, keys

        made, project = accounts.tenant_create(slug=name, now=now)
        for slug in projects:
            accounts.project_create(tenant=made, slug=slug, now=now)
        if credit is not None:
            _grant(made, credit, now)
        _, secret = keys.key_issue(project=project, pepper=settings.EASEL.secret_key, now=now, name="first")
    answer = {"tenant": made.slug, "api_key": secret}
    click.echo(
        json.dumps(answer) if as_json else f"tenant   {made.slug}\napi key  {secret}\nThe key is shown only now."
    )


@tenant.command("credit")
@click.argument("name")
@click.argument("amount", type=Amount())
def tenant_credit(name: str, amount: Decimal) -> None:
    """Add credit to a tenant."""
    with _committed() as now:
        from billing import ledger
        from billing.money import format_micros

        found = _tenant(name)
        _grant(found, amount, now)
        balance = format_micros(ledger.balances(found)["credit"], found.currency)
    click.echo(f"{name} can spend {balance}")


@tenant.command("list")
@as_json_option
def tenant_list(as_json: bool) -> None:
    """List tenants with what they can spend and what is held for their running jobs."""
    with django_ready():
        from billing import ledger
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
            for balances in [ledger.balances(found)]
        ]
    _print(rows, as_json)


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
    with _committed() as now:
        from django.conf import settings

        from easel.generation.errors import ProjectNotFound
        from tenants import keys

        owner = _tenant(tenant_name)
        found = owner.projects.filter(slug=project).first()
        if found is None:
            raise ProjectNotFound(f"{tenant_name} has no project {project!r}")
        made, secret = keys.key_issue(
            project=found, pepper=settings.EASEL.secret_key, now=now, name=name, scopes=scopes or SCOPES
        )
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
            for found in _tenant(tenant_name).api_keys.select_related("project").order_by("created_at")
        ]
    _print(rows, as_json)


@key.command("revoke")
@click.argument("key_id")
def key_revoke(key_id: str) -> None:
    """Revoke a key for good. KEY_ID is the part between `easel_sk_` and the next underscore."""
    with _committed() as now:
        from tenants import keys

        if not keys.key_revoke(key_id=key_id, now=now):
            raise KeyNotFound
    click.echo(f"{key_id} is revoked")


@contextmanager
def _committed() -> Iterator[datetime]:
    """One transaction on a ready Django, and its time."""
    with django_ready():
        from django.db import transaction

        with transaction.atomic():
            yield datetime.now(UTC)


def _grant(owner: Any, amount: Decimal, now: datetime) -> None:
    from billing import ledger
    from billing.money import to_micros

    ledger.grant(tenant=owner, amount_micros=to_micros(amount), reference=uuid.uuid4(), at=now)


def _tenant(slug: str) -> Any:
    from tenants.models import Tenant

    found = Tenant.objects.filter(slug=slug).first()
    if found is None:
        raise TenantNotFound(f"there is no tenant {slug!r}: `easel tenant list` shows them")
    return found


def _print(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    rows = list(rows)
    if as_json:
        click.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ("none",)), box=None)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
