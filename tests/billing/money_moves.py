"""What the platform's processes and people do with a tenant's money, for the machine that mixes it up."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from billing.budgets.budgets import BudgetNotFound, budget_remove, budget_set
from billing.invoices.adjustments import NothingOwed, adjustment_make, write_off
from billing.invoices.corrections import CorrectionInvalid, StatementIsFinal, correction_record
from billing.invoices.credit_notes import usage_correct
from billing.invoices.statements import StatementNotReady, statement_draft, statement_final
from billing.ledger.accounts import CreditLimitBelowDebt, credit_limit_set
from billing.ledger.budget_months import BudgetExceeded
from billing.ledger.grants import grants_expire
from billing.ledger.holds import HoldUnknown, InsufficientBalance, hold_void
from billing.ledger.postings import credit_grant
from billing.models import Budget, Entry, Meter, Rate, Transaction, UsageRecord
from billing.pricing.price_books import RateTerms
from billing.pricing.rating import Prices, Quantity
from billing.usage.metering import usage_meter
from billing.usage.settlement import settle
from tenants.models import ApiKey, Project, Tenant
from tests.conftest import take_hold

DOLLAR = 1_000_000
HOUR = timedelta(hours=1)
AMOUNTS = st.one_of(st.integers(1, 12 * DOLLAR), st.sampled_from([1, DOLLAR, 10 * DOLLAR]))
UNITS = st.integers(0, 9)
# What may be refused by right; anything else is a defect.
REFUSALS = (
    InsufficientBalance,
    BudgetExceeded,
    BudgetNotFound,  # of two removals at once, one
    CorrectionInvalid,
    CreditLimitBelowDebt,
    NothingOwed,
    StatementIsFinal,
    StatementNotReady,
)


@dataclass(frozen=True)
class Job:
    """A job that was admitted: its hold is `reference`, and its prices are those of `admitted_at`."""

    reference: uuid.UUID
    project: Project
    api_key: ApiKey
    units: int
    admitted_at: datetime


def prices_of(dollars: str) -> list[RateTerms]:
    """An image unit for so much, dearer in the month after the first ten; a request for a third of a micro-unit."""
    dear = Decimal(dollars)
    return [
        RateTerms(
            meter=Meter.IMAGE_UNIT,
            unit_price=dear,
            mode=Rate.Mode.GRADUATED,
            tiers=((Decimal(10), dear * Decimal("1.5")),),
        ),
        RateTerms(meter=Meter.REQUEST, unit_price=Decimal("0.000000333333333")),
        RateTerms(meter=Meter.GPU_SECOND, unit_price=Decimal(0)),
        RateTerms(meter=Meter.STORAGE_GB_SECOND, unit_price=Decimal("0.5")),
    ]


class Moves:
    """Each move is chosen first and made later, maybe while another one is made."""

    tenant: Tenant
    projects: list[Project]
    keys: list[ApiKey]
    jobs: list[Job]
    now: datetime

    def a_grant(self, draw):
        amount, priority = draw(AMOUNTS), draw(st.sampled_from([0, 50]))
        hours = draw(st.sampled_from([None, 1, 30]))
        ends, reference = hours and self.now + hours * HOUR, uuid.uuid4()
        terms = {"priority": priority, "expires_at": ends, "now": self.now, "reference": reference}
        return lambda: credit_grant(tenant=self.tenant, amount_micros=amount, **terms)

    def a_hold(self, draw):
        who = draw(st.integers(0, 1))
        job = Job(uuid.uuid4(), self.projects[who], self.keys[draw(st.integers(0, 1))], draw(UNITS), self.now)
        self.jobs.append(job)
        return lambda: self.admit(job)

    def admit(self, job):
        return take_hold(
            tenant=self.tenant,
            project=job.project,
            api_key=job.api_key,
            amount_micros=self.max_micros(job),
            reference=job.reference,
            now=job.admitted_at,
        )

    def max_micros(self, job):
        prices = Prices.in_force(tenant=self.tenant, now=job.admitted_at)
        quantities = [
            Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(job.units)),
            Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
        ]
        return prices.max_micros(quantities)

    def a_settlement(self, draw):
        """Of any job that ever was: posted, also for more than was held, or voided; maybe for the second time."""
        job = draw(st.sampled_from(self.jobs[-3:]) | st.sampled_from(self.jobs))
        units, now = draw(st.integers(0, job.units + 3)), self.now
        quantities = [
            Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units)),
            Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
        ]

        def post():
            return settle(
                project=job.project,
                job_id=job.reference,
                quantities=quantities,
                dimensions={"model": "m", "api_key": job.api_key.key_id},
                prices=Prices.in_force(tenant=self.tenant, now=job.admitted_at),
                now=now,
            )

        def void():
            return hold_void(tenant=self.tenant, reference=job.reference, now=now)

        verb = post if draw(st.booleans()) else void

        def done():
            try:
                return verb()
            except HoldUnknown:  # it was refused
                assert not Transaction.objects.filter(reference=job.reference).exists()

        return done

    def a_charge(self, draw):
        quantity = Quantity(meter=Meter.STORAGE_GB_SECOND, amount=Decimal(draw(UNITS)))
        project, key, now = self.projects[draw(st.integers(0, 1))], f"machine/{uuid.uuid4()}", self.now
        return lambda: usage_meter(
            project=project,
            quantity=quantity,
            dimensions={},
            source="storage",
            key=key,
            occurred_at=now,
            description="kept",
            now=now,
        )

    def a_correction(self, draw):
        """Of what was measured, up or down; on a final statement by a credit note, or refused without one."""
        terms = {"reason": "measured wrongly", "author": "operator:ann", "now": self.now}
        which, right, key = draw(st.integers(0, 9)), Decimal(draw(UNITS)), uuid.uuid4()
        noted = draw(st.sampled_from([True, True, False]))

        def done():  # chosen only now: what is chosen depends on what was chosen before, not on who was faster
            found = list(UsageRecord.objects.filter(tenant=self.tenant, corrects=None).order_by("idempotency_key"))
            if not found:
                return
            record = found[which % len(found)]
            if noted:
                made = usage_correct(record=record, key=key, quantity=right, **terms)
                assert usage_correct(record=record, key=key, quantity=right, **terms) == made
            else:
                correction_record(record=record, key=str(key), quantity=right, **terms)

        return done

    def an_adjustment(self, draw):
        amount = draw(AMOUNTS) * draw(st.sampled_from([1, -1]))
        project = draw(st.sampled_from([None, *self.projects]))
        terms = {"reason": "r", "author": "operator:ann", "reference": uuid.uuid4(), "now": self.now}
        return lambda: adjustment_make(tenant=self.tenant, amount_micros=amount, project=project, **terms)

    def a_write_off(self, draw):
        terms = {"reason": "r", "author": "operator:ann", "reference": uuid.uuid4(), "now": self.now}
        return lambda: write_off(tenant=self.tenant, **terms)

    def a_credit_limit(self, draw):
        limit = draw(st.sampled_from([0, 3 * DOLLAR, 20 * DOLLAR]))
        return lambda: credit_limit_set(tenant=self.tenant, limit_micros=limit)

    def an_expiry(self, draw):
        now = self.now
        return lambda: grants_expire(now=now)

    def a_budget(self, draw):
        of: dict[str, Any] = draw(
            st.sampled_from([{}, *({"project": one} for one in self.projects), {"api_key": self.keys[0]}])
        )
        amount, hard_stop, now = draw(AMOUNTS), draw(st.sampled_from([True, True, False])), self.now

        def unfinished():
            mine = [job for job in self.jobs if of.get("project", job.project) == job.project]
            mine = [job for job in mine if of.get("api_key", job.api_key) == job.api_key]
            return [hold.reference for hold in self.open_holds().filter(reference__in=[j.reference for j in mine])]

        return lambda: budget_set(
            tenant=self.tenant, amount_micros=amount, hard_stop=hard_stop, unfinished=unfinished, now=now, **of
        )

    def a_budgets_end(self, draw):
        found = Budget.objects.filter(tenant=self.tenant).first()
        return (lambda: budget_remove(tenant=self.tenant, budget_id=found.pk)) if found else (lambda: None)

    def a_draft(self, draw):
        now = self.now
        return lambda: statement_draft(self.tenant, now=now)

    def a_statement(self, draw):
        now = self.now
        return lambda: statement_final(statement_draft(self.tenant, now=now), now=now)

    def open_holds(self):
        holds = Transaction.objects.filter(tenant=self.tenant, kind="hold")
        settled = Transaction.objects.filter(tenant=self.tenant, kind__in=("post", "void")).values("reference")
        return holds.exclude(reference__in=settled)

    def held_for(self, jobs):
        entries = Entry.objects.filter(account__kind="held", transaction__in=self.open_holds())
        return dict(
            entries.filter(transaction__reference__in=[job.reference for job in jobs]).values_list(
                "transaction__reference", "amount_micros"
            )
        )

    MOVES = (
        a_grant,
        a_hold,
        a_hold,
        a_hold,
        a_settlement,
        a_settlement,
        a_charge,
        a_correction,
        a_correction,
        an_adjustment,
        a_write_off,
        a_credit_limit,
        an_expiry,
        a_budget,
        a_budgets_end,
        a_draft,
        a_statement,
    )
    # What counts towards budgets and is never refused, and what changes them.
    UNREFUSED = (a_charge, a_correction, an_adjustment, a_budget, a_statement)
