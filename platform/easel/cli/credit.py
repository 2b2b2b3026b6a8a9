"""`easel tenant grant`, `adjust`, `budget` and so on: what tenants may spend, and how they are billed."""

import getpass
import json
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import click

from core.errors import DomainError
from easel.cli.amounts import Amount, SignedAmount
from easel.cli.committed import committed
from easel.cli.limits import KEY_HELP
from easel.cli.tables import as_json_option, print_rows

REASON_HELP = "Kept with the movement, on statements and in the audit log: an invoice's number, for example."


class GrantInvalid(DomainError):
    """A grant expires later than it is made."""

    code = "grant_invalid"


@click.command("grant")
@click.argument("name")
@click.argument("amount", type=Amount())
@click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]), help="In the tenant's time zone.")
@click.option("--priority", type=click.IntRange(0, 100), default=50, show_default=True, help="0 is spent first.")
@click.option("--promotional", is_flag=True, help="Given away, not bought.")
@click.option("--reason", default="", help=REASON_HELP)
def tenant_grant(
    name: str, amount: Decimal, expires: datetime | None, priority: int, promotional: bool, reason: str
) -> None:
    """Give a tenant credit; what it owes beyond its limit is paid first."""
    with committed() as act:
        from billing.ledger.accounts import balance_of
        from billing.ledger.postings import credit_grant
        from billing.models import CreditGrant
        from billing.money import format_micros, to_micros
        from billing.profiles import zone_of

        found = _tenant(name)
        ends = expires and expires.replace(tzinfo=ZoneInfo(zone_of(found.pk)))
        if ends is not None and ends <= act.now:
            raise GrantInvalid(f"{ends.isoformat()} is over", param="expires")
        category = CreditGrant.Category.PROMOTIONAL if promotional else CreditGrant.Category.PAID
        credit_grant(
            tenant=found,
            amount_micros=to_micros(amount),
            reference=uuid.uuid4(),
            now=act.now,
            description=reason[:200],
            category=category,
            priority=priority,
            expires_at=ends,
        )
        details = {"amount": str(amount), "currency": found.currency, "category": category, "priority": priority}
        details |= {"expires_at": ends and ends.isoformat(), "reason": reason}
        act.record("credit.grant", name, tenant=found, details=details)
        available = format_micros(balance_of(found).available, found.currency)
    until = f"; what is left of it on {ends:%Y-%m-%d %H:%M %Z} is lost" if ends else ""
    click.echo(f"{name} can spend {available}{until}")


@click.command("credit-limit")
@click.argument("name")
@click.argument("amount", type=Amount(least=Decimal(0)))
def tenant_credit_limit(name: str, amount: Decimal) -> None:
    """Let a tenant spend AMOUNT more than its credit, to be paid later; 0: nothing, it pays before."""
    with committed() as act:
        from billing.ledger.accounts import balance_of, credit_limit_set
        from billing.money import format_micros, to_micros

        found = _tenant(name)
        credit_limit_set(tenant=found, limit_micros=to_micros(amount))
        act.record("credit.limit", name, tenant=found, details={"amount": str(amount), "currency": found.currency})
        available = format_micros(balance_of(found).available, found.currency)
    click.echo(f"{name} can spend {available}")


