"""What a tenant may spend and how it is billed: what finance does about it, and what its page shows of it."""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import forms

from billing.budgets.budgets import budget_remove, budgets_of
from billing.invoices.adjustments import adjustment_make, write_off
from billing.ledger.accounts import balance_of, credit_limit_set
from billing.ledger.postings import credit_grant
from billing.models import Adjustment, BillingProfile, CreditGrant
from billing.money import AMOUNT_MICROS_MAX, format_micros, from_micros, to_micros
from billing.profiles import FIELDS, profile_of, profile_set, zone_of
from easel.jobs.budgets import budget_set
from easel.portal import cells
from easel.portal.pages import Act, ActForm, Done, Operator, Section
from tenants.models import ApiKey, Project, Tenant

SHOWN = 20
REASON_HELP = "Kept with the transaction and in the audit log: an invoice's number, for example."
_MOST = int(from_micros(AMOUNT_MICROS_MAX))


def _amount(*, least: str = "0.000001", **options: Any) -> forms.DecimalField:
    return forms.DecimalField(max_digits=16, decimal_places=6, min_value=Decimal(least), max_value=_MOST - 1, **options)


class OnceForm(ActForm):
    """Its token is made with the form: sending it twice moves money once."""

    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class GrantForm(OnceForm):
    amount = _amount(help_text="In the tenant's currency.")
    reason = forms.CharField(max_length=200, help_text=REASON_HELP)
    promotional = forms.BooleanField(required=False, help_text="Given away, not bought.")
    priority = forms.IntegerField(
        required=False, min_value=0, max_value=100, initial=50, help_text="0 is spent first, 100 last; empty: 50."
    )
    expires = forms.DateField(
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="What is left of it as this day begins, in the tenant's time zone, is lost. Empty: never.",
    )

    def clean_expires(self) -> datetime | None:
        day = self.cleaned_data["expires"]
        if day is None:
            return None
        ends = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone_of(self.row.pk)))
        if ends <= datetime.now(UTC):
            raise forms.ValidationError("Later than today.")
        return ends


class AdjustForm(OnceForm):
    direction = forms.ChoiceField(choices=[("credit", "Give to the tenant"), ("debit", "Take from the tenant")])
    amount = _amount(help_text="In the tenant's currency.")
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(), required=False, help_text="Whose cost it is; empty: the account's."
    )
    reason = forms.CharField(max_length=200, help_text=REASON_HELP)

    def prepare(self) -> None:
        _offer_projects(self)


class WriteOffForm(OnceForm):
    reason = forms.CharField(max_length=200, help_text=REASON_HELP)


class CreditLimitForm(ActForm):
    amount = _amount(least="0", help_text="How far credit may go below zero, to be paid later. 0: nothing.")
    reason = forms.CharField(max_length=200, help_text="Kept in the audit log.")

    def prepare(self) -> None:
        self.fields["amount"].initial = from_micros(balance_of(self.row).limit)


class BudgetForm(ActForm):
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(), required=False, help_text="Empty: the whole account."
    )
    amount = _amount(least="0", help_text="A month, in the tenant's currency and time zone.")
    hard_stop = forms.BooleanField(required=False, help_text="Refuse what would go over it.")

    def prepare(self) -> None:
        if isinstance(self.row, ApiKey):
            del self.fields["project"]
        else:
            _offer_projects(self)


class BudgetEndForm(ActForm):
    budget = forms.ChoiceField()

    def prepare(self) -> None:
        chosen: Any = self.fields["budget"]
        chosen.choices = [(str(budget.pk), str(budget)) for budget in self.row.budgets.order_by("created_at")]


class ProfileForm(ActForm):
    legal_name = forms.CharField(max_length=200, required=False)
    address = forms.CharField(max_length=1000, required=False, widget=forms.Textarea)
    email = forms.EmailField(required=False, help_text="Where budget notices go.")
    tax_id = forms.CharField(max_length=60, required=False)
    tax_name = forms.CharField(max_length=40, help_text="As statements show it: VAT.")
    tax_rate = forms.DecimalField(max_digits=7, decimal_places=6, min_value=0, max_value=1, help_text="0.19 is 19 %.")
    time_zone = forms.CharField(
        max_length=60, help_text="Of months and statements, as Europe/Berlin; a change holds from the next month on."
    )

    def prepare(self) -> None:
        profile = profile_of(self.row)
        for name in FIELDS:
            self.fields[name].initial = getattr(profile, name)


