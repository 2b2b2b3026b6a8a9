"""The front page's figures, from the tables that bills are made of. Days are UTC."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncDate

from billing.models import Account, Charge, Entry
from billing.money import format_micros
from easel.generation.models import FINAL, Job, State
from easel.registry.models import Pool, WorkerDay

DAYS = (7, 30)
TOP = 10
# The platform's own currency: pools' costs are in it, and the curve of revenue shows it.
CURRENCY = "USD"
_BY_DAY = """
    SELECT (created_at AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (WHERE state = ANY(%s)),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::float)
               FILTER (WHERE state = %s)
      FROM generation_job WHERE created_at >= %s GROUP BY 1
"""
_COLOURS = {
    "succeeded or open": "#9333ea",
    "failed or expired": "#ef4444",
    "p95": "#9333ea",
    "busy": "#9333ea",
    "loading": "#f59e0b",
    "idle": "#94a3b8",
    "revenue": "#16a34a",
    "cost": "#0ea5e9",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart as the theme draws it, with (series, colour); `empty` is shown where there is nothing to draw."""

    title: str
    kind: str
    data: str
    legend: Sequence[tuple[str, str]] = ()
    empty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`figures` are (what, value); `top` and `queue` are rows of tables."""

    since: date
    until: date
    figures: Sequence[tuple[str, str]]
    charts: Sequence[Chart]
    top: Sequence[tuple[str, int, str]]
    queue: Sequence[tuple[Any, ...]]


def overview(*, days: int, now: datetime) -> Overview:
    """The last `days` days, today included as far as it has come."""
    today = now.astimezone(UTC).date()
    span = [today - timedelta(days=back) for back in reversed(range(days))]
    since = datetime.combine(span[0], time(), UTC)
    jobs = _jobs(since)
    gpu = _gpu(span[0])
    revenue = _revenue(since)
    costs = {day: found["cost"] for day, found in gpu.items()}
    requests, errors = sum(row[0] for row in jobs.values()), sum(row[1] for row in jobs.values())
    busy, up = (sum(found[name] for found in gpu.values()) for name in ("busy", "up"))
    queue = _queue()
    return Overview(
        since=span[0],
        until=today,
        figures=(
            ("Requests", f"{requests:,}"),
            ("Failed or expired", f"{errors:,}" + (f" ({errors / requests:.1%})" if requests else "")),
            ("Revenue", format_micros(sum(revenue.values()), CURRENCY)),
            ("Cost of GPUs", format_micros(round(sum(costs.values()) * 1e6), CURRENCY)),
            ("GPU busy", f"{busy / up:.1%}" if up else "–"),
            ("Unfinished jobs", f"{sum(sum(row[1:]) for row in queue):,}"),
        ),
        charts=(
            _chart(
                "Requests by day",
                "bar",
                span,
                {
                    "succeeded or open": {d: r[0] - r[1] for d, r in jobs.items()},
                    "failed or expired": {d: r[1] for d, r in jobs.items()},
                },
                "No request in these days: make a tenant, give it credit and a key, and call the API.",
                stacked=True,
            ),
            _chart(
                "Seconds from request to image, p95",
                "line",
                span,
                {"p95": {day: row[2] for day, row in jobs.items() if row[2] is not None}},
                "No job has succeeded in these days.",
            ),
            _chart(
                "GPU hours by day",
                "bar",
                span,
                {name: {d: found[name] / 3600 for d, found in gpu.items()} for name in ("busy", "loading", "idle")},
                "No worker has reported in these days: start one with easel worker.",
                stacked=True,
            ),
            _chart(
                f"Revenue and cost of GPUs by day, {CURRENCY}",
                "bar",
                span,
                {"revenue": {d: micros / 1e6 for d, micros in revenue.items()}, "cost": costs},
                "Nothing was charged in these days. A pool's cost needs its price of a GPU hour.",
            ),
        ),
        top=_top(since),
        queue=queue,
    )


def _jobs(since: datetime) -> dict[date, tuple[int, int, float | None]]:
    """(requests, failed or expired, p95 seconds) by the day of the request."""
    with connection.cursor() as cursor:
        cursor.execute(_BY_DAY, [[State.FAILED, State.EXPIRED], State.SUCCEEDED, since])
        return {day: (requests, errors, p95) for day, requests, errors, p95 in cursor.fetchall()}


def _gpu(since: date) -> dict[date, dict[str, float]]:
    """Seconds busy, loading, idle and up, and the cost of them all, by day."""
    rows = (
        WorkerDay.objects.filter(day__gte=since)
        .order_by()
        .values("day")
        .annotate(
            up=Sum("up_seconds"),
            busy=Sum("busy_seconds"),
            load=Sum("load_seconds"),
            paid=Sum("cost"),
        )
    )
    found = {}
    for row in rows:
        idle = max(0.0, row["up"] - row["busy"] - row["load"])
        found[row["day"]] = {
            "up": row["up"],
            "busy": row["busy"],
            "loading": row["load"],
            "idle": idle,
            "cost": float(row["paid"]),
        }
    return found


def _revenue(since: datetime) -> dict[date, int]:
    earned = Entry.objects.filter(
        account__kind=Account.Kind.REVENUE, account__currency=CURRENCY, transaction__created_at__gte=since
    )
    by_day = earned.order_by().values_list(TruncDate("transaction__created_at"))
    return dict(by_day.annotate(Sum("amount_micros")))


def _top(since: datetime) -> list[tuple[str, int, str]]:
    """(tenant, charged jobs, charged) of those who were charged most, in each one's currency."""
    charged = Charge.objects.filter(created_at__gte=since).order_by()
    rows = charged.values_list("usage_record__tenant__slug", "currency").annotate(
        micros=Sum("amount_micros"), jobs=Count("usage_record__job_id", distinct=True)
    )
    return [
        (slug, jobs, format_micros(micros, currency)) for slug, currency, micros, jobs in rows.order_by("-micros")[:TOP]
    ]


def _queue() -> list[tuple[Any, ...]]:
    """(pool, queued, dispatched, running), of every pool."""
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    open_jobs = Job.objects.filter(~Q(state__in=FINAL)).order_by().values_list("pool_id", "state")
    for pool_id, state, count in open_jobs.annotate(count=Count("*")):
        counts[pool_id][state] = count
    pools = Pool.objects.order_by("slug").values_list("pk", "slug")
    return [
        (slug, *(counts[pk].get(state, 0) for state in (State.QUEUED, State.DISPATCHED, State.RUNNING)))
        for pk, slug in pools
    ]


def _chart(
    title: str,
    kind: str,
    span: Sequence[date],
    series: Mapping[str, Mapping[date, Any]],
    empty: str,
    stacked: bool = False,
) -> Chart:
    if not any(series.values()):
        return Chart(title=title, kind=kind, data="", empty=empty)
    datasets = [
        {
            "label": label,
            "data": [None if kind == "line" and day not in values else round(values.get(day, 0), 6) for day in span],
            "backgroundColor": _COLOURS[label],
            "borderColor": _COLOURS[label],
            "displayYAxis": True,
            "maxTicksXLimit": 10,
            **({"stack": "all"} if stacked else {}),
            # The theme draws the bars of a day over each other: a cost below the revenue would not be seen.
            **({"type": "line", "order": -1} if label == "cost" else {}),
        }
        for label, values in series.items()
    ]
    return Chart(
        title=title,
        kind=kind,
        data=json.dumps({"labels": [f"{day:%d %b}" for day in span], "datasets": datasets}),
        legend=[(label, _COLOURS[label]) for label in series],
    )
