"""A tenant's money against its invariants: any order of what the platform and people may do, one by one or two at once.

What two do at once runs in threads with connections of their own, which start at the same moment. Run it longer with
`pytest --hypothesis-profile=large tests/billing/test_money_machine.py`.
"""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

from billing.budgets.budgets import budget_charged_micros, budget_set, budgets_of
from billing.invoices.lines import adjustments_of, charges_of, lines_of
from billing.invoices.statements import period_next, statement_draft, statement_final
from billing.ledger.accounts import balance_of, balances_by_kind, credit_limit_set
from billing.ledger.grants import grants_expire
from billing.ledger.holds import HoldUnknown, hold_post, hold_void
from billing.ledger.postings import credit_grant
from billing.models import (
    Adjustment,
    Budget,
    BudgetCrossing,
    BudgetHold,
    Charge,
    CreditGrant,
    LedgerAccount,
    Statement,
    StatementLine,
    Transaction,
)
from billing.pricing.price_books import price_book_publish
from billing.profiles import profile_set
from easel.observability.audit import charges_match_ledger, grants_match_credit, ledger_balances
from tenants.accounts import project_create, tenant_create
from tenants.keys import key_issue
from tests.billing.money_moves import DOLLAR, REFUSALS, Moves, prices_of
from tests.conftest import NOW, PEPPER
from tests.profiles import examples

HOUR = timedelta(hours=1)


def at_once(verbs: list[Callable[[], Any]]) -> list[Any]:
    """What each returned, None for what was refused; anything but `REFUSALS` is raised."""
    start = threading.Barrier(len(verbs))

    def run(verb):
        start.wait()
        try:
            return verb()
        except REFUSALS:
            return None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(verbs)) as threads:
        return list(threads.map(run, verbs))


