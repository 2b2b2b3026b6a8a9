"""A tenant's February and March of 2028, worked out by hand.

A company of Berlin has 10 USD paid and 1 USD given, which ends with February. VAT is 19 %. An image unit is 0.002 USD,
and 0.003 from 15 March on; a GPU second 0.0001; a request 0.0005. February has a leap day; in March the clocks go
forward, so that February ends at 23:00 UTC and March at 22:00.

    when, in UTC                    what                                   for    which is, in micro-USD
    29 Feb 12:00:00                 40 units, 100 GPU seconds, 1 request          80,000 + 10,000 + 500
    29 Feb 22:59:59.999999          1 unit, at February's last instant                            2,000
                                                                    February                     92,500
                                                                    VAT                          17,575
                                                                    total                       110,075
    29 Feb 23:00:00                 what is left of the gift ends      1,000,000 - 92,500 =     907,500
    29 Feb 23:00:00                 1 unit, at March's first instant                              2,000
    14 Mar 23:59:59                 10 units, the old price's last second                        20,000
    15 Mar 00:00:00                 10 units, the new price                                      30,000
    15 Mar 00:05:00                 10 units, admitted at the old price                          20,000
    20 Mar                          of the units of 14 March 8 were right: 2 x 0.002             -4,000
    31 Mar 21:59:59                 5 units, March's last second in Berlin                       15,000
                                                                    March                        83,000
                                                                    VAT                          15,770
                                                                    total                        98,770
    20 Mar                          of February's GPU seconds 60 were right: a credit note       -4,000
                                                                    VAT                            -760
                                                                    total                        -4,760
    31 Mar 22:00:00                 5 units, which are April's                                   15,000

    left of the credit   11,000,000 - 110,075 - 907,500 - 98,770 + 4,760 - 15,000 =           9,873,415
"""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.invoices.credit_notes import CreditNoteInvalid, credit_note_issue, usage_correct
from billing.invoices.statements import statement_draft, statement_final, statement_now
from billing.ledger.accounts import balances_by_kind
from billing.ledger.grants import grants_expire
from billing.ledger.postings import credit_grant
from billing.models import BillingProfile, Meter, Statement, UsageRecord
from billing.pricing.price_books import RateTerms, price_book_seed
from billing.pricing.rating import Prices, Quantity
from billing.usage.rerating import charges_between, rerated
from billing.usage.settlement import settle
from tenants.accounts import tenant_create
from tests.conftest import take_hold

ZONE = "Europe/Berlin"
BEGIN = datetime(2028, 1, 31, 23, tzinfo=UTC)
GIFT_ENDS = MARCH = datetime(2028, 2, 29, 23, tzinfo=UTC)
APRIL = datetime(2028, 3, 31, 22, tzinfo=UTC)
CURRENCY = "XGM"  # of these prices alone


def instant(text: str) -> datetime:
    return datetime.fromisoformat(f"2028-{text}+00:00")


