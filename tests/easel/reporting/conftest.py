"""A month with every kind of charge, and functions that read it."""

import csv
import io
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from billing.invoices.adjustments import adjustment_make
from billing.invoices.corrections import correction_record
from billing.invoices.lines import lines_of
from billing.invoices.statements import number, statement_draft, statement_final
from billing.models import BillingProfile, Meter, Rate, Statement, UsageRecord
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import RateTerms, price_book_publish
from billing.pricing.rating import Prices, Quantity
from billing.usage.metering import usage_meter
from billing.usage.settlement import settle
from tenants.accounts import project_create
from tests.conftest import NOW, Customer, take_hold

VIEWS = (
    "charges",
    "costs",
    "unpriced",
    "usage_events",
    "jobs",
    "job_days",
    "storage",
    "pool_days",
    "balances",
    "focus",
    "cost_allocation",
)

HOUR = timedelta(hours=1)
# A month of Berlin, in which tenants of the tests are made: from the end of February to the end of March, in UTC.
PERIOD = datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)
DAYS = date(2026, 2, 28), date(2026, 4, 30)


def select(view: str, **where: Any) -> list[dict[str, Any]]:
    """The rows of a view, as dictionaries."""
    condition = " AND ".join(f'"{name}" = %s' for name in where)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM reporting.{view} WHERE {condition}", list(where.values()))
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def read_csv(blocks, **options) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(blocks).decode()), **options))


@dataclass
class Year:
    """A tenant with a contract, in Berlin, whose month and credit note are final, and who has used more since."""

    customer: Customer
    statement: Statement
    credit_note: Statement


def generate(customer, *, now, units="10", gpu_seconds="1", project=None, held=None, **dimensions) -> uuid.UUID:
    """Runs a job and returns it; `held` is the highest cost of the job, in micros."""
    job_id, project = uuid.uuid4(), project or customer.project
    quantities = [
        Quantity(meter=Meter.GPU_SECOND, amount=Decimal(gpu_seconds), gpu_class="h100"),
        Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units)),
        Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
    ]
    prices = Prices.in_force(tenant=customer.tenant, now=now)
    hold_micros = prices.max_micros(quantities) if held is None else held
    take_hold(tenant=customer.tenant, amount_micros=hold_micros, reference=job_id, now=now)
    names = {"model": "z-image", "model_version": "z-image@2", "tier": "fast", "resolution": "512x512"}
    settle(
        project=project,
        job_id=job_id,
        quantities=quantities,
        dimensions={**names, "api_key": customer.key.key_id, "pool": "shared", **dimensions},
        prices=prices,
        now=now,
    )
    return job_id


@pytest.fixture
def year(customer, prices) -> Year:
    carol = customer(name="carol", credit="1000")
    tenant = carol.tenant
    profile = {"legal_name": "Carol GmbH", "tax_name": "VAT", "tax_rate": Decimal("0.19")}
    BillingProfile.objects.create(tenant=tenant, time_zone="Europe/Berlin", updated_at=NOW, **profile)
    book = price_book_publish(
        currency="USD",
        tenant=tenant,
        rates=[
            RateTerms(
                meter=Meter.IMAGE_UNIT,
                unit_price=Decimal("0.0019"),
                mode=Rate.Mode.GRADUATED,
                tiers=((Decimal(25), Decimal("0.00123456789")),),
            )
        ],
        now=NOW,
    )
    contract_make(tenant=tenant, discount=Decimal("0.07"), minimum_micros=10_000_000, price_book=book, now=NOW)
    design = project_create(
        tenant=tenant, slug="design", labels={"department": f"design-{tenant.slug}", "=team": "ä"}, now=NOW
    )
    for hours in (0, 1, 26, 27):
        generate(carol, now=NOW + hours * HOUR, gpu_seconds="1.234567891", project=design)
    generate(carol, now=NOW + HOUR, model="other", adapter="outline")
    generate(carol, now=NOW + HOUR, gpu_seconds="1000", held=50_000)  # most of it is waived
    at_midnight = generate(carol, now=PERIOD[1] - timedelta(microseconds=1), project=design)
    for day in range(5):
        midnight = datetime(2026, 3, 2 + day, tzinfo=UTC)
        usage_meter(
            project=design,
            quantity=Quantity(meter=Meter.STORAGE_GB_SECOND, amount=Decimal("123456789.000000000000001")),
            dimensions={"kind": "output"},
            source="storage",
            key=f"storage/{design.pk}/{day}",
            occurred_at=midnight - timedelta(microseconds=1),
            description="",
            now=midnight,
        )
    design.labels = {"department": f"sales-{tenant.slug}"}
    design.save()
    generate(carol, now=PERIOD[1], project=design)  # the first of April in Berlin
    adjustment_make(
        tenant=tenant,
        amount_micros=-12_345,
        reason="a slow week",
        author="operator:ann",
        reference=uuid.uuid4(),
        now=NOW + 3 * HOUR,
    )
    record = UsageRecord.objects.get(job_id=at_midnight, meter="image_unit")
    correction_record(
        record=record,
        key=str(uuid.uuid4()),
        reason="counted twice",
        author="a",
        quantity=record.quantity - 2,
        now=NOW + HOUR,
    )
    later = PERIOD[1] + 3 * HOUR
    statement = statement_final(statement_draft(tenant, now=later), now=later)
    note = Statement(
        tenant=tenant,
        kind=Statement.Kind.CREDIT_NOTE,
        corrects=statement,
        currency="USD",
        time_zone="Europe/Berlin",
        period_start=statement.period_start,
        period_end=statement.period_end,
        tax_name="VAT",
        tax_rate=statement.tax_rate,
        made_at=later,
    )
    note.save(force_insert=True)
    record = UsageRecord.objects.filter(tenant=tenant, meter="gpu_second", project=design).earliest("occurred_at")
    correction_record(
        record=record,
        key=str(uuid.uuid4()),
        reason="too many",
        author="a",
        quantity=record.quantity - Decimal("0.5"),
        credit_note=note,
        now=later,
    )
    note.subtotal_micros = sum(line.amount_micros for line in lines_of(note))
    note.tax_micros = round(note.subtotal_micros * Decimal("0.19"))
    note.total_micros = note.subtotal_micros + note.tax_micros
    note.save()
    with transaction.atomic():
        return Year(carol, statement, number(note, now=later))
