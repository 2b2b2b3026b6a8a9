"""Quotes a request: its expected and maximum cost, computed by the code that admits it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction

from billing.ledger.accounts import balance_of
from billing.models import Meter
from billing.pricing.rating import Quantity, RatedLine
from billing.usage.months import month_so_far
from core.errors import DomainError
from easel.config import Config
from easel.jobs import queue
from easel.jobs.admission import job_admit
from easel.jobs.plan import Plan, job_plan
from easel.jobs.spec import Spec
from tenants.models import ApiKey


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """One meter's line of a quote: the expected quantity with its price, and the upper bound of both."""

    expected: RatedLine
    quantity_max: Quantity
    max_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The cost of a request. Admission holds `max_micros`; `expected_micros` follows from recent measurements.

    `refusal` is the error that would keep the request from being admitted now.
    """

    plan: Plan
    lines: list[QuoteLine]
    expected_micros: int
    max_micros: int
    available_micros: int
    refusal: DomainError | None


def job_quote(*, api_key: ApiKey, spec: Spec, config: Config, in_batch: bool = False, now: datetime) -> Quote:
    """Check a request as `job_submit` does, and admit it in a transaction that is rolled back, so nothing is written.

    `in_batch` quotes it as a line of a batch. Raises a `DomainError` for a request that could never be admitted as it
    is.
    """
    job_id = uuid.uuid4()
    batch_until = now + timedelta(days=1) if in_batch else None
    plan = job_plan(api_key=api_key, spec=spec, config=config, job_id=job_id, batch_until=batch_until, now=now)
    lines = list(_lines(plan, now))
    quote = Quote(
        plan=plan,
        lines=lines,
        expected_micros=sum(line.expected.amount_micros for line in lines),
        max_micros=plan.prices.max_micros(plan.quantities_max),
        available_micros=balance_of(api_key.tenant).available,
        refusal=None,
    )
    with transaction.atomic():
        try:
            job_admit(plan.job(job_id=job_id, request_id="quote", now=now), plan, now=now)
        except DomainError as error:
            quote = replace(quote, refusal=error)
        transaction.set_rollback(True)
    return quote


def _lines(plan: Plan, now: datetime) -> Iterator[QuoteLine]:
    for quantity_max in plan.quantities_max:
        tariff = plan.prices.tariff(quantity_max)
        if tariff is None:
            continue  # a meter without a price is not charged
        expected_quantity = quantity_max
        if quantity_max.meter == Meter.GPU_SECOND:
            expected_quantity = replace(quantity_max, amount=_gpu_seconds_expected(plan, quantity_max.amount, now))
        used_before = month_so_far(tenant=plan.api_key.tenant, tariff=tariff, now=now)
        expected = plan.prices.line(expected_quantity, used_before=used_before)
        assert expected is not None  # it has a tariff
        yield QuoteLine(expected, quantity_max, plan.prices.max_micros([quantity_max]))


def _gpu_seconds_expected(plan: Plan, seconds_max: Decimal, now: datetime) -> Decimal:
    """Return the GPU seconds at the pool's recent rate; before anything was measured there, the upper bound."""
    rate, spec = queue.pool_load(pool=plan.pool, now=now).gpu_seconds_per_pixel_step, plan.image_spec
    if rate is None:
        return seconds_max
    measured = Decimal(rate * spec.width * spec.height * spec.steps * spec.n)
    return min(seconds_max, measured.quantize(Decimal("1e-9")))
