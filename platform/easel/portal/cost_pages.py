"""Costs, for finance: of a department in a month, by model and so on, and the part that is not billed yet."""

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing.money import format_micros
from core.text import text_storable
from easel.portal.overview import CURRENCY
from easel.reporting.costs import costs, invoices, label_values, unpriced
from easel.reporting.exports import Span
from easel.reporting.outlook import WEEKS, anomalies, daily, forecast

TOP = 20
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")
_CURRENCY = re.compile(r"[A-Z]{3}")
# The grouping of each table, by title.
_TABLES = (
    ("By model", ("model",)),
    ("By tenant and project", ("tenant", "project")),
    ("By meter", ("meter",)),
    ("By resolution and tier", ("resolution", "tier")),
    ("By adapter", ("adapter",)),
)


def costs_page(request: HttpRequest, each: dict[str, Any], *, now: datetime) -> TemplateResponse:
    """Render the page; `each` is the context of every page of the portal."""
    if not request.user.has_perm("billing.view_charge"):
        raise PermissionDenied
    today = now.astimezone(UTC).date()
    asked = {name: text_storable(request.GET.get(name, "")) for name in ("month", "label", "value", "currency")}
    month = _MONTH.fullmatch(asked["month"])
    first = date(int(month[1]), int(month[2]), 1) if month else today.replace(day=1)
    last = first.replace(day=calendar.monthrange(first.year, first.month)[1])
    currency = asked["currency"] if _CURRENCY.fullmatch(asked["currency"]) else CURRENCY
    name = asked["label"][:64] or "department"
    label = (name, asked["value"]) if "value" in request.GET and asked["value"] != "*" else None
    span = Span(start=first, end=last)
    [total] = costs(span, group_by=(), currency=currency, label=label)
    billed = invoices(span, currency=currency, label=label)
    open_ = sum(row.amount_micros for row in billed if row.number is None)
    context = {
        **each,
        "title": "Costs",
        "month": f"{first:%Y-%m}",
        "before": f"{first - timedelta(days=1):%Y-%m}",
        "after": f"{last + timedelta(days=1):%Y-%m}" if last < today else "",
        "label": name,
        "value": label[1] if label else "*",
        "values": label_values(name),
        "currency": currency,
        "figures": [
            ("Charged", format_micros(total.amount_micros, currency)),
            ("By the list's prices", format_micros(total.list_micros, currency)),
            ("On final statements", format_micros(total.amount_micros - open_, currency)),
            ("Not on a final statement yet", format_micros(open_, currency)),
            *_outlook(span, currency, today, whole=label is None),
        ],
        "tables": [
            (title, [part.capitalize() for part in group], _shown(span, group, currency, label))
            for title, group in _TABLES
        ],
        "invoices": [
            (row.number or "not yet", format_micros(row.amount_micros, currency)) for row in billed if row.amount_micros
        ],
        "unpriced": [(row.meter, f"{row.quantity.normalize():f}", row.records) for row in unpriced(span, label=label)],
        "anomalies": [] if label else _stood_out(span, currency, today),
    }
    return TemplateResponse(request, "portal/costs.html", context)


def _shown(span: Span, group: tuple[str, ...], currency: str, label: tuple[str, str] | None) -> list[list[str]]:
    rows = costs(span, group_by=group, currency=currency, label=label, order="amount")
    return [
        [
            *(value or "–" for value in row.group.values()),
            f"{row.requests.normalize():f}",
            f"{row.image_units.normalize():f}",
            f"{row.gpu_seconds:.1f}",
            format_micros(row.amount_micros, currency),
        ]
        for row in rows[:TOP]
    ]


def _outlook(span: Span, currency: str, today: date, *, whole: bool) -> list[tuple[str, str]]:
    if not whole or not span.start <= today <= span.end:
        return []
    found = forecast(daily(Span(start=today - timedelta(weeks=WEEKS), end=today), currency=currency), today=today)
    if found.expected_micros is None:
        return [("At the month's end", f"too early to tell: {found.missing}")]
    shown = format_micros(found.expected_micros, currency)
    if found.low_micros is None or found.high_micros is None:
        return [("At the month's end", shown)]
    low, high = format_micros(found.low_micros, currency), format_micros(found.high_micros, currency)
    return [("At the month's end", shown), ("In four of five cases", f"{low} to {high}")]


def _stood_out(span: Span, currency: str, today: date) -> list[tuple[str, str, str]]:
    found = daily(Span(start=span.start - timedelta(weeks=WEEKS), end=span.end), currency=currency)
    return [
        (
            f"{one.day:%A, %Y-%m-%d}",
            format_micros(one.amount_micros, currency),
            format_micros(one.usual_micros, currency),
        )
        for one in anomalies(found, since=span.start)
        if one.day < today
    ]