@click.command("adjust", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("amount", type=SignedAmount())
@click.option("--reason", required=True, help=REASON_HELP)
@click.option("--project", "project_slug", help="Whose cost it is.")
@click.option("--charge", "charge_id", type=click.UUID, help="The charge that was disputed.")
def tenant_adjust(
    name: str, amount: Decimal, reason: str, project_slug: str | None, charge_id: uuid.UUID | None
) -> None:
    """Charge a tenant AMOUNT by hand, or give it back if it is below zero: -5 gives back 5."""
    with committed() as act:
        from billing.invoices.adjustments import adjustment_make, charge_get
        from billing.money import format_micros, to_micros

        found = _tenant(name)
        project = _project(found, project_slug) if project_slug else None
        charge = charge_get(tenant=found, charge_id=charge_id) if charge_id else None
        made = adjustment_make(
            tenant=found,
            amount_micros=to_micros(amount),
            reason=reason,
            author=f"command:{getpass.getuser()}",
            reference=uuid.uuid4(),
            now=act.now,
            project=project,
            charge=charge,
        )
        assert made is not None  # its reference is new
        details = {"amount": str(amount), "currency": found.currency, "reason": reason, "charge": charge_id}
        act.record("credit.adjust", str(made.pk), tenant=found, details={k: v and str(v) for k, v in details.items()})
        moved = format_micros(abs(made.amount_micros), found.currency)
    click.echo(f"{name} was charged {moved}" if amount > 0 else f"{name} was given {moved} back")


@click.command("write-off")
@click.argument("name")
@click.option("--reason", required=True, help=REASON_HELP)
def tenant_write_off(name: str, reason: str) -> None:
    """Give up all that a tenant owes."""
    with committed() as act:
        from billing.invoices.adjustments import write_off
        from billing.money import format_micros

        found = _tenant(name)
        author = f"command:{getpass.getuser()}"
        made = write_off(tenant=found, reason=reason, author=author, reference=uuid.uuid4(), now=act.now)
        assert made is not None  # its reference is new
        moved = format_micros(-made.amount_micros, found.currency)
        act.record("credit.write_off", str(made.pk), tenant=found, details={"amount": moved, "reason": reason})
    click.echo(f"{moved} that {name} owed are written off")


@click.command("budget")
@click.argument("name")
@click.option("--project", "project_slug", help="Of this project alone.")
@click.option("--key", "key_id", help=KEY_HELP)
@click.option("--amount", type=Amount(least=Decimal(0)), help="A month, in the tenant's currency and time zone.")
@click.option("--hard-stop/--no-hard-stop", default=None, help="Whether to refuse what would go over it.")
@click.option("--remove", is_flag=True, help="Have no such budget.")
@as_json_option
def tenant_budget(
    name: str,
    project_slug: str | None,
    key_id: str | None,
    amount: Decimal | None,
    hard_stop: bool | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Set what a tenant, a project or a key means to spend in a month, or show all budgets; it holds at once."""
    if remove and (amount is not None or hard_stop is not None):
        raise click.UsageError("--remove takes no --amount and no --hard-stop")
    with committed() as act:
        from billing.budgets.budgets import (
            BudgetInvalid,
            BudgetNotFound,
            budget_remove,
            budgets_of,
        )
        from billing.money import from_micros, to_micros
        from easel.jobs.budgets import budget_set

        found = _tenant(name)
        project = _project(found, project_slug) if project_slug else None
        api_key = _key(found, key_id) if key_id else None
        now_there = found.budgets.filter(project=project, api_key=api_key).first()
        of = key_id or project_slug or name
        if remove:
            if now_there is None:
                raise BudgetNotFound(f"{of} has no budget: `easel tenant budget {name}` shows what there is")
            budget_remove(tenant=found, budget_id=now_there.pk)
            act.record("budget.remove", of, tenant=found)
        elif amount is not None or hard_stop is not None:
            if amount is None and now_there is None:
                raise BudgetInvalid(f"{of} has no budget yet: say --amount", param="amount")
            micros = now_there.amount_micros if amount is None else to_micros(amount)
            stop = (now_there is not None and now_there.hard_stop) if hard_stop is None else hard_stop
            budget_set(
                tenant=found, project=project, api_key=api_key, amount_micros=micros, hard_stop=stop, now=act.now
            )
            details = {"amount": f"{from_micros(micros):f}", "currency": found.currency, "hard_stop": stop}
            act.record("budget.set", of, tenant=found, details=details)
        rows = [
            {
                "id": str(one.budget.pk),
                "project": one.budget.project.slug if one.budget.project else "",
                "key": one.budget.api_key.key_id if one.budget.api_key else "",
                "currency": one.budget.currency,
                "amount": f"{from_micros(one.budget.amount_micros):.6f}",
                "hard_stop": one.budget.hard_stop,
                "spent": f"{from_micros(one.spent_micros):.6f}",
                "held": f"{from_micros(one.held_micros):.6f}",
                "left": f"{from_micros(one.left_micros):.6f}",
                "resets_at": one.resets_at.isoformat(),
            }
            for one in budgets_of(found, now=act.now)
        ]
    print_rows(rows, as_json)


@click.command("billing")
@click.argument("name")
@click.option("--legal-name")
@click.option("--address", help="Lines are parted by line feeds.")
@click.option("--email", help="Where budget notices go.")
@click.option("--tax-id")
@click.option("--tax-name", help="As statements show it: VAT.")
@click.option("--tax-rate", type=Amount(least=Decimal(0)), help="0.19 is 19 %.")
@click.option("--time-zone", help="Of months and statements, for example Europe/Berlin; holds from the next month on.")
@as_json_option
def tenant_billing(name: str, as_json: bool, **given: Any) -> None:
    """Set how a tenant is billed, or show it; an empty text takes a value away."""
    with committed() as act:
        from billing.profiles import FIELDS, profile_of, profile_set

        found = _tenant(name)
        changes = {field: value for field, value in given.items() if value is not None}
        if changes:
            profile_set(tenant=found, changes=changes, now=act.now)
            details = {field: str(value) for field, value in changes.items()}
            act.record("billing_profile.set", name, tenant=found, details=details)
        profile = profile_of(found)
        shown = {field: str(getattr(profile, field)) for field in FIELDS}
    if as_json:
        click.echo(json.dumps(shown))
        return
    for field, value in shown.items():
        click.echo(f"{field:<12} {value}")


CREDIT_COMMANDS = (
    tenant_grant,
    tenant_credit_limit,
    tenant_adjust,
    tenant_write_off,
    tenant_budget,
    tenant_billing,
)


def _tenant(name: str) -> Any:
    from easel.cli.tenants import tenant_named

    return tenant_named(name)


def _project(owner: Any, slug: str) -> Any:
    from easel.jobs.errors import ProjectNotFound

    found = owner.projects.filter(slug=slug).first()
    if found is None:
        raise ProjectNotFound(f"{owner} has no project {slug!r}")
    return found


def _key(owner: Any, key_id: str) -> Any:
    from easel.cli.tenants import KeyNotFound

    found = owner.api_keys.filter(key_id=key_id).first()
    if found is None:
        raise KeyNotFound(f"{owner} has no key {key_id!r}: `easel key list {owner}` shows them")
    return found