def _offer_projects(form: ActForm) -> None:
    chosen: Any = form.fields["project"]
    chosen.queryset = form.row.projects.order_by("slug")
    chosen.label_from_instance = lambda project: project.slug


def _grant(
    tenant: Tenant,
    operator: Operator,
    *,
    amount: Decimal,
    reason: str,
    promotional: bool,
    priority: int | None,
    expires: datetime | None,
    token: uuid.UUID,
) -> Done:
    granted = credit_grant(
        tenant=tenant,
        amount_micros=to_micros(amount),
        reference=token,
        now=operator.now,
        description=reason,
        category=CreditGrant.Category.PROMOTIONAL if promotional else CreditGrant.Category.PAID,
        priority=50 if priority is None else priority,
        expires_at=expires,
    )
    if not granted:
        return Done("This form was sent before: the credit was granted then, once.")
    details = {"amount": str(amount), "reason": reason}
    if expires is not None:
        details["expires_at"] = expires.isoformat()
    operator.record("credit.grant", tenant.slug, tenant=tenant, details=details)
    return Done(f"{format_micros(to_micros(amount), tenant.currency)} granted to {tenant.slug}.")


def _adjust(
    tenant: Tenant,
    operator: Operator,
    *,
    direction: str,
    amount: Decimal,
    project: Project | None,
    reason: str,
    token: uuid.UUID,
) -> Done:
    micros = to_micros(amount) if direction == "debit" else -to_micros(amount)
    made = adjustment_make(
        tenant=tenant,
        amount_micros=micros,
        reason=reason,
        author=operator.actor,
        reference=token,
        now=operator.now,
        project=project,
    )
    if made is None:
        return Done("This form was sent before: the adjustment was made then, once.")
    details = {"amount": str(from_micros(micros)), "currency": tenant.currency, "reason": reason}
    operator.record("credit.adjust", str(made.pk), tenant=tenant, details=details)
    moved = format_micros(abs(micros), tenant.currency)
    return Done(f"{tenant.slug} was {'charged' if micros > 0 else 'given'} {moved}.")


def _write_off(tenant: Tenant, operator: Operator, *, reason: str, token: uuid.UUID) -> Done:
    made = write_off(tenant=tenant, reason=reason, author=operator.actor, reference=token, now=operator.now)
    if made is None:
        return Done("This form was sent before: the debt was written off then.")
    moved = format_micros(-made.amount_micros, tenant.currency)
    operator.record("credit.write_off", str(made.pk), tenant=tenant, details={"amount": moved, "reason": reason})
    return Done(f"{moved} that {tenant.slug} owed are written off.")


def _set_credit_limit(tenant: Tenant, operator: Operator, *, amount: Decimal, reason: str) -> Done:
    credit_limit_set(tenant=tenant, limit_micros=to_micros(amount))
    details = {"amount": str(amount), "currency": tenant.currency, "reason": reason}
    operator.record("credit.limit", tenant.slug, tenant=tenant, details=details)
    return Done(f"{tenant.slug} can spend {format_micros(balance_of(tenant).available, tenant.currency)}.")


def _set_budget(
    row: Tenant | ApiKey, operator: Operator, *, amount: Decimal, hard_stop: bool, project: Project | None = None
) -> Done:
    tenant, key = (row, None) if isinstance(row, Tenant) else (row.tenant, row)
    budget = budget_set(
        tenant=tenant,
        project=project,
        api_key=key,
        amount_micros=to_micros(amount),
        hard_stop=hard_stop,
        now=operator.now,
    )
    details = {"amount": str(amount), "currency": tenant.currency, "hard_stop": hard_stop}
    operator.record("budget.set", str(budget), tenant=tenant, details=details)
    return Done(f"The budget of {budget} holds from the next request.")


def _remove_budget(tenant: Tenant, operator: Operator, *, budget: str) -> Done:
    gone = budget_remove(tenant=tenant, budget_id=uuid.UUID(budget))
    operator.record("budget.remove", str(gone), tenant=tenant)
    return Done(f"The budget of {gone} is removed.")


def _set_profile(tenant: Tenant, operator: Operator, **fields: Any) -> Done:
    profile_set(tenant=tenant, changes=fields, now=operator.now)
    details = {name: str(value) for name, value in fields.items()}
    operator.record("billing_profile.set", tenant.slug, tenant=tenant, details=details)
    return Done(f"{tenant.slug} is billed so from now on.")


