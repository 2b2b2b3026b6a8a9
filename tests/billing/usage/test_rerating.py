"""That what was charged follows from records and prices, and that a difference is found."""

import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction

from billing.invoices.corrections import correction_record
from billing.models import Charge, Meter, MonthlyQuantity, UsageRecord
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import RateTerms, price_book_publish, price_book_seed
from billing.pricing.rating import Prices, Quantity
from billing.usage.metering import usage_meter
from billing.usage.rerating import charges_between, rerated
from billing.usage.settlement import settle
from easel.observability.audit import months_match_charges
from tests.conftest import NOW, take_hold

HOUR = timedelta(hours=1)


def rates(price):
    tiers = ((Decimal(7), Decimal("0.0000021")),)
    return [
        RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal(price), mode="graduated", tiers=tiers),
        RateTerms(meter=Meter.IMAGE_UNIT, model="m", tier="hd", unit_price=Decimal(3)),
        *(RateTerms(meter=meter, unit_price=Decimal(0)) for meter in (Meter.GPU_SECOND, Meter.REQUEST)),
        RateTerms(meter=Meter.POOL_SECOND, gpu_class="h200", unit_price=Decimal("0.00000033")),
    ]


@pytest.fixture
def charged(customer, currency):
    """A tenant with charges of every kind: tiers, models, a contract, a new price, a waiver, corrections, a pool."""
    gina = customer(name="gina", currency=currency, credit="1000")
    price_book_seed(currency=currency, version=1, rates=rates(1), effective_at=NOW - timedelta(days=9), now=NOW)
    price_book_publish(currency=currency, rates=rates(2), effective_at=NOW + 2 * HOUR, now=NOW)
    contract_make(tenant=gina.tenant, discount=Decimal("0.333333"), starts_at=NOW + 4 * HOUR, now=NOW)
    for hour in range(6):
        for dimensions in ({}, {"model": "m", "tier": "hd"}):
            job_id, now = uuid.uuid4(), NOW + hour * HOUR
            prices = Prices.in_force(tenant=gina.tenant, now=now)
            take_hold(tenant=gina.tenant, amount_micros=5_000_000, reference=job_id, now=now)
            settle(
                project=gina.project,
                job_id=job_id,
                quantities=[Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal("2.3"))],
                dimensions=dimensions,
                prices=prices,
                now=now + HOUR,  # by when prices have changed: a job has those of its admission
            )
    for record in UsageRecord.objects.filter(tenant=gina.tenant)[:4]:
        correction_record(record=record, quantity=Decimal("1.7"), key=str(record.pk), reason="r", author="a", now=NOW)
    usage_meter(
        project=gina.project,
        quantity=Quantity(meter=Meter.POOL_SECOND, amount=Decimal("86399.999999"), gpu_class="h200"),
        dimensions={"gpu_class": "h200"},
        source="worker",
        key=str(uuid.uuid4()),
        occurred_at=NOW + 3 * HOUR,
        description="a pool",
        now=NOW + 9 * HOUR,
    )
    return gina


def differences(customer):
    return list(rerated(charges_between(tenant=customer.tenant, start=None, end=None)))


def test_every_charge_is_what_its_record_and_the_prices_of_its_time_make(charged):
    charges = Charge.objects.filter(usage_record__tenant=charged.tenant)
    assert set(charges.values_list("kind", flat=True)) == {"usage", "waiver", "correction"}
    assert differences(charged) == []
    assert not [line for line in months_match_charges(NOW) if str(charged.tenant.pk) in line]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"amount_micros": 1}, {"amount_micros"}),
        ({"used_before": 100}, {"amount_micros"}),
        ({"discount": Decimal("0.9")}, {"amount_micros", "discount"}),
    ],
)
def test_a_charge_that_was_tampered_with_is_found(charged, change, what):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
        tiered = Charge.objects.filter(usage_record__tenant=charged.tenant, kind="usage").exclude(rate__mode="flat")
        one = tiered.filter(used_before=0).first()
        Charge.objects.filter(pk=one.pk).update(**change)
        assert {(found.charge_id, found.what) for found in differences(charged)} == {(one.pk, name) for name in what}
        MonthlyQuantity.objects.filter(tenant=charged.tenant).update(quantity=1)
        assert [line for line in months_match_charges(NOW) if str(charged.tenant.pk) in line]
        transaction.set_rollback(True)


def test_a_period_has_the_charges_written_in_it(charged):
    first = charges_between(tenant=charged.tenant, start=None, end=NOW + HOUR)
    rest = charges_between(tenant=charged.tenant, start=NOW + HOUR, end=None)
    assert first.count() + rest.count() == Charge.objects.filter(usage_record__tenant=charged.tenant).count()
    assert min(first.count(), rest.count()) > 0
