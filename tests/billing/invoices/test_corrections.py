import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from billing.invoices.corrections import (
    CorrectionInvalid,
    CorrectionKeyReused,
    StatementIsFinal,
    correction_record,
    quantity_of,
)
from billing.invoices.statements import charges_of, statement_draft, statement_final
from billing.ledger.accounts import balances_by_kind
from billing.models import Charge, Meter, MonthlyQuantity, Statement, UsageRecord
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import RateTerms, price_book_seed
from billing.pricing.rating import Prices, Quantity
from billing.usage.queries import job_costs
from billing.usage.settlement import settle
from easel.observability.audit import accounts_match_entries, charges_match_ledger, grants_match_credit
from tests.conftest import NOW, take_hold
from tests.profiles import examples

HOUR = timedelta(hours=1)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def dana(customer, currency):
    return customer(name="dana", currency=currency, credit="100000")


@pytest.fixture
def priced(currency):
    def publish(price, *tiers, mode="flat"):
        tiers = tuple((Decimal(above), Decimal(unit_price)) for above, unit_price in tiers)
        terms = RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal(price), mode=mode, tiers=tiers)
        price_book_seed(currency=currency, version=1, rates=[terms], effective_at=NOW - timedelta(days=999), now=NOW)

    return publish


def use(customer, units, *, held=None):
    """Charges units of a job; its record."""
    job_id, prices = uuid.uuid4(), Prices.in_force(tenant=customer.tenant, now=NOW)
    quantities = [Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units))]
    hold_micros = prices.max_micros(quantities) if held is None else held
    take_hold(tenant=customer.tenant, amount_micros=hold_micros, reference=job_id, now=NOW)
    settle(project=customer.project, job_id=job_id, quantities=quantities, dimensions={}, prices=prices, now=NOW)
    return UsageRecord.objects.get(job_id=job_id)


def correct(record, *, key=None, now=NOW + HOUR, **fields):
    given = {"key": key or str(uuid.uuid4()), "reason": "a clock that ran fast", "author": "operator:ann"}
    return correction_record(record=record, now=now, **given, **fields)


def charged(record):
    return job_costs([record.job_id])[record.job_id].cost_micros


def test_a_correction_is_a_record_of_its_own_that_points_at_the_first(dana, priced):
    priced(1)
    record = use(dana, 10)
    correction = correct(record, quantity=Decimal(4))
    assert (correction.quantity, correction.corrects, correction.occurred_at) == (-6, record, record.occurred_at)
    assert (quantity_of(record), charged(record)) == (4, 4_000_000)
    assert UsageRecord.objects.get(pk=record.pk).quantity == 10
    assert balances_by_kind(dana.tenant)["revenue"] == 4_000_000


def test_a_correction_upwards_is_charged_as_far_as_the_quote_went(dana, priced):
    priced(1)
    record = use(dana, 10, held=12_000_000)
    correct(record, quantity=Decimal(15))
    assert charged(record) == 12_000_000
    correct(record, quantity=Decimal(11))
    assert charged(record) == 11_000_000


def test_what_was_waived_is_not_refunded(dana, priced):
    priced(1)
    record = use(dana, 10, held=7_000_000)
    correct(record, quantity=Decimal(8))
    assert charged(record) == 7_000_000
    correct(record, quantity=Decimal(6))
    assert charged(record) == 6_000_000


def test_a_correction_has_the_terms_of_the_first_charge(dana, priced):
    priced(1)
    contract_make(tenant=dana.tenant, discount=Decimal("0.5"), ends_at=NOW + HOUR, now=NOW)
    record = use(dana, 10)
    correction = correct(record, quantity=Decimal(9), now=NOW + 2 * HOUR)
    charge = correction.charges.get()
    first = record.charges.get()
    assert (charge.kind, charge.amount_micros, charge.list_micros) == ("correction", -500_000, -1_000_000)
    assert (charge.rate, charge.contract, charge.discount) == (first.rate, first.contract, first.discount)


def test_the_same_key_corrects_once_and_names_one_correction(dana, priced):
    priced(1)
    record, other = use(dana, 10), use(dana, 10)
    key = str(uuid.uuid4())
    assert correct(record, key=key, quantity=Decimal(9)) == correct(record, key=key, quantity=Decimal(9))
    assert charged(record) == 9_000_000
    with pytest.raises(CorrectionKeyReused):
        correct(other, key=key, quantity=Decimal(9))


