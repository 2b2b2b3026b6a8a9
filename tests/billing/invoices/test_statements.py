import csv
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing.invoices.documents import statement_csv, statement_html, statement_pdf
from billing.invoices.lines import charges_of_line
from billing.invoices.statements import (
    REVIEW,
    StatementNotReady,
    period_next,
    statement_draft,
    statement_final,
    statement_now,
    statements_make,
)
from billing.ledger.accounts import balances_by_kind
from billing.models import Adjustment, BillingProfile, Contract, Meter, Statement, StatementLine, StoredObject
from billing.pricing.price_books import RateTerms, price_book_seed
from billing.pricing.rating import Prices, Quantity
from billing.profiles import month_begin, month_end
from billing.usage.settlement import settle
from billing.usage.storage import objects_stored
from tenants.accounts import project_create
from tests.conftest import NOW, take_hold

APRIL = datetime(2026, 4, 1, tzinfo=UTC)  # tenants of the tests are made on the first of March
HOUR = timedelta(hours=1)
DOLLAR = 1_000_000


@pytest.fixture(autouse=True)
def priced(prices):
    """All of it at the prices of the tests."""


def use(customer, *, now=NOW, units="10", project=None, model="z-image"):
    """Draws `units` image units, each for 0.002 USD."""
    job_id, project = uuid.uuid4(), project or customer.project
    quantities = [Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units))]
    prices = Prices.in_force(tenant=customer.tenant, now=now)
    amount = prices.max_micros(quantities)
    take_hold(tenant=customer.tenant, amount_micros=amount, reference=job_id, now=now)
    return settle(
        project=project, job_id=job_id, quantities=quantities, dimensions={"model": model}, prices=prices, now=now
    )


def finalised(customer, *, now=APRIL + 3 * HOUR):
    return statement_final(statement_draft(customer.tenant, now=now), now=now)


def shown(statement):
    return [(line.project.slug, line.meter, line.model, line.amount_micros) for line in statement.lines.all()]


def test_a_statement_sums_the_charges_of_its_month_by_project_meter_and_model(alice):
    other = project_create(tenant=alice.tenant, slug="zoo", labels={"department": "design"}, now=NOW)
    for _ in range(2):
        use(alice)
    use(alice, model="another")
    use(alice, project=other)
    statement = finalised(alice)
    assert shown(statement) == [
        ("default", "image_unit", "another", 20_000),
        ("default", "image_unit", "z-image", 40_000),
        ("zoo", "image_unit", "z-image", 20_000),
    ]
    assert (statement.subtotal_micros, statement.total_micros) == (80_000, 80_000)


def test_an_instant_belongs_to_one_month_alone(alice):
    use(alice, now=APRIL - timedelta(microseconds=1), model="march")
    use(alice, now=APRIL, model="april")
    assert [line.model for line in finalised(alice).lines.all()] == ["march"]
    assert [line.model for line in statement_now(alice.tenant, now=APRIL + HOUR)[1]] == ["april"]


def test_a_line_leads_to_its_charges(alice):
    use(alice)
    use(alice, model="another")
    lines = finalised(alice).lines.order_by("model")
    assert [[charge.amount_micros for charge in charges_of_line(line)] for line in lines] == [[20_000], [20_000]]


def test_a_month_has_no_statement_before_it_is_over_and_settled(alice):
    with pytest.raises(StatementNotReady, match="ends at 2026-04-01T00:00:00"):
        statement_draft(alice.tenant, now=APRIL + timedelta(minutes=119))


def test_a_statement_waits_for_the_storage_of_its_last_day(alice):
    sizes = {f"{alice.tenant.slug}/stored": 1}
    objects_stored(project=alice.project, kind=StoredObject.Kind.OUTPUT, sizes=sizes, now=APRIL - HOUR)
    draft = statement_draft(alice.tenant, now=APRIL + 3 * HOUR)
    with pytest.raises(StatementNotReady, match="storage of 2026-03-31"):
        statement_final(draft, now=APRIL + 3 * HOUR)


def test_the_current_month_is_shown_and_not_stored(alice):
    use(alice)
    statement, lines = statement_now(alice.tenant, now=NOW)
    assert (statement.total_micros, [line.charges for line in lines]) == (20_000, [1])
    assert not Statement.objects.filter(tenant=alice.tenant).exists()