@pytest.fixture(scope="module")
def months():
    """The tenant, and its documents by name, after all of it."""
    book = [
        RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal("0.002")),
        RateTerms(meter=Meter.GPU_SECOND, unit_price=Decimal("0.0001")),
        RateTerms(meter=Meter.REQUEST, unit_price=Decimal("0.0005")),
    ]
    dearer = [RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal("0.003")), *book[1:]]
    price_book_seed(currency=CURRENCY, version=1, rates=book, effective_at=instant("01-01T00:00:00"), now=BEGIN)
    price_book_seed(currency=CURRENCY, version=2, rates=dearer, effective_at=instant("03-15T00:00:00"), now=BEGIN)
    tenant, project = tenant_create(slug=f"golden-{uuid.uuid4().hex[:12]}", currency=CURRENCY, now=BEGIN)
    BillingProfile.objects.create(
        tenant=tenant, time_zone=ZONE, tax_name="VAT", tax_rate=Decimal("0.19"), updated_at=BEGIN
    )

    def grant(micros, **terms):
        credit_grant(tenant=tenant, amount_micros=micros, reference=uuid.uuid4(), now=BEGIN, **terms)

    def use(when, *, admitted=None, gpu_seconds=None, requests=None, units):
        job_id, prices = uuid.uuid4(), Prices.in_force(tenant=tenant, now=admitted or when)
        quantities = [Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units))]
        if gpu_seconds:
            quantities.append(Quantity(meter=Meter.GPU_SECOND, amount=Decimal(gpu_seconds), gpu_class="cpu"))
        if requests:
            quantities.append(Quantity(meter=Meter.REQUEST, amount=Decimal(requests)))
        max_micros = prices.max_micros(quantities)
        take_hold(tenant=tenant, amount_micros=max_micros, reference=job_id, now=admitted or when)
        settle(project=project, job_id=job_id, quantities=quantities, dimensions={}, prices=prices, now=when)
        return UsageRecord.objects.filter(job_id=job_id)

    def final(when):
        return statement_final(statement_draft(tenant, now=when), now=when)

    documents = {}
    grant(10_000_000)
    grant(1_000_000, priority=10, expires_at=GIFT_ENDS, category="promotional")
    leap_day = use(instant("02-29T12:00:00"), units=40, gpu_seconds=100, requests=1)
    use(MARCH - timedelta(microseconds=1), units=1)
    grants_expire(now=GIFT_ENDS)
    use(MARCH, units=1)
    documents["february"] = final(instant("03-04T00:00:00"))
    [wrong] = use(instant("03-14T23:59:59"), units=10)
    use(instant("03-15T00:00:00"), units=10)
    use(instant("03-15T00:05:00"), admitted=instant("03-14T23:59:00"), units=10)
    _, none = usage_correct(
        record=wrong, quantity=Decimal(8), key=uuid.uuid4(), reason="two were blank", author="operator:ann",
        now=instant("03-20T10:00:00"),
    )  # fmt: skip
    assert none is None  # March is not final
    _, documents["credit note"] = usage_correct(
        record=leap_day.get(meter=Meter.GPU_SECOND), quantity=Decimal(60), key=uuid.uuid4(),
        reason="a clock that ran fast", author="operator:ann", now=instant("03-20T11:00:00"),
    )  # fmt: skip
    use(APRIL - timedelta(seconds=1), units=5)
    use(APRIL, units=5)
    documents["march"] = final(instant("04-04T00:00:00"))
    documents["april"], _ = statement_now(tenant, now=instant("04-04T00:00:00"))
    return tenant, documents


@pytest.mark.parametrize(
    ("document", "subtotal", "tax", "total"),
    [
        ("february", 92_500, 17_575, 110_075),
        ("march", 83_000, 15_770, 98_770),
        ("credit note", -4_000, -760, -4_760),
        ("april", 15_000, 2_850, 17_850),
    ],
)
def test_a_document_says_what_was_worked_out(months, document, subtotal, tax, total):
    found: Statement = months[1][document]
    assert (found.subtotal_micros, found.tax_micros, found.total_micros) == (subtotal, tax, total)


def test_periods_begin_and_end_with_the_months_of_berlin(months):
    found = [(months[1][name].period_start, months[1][name].period_end) for name in ("february", "march")]
    assert found == [(BEGIN, MARCH), (MARCH, APRIL)]


def test_what_is_left_of_the_credit_is_what_was_not_charged(months):
    balances = balances_by_kind(months[0])
    assert balances["credit"] == 11_000_000 - 110_075 - 907_500 - 98_770 + 4_760 - 15_000 == 9_873_415
    assert (balances["expired"], balances["tax"], balances["held"]) == (907_500, 17_575 + 15_770 - 760, 0)
    assert balances["revenue"] == 92_500 + 83_000 - 4_000 + 15_000


def test_documents_are_numbered_in_the_order_in_which_they_were_made(months):
    numbers = [months[1][name].number for name in ("february", "credit note", "march")]
    assert numbers == sorted(numbers)


def test_rated_again_from_its_records_it_is_the_same(months):
    assert not list(rerated(charges_between(tenant=months[0], start=None, end=None)))


def test_a_credit_note_is_issued_once(months):
    note = months[1]["credit note"]
    again = credit_note_issue(
        statement=months[1]["february"],
        record=UsageRecord.objects.filter(tenant=months[0]).first(),
        quantity=Decimal(1),
        reason="again",
        author="operator:ann",
        note_id=note.pk,
        now=APRIL,
    )
    assert (again.pk, again.number) == (note.pk, note.number)


def test_a_draft_is_corrected_without_a_credit_note(months):
    with pytest.raises(CreditNoteInvalid):
        credit_note_issue(
            statement=months[1]["credit note"], record=UsageRecord.objects.filter(tenant=months[0]).first(),
            quantity=Decimal(1), reason="of itself", author="operator:ann", note_id=uuid.uuid4(), now=APRIL,
        )  # fmt: skip
