"""Computes a statement's lines: charges summed by project, meter, model and price, and adjustments."""

import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum, TextField, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce

from billing.invoices.models import Statement, StatementLine
from billing.ledger.models import Adjustment, Transaction
from billing.money import plain
from billing.pricing.models import Meter, Rate
from billing.usage.models import Charge
from tenants.models import Project


def charges_of(statement: Statement) -> QuerySet[Charge]:
    """Return the charges that a statement sums."""
    if statement.kind == Statement.Kind.CREDIT_NOTE:
        return Charge.objects.filter(statement=statement)
    return Charge.objects.filter(statement=None, transaction__in=Transaction.objects.filter(_in_period(statement)))


def adjustments_of(statement: Statement) -> QuerySet[Adjustment]:
    """Return the adjustments that a statement shows."""
    own = Q(statement=statement.pk)
    if statement.kind == Statement.Kind.STATEMENT:
        own |= Q(statement=None) & _in_period(statement)
    # A write-off is not shown: the debt was shown when it was charged.
    return Adjustment.objects.filter(own).exclude(kind=Adjustment.Kind.WRITE_OFF)


def _in_period(statement: Statement) -> Q:
    period = {"created_at__gte": statement.period_start, "created_at__lt": statement.period_end}
    return Q(tenant=statement.tenant_id, currency=statement.currency, **period)


def charges_of_line(line: StatementLine) -> QuerySet[Charge]:
    """Return the charges that a line sums."""
    charges = with_model(charges_of(line.statement)).filter(rate=line.rate, kind=line.kind, discount=line.discount)
    return charges.filter(usage_record__project=line.project, usage_record__meter=line.meter, model=line.model)


def with_model(charges: QuerySet[Charge]) -> QuerySet[Any]:
    """Annotate charges with the model of their usage."""
    model = Coalesce(KeyTextTransform("model", "usage_record__dimensions"), Value("", TextField()))
    return charges.order_by().annotate(model=model)


def lines_of(statement: Statement) -> list[StatementLine]:
    """Return a statement's lines, not saved: charges by project and meter, then adjustments."""
    of_record = {"project_id": F("usage_record__project"), "meter": F("usage_record__meter")}
    rows = with_model(charges_of(statement)).values("model", "rate", "kind", "discount", **of_record)
    sums = {"quantity": Sum("usage_record__quantity"), "charges": Count("pk"), "amount": Sum("amount_micros")}
    summed = list(rows.annotate(slug=F("usage_record__project__slug"), **sums))
    rates = Rate.objects.select_related("price_book").in_bulk({row["rate"] for row in summed})
    meter, kind = Meter.values.index, Charge.Kind.values.index
    summed.sort(key=lambda row: (row["slug"], meter(row["meter"]), row["model"], kind(row["kind"]), row["rate"]))
    lines = [
        StatementLine(
            **{name: row[name] for name in ("project_id", "meter", "model", "kind", "discount", "charges")},
            rate=rates[row["rate"]],
            description=_describe(rates[row["rate"]], row["kind"], row["discount"], statement.currency),
            # A waiver belongs to a quantity that another line shows.
            quantity=None if row["kind"] == Charge.Kind.WAIVER else row["quantity"],
            amount_micros=row["amount"],
        )
        for row in summed
    ]
    lines += [
        StatementLine(project_id=one.project_id, kind=one.kind, description=one.reason, amount_micros=one.amount_micros)
        for one in adjustments_of(statement).order_by("created_at", "id")
    ]
    for position, line in enumerate(lines, 1):
        line.statement, line.position = statement, position
    return lines


def _describe(rate: Rate, kind: str, discount: Decimal, currency: str) -> str:
    """`image units of 512x512 pixels at 0.002 USD (USD version 2)`."""
    price = f"at {plain(rate.unit_price)} {currency}"
    if rate.mode != Rate.Mode.FLAT:
        price = f"by {rate.mode} price"
    gpu_class = f", {rate.gpu_class}" if rate.gpu_class else ""
    less = f", less {plain(discount * 100)} %" if discount else ""
    prefixes: dict[str, str] = {Charge.Kind.WAIVER: "waiver above the quote: ", Charge.Kind.CORRECTION: "corrected: "}
    return f"{prefixes.get(kind, '')}{Meter(rate.meter).label}{gpu_class} {price}{less} ({rate.price_book})"


def projects_of(lines: Iterable[StatementLine]) -> dict[uuid.UUID, Project]:
    """Return the projects of lines by their ids."""
    return Project.objects.in_bulk({line.project_id for line in lines if line.project_id})