def test_what_nobody_priced_is_corrected_without_a_charge(dana):
    record = UsageRecord.objects.create(
        idempotency_key=str(uuid.uuid4()),
        tenant=dana.tenant,
        project=dana.project,
        meter=Meter.POOL_SECOND,
        quantity=10,
        dimensions={},
        occurred_at=NOW,
    )
    correction = correct(record, quantity=Decimal(11))
    assert (quantity_of(record), correction.charges.count()) == (11, 0)


@pytest.mark.parametrize(
    "given",
    [
        {"quantity": Decimal(10)},
        {"quantity": Decimal(-1)},
        {"quantity": Decimal("-0.000000000000001")},
        {"quantity": Decimal("NaN")},
        {"quantity": Decimal("Infinity")},
        {"quantity": Decimal("10.0000000000000001")},
        {"quantity": Decimal(10) ** 23},
        {"quantity": Decimal(10_000_000_000_000_000_009)},
        {"quantity": Decimal(11), "reason": " "},
        {"quantity": Decimal(11), "reason": "x" * 201},
        {"quantity": Decimal(11), "key": "k" * 81},
    ],
)
def test_what_can_not_be_is_refused_and_nothing_written(dana, priced, given):
    priced(1)
    record = use(dana, 10)
    fields = {"key": "k1", "reason": "why", **given}
    with pytest.raises(CorrectionInvalid):
        correction_record(record=record, author="operator:ann", now=NOW, **fields)
    assert not UsageRecord.objects.filter(corrects=record).exists()


def test_a_correction_is_not_corrected(dana, priced):
    priced(1)
    with pytest.raises(CorrectionInvalid, match="correct the first"):
        correct(correct(use(dana, 10), quantity=Decimal(9)), quantity=Decimal(1))


def test_what_is_on_a_final_statement_is_corrected_by_a_credit_note_for_it_alone(dana, priced):
    priced(1)
    record = use(dana, 10)
    later = APRIL + 3 * HOUR
    statement = statement_final(statement_draft(dana.tenant, now=later), now=later)
    with pytest.raises(StatementIsFinal, match=str(statement.number)):
        correct(record, quantity=Decimal(4), now=later)
    note = Statement.objects.create(
        tenant=dana.tenant,
        kind=Statement.Kind.CREDIT_NOTE,
        corrects=statement,
        currency=dana.tenant.currency,
        time_zone="UTC",
        period_start=statement.period_start,
        period_end=statement.period_end,
        made_at=later,
    )
    correction = correct(record, quantity=Decimal(4), credit_note=note, now=later)
    [charge] = charges_of(note)
    assert (charge.usage_record, charge.amount_micros) == (correction, -6_000_000)
    with pytest.raises(CorrectionInvalid, match="not for the statement"):
        correct(record, quantity=Decimal(1), credit_note=statement, now=later)


@pytest.mark.parametrize("mode", ["flat", "graduated"])
@hypothesis(max_examples=examples(1 / 2))
@given(data=st.data())
def test_any_corrections_leave_what_the_right_quantities_cost(dana, currency, priced, mode, data):
    if not Charge.objects.filter(usage_record__tenant=dana.tenant).exists():
        tiers = [] if mode == "flat" else [("100", "0.000002"), ("300", "0.0000015")]
        priced("0.0000033", *tiers, mode=mode)
    places = st.decimals(0, 200, places=6)
    held = 10**9
    records = [use(dana, units, held=held) for units in data.draw(st.lists(places, min_size=1, max_size=3))]
    changes = data.draw(st.lists(st.tuples(st.sampled_from(records), places), max_size=5))
    for record, right in changes:
        if quantity_of(record) != right:
            correct(record, quantity=right)
    charges = Charge.objects.filter(usage_record__tenant=dana.tenant)
    rate = charges.first().rate
    records = UsageRecord.objects.filter(tenant=dana.tenant)
    total = sum(record.quantity for record in records)
    prices = Prices.in_force(tenant=dana.tenant, now=NOW)
    whole = prices.line(Quantity(meter=Meter.IMAGE_UNIT, amount=total)).amount_micros
    assert abs(sum(charge.amount_micros for charge in charges) - whole) <= (len(charges) + 1) / 2
    if mode == "graduated":
        assert MonthlyQuantity.objects.get(rate=rate).quantity == total
    named = [str(dana.tenant.pk), *(str(record.job_id) for record in records)]
    checks = (charges_match_ledger, accounts_match_entries, grants_match_credit)
    assert not [line for check in checks for line in check(NOW) if any(name in line for name in named)]
