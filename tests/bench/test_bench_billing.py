"""Every part of the billing benchmark runs at a tiny scale and measures what it names."""

from datetime import timedelta

from easel.observability.audit import daily_costs_match_charges
from tests.bench.billing import finance, months
from tests.bench.gateway.fixtures import served_model


def test_a_month_of_copies_is_sealed_gets_its_statements_and_is_exported():
    month = months.next_month()
    owners, jobs = months.customers(2, served_model(), now=month)
    months.fill(month, jobs, copies=5)
    assert months.jobs_in(month) == len(jobs) * 6
    assert months.seal_until(months.month_after(month.date())) >= 28
    assert not list(daily_costs_match_charges(month))
    seconds = finance.query_seconds(month)
    assert len(seconds) > 20
    assert finance.statements_seconds([owner.tenant for owner in owners], month) > 0
    made = finance.export(month, form="csv")
    assert made.rows > len(jobs)
    assert made.peak_mib > 10
    assert owners[0].tenant.statements.get().period_end == months.month_after(month.date())
    assert month + timedelta(days=27) < months.month_after(month.date())
