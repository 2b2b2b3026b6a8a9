"""Draws up statements: a tenant's charges of a month of its time zone, as drafts and as final, numbered documents.

The first period begins with the month in which the tenant was created, the next where the last one ended. Each ends at
midnight before the first of a month, in the zone that the tenant's profile has then. So a change of zone makes one
month some hours longer or shorter, and no charge is billed twice or missed.
"""

import contextlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum

from billing.invoices.adjustments import adjustment_post
from billing.invoices.lines import charges_of, lines_of
from billing.invoices.models import Statement, StatementLine, StatementSequence
from billing.ledger.models import Adjustment
from billing.ledger.postings import tax_charge
from billing.money import EXACT, format_micros, from_micros, plain, to_micros
from billing.pricing.contracts import contract_at
from billing.pricing.models import Meter, Rate
from billing.pricing.rating import Tariff
from billing.profiles import month_begin, month_end, profile_of
from billing.usage.models import Charge
from billing.usage.storage import storage_days_due
from core.errors import DomainError
from tenants.models import Tenant

# Transactions may commit after midnight, and a day's storage is metered an hour after it.
SETTLING = timedelta(hours=2)
# Two zones are at most 26 hours apart. The rest that a change of zone leaves of a month is not a month of its own.
_ZONES_APART = timedelta(days=2)
# Time to review a draft before it becomes final by itself.
REVIEW = timedelta(days=3)
# Never change it: names in this namespace are the ledger's references, which make a repeat harmless.
_NAMESPACE = UUID("d7a0b7c1-6c0e-4f0c-8a6b-0d5f3c2b9e44")


class StatementNotReady(DomainError, code="statement_not_ready", http_status=409, retryable=True):
    """The month is not over or not completely metered yet: try again later.

    Repeat the command when the month is over and its usage is metered.
    """


@dataclass(frozen=True, slots=True)
class Period:
    """A month of `zone`, from `start` until just before `end`."""

    start: datetime
    end: datetime
    zone: str


def period_next(tenant: Tenant) -> Period:
    """Return the period after the tenant's last statement, which may be over already."""
    zone = profile_of(tenant).time_zone
    statements = Statement.objects.filter(tenant=tenant, kind=Statement.Kind.STATEMENT)
    last = statements.order_by("-period_start").first()
    start = last.period_end if last else month_begin(tenant.created_at, zone)
    return Period(start, month_end(start + _ZONES_APART, zone), zone)


def statement_now(tenant: Tenant, *, now: datetime) -> tuple[Statement, list[StatementLine]]:
    """Return the next period's statement as if the period ended now, without saving it."""
    statement = _new(tenant, period_next(tenant), now)
    return statement, _totalled(statement)


@transaction.atomic
def statement_draft(tenant: Tenant, *, now: datetime) -> Statement:
    """Create or rebuild the draft of the oldest period that is not final. Raises `StatementNotReady`."""
    _lock(tenant)
    draft = _drafts(tenant).order_by("period_start").first()
    if draft is None:
        period = period_next(tenant)
        if period.end + SETTLING > now:
            ends = period.end.isoformat()
            raise StatementNotReady(f"the month of {tenant} ends at {ends} and is settled two hours later")
        draft = _new(tenant, period, now)
        draft.save(force_insert=True)
    return draw_up(draft, now)


@transaction.atomic
def statement_final(statement: Statement, *, now: datetime) -> Statement:
    """Make a draft final, with its minimum, volume prices, tax and number; a final statement does not change.

    One transaction: after a crash there is the draft or the complete final statement. Raises `StatementNotReady`.
    """
    _lock(statement.tenant)
    statement = Statement.objects.select_related("tenant").get(pk=statement.pk)
    if statement.state == Statement.State.FINAL:
        return statement
    due = storage_days_due(now=now, tenant=statement.tenant)
    unmetered = [day for day in due if datetime.combine(day, time(), UTC) < statement.period_end]
    if statement.period_end + SETTLING > now or unmetered:
        missing = f"the storage of {unmetered[0]} is not metered" if unmetered else "the month is not settled yet"
        raise StatementNotReady(f"{missing}: the statement can't be final yet")
    _settle_volume(statement, now)
    _settle_minimum(statement, now)
    draw_up(statement, now)
    return number(statement, now=now)


def number(statement: Statement, *, now: datetime) -> Statement:
    """Charge the tax of a document and number it, in the caller's transaction."""
    reference, description = uuid5(_NAMESPACE, f"{statement.pk}/tax"), f"{statement.tax_name} of {statement}"
    tax = statement.tax_micros
    tax_charge(tenant=statement.tenant, amount_micros=tax, reference=reference, now=now, description=description)
    sequence = StatementSequence.objects.select_for_update().get()
    sequence.last += 1
    sequence.save(update_fields=["last"])
    statement.state, statement.number, statement.finalised_at = Statement.State.FINAL, sequence.last, now
    statement.save(update_fields=["state", "number", "finalised_at"])
    return statement