def test_a_draft_is_computed_again(alice):
    draft = statement_draft(alice.tenant, now=APRIL + 2 * HOUR)
    use(alice, now=APRIL - HOUR)  # it committed late
    again = statement_draft(alice.tenant, now=APRIL + 3 * HOUR)
    assert (again.pk, again.total_micros) == (draft.pk, 20_000)


def test_a_final_statement_stays_as_it_is(alice):
    use(alice)
    statement = finalised(alice)
    again = statement_final(statement, now=APRIL + 30 * HOUR)
    assert (again.number, again.finalised_at) == (statement.number, statement.finalised_at)
    with pytest.raises(DatabaseError, match="is final"):
        Statement.objects.filter(pk=statement.pk).update(total_micros=0, subtotal_micros=0)
    with pytest.raises(DatabaseError, match="final statement don't change"):
        StatementLine.objects.filter(statement=statement).delete()


def test_numbers_have_no_gaps_under_concurrency_and_crashes(customer):
    tenants = [customer().tenant for _ in range(8)]
    drafts = [statement_draft(tenant, now=APRIL + 3 * HOUR) for tenant in tenants]
    start = threading.Barrier(9)

    def final(draft):
        start.wait()
        try:
            return statement_final(draft, now=APRIL + 3 * HOUR).number
        finally:
            connections.close_all()

    def crash(draft):
        start.wait()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            statement_final(draft, now=APRIL + 3 * HOUR)
            raise ZeroDivisionError
        connections.close_all()

    with ThreadPoolExecutor(9) as threads:
        numbers = [threads.submit(final, draft) for draft in drafts[1:]]
        crashed = [threads.submit(crash, drafts[0]), threads.submit(final, drafts[1])]
        found = sorted(number.result() for number in numbers)
        assert crashed[0].result() is None
        assert crashed[1].result() in found
    assert found == list(range(found[0], found[0] + 7))


def test_tax_is_shown_and_charged(alice):
    BillingProfile.objects.create(tenant=alice.tenant, tax_name="VAT", tax_rate="0.19", updated_at=NOW)
    use(alice)
    statement = finalised(alice)
    assert (statement.subtotal_micros, statement.tax_micros, statement.total_micros) == (20_000, 3_800, 23_800)
    found = balances_by_kind(alice.tenant)
    assert (found["tax"], found["credit"]) == (3_800, 10 * DOLLAR - 23_800)


def test_a_contracts_minimum_is_made_up_for(alice):
    Contract.objects.create(tenant=alice.tenant, minimum_micros=5 * DOLLAR, starts_at=NOW, created_at=NOW)
    use(alice)
    statement = finalised(alice)
    assert statement.total_micros == 5 * DOLLAR
    assert Adjustment.objects.get(statement=statement).amount_micros == 5 * DOLLAR - 20_000
    assert balances_by_kind(alice.tenant)["credit"] == 5 * DOLLAR


def test_a_months_volume_price_is_settled_when_it_is_final(customer, currency):
    """2,000 micros a unit, above 100 of the month 1,000 for all: 60 at 2,000, 60 at 1,000; all are due at 1,000."""
    terms = RateTerms(
        meter=Meter.IMAGE_UNIT, unit_price=Decimal("0.002"), mode="volume", tiers=((Decimal(100), Decimal("0.001")),)
    )
    price_book_seed(currency=currency, version=1, rates=[terms], effective_at=NOW - timedelta(days=99), now=NOW)
    dora = customer(currency=currency)
    for _ in range(2):
        use(dora, units="60")
    statement = finalised(dora)
    assert [line.amount_micros for line in statement.lines.all()] == [180_000, -60_000]
    assert statement.total_micros == 120_000


def test_a_change_of_zone_leaves_no_gap(alice):
    """March in UTC, then April to midnight in Berlin, which is two hours sooner."""
    use(alice, now=datetime(2026, 4, 30, 22, 30, tzinfo=UTC))
    finalised(alice)
    BillingProfile.objects.create(tenant=alice.tenant, time_zone="Europe/Berlin", updated_at=NOW)
    april = finalised(alice, now=datetime(2026, 5, 1, 3, tzinfo=UTC))
    assert (april.period_start, april.period_end) == (APRIL, datetime(2026, 4, 30, 22, tzinfo=UTC))
    assert april.total_micros == 0
    assert statement_now(alice.tenant, now=datetime(2026, 5, 2, tzinfo=UTC))[0].total_micros == 20_000


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_draft_is_named_by_its_month_in_its_own_zone(alice, zone):
    BillingProfile.objects.create(tenant=alice.tenant, time_zone=zone, updated_at=NOW)
    assert str(statement_draft(alice.tenant, now=APRIL + 9 * HOUR)) == "draft of 2026-03"


