"""`easel tenant limit` and `easel block-list`: what tenants may ask for."""

import uuid
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from core.errors import DomainError
from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


class Limit(click.ParamType[Decimal]):
    """A number from 0, or `none`."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("none", NO_LIMIT):
            return NO_LIMIT
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is no number and not none", param, ctx)
        if not number.is_finite() or number < 0:
            self.fail(f"{value} is not 0 or more", param, ctx)
        return number


class WholeLimit(Limit):
    """A whole number from 0, or `none`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number is NO_LIMIT:
            return number
        if number > 10**18 or number != int(number):  # 1e999999999 is a short text and a very long number
            self.fail(f"{value} is no whole number", param, ctx)
        return int(number)


class EntryNotFound(DomainError):
    """There is no such entry: `easel block-list list` shows them."""

    code, http_status = "block_list_entry_not_found", 404


NO_LIMIT = object()
KEY_HELP = "Of this key alone: the part between `easel_sk_` and the next underscore."


@click.command("limit")
@click.argument("name")
@click.option("--key", "key_id", help=KEY_HELP)
@click.option("--requests-per-minute", type=WholeLimit())
@click.option("--concurrent-jobs-max", type=WholeLimit())
@click.option("--queued-jobs-max", type=WholeLimit(), help="Jobs that wait; without it, EASEL_QUEUED_JOBS_MAX.")
@click.option("--image-units-per-month", type=Limit(), help="512x512 pixels are one.")
@click.option("--pixels-max", type=WholeLimit(), help="Largest width x height.")
@click.option("--steps-max", type=WholeLimit())
@as_json_option
def tenant_limit(name: str, key_id: str | None, as_json: bool, **given: Any) -> None:
    """Set what a tenant may ask for, or show it. A limit is a number from 0, or none; it holds at once."""
    with committed() as act:
        from easel.cli.tenants import KeyNotFound, tenant_named
        from tenants.models import Quota
        from tenants.quotas import LIMITS, quota_set

        owner = tenant_named(name)
        api_key = owner.api_keys.filter(key_id=key_id).first() if key_id else None
        if key_id and api_key is None:
            raise KeyNotFound(f"{name} has no key {key_id!r}: `easel key list {name}` shows them")
        changes = {limit: None if value is NO_LIMIT else value for limit, value in given.items() if value is not None}
        if changes:
            quota_set(tenant=owner, api_key=api_key, limits=changes, now=act.now)
            said = {limit: None if value is None else str(value) for limit, value in changes.items()}
            act.record("quota.set", key_id or name, tenant=owner, details=said)
        rows = [
            {
                "of": quota.api_key.key_id if quota.api_key else name,
                **{limit: getattr(quota, limit) for limit in LIMITS},
            }
            for quota in Quota.objects.filter(tenant=owner).select_related("api_key").order_by("id")
        ]
    print_rows(rows, as_json)


@click.group("block-list")
def block_list() -> None:
    """What no prompt may hold, for everybody or for one tenant."""


@block_list.command("add")
@click.argument("pattern")
@click.option("--regex", is_flag=True, help="A regular expression of RE2, matched on the folded prompt.")
@click.option("--tenant", "tenant_name", help="For this tenant alone.")
@click.option("--reason", default="", help="Why, for other operators.")
def block_list_add(pattern: str, regex: bool, tenant_name: str | None, reason: str) -> None:
    """Add a phrase, which is found however it is written, or a pattern."""
    with committed() as act:
        from easel.cli.tenants import tenant_named
        from tenants import block_lists
        from tenants.models import BlockListEntry

        owner = tenant_named(tenant_name) if tenant_name else None
        kind = BlockListEntry.Kind.REGEX if regex else BlockListEntry.Kind.PHRASE
        entry = block_lists.block_list_add(tenant=owner, kind=kind, pattern=pattern, reason=reason, now=act.now)
        act.record("block_list.add", str(entry.pk), tenant=owner, details={"kind": kind, "pattern": pattern})
    click.echo(str(entry.pk))


@block_list.command("list")
@as_json_option
def block_list_list(as_json: bool) -> None:
    """List the entries."""
    with django_ready():
        from tenants.models import BlockListEntry

        rows = [
            {
                "id": str(entry.pk),
                "tenant": entry.tenant.slug if entry.tenant else "(all)",
                "kind": entry.kind,
                "pattern": entry.pattern,
                "reason": entry.reason,
            }
            for entry in BlockListEntry.objects.select_related("tenant").order_by("created_at")
        ]
    print_rows(rows, as_json)


@block_list.command("remove")
@click.argument("entry_id", type=click.UUID)
def block_list_remove(entry_id: uuid.UUID) -> None:
    """Remove an entry."""
    with committed() as act:
        from tenants import block_lists

        if not block_lists.block_list_remove(entry_id=entry_id):
            raise EntryNotFound
        act.record("block_list.remove", str(entry_id))
    click.echo(f"{entry_id} is removed")
