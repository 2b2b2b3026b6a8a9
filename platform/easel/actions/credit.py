"""A tenant's credit, budgets and billing profile."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms

from billing.money import format_micros, from_micros, to_micros
from core.errors import DomainError
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action, tenant_of
from easel.actions.subjects import TENANT, TENANT_OR_KEY


class GrantInvalid(DomainError, code="grant_invalid"):
    """A grant expires later than it is made.

    Let the grant expire after it is made.
    """


class GrantForm(ActionForm):
    amount = fields.amount("In the tenant's currency.")
    expires = fields.Instant(
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="What is left of the grant then, in the tenant's time zone, is lost. Empty: never.",
    )
    priority = fields.whole("0 is spent first, 100 last.", required=False, min_value=0, max_value=100, initial=50)
    promotional = fields.flag("Given away, not bought.")
    reason = fields.optional_text(fields.REASON_HELP, max_length=200)
    token = fields.token()

    def prepare(self) -> None:
        from billing.profiles import zone_of

        self.fields["expires"].zone = zone_of(self.row.pk)


class AdjustForm(ActionForm):
    direction = forms.ChoiceField(choices=[("credit", "Give to the tenant"), ("debit", "Take from the tenant")])
    amount = fields.amount("In the tenant's currency.")
    reason = fields.reason()
    project = fields.OfTenant(required=False, help_text="The project whose cost it is; empty: the account's.")
    charge = forms.UUIDField(required=False, help_text="The charge that was disputed.")
    token = fields.token()

    def prepare(self) -> None:
        self.fields["project"].offer(self.row)


class WriteOffForm(ActionForm):
    reason = fields.reason()
    token = fields.token()


class CreditLimitForm(ActionForm):
    amount = fields.amount("How far credit may go below zero, to be paid later. 0: not at all.", min_value="0")
    reason = fields.optional_text("Stored in the audit log.", max_length=200)

    def prepare(self) -> None:
        from billing.ledger.accounts import balance_of

        self.fields["amount"].initial = from_micros(balance_of(self.row).limit)


class BudgetForm(ActionForm):
    project = fields.OfTenant(required=False, help_text="This project alone; empty: the whole account.")
    amount = fields.amount("A month, in the tenant's currency and time zone.", min_value="0")
    hard_stop = fields.flag("Refuse requests that would exceed the budget.")

    def prepare(self) -> None:
        if tenant_of(self.row) is self.row:
            self.fields["project"].offer(self.row)
        else:
            del self.fields["project"]


class BudgetRemovalForm(ActionForm):
    budget = forms.ChoiceField()

    def prepare(self) -> None:
        self.fields["budget"].choices = [(str(one.pk), str(one)) for one in self.row.budgets.order_by("created_at")]


class ProfileForm(ActionForm):
    legal_name = fields.optional_text("As it is on invoices.", max_length=200)
    address = fields.optional_text("Separate lines by line feeds.", max_length=1000, widget=forms.Textarea)
    email = forms.EmailField(required=False, help_text="The address that budget notices go to.")
    tax_id = fields.optional_text("The tenant's tax number.", max_length=60)
    tax_name = fields.text("As statements show it: VAT.", max_length=40)
    tax_rate = fields.number("0.19 is 19 %.", max_digits=7, decimal_places=6, min_value=0, max_value=1)
    time_zone = fields.text(
        "The zone of months and statements, for example Europe/Berlin; holds from the next month on.", max_length=60
    )

    def prepare(self) -> None:
        from billing.profiles import FIELDS, profile_of

        profile = profile_of(self.row)
        self.initial = {name: getattr(profile, name) for name in FIELDS}


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _can_spend(tenant: Any) -> str:
    from billing.ledger.accounts import balance_of

    return f"{tenant.slug} can spend {format_micros(balance_of(tenant).available, tenant.currency)}"


@action(
    "credit.grant",
    command="tenant grant",
    label="Grant credit",
    permission="billing.add_transaction",
    subject=TENANT,
    form=GrantForm,
    arguments=("amount",),
)
def grant(
    tenant: Any,
    actor: str,
    now: datetime,
    *,
    amount: Decimal,
    expires: datetime | None,
    priority: int | None,
    promotional: bool,
    reason: str,
    token: uuid.UUID,
) -> Done:
    """Add to what a tenant can spend; what it owes beyond its limit is paid first."""
    from billing.ledger.postings import credit_grant
    from billing.models import CreditGrant

    if expires is not None and expires <= now:
        raise GrantInvalid(f"{expires.isoformat()} is over: choose a later time", param="expires")
    category = CreditGrant.Category.PROMOTIONAL if promotional else CreditGrant.Category.PAID
    priority = 50 if priority is None else priority
    granted = credit_grant(
        tenant=tenant,
        amount_micros=to_micros(amount),
        reference=token,
        now=now,
        description=reason,
        category=category,
        priority=priority,
        expires_at=expires,
    )
    if not granted:
        return Done("This form was sent before: the credit was granted then, once.", needs_record=False)
    details = {"amount": _plain(amount), "currency": tenant.currency, "category": category, "priority": priority}
    details |= {"expires_at": expires and expires.isoformat(), "reason": reason}
    until = f"; what is left of it on {expires:%Y-%m-%d %H:%M %Z} is lost" if expires else ""
    return Done(f"{_can_spend(tenant)}{until}", details=details)


def _signed(given: dict[str, Any]) -> dict[str, Any]:
    """Split the command's signed amount: -5 gives back 5."""
    text = given.get("amount") or ""
    return {**given, "direction": "credit" if text.startswith("-") else "debit", "amount": text.removeprefix("-")}


