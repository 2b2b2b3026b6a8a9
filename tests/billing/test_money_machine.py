"""A tenant's money against its invariants: any order of what the platform and people may do, one by one or two at once.

What two do at once runs in threads with connections of their own, let go together. Run it longer with
`EASEL_MONEY_EXAMPLES=500 pytest tests/billing/test_money_machine.py`.
"""

import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connections
from django.db.models import Count, F, Q, Sum
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import ledger
from billing.adjustments import NothingOwed, adjustment_make, write_off
from billing.budget_months import BudgetExceeded
from billing.budgets import BudgetNotFound, budget_remove, budget_set, budgets_of, charged_micros
from billing.corrections import CorrectionInvalid, StatementIsFinal, usage_correct
from billing.expiry import grants_expire
from billing.ledger import CreditLimitBelowDebt, InsufficientBalance
from billing.metering import usage_meter
from billing.models import (
    Account,
    Adjustment,
    Budget,
    BudgetCrossing,
    BudgetHold,
    Charge,
    CreditGrant,
    Entry,
    Meter,
    Rate,
    Statement,
    Transaction,
    UsageRecord,
)
from billing.price_books import RateTerms, price_book_publish
from billing.profiles import profile_set
from billing.rating import Prices, Quantity
from billing.settlement import settle
from billing.statement_lines import adjustments_of, charges_of
from billing.statements import StatementNotReady, statement_draft, statement_final
from easel.ops.audit import charges_match_ledger, grants_match_credit, ledger_balances
from tenants.accounts import project_create
from tenants.keys import key_issue
from tenants.models import ApiKey, Project
from tests.conftest import NOW, PEPPER

EXAMPLES = int(os.environ.get("EASEL_MONEY_EXAMPLES", "5"))
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
    """A job that was admitted: its hold is `reference`, and its prices are those of `at`."""

    reference: uuid.UUID
    project: Project
    api_key: ApiKey
    units: int
    at: datetime


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


