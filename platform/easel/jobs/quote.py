"""What a request would cost, by the code that admits it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.ledger.accounts import balance_of
from billing.models import Meter
from billing.pricing.rating import Quantity, RatedLine
from billing.usage.months import month_so_far
from core.errors import DomainError
from easel.jobs import queue
from easel.jobs.admission import (
    Limits,
    Plan,
    Spec,
    job_admit,
    job_plan,
)
from tenants.models import ApiKey


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """A meter's part of a quote: what is expected of it, with its price, and the most."""

    expected: RatedLine
    most: Quantity
    max_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a request would cost: `expected_micros` as things go, `max_micros` at most, which is what is held for it.

    `refusal` is what would keep it from being admitted now.
    """

    plan: Plan
    lines: list[QuoteLine]
    expected_micros: int
    max_micros: int
    available_micros: int
    refusal: DomainError | None


class _Undone(Exception):
    """Ends a transaction that was only tried."""


def job_quote(*, api_key: ApiKey, spec: Spec, limits: Limits, now: datetime) -> Quote:
    """Checks a request as `job_submit` does, and admits it in a transaction that is undone: nothing is written.

    Raises a `DomainError` for a request that could never be admitted as it is.
    """
    job_id = uuid.uuid4()
    plan = job_plan(api_key=api_key, spec=spec, limits=limits, job_id=job_id, now=now)
    lines = list(_lines(plan, now))
    max_micros = plan.prices.max_micros(plan.most)
    refusal = None
    available = balance_of(api_key.tenant).available
    try:
        with transaction.atomic():
            job_admit(plan, job_id=job_id, request_id="quote", now=now)
            raise _Undone
    except DomainError as error:
        refusal = error
    except _Undone:
        pass
    return Quote(
        plan=plan,
        lines=lines,
        expected_micros=sum(line.expected.amount_micros for line in lines),
        max_micros=max_micros,
        available_micros=available,
        refusal=refusal,
    )


def _lines(plan: Plan, now: datetime) -> Iterator[QuoteLine]:
    for most in plan.most:
        quantity = (
            replace(most, amount=_gpu_seconds(plan, most.amount, now)) if most.meter == Meter.GPU_SECOND else most
        )
        tariff = plan.prices.tariff(most)
        if tariff is None:
            continue  # what nobody prices is not charged
        used_before = month_so_far(tenant=plan.api_key.tenant, tariff=tariff, now=now)
        expected = plan.prices.line(quantity, used_before=used_before)
        assert expected is not None  # it has a tariff
        yield QuoteLine(expected, most, plan.prices.max_micros([most]))


def _gpu_seconds(plan: Plan, bound: Decimal, now: datetime) -> Decimal:
    """As long as the pool's work took lately; before any was measured, the bound."""
    rate, drawn = queue.pool_load(pool=plan.pool, now=now).rate, plan.drawn
    if rate is None:
        return bound
    measured = Decimal(rate * drawn.width * drawn.height * drawn.steps * drawn.n)
    return min(bound, measured.quantize(Decimal("1e-9")))