def machine(currency) -> type[RuleBasedStateMachine]:
    """Examples follow each other in time, as nothing is rolled back and prices go on."""
    clock = [NOW]
    price_book_publish(currency=currency, rates=prices_of("1"), now=NOW)

    class MoneyMachine(Moves, RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            # Made in the month that the clock is in: its first statement has what is done now.
            self.tenant, project = tenant_create(slug=f"t-{uuid.uuid4().hex[:12]}", currency=currency, now=clock[0])
            self.projects = [project, project_create(tenant=self.tenant, slug="other", now=clock[0])]
            self.keys = [key_issue(project=one, pepper=PEPPER, now=clock[0])[0] for one in self.projects]
            self.jobs, self.final_statements = [], {}

        @property
        def now(self) -> datetime:
            return clock[0]

        @initialize(credit=st.integers(0, 30), limit=st.sampled_from([0, 20]), budget=st.sampled_from([None, 6, 25]))
        def begins(self, credit, limit, budget):
            credit_limit_set(tenant=self.tenant, limit_micros=limit * DOLLAR)
            if credit:
                amount, reference = credit * DOLLAR, uuid.uuid4()
                credit_grant(tenant=self.tenant, amount_micros=amount, reference=reference, now=clock[0])
            if budget:
                terms = {"hard_stop": True, "unfinished": list, "now": clock[0]}
                budget_set(tenant=self.tenant, amount_micros=budget * DOLLAR, **terms)

        def choose_move(self, data) -> tuple[Any, Callable[[], Any]]:
            moves = [move for move in self.MOVES if self.jobs or move is not Moves.a_settlement]
            move = data.draw(st.sampled_from(moves))
            return move, move(self, data.draw)

        @rule(data=st.data())
        def one_alone(self, data):
            """A hold that nobody races is refused just when credit or a budget has less left."""
            move, done = self.choose_move(data)
            expected = self.has_room(self.jobs[-1]) if move is Moves.a_hold else None
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
            moves = [self.choose_move(data) for _ in range(2)]
            at_once([done for _, done in moves])
            self.no_budget_is_over([move for move, _ in moves])

        @rule(data=st.data())
        def a_month_ends_and_two_make_it_final_beside_another(self, data):
            """Both get the same statement, which takes one number; other statements are not made meanwhile."""
            clock[0] = max(clock[0], period_next(self.tenant).end + 3 * HOUR)
            draft, now = statement_draft(self.tenant, now=self.now), self.now
            numbered = Statement.objects.filter(kind="statement", state="final").count()
            beside = data.draw(st.sampled_from([Moves.a_charge, Moves.a_settlement, Moves.a_correction, Moves.a_grant]))
            done = beside(self, data.draw) if self.jobs else list

            def final():
                return statement_final(draft, now=now).number

            one, other, _ = at_once([final, final, done])
            assert one == other is not None
            assert Statement.objects.filter(kind="statement", state="final").count() == numbered + 1

        @precondition(lambda self: self.jobs)
        @rule(data=st.data(), over=st.integers(1, DOLLAR))
        def a_hold_is_placed_again_and_more_than_it_is_posted(self, data, over):
            """Neither does anything, also after it was settled."""
            job = data.draw(st.sampled_from(self.jobs))
            amounts = {"image_unit": self.max_micros(job) + over}
            refused = False
            try:
                hold_post(tenant=self.tenant, amounts=amounts, reference=job.reference, now=clock[0])
            except (ValueError, HoldUnknown):
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

        def has_room(self, job):
            amount = self.max_micros(job)
            if amount > balance_of(self.tenant).available:
                return False
            return not amount or all(
                status.spent_micros + status.held_micros + amount <= status.budget.amount_micros
                for status in budgets_of(self.tenant, now=self.now)
                if status.budget.hard_stop and self.counts(status.budget, job)
            )

        def counts(self, budget, job):
            return budget.project in (None, job.project) and budget.api_key in (None, job.api_key)

        def no_budget_is_over(self, moves):
            """After a job was let in; unless something else was charged meanwhile, which is never refused."""
            asked = moves.count(Moves.a_hold)
            if not asked or any(move in self.UNREFUSED for move in moves):
                return
            holds = self.held_for(self.jobs[-asked:])
            let_in = [job for job in self.jobs[-asked:] if holds.get(job.reference)]
            for status in budgets_of(self.tenant, now=self.now):
                if status.budget.hard_stop and any(self.counts(status.budget, job) for job in let_in):
                    assert status.spent_micros + status.held_micros <= status.budget.amount_micros

        @invariant()
        def every_transaction_sums_to_zero_and_balances_are_their_entries(self):
            sums = Transaction.objects.filter(tenant=self.tenant).annotate(sum=Sum("entries__amount_micros"))
            assert not sums.exclude(sum=0).exclude(sum=None).exists()
            accounts = LedgerAccount.objects.filter(tenant=self.tenant).annotate(sum=Sum("entries__amount_micros"))
            assert not accounts.exclude(sum=F("balance_micros")).exclude(sum=None, balance_micros=0).exists()

        @invariant()
        def credit_stays_within_its_limit_and_held_is_what_open_jobs_hold(self):
            balance = balance_of(self.tenant)
            assert balance.credit >= -balance.limit
            assert balance.receivable <= 0
            assert balance.held == sum(self.held_for(self.jobs).values()) >= 0

        @invariant()
        def what_is_left_of_grants_is_credit_and_held(self):
            balance = balance_of(self.tenant)
            left = CreditGrant.objects.filter(tenant=self.tenant).aggregate(sum=Sum("remaining_micros"))["sum"] or 0
            assert left == max(0, balance.credit + balance.held)

        @invariant()
        def revenue_is_what_was_charged_and_adjustments_what_was_adjusted(self):
            balances = balances_by_kind(self.tenant)
            charged = Charge.objects.filter(transaction__tenant=self.tenant).aggregate(sum=Sum("amount_micros"))["sum"]
            adjusted = Adjustment.objects.filter(tenant=self.tenant).exclude(kind="write_off")
            assert balances["revenue"] == (charged or 0)
            assert balances["adjustments"] == (adjusted.aggregate(sum=Sum("amount_micros"))["sum"] or 0)

        @invariant()
        def budgets_count_what_was_charged_and_is_held(self):
            for budget in Budget.objects.filter(tenant=self.tenant).select_related("project", "api_key"):
                assert (budget.months.aggregate(sum=Sum("spent_micros"))["sum"] or 0) == budget_charged_micros(budget)
                own = [job for job in self.jobs if self.counts(budget, job) and job.admitted_at >= budget.counts_from]
                holds = BudgetHold.objects.filter(budget_month__budget=budget)
                assert dict(holds.values_list("reference", "amount_micros")) == self.held_for(own)
                assert (budget.months.aggregate(sum=Sum("held_micros"))["sum"] or 0) == sum(self.held_for(own).values())

        @invariant()
        def what_a_budget_has_reached_is_written_down(self):
            for status in budgets_of(self.tenant, now=self.now):
                spent, amount = status.spent_micros, status.budget.amount_micros
                reached = {percent for percent in (50, 80, 100) if spent > 0 and spent * 100 >= amount * percent}
                assert reached <= set(status.crossed)
            months = BudgetCrossing.objects.filter(budget_month__budget__tenant=self.tenant).values("budget_month")
            assert not months.annotate(count=Count("percent") - Count("percent", distinct=True)).exclude(count=0)

        @invariant()
        def numbers_have_no_gap_and_final_statements_never_change(self):
            numbers = Statement.objects.exclude(number=None).order_by("number").values_list("number", flat=True)
            assert list(numbers) == list(range(1, len(numbers) + 1))
            final = Statement.objects.filter(tenant=self.tenant, state="final")
            found = {one["id"]: [one] for one in final.values()}
            for line in StatementLine.objects.filter(statement__in=final).order_by("statement", "position").values():
                found[line["statement_id"]].append(line)
            assert found == {**found, **self.final_statements}
            self.final_statements = found

        @invariant()
        def all_that_was_charged_is_on_one_statement_or_none_yet_and_sums_to_the_ledger(self):
            statements = Statement.objects.filter(tenant=self.tenant)
            until = period_next(self.tenant).start
            sums = dict.fromkeys(statements, 0)
            waiting = 0
            charges = Charge.objects.filter(transaction__tenant=self.tenant)
            adjustments = Adjustment.objects.filter(tenant=self.tenant).exclude(kind="write_off")
            for made, of in ((charges, charges_of), (adjustments, adjustments_of)):
                amounts = dict(made.values_list("pk", "amount_micros"))
                on_statements = []
                for statement in statements:
                    own = of(statement).values_list("pk", flat=True)
                    sums[statement] += sum(amounts[one] for one in own)
                    on_statements += own
                late = made.filter(statement=None, created_at__gte=until).values_list("pk", flat=True)
                assert sorted([*on_statements, *late]) == sorted(amounts)
                waiting += sum(amounts[one] for one in late)
            balances = balances_by_kind(self.tenant)
            assert sum(sums.values()) + waiting == balances["revenue"] + balances["adjustments"]
            for statement, amount in sums.items():
                lines = lines_of(statement) if statement.state == "draft" else statement.lines.all()
                assert sum(line.amount_micros for line in lines) == amount
            final = [one for one in statements if one.state == "final"]
            assert all(one.subtotal_micros == sums[one] for one in final)
            assert sum(one.tax_micros for one in final) == balances["tax"]

        def teardown(self):
            """All jobs end, all credit runs out, and the audit finds nothing of this tenant."""
            for hold in self.open_holds():
                hold_void(tenant=self.tenant, reference=hold.reference, now=self.now)
            clock[0] += 31 * HOUR
            grants_expire(now=self.now)
            for check in (ledger_balances, charges_match_ledger, grants_match_credit):
                own = {str(one) for one in Transaction.objects.filter(tenant=self.tenant).values_list("id", flat=True)}
                own |= {str(self.tenant.pk), *(str(job.reference) for job in self.jobs)}
                assert not [line for line in check(self.now) if any(name in line for name in own)]
            lasting = CreditGrant.objects.filter(tenant=self.tenant).filter(Q(expires_at__lte=self.now))
            credit = balance_of(self.tenant).credit
            assert not lasting.filter(remaining_micros__gt=0).exists() or credit <= 0

    return MoneyMachine


def test_money_keeps_its_invariants_whatever_is_done_in_whatever_order(currency):
    run_state_machine_as_test(
        machine(currency),
        settings=settings(
            max_examples=examples(1 / 5), stateful_step_count=25, suppress_health_check=list(HealthCheck)
        ),
    )