@action(
    "credit.adjust",
    command="tenant adjust",
    permission="billing.add_adjustment",
    subject=TENANT,
    form=AdjustForm,
    arguments=("amount",),
    options={"direction": None},
    from_command=_signed,
)
def adjust(
    tenant: Any,
    actor: str,
    now: datetime,
    *,
    direction: str,
    amount: Decimal,
    reason: str,
    project: Any,
    charge: uuid.UUID | None,
    token: uuid.UUID,
) -> Done:
    """Move money by hand: to the tenant, or from it as far as its credit goes; the rest is owed. A command's AMOUNT is
    charged, or given back if it is below zero.
    """
    from billing.invoices.adjustments import adjustment_make, charge_get

    signed = amount if direction == "debit" else -amount
    made = adjustment_make(
        tenant=tenant,
        amount_micros=to_micros(signed),
        reason=reason,
        author=actor,
        reference=token,
        now=now,
        project=project,
        charge=charge_get(tenant=tenant, charge_id=charge) if charge else None,
    )
    if made is None:
        return Done("This form was sent before: the adjustment was made then, once.", needs_record=False)
    details = {
        "amount": _plain(signed),
        "currency": tenant.currency,
        "reason": reason,
        "project": project and project.slug,
        "charge": charge and str(charge),
    }
    moved = format_micros(abs(made.amount_micros), tenant.currency)
    message = f"{tenant.slug} was charged {moved}" if signed > 0 else f"{tenant.slug} was given {moved} back"
    return Done(message, subject=made.pk, details=details)


def _owes(tenant: Any) -> bool:
    from billing.ledger.accounts import balance_of

    return balance_of(tenant).owed > 0


@action(
    "credit.write_off",
    command="tenant write-off",
    permission="billing.add_adjustment",
    subject=TENANT,
    form=WriteOffForm,
    applies=_owes,
    is_dangerous=True,
)
def write_off(tenant: Any, actor: str, now: datetime, *, reason: str, token: uuid.UUID) -> Done:
    """Give up all that a tenant owes."""
    from billing.invoices.adjustments import write_off

    made = write_off(tenant=tenant, reason=reason, author=actor, reference=token, now=now)
    if made is None:
        return Done("This form was sent before: the debt was written off then.", needs_record=False)
    moved = format_micros(-made.amount_micros, tenant.currency)
    return Done(
        f"{moved} that {tenant.slug} owed are written off", subject=made.pk, details={"amount": moved, "reason": reason}
    )


@action(
    "credit.limit",
    command="tenant credit-limit",
    label="Set credit limit",
    permission="billing.change_ledgeraccount",
    subject=TENANT,
    form=CreditLimitForm,
    arguments=("amount",),
)
def credit_limit(tenant: Any, actor: str, now: datetime, *, amount: Decimal, reason: str) -> Done:
    """Let a tenant spend more than its credit, to be paid later."""
    from billing.ledger.accounts import credit_limit_set

    credit_limit_set(tenant=tenant, limit_micros=to_micros(amount))
    details = {"amount": _plain(amount), "currency": tenant.currency, "reason": reason}
    return Done(_can_spend(tenant), details=details)


@action(
    "budget.set",
    command="tenant budget",
    label="Set budget",
    permission="billing.change_budget",
    subject=TENANT_OR_KEY,
    form=BudgetForm,
)
def set_budget(row: Any, actor: str, now: datetime, *, amount: Decimal, hard_stop: bool, project: Any = None) -> Done:
    """Set what may be spent in a month; it holds from the next request."""
    from easel.jobs.budgets import budget_set

    tenant = tenant_of(row)
    budget = budget_set(
        tenant=tenant,
        project=project,
        api_key=None if row is tenant else row,
        amount_micros=to_micros(amount),
        hard_stop=hard_stop,
        now=now,
    )
    return Done(
        f"The budget of {budget} holds from the next request.",
        subject=budget,
        details={"amount": _plain(amount), "currency": tenant.currency, "hard_stop": hard_stop},
    )


@action(
    "budget.remove",
    command="tenant budget",
    label="Remove budget",
    permission="billing.change_budget",
    subject=TENANT,
    form=BudgetRemovalForm,
    applies=lambda tenant: tenant.budgets.exists(),
    is_dangerous=True,
)
def remove_budget(tenant: Any, actor: str, now: datetime, *, budget: str) -> Done:
    """Remove a budget: it refuses nothing and notifies nobody any more."""
    from billing.budgets.budgets import budget_remove

    removed = budget_remove(tenant=tenant, budget_id=uuid.UUID(budget))
    return Done(f"The budget of {removed} is removed.", subject=removed)


@action(
    "billing_profile.set",
    command="tenant billing",
    label="Set billing profile",
    permission="billing.change_billingprofile",
    subject=TENANT,
    form=ProfileForm,
)
def set_profile(tenant: Any, actor: str, now: datetime, **changes: Any) -> Done:
    """Set name, address and tax as statements show them, and the time zone of the tenant's months."""
    from billing.profiles import FIELDS, profile_set

    profile = profile_set(tenant=tenant, changes=changes, now=now)
    return Done(
        f"{tenant.slug} has a new billing profile.", details={name: str(getattr(profile, name)) for name in FIELDS}
    )


# In the order in which a tenant's page offers them.
ACTIONS = (grant, adjust, credit_limit, write_off, set_budget, remove_budget, set_profile)