def statements_make(*, now: datetime, tenants: Collection[Tenant] | None = None) -> int:
    """Draft statements of months that are over, and make reviewed drafts final; return the number of both."""
    count = 0
    chosen = Tenant.objects.all() if tenants is None else Tenant.objects.filter(pk__in={one.pk for one in tenants})
    statements = Statement.objects.filter(tenant=OuterRef("pk"), kind=Statement.Kind.STATEMENT).order_by("-period_end")
    due = chosen.annotate(billed_until=Subquery(statements.values("period_end")[:1]))
    for tenant in due.filter(Q(billed_until=None) | Q(billed_until__lt=now - timedelta(days=27))).iterator():
        if period_next(tenant).end + SETTLING <= now and not _drafts(tenant).exists():
            statement_draft(tenant, now=now)
            count += 1
    reviewed = Statement.objects.filter(state=Statement.State.DRAFT, period_end__lte=now - SETTLING - REVIEW)
    for statement in reviewed.filter(tenant__in=chosen).select_related("tenant").order_by("period_start"):
        with contextlib.suppress(StatementNotReady):  # until its storage is metered
            statement_final(statement, now=now)
            count += 1
    return count


def _drafts(tenant: Tenant) -> QuerySet[Statement]:
    return Statement.objects.filter(tenant=tenant, state=Statement.State.DRAFT)


def _lock(tenant: Tenant) -> None:
    """Let a tenant's statements be made one at a time."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)


def _new(tenant: Tenant, period: Period, now: datetime) -> Statement:
    profile = profile_of(tenant)
    name = profile.legal_name or tenant.name or tenant.slug
    return Statement(
        tenant=tenant,
        currency=tenant.currency,
        time_zone=period.zone,
        period_start=period.start,
        period_end=period.end,
        billed_to={"name": name, "address": profile.address, "tax_id": profile.tax_id},
        tax_name=profile.tax_name,
        tax_rate=profile.tax_rate,
        made_at=now,
    )


def draw_up(statement: Statement, now: datetime) -> Statement:
    """Rebuild a draft's lines and totals."""
    statement.lines.all().delete()
    StatementLine.objects.bulk_create(_totalled(statement))
    statement.made_at = now
    statement.save()
    return statement


def _totalled(statement: Statement) -> list[StatementLine]:
    """Return a statement's lines, and set its totals to their sums."""
    lines = lines_of(statement)
    statement.subtotal_micros = sum(line.amount_micros for line in lines)
    statement.tax_micros = to_micros(EXACT.multiply(from_micros(statement.subtotal_micros), statement.tax_rate))
    statement.total_micros = statement.subtotal_micros + statement.tax_micros
    return lines


def _settle_volume(statement: Statement, now: datetime) -> None:
    """Adjust volume prices: all units at the tier that the month's sum reaches, less the amounts already charged."""
    # A correction of an earlier month was charged by that month's sum, so it is not part of this one.
    of_earlier_month = Q(kind=Charge.Kind.CORRECTION, usage_record__corrects__occurred_at__lt=statement.period_start)
    charges = charges_of(statement).filter(rate__mode=Rate.Mode.VOLUME).order_by()
    charges = charges.exclude(Q(kind=Charge.Kind.WAIVER) | of_earlier_month)
    sums = charges.values_list("rate", "discount").annotate(Sum("usage_record__quantity"), Sum("amount_micros"))
    of_rate: dict[int, list[tuple[Decimal, Decimal, int]]] = defaultdict(list)
    for rate_id, discount, quantity, amount in sums:
        of_rate[rate_id].append((discount, quantity, amount))
    rates = Rate.objects.filter(pk__in=of_rate).select_related("price_book__tenant").prefetch_related("tiers")
    for rate in rates.order_by("pk"):
        parts = of_rate[rate.pk]
        total = sum((quantity for _, quantity, _ in parts), Decimal(0))
        price = Tariff.of(rate).price_at(total)
        due = 0
        for discount, quantity, charged in parts:
            due += to_micros(EXACT.multiply(EXACT.multiply(quantity, price), 1 - discount)) - charged
        reason = f"{Meter(rate.meter).label}: all {plain(total)} at {plain(price)} {statement.currency}"
        _adjust(statement, Adjustment.Kind.VOLUME, due, f"{rate.pk}", reason, now)


def _settle_minimum(statement: Statement, now: datetime) -> None:
    contract = contract_at(tenant=statement.tenant, now=statement.period_end - timedelta(microseconds=1))
    if contract is None:
        return
    counted = (line for line in lines_of(statement) if line.meter or line.kind == Adjustment.Kind.VOLUME)
    charged = sum(line.amount_micros for line in counted)
    agreed = format_micros(contract.minimum_micros, statement.currency)
    short = max(0, contract.minimum_micros - charged)
    _adjust(statement, Adjustment.Kind.MINIMUM, short, "minimum", f"difference to the monthly minimum of {agreed}", now)


def _adjust(statement: Statement, kind: Adjustment.Kind, amount: int, name: str, reason: str, now: datetime) -> None:
    if amount:
        row = Adjustment(tenant=statement.tenant, statement=statement, kind=kind, amount_micros=amount)
        row.reason, row.author = reason[:200], "platform"
        adjustment_post(row, reference=uuid5(_NAMESPACE, f"{statement.pk}/{kind}/{name}"), now=now)