def machine(customer, currency) -> type[RuleBasedStateMachine]:
    """Examples follow each other in time, as nothing is rolled back and prices go on."""
    clock = [NOW]
    price_book_publish(currency=currency, rates=prices_of("1"), now=NOW)

    class MoneyMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            made = customer(credit="0", currency=currency)
            other = project_create(tenant=made.tenant, slug="other", now=NOW)
            key, _ = key_issue(project=other, pepper=PEPPER, now=NOW)
            self.tenant, self.projects, self.keys = made.tenant, [made.project, other], [made.key, key]
            self.jobs: list[Job] = []

        @initialize(credit=st.integers(0, 30), limit=st.sampled_from([0, 20]), budget=st.sampled_from([None, 6, 25]))
        def begins(self, credit, limit, budget):
            ledger.credit_limit_set(tenant=self.tenant, limit_micros=limit * DOLLAR)
            if credit:
                amount, reference = credit * DOLLAR, uuid.uuid4()
                ledger.grant(tenant=self.tenant, amount_micros=amount, reference=reference, at=clock[0])
            if budget:
                terms = {"hard_stop": True, "unfinished": list, "now": clock[0]}
                budget_set(tenant=self.tenant, amount_micros=budget * DOLLAR, **terms)

        # What a process of the platform or a person does: each is drawn first and done later, maybe beside another.

        def a_grant(self, draw):
            amount, priority = draw(AMOUNTS), draw(st.sampled_from([0, 50]))
            hours = draw(st.sampled_from([None, 1, 30]))
            ends, reference = hours and clock[0] + hours * HOUR, uuid.uuid4()
            terms = {"priority": priority, "expires_at": ends, "at": clock[0], "reference": reference}
            return lambda: ledger.grant(tenant=self.tenant, amount_micros=amount, **terms)

        def a_hold(self, draw):
            who = draw(st.integers(0, 1))
            job = Job(uuid.uuid4(), self.projects[who], self.keys[draw(st.integers(0, 1))], draw(UNITS), clock[0])
            self.jobs.append(job)
            return lambda: self.admit(job)

        def admit(self, job):
            return ledger.hold(
                tenant=self.tenant,
                project=job.project,
                api_key=job.api_key,
                amount_micros=self.most(job),
                reference=job.reference,
                at=job.at,
            )

        def most(self, job):
            prices = Prices.at(tenant=self.tenant, at=job.at)
            quantities = [
                Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(job.units)),
                Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
            ]
            return prices.most_micros(quantities)

        def a_settlement(self, draw):
            """Of any job that ever was: posted, also for more than was held, or voided; maybe for the second time."""
            job = draw(st.sampled_from(self.jobs[-3:]) | st.sampled_from(self.jobs))
            units, at = draw(st.integers(0, job.units + 3)), clock[0]
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
                    prices=Prices.at(tenant=self.tenant, at=job.at),
                    at=at,
                )

            def void():
                return ledger.void(tenant=self.tenant, reference=job.reference, at=at)

            verb = post if draw(st.booleans()) else void

            def done():
                try:
                    return verb()
                except ledger.HoldUnknown:  # it was refused
                    assert not Transaction.objects.filter(reference=job.reference).exists()

            return done

        def a_charge(self, draw):
            quantity = Quantity(meter=Meter.STORAGE_GB_SECOND, amount=Decimal(draw(UNITS)))
            project, key, at = self.projects[draw(st.integers(0, 1))], f"machine/{uuid.uuid4()}", clock[0]
            return lambda: usage_meter(
                project=project,
                quantity=quantity,
                dimensions={},
                source="storage",
                key=key,
                occurred_at=at,
                description="kept",
                at=at,
            )

        def a_correction(self, draw):
            """Of what a charge was for, up or down; of what is on a final statement it is refused."""
            terms = {"reason": "measured wrongly", "author": "operator:ann", "now": clock[0]}
            which, right = draw(st.integers(0, 9)), Decimal(draw(UNITS))

            def done():  # chosen only now: what is drawn follows from what was drawn before, not from who was faster
                found = list(UsageRecord.objects.filter(tenant=self.tenant, corrects=None).order_by("idempotency_key"))
                if found:
                    record = found[which % len(found)]
                    usage_correct(record=record, key=str(uuid.uuid4()), quantity=right, **terms)

            return done

        def an_adjustment(self, draw):
            amount = draw(AMOUNTS) * draw(st.sampled_from([1, -1]))
            project = draw(st.sampled_from([None, *self.projects]))
            terms = {"reason": "r", "author": "operator:ann", "reference": uuid.uuid4(), "now": clock[0]}
            return lambda: adjustment_make(tenant=self.tenant, amount_micros=amount, project=project, **terms)

        def a_write_off(self, draw):
            terms = {"reason": "r", "author": "operator:ann", "reference": uuid.uuid4(), "now": clock[0]}
            return lambda: write_off(tenant=self.tenant, **terms)

        def a_credit_limit(self, draw):
            limit = draw(st.sampled_from([0, 3 * DOLLAR, 20 * DOLLAR]))
            return lambda: ledger.credit_limit_set(tenant=self.tenant, limit_micros=limit)

        def an_expiry(self, draw):
            at = clock[0]
            return lambda: grants_expire(now=at)

        def a_budget(self, draw):
            of: dict[str, Any] = draw(
                st.sampled_from([{}, *({"project": one} for one in self.projects), {"api_key": self.keys[0]}])
            )
            amount, hard_stop, at = draw(AMOUNTS), draw(st.sampled_from([True, True, False])), clock[0]

            def unfinished():
                mine = [job for job in self.jobs if of.get("project", job.project) == job.project]
                mine = [job for job in mine if of.get("api_key", job.api_key) == job.api_key]
                return [hold.reference for hold in self.open_holds().filter(reference__in=[j.reference for j in mine])]

            return lambda: budget_set(
                tenant=self.tenant, amount_micros=amount, hard_stop=hard_stop, unfinished=unfinished, now=at, **of
            )

        def a_budgets_end(self, draw):
            found = Budget.objects.filter(tenant=self.tenant).first()
            return (lambda: budget_remove(tenant=self.tenant, budget_id=found.pk)) if found else (lambda: None)

        def a_statement(self, draw):
            at = clock[0]
            return lambda: statement_final(statement_draft(self.tenant, now=at), now=at)

        MOVES = (
            a_grant,
            a_hold,
            a_hold,
            a_hold,
            a_settlement,
            a_settlement,
            a_charge,
            a_correction,
            an_adjustment,
            a_write_off,
            a_credit_limit,
            an_expiry,
            a_budget,
            a_budgets_end,
            a_statement,
        )
        # What counts towards budgets and is never refused, and what changes them.
        UNREFUSED = (a_charge, a_correction, an_adjustment, a_budget, a_statement)

        def drawn(self, data) -> tuple[Any, Callable[[], Any]]:
            moves = [move for move in self.MOVES if self.jobs or move is not MoneyMachine.a_settlement]
            move = data.draw(st.sampled_from(moves))
            return move, move(self, data.draw)

        @rule(data=st.data())
        def one_alone(self, data):
            """A hold that nobody races is refused just when credit or a budget has less left."""
            move, done = self.drawn(data)
            expected = self.has_room(self.jobs[-1]) if move is MoneyMachine.a_hold else None
            refused = False
            try:
                done()
            except REFUSALS:
                refused = True
            if expected is not None:
                assert refused is not expected
            self.no_budget_is_over([move])

        @rule(data=st.data())
        def two_at_once(self, data):
            moves = [self.drawn(data) for _ in range(2)]
            start = threading.Barrier(2)

            def run(done):
                start.wait()
                try:
                    done()
                except REFUSALS:
                    pass
                finally:
                    connections.close_all()

            with ThreadPoolExecutor(2) as threads:
                list(threads.map(run, [done for _, done in moves]))
            self.no_budget_is_over([move for move, _ in moves])

        @precondition(lambda self: self.jobs)
        @rule(data=st.data(), over=st.integers(1, DOLLAR))
        def a_hold_is_placed_again_and_more_than_it_is_posted(self, data, over):
            """Neither does anything, also after it was settled."""
            job = data.draw(st.sampled_from(self.jobs))
            amounts = {"image_unit": self.most(job) + over}
            refused = False
            try:
                ledger.post(tenant=self.tenant, amounts=amounts, reference=job.reference, at=clock[0])
            except (ValueError, ledger.HoldUnknown):
                refused = True
            assert refused
            if Transaction.objects.filter(reference=job.reference).exists():
                assert self.admit(job) is False

        @rule(
            hours=st.sampled_from([0, 1, 20, 24 * 9]),
            dollars=st.sampled_from([None, None, "0.3", "0.7000005", "2"]),
            zone=st.sampled_from([None, None, "UTC", "Asia/Tokyo", "America/New_York"]),
        )
        def time_passes_and_prices_and_zones_change(self, hours, dollars, zone):
            clock[0] += hours * HOUR
            if dollars:
                clock[0] += timedelta(seconds=1)
                price_book_publish(currency=currency, rates=prices_of(dollars), now=clock[0])
            # A budget's month is of the zone of its time: counted anew by another zone it would be another.
            if zone and not Budget.objects.filter(tenant=self.tenant).exists():
                changes = {"tax_rate": Decimal("0.19"), "time_zone": zone}
                profile_set(tenant=self.tenant, changes=changes, now=clock[0])

        # What has to hold.

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

        def has_room(self, job):
            amount = self.most(job)
            if amount > ledger.standing_of(self.tenant).available:
                return False
            return not amount or all(
                standing.spent_micros + standing.held_micros + amount <= standing.budget.amount_micros
                for standing in budgets_of(self.tenant, at=clock[0])
                if standing.budget.hard_stop and self.counts(standing.budget, job)
            )

        def counts(self, budget, job):
            return budget.project in (None, job.project) and budget.api_key in (None, job.api_key)

        def no_budget_is_over(self, moves):
            """After a job was let in; unless something else was charged meanwhile, which is never refused."""
            asked = moves.count(MoneyMachine.a_hold)
            if not asked or any(move in self.UNREFUSED for move in moves):
                return
            holds = self.held_for(self.jobs[-asked:])
            let_in = [job for job in self.jobs[-asked:] if holds.get(job.reference)]
            for standing in budgets_of(self.tenant, at=clock[0]):
                if standing.budget.hard_stop and any(self.counts(standing.budget, job) for job in let_in):
                    assert standing.spent_micros + standing.held_micros <= standing.budget.amount_micros

        @invariant()
        def every_transaction_sums_to_zero_and_balances_are_their_entries(self):
            sums = Transaction.objects.filter(tenant=self.tenant).annotate(sum=Sum("entries__amount_micros"))
            assert not sums.exclude(sum=0).exclude(sum=None).exists()
            accounts = Account.objects.filter(tenant=self.tenant).annotate(sum=Sum("entries__amount_micros"))
            assert not accounts.exclude(sum=F("balance_micros")).exclude(sum=None, balance_micros=0).exists()

        @invariant()
        def credit_stays_within_its_limit_and_held_is_what_open_jobs_hold(self):
            standing = ledger.standing_of(self.tenant)
            assert standing.credit >= -standing.limit
            assert standing.receivable <= 0
            assert standing.held == sum(self.held_for(self.jobs).values()) >= 0

        @invariant()
        def what_is_left_of_grants_is_credit_and_held(self):
            standing = ledger.standing_of(self.tenant)
            left = CreditGrant.objects.filter(tenant=self.tenant).aggregate(sum=Sum("remaining_micros"))["sum"] or 0
            assert left == max(0, standing.credit + standing.held)

        @invariant()
        def revenue_is_what_was_charged_and_adjustments_what_was_adjusted(self):
            balances = ledger.balances(self.tenant)
            charged = Charge.objects.filter(transaction__tenant=self.tenant).aggregate(sum=Sum("amount_micros"))["sum"]
            adjusted = Adjustment.objects.filter(tenant=self.tenant).exclude(kind="write_off")
            assert balances["revenue"] == (charged or 0)
            assert balances["adjustments"] == (adjusted.aggregate(sum=Sum("amount_micros"))["sum"] or 0)

        @invariant()
        def budgets_count_what_was_charged_and_is_held(self):
            for budget in Budget.objects.filter(tenant=self.tenant).select_related("project", "api_key"):
                assert (budget.months.aggregate(sum=Sum("spent_micros"))["sum"] or 0) == charged_micros(budget)
                own = [job for job in self.jobs if self.counts(budget, job) and job.at >= budget.counts_from]
                holds = BudgetHold.objects.filter(budget_month__budget=budget)
                assert dict(holds.values_list("reference", "amount_micros")) == self.held_for(own)
                assert (budget.months.aggregate(sum=Sum("held_micros"))["sum"] or 0) == sum(self.held_for(own).values())

        @invariant()
        def what_a_budget_has_reached_is_written_down(self):
            for standing in budgets_of(self.tenant, at=clock[0]):
                spent, amount = standing.spent_micros, standing.budget.amount_micros
                reached = {percent for percent in (50, 80, 100) if spent > 0 and spent * 100 >= amount * percent}
                assert reached <= set(standing.crossed)
            months = BudgetCrossing.objects.filter(budget_month__budget__tenant=self.tenant).values("budget_month")
            assert not months.annotate(count=Count("percent") - Count("percent", distinct=True)).exclude(count=0)

        @invariant()
        def final_statements_say_what_was_charged(self):
            for statement in Statement.objects.filter(tenant=self.tenant, state="final"):
                charges = charges_of(statement).aggregate(sum=Sum("amount_micros"))["sum"] or 0
                adjustments = adjustments_of(statement).aggregate(sum=Sum("amount_micros"))["sum"] or 0
                assert statement.subtotal_micros == charges + adjustments

        def teardown(self):
            """All jobs end, all credit runs out, and the audit finds nothing of this tenant."""
            for hold in self.open_holds():
                ledger.void(tenant=self.tenant, reference=hold.reference, at=clock[0])
            clock[0] += 31 * HOUR
            grants_expire(now=clock[0])
            for check in (ledger_balances, charges_match_ledger, grants_match_credit):
                own = {str(one) for one in Transaction.objects.filter(tenant=self.tenant).values_list("id", flat=True)}
                own |= {str(self.tenant.pk), *(str(job.reference) for job in self.jobs)}
                assert not [line for line in check(clock[0]) if any(name in line for name in own)]
            lasting = CreditGrant.objects.filter(tenant=self.tenant).filter(Q(expires_at__lte=clock[0]))
            credit = ledger.standing_of(self.tenant).credit
            assert not lasting.filter(remaining_micros__gt=0).exists() or credit <= 0

    return MoneyMachine


def test_money_keeps_its_invariants_whatever_is_done_in_whatever_order(customer, currency):
    run_state_machine_as_test(
        machine(customer, currency),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