def test_a_change_of_zone_to_the_west_makes_the_next_month_longer_and_no_month_of_its_hours(alice):
    """A month of four hours would be charged a month's minimum."""
    finalised(alice)
    BillingProfile.objects.create(tenant=alice.tenant, time_zone="America/New_York", updated_at=NOW)
    april = period_next(alice.tenant)
    assert (april.start, april.end) == (APRIL, datetime(2026, 5, 1, 4, tzinfo=UTC))


def test_the_scheduler_draws_up_what_is_over_and_makes_final_what_was_looked_at(alice):
    use(alice)
    statements_make(now=APRIL + HOUR, tenants=[alice.tenant])
    assert not Statement.objects.filter(tenant=alice.tenant).exists()
    statements_make(now=APRIL + 3 * HOUR, tenants=[alice.tenant])
    draft = Statement.objects.get(tenant=alice.tenant)
    assert draft.state == "draft"
    statements_make(now=APRIL + REVIEW + 3 * HOUR, tenants=[alice.tenant])
    assert Statement.objects.get(tenant=alice.tenant).state == "final"


def test_the_database_refuses_periods_that_overlap(alice):
    statement = statement_draft(alice.tenant, now=APRIL + 3 * HOUR)
    statement.pk, statement.period_start, statement.period_end = uuid.uuid4(), NOW, APRIL + HOUR
    with pytest.raises(IntegrityError, match="overlap"), transaction.atomic():
        statement.save(force_insert=True)


@given(
    st.timedeltas(timedelta(0), timedelta(days=3650)).map(lambda passed: datetime(2020, 1, 1, tzinfo=UTC) + passed),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "America/St_Johns", "Asia/Kathmandu", "Africa/Cairo"]),
)
def test_every_instant_has_its_month_in_every_zone(now, zone):
    begin, end = month_begin(now, zone), month_end(now, zone)
    assert begin <= now < end
    assert month_begin(end, zone) == end
    assert month_end(begin, zone) == end
    assert timedelta(days=27) < end - begin < timedelta(days=32)


def test_periods_follow_each_other(alice):
    first = period_next(alice.tenant)
    finalised(alice)
    assert (first.start, period_next(alice.tenant).start) == (datetime(2026, 3, 1, tzinfo=UTC), first.end)


def test_the_csv_has_a_row_for_each_line_in_either_notation(alice):
    project_create(tenant=alice.tenant, slug="x", labels={}, now=NOW)
    use(alice, units="0.5", model="=1+1")
    statement = finalised(alice)
    lines = list(statement.lines.all())
    rows = list(csv.DictReader("".join(statement_csv(statement, lines)).splitlines()))
    assert [(row["model"], row["quantity"], row["amount"]) for row in rows] == [("'=1+1", "0.5", "0.001")]
    comma = list(csv.DictReader("".join(statement_csv(statement, lines, comma=True)).splitlines(), delimiter=";"))
    assert [(row["quantity"], row["amount"]) for row in comma] == [("0,5", "0,001")]


def test_the_page_shows_names_as_text(alice):
    name = "<script>alert(1)</script> 株式会社"
    BillingProfile.objects.create(tenant=alice.tenant, legal_name=name, updated_at=NOW)
    use(alice)
    statement = finalised(alice)
    page = statement_html(statement, list(statement.lines.all()))
    assert "&lt;script&gt;" in page
    assert "株式会社" in page
    assert f"Statement {statement.number}" in page
    assert "0.02" in page


def test_the_pdf_of_a_statement_is_always_the_same_file(alice):
    BillingProfile.objects.create(tenant=alice.tenant, legal_name="株式会社 Müller", updated_at=NOW)
    use(alice)
    statement = finalised(alice)
    lines = list(statement.lines.all())
    found = statement_pdf(statement, lines)
    assert found.startswith(b"%PDF-")
    assert found == statement_pdf(statement, lines)
