"""Sections of a tenant's page: contracts, credit, budgets, adjustments and billing profile."""

from collections.abc import Iterable
from datetime import UTC, datetime

from billing.budgets.budgets import budgets_of
from billing.ledger.accounts import balance_of
from billing.models import Adjustment, CreditGrant
from billing.profiles import FIELDS, profile_of
from easel.portal import cells
from easel.portal.pages import Section
from tenants.models import Tenant

SHOWN = 20


def credit_sections(tenant: Tenant) -> Iterable[Section]:
    """Return a tenant's credit, budgets, adjustments and billing profile."""
    balance, profile = balance_of(tenant), profile_of(tenant)
    amounts = (balance.available, balance.credit, balance.held, balance.owed, balance.limit)
    shown = [cells.money(micros, tenant.currency) for micros in amounts]
    yield Section("Credit", ("Available", "Credit", "Held", "Owed", "Credit limit"), [shown], "")
    yield Section.of(
        f"Credit grants, as they are spent (up to {SHOWN})",
        CreditGrant.to_spend(tenant)[:SHOWN],
        {
            "Amount": lambda grant: cells.money(grant.amount_micros, grant.currency),
            "Left": lambda grant: cells.money(grant.remaining_micros, grant.currency),
            "Priority": lambda grant: cells.number(grant.priority),
            "Category": lambda grant: grant.get_category_display(),
            "Expires": lambda grant: cells.when(grant.expires_at),
            "Since": lambda grant: cells.when(grant.created_at),
        },
        "No credit is left: grant some, or set a credit limit.",
    )
    yield Section.of(
        "Budgets of this month",
        budgets_of(tenant, now=datetime.now(UTC)),
        {
            "Owner": lambda one: str(one.budget),
            "Amount": lambda one: cells.money(one.budget.amount_micros, one.budget.currency),
            "Spent": lambda one: cells.money(one.spent_micros, one.budget.currency),
            "Held": lambda one: cells.money(one.held_micros, one.budget.currency),
            "Left": lambda one: cells.money(one.left_micros, one.budget.currency),
            "Hard stop": lambda one: "yes" if one.budget.hard_stop else "no",
            "Resets": lambda one: cells.when(one.resets_at),
        },
        "No budget: set one, for notices or to stop in time.",
    )
    yield Section.of(
        f"Latest adjustments (up to {SHOWN})",
        Adjustment.objects.filter(tenant=tenant).select_related("transaction").order_by("-created_at")[:SHOWN],
        {
            "At": lambda one: cells.when(one.created_at),
            "Kind": lambda one: one.get_kind_display(),
            "Amount": lambda one: cells.money(one.amount_micros, one.currency),
            "Reason": lambda one: one.reason,
            "Author": lambda one: one.author,
            "Transaction": lambda one: cells.link(one.transaction),
        },
        "Nobody has moved money by hand.",
    )
    fields = [(name.replace("_", " ").capitalize(), str(getattr(profile, name)) or cells.NOTHING) for name in FIELDS]
    yield Section("Billing profile", ("", ""), fields, "")


def contracts_section(tenant: Tenant) -> Section:
    """Return a tenant's contracts, the latest first."""
    return Section.of(
        "Contracts",
        tenant.contracts.select_related("price_book__tenant").order_by("-starts_at"),
        {
            "From": lambda contract: cells.when(contract.starts_at),
            "Until": lambda contract: cells.when(contract.ends_at),
            "Discount": lambda contract: f"{(contract.discount * 100).normalize():f} %",
            "Minimum of a month": lambda contract: cells.money(contract.minimum_micros, tenant.currency),
            "Own prices": lambda contract: cells.link(contract.price_book),
        },
        "No contract: the list's prices apply.",
    )