SET_BUDGET = Act(
    name="budget",
    label="Set budget",
    permission="billing.change_budget",
    perform=_set_budget,
    form=BudgetForm,
    explain="What it means to spend in a month; it holds from the next request.",
)
CREDIT_ACTS = (
    Act(
        name="grant",
        label="Grant credit",
        permission="billing.add_transaction",
        perform=_grant,
        form=GrantForm,
        explain="Adds to what the tenant can spend; what it owes is paid first.",
    ),
    Act(
        name="adjust",
        label="Adjust",
        permission="billing.add_adjustment",
        perform=_adjust,
        form=AdjustForm,
        explain="Moves money by hand: to the tenant, or from it as far as its credit goes; the rest is owed.",
    ),
    Act(
        name="credit-limit",
        label="Set credit limit",
        permission="billing.change_account",
        perform=_set_credit_limit,
        form=CreditLimitForm,
        explain="Lets the tenant spend more than its credit, to be paid later.",
    ),
    Act(
        name="write-off",
        label="Write off",
        permission="billing.add_adjustment",
        perform=_write_off,
        form=WriteOffForm,
        applies=lambda tenant: balance_of(tenant).owed > 0,
        explain="Gives up all that the tenant owes.",
        danger=True,
    ),
    SET_BUDGET,
    Act(
        name="remove-budget",
        label="Remove budget",
        permission="billing.change_budget",
        perform=_remove_budget,
        form=BudgetEndForm,
        applies=lambda tenant: tenant.budgets.exists(),
        explain="Nothing is refused or told by it any more.",
        danger=True,
    ),
    Act(
        name="billing",
        label="Set billing profile",
        permission="billing.change_billingprofile",
        perform=_set_profile,
        form=ProfileForm,
        explain="Name, address and tax as statements show them, and the zone of the tenant's months.",
    ),
)


def credit_sections(tenant: Tenant) -> Iterable[Section]:
    """What a tenant has, owes and means to spend, and how it is billed."""
    balance, profile = balance_of(tenant), profile_of(tenant)
    yield Section(
        "Credit",
        ("Available", "Credit", "Held", "Owed", "Credit limit"),
        [
            tuple(
                cells.money(micros, tenant.currency)
                for micros in (balance.available, balance.credit, balance.held, balance.owed, balance.limit)
            )
        ],
        "",
    )
    yield Section(
        f"Credit grants, as they are spent (up to {SHOWN})",
        ("Of", "Left", "Priority", "Category", "Expires", "Since"),
        [
            (
                cells.money(grant.amount_micros, grant.currency),
                cells.money(grant.remaining_micros, grant.currency),
                cells.number(grant.priority),
                grant.get_category_display(),
                cells.when(grant.expires_at),
                cells.when(grant.created_at),
            )
            for grant in CreditGrant.to_spend(tenant)[:SHOWN]
        ],
        "No credit is left: grant some, or set a credit limit.",
    )
    yield Section(
        "Budgets of this month",
        ("Of", "Amount", "Spent", "Held", "Left", "Hard stop", "Begins anew"),
        [
            (
                str(one.budget),
                *(
                    cells.money(micros, one.budget.currency)
                    for micros in (one.budget.amount_micros, one.spent_micros, one.held_micros, one.left_micros)
                ),
                "yes" if one.budget.hard_stop else "no",
                cells.when(one.resets_at),
            )
            for one in budgets_of(tenant, now=datetime.now(UTC))
        ],
        "No budget: set one, to be told in time or to stop in time.",
    )
    yield Section(
        f"Latest adjustments (up to {SHOWN})",
        ("At", "Kind", "Amount", "Reason", "Author", "Transaction"),
        [
            (
                cells.when(one.created_at),
                one.get_kind_display(),
                cells.money(one.amount_micros, one.currency),
                one.reason,
                one.author,
                cells.link(one.transaction),
            )
            for one in Adjustment.objects.filter(tenant=tenant)
            .select_related("transaction")
            .order_by("-created_at")[:SHOWN]
        ],
        "Nobody has moved money by hand.",
    )
    yield Section("Billing profile", ("", ""), _profile_rows(profile), "")


def _profile_rows(profile: BillingProfile) -> list[tuple[str, str]]:
    values = ((name.replace("_", " ").capitalize(), str(getattr(profile, name))) for name in FIELDS)
    return [(label, value or cells.NOTHING) for label, value in values]
