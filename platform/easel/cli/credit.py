"""`easel tenant budget` and `easel tenant billing`: commands that set and show."""

from datetime import UTC, datetime
from typing import Any

import click

from easel.actions.action import tenant_of
from easel.actions.credit import remove_budget, set_budget, set_profile
from easel.cli.action_commands import command_of, first_sentence, given_fields, params_of, perform, subject_of
from easel.cli.django_ready import django_ready
from easel.cli.tables import print_rows


def _budget(as_json: bool, remove: bool, **given: Any) -> None:
    changes = given_fields(given)
    project = changes.get("project")
    if remove and changes.keys() - {"project"}:
        raise click.UsageError("--remove takes no --amount and no --hard-stop")
    with django_ready():
        from billing.budgets.budgets import BudgetInvalid, BudgetNotFound
        from billing.money import from_micros

        now, row = datetime.now(UTC), subject_of(set_budget, given)
        tenant = tenant_of(row)
        found = tenant.budgets.filter(project__slug=project, api_key=None if row is tenant else row).first()
        if remove and found is None:
            raise BudgetNotFound(f"{project or row} has no budget: `easel tenant budget {tenant}` shows what there is")
        if remove:
            perform(remove_budget, tenant, {"budget": str(found.pk)}, now=now)
        elif changes.keys() - {"project"}:
            if found is None and "amount" not in changes:
                raise BudgetInvalid(f"{project or row} has no budget yet: give --amount", param="amount")
            if found is not None:  # what the command doesn't give does not change
                changes = {"amount": str(from_micros(found.amount_micros)), "hard_stop": found.hard_stop, **changes}
            perform(set_budget, row, changes, now=now)
        rows = _budgets(tenant, now)
    print_rows(rows, as_json)


def _budgets(tenant: Any, now: datetime) -> list[dict[str, Any]]:
    from billing.budgets.budgets import budgets_of
    from billing.money import from_micros

    return [
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
        for one in budgets_of(tenant, now=now)
    ]


def _profile(tenant: Any, now: datetime) -> dict[str, str]:
    from billing.profiles import FIELDS, profile_of

    profile = profile_of(tenant)
    return {field: str(getattr(profile, field)) for field in FIELDS}


tenant_budget = click.Command(
    "budget",
    params=[
        *params_of(set_budget),
        click.Option(["--remove"], is_flag=True, help=remove_budget.explain),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ],
    callback=_budget,
    help=f"{set_budget.explain} Without options: show all budgets.",
    short_help=first_sentence(set_budget.explain),
)
tenant_billing = command_of(set_profile, show=_profile)
