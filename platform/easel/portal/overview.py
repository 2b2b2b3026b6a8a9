"""The front page's figures, from the schema `reporting`, and the queue as it is now. Days are UTC."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

from django.db.models import Count, Q
from psycopg import sql

from billing.money import format_micros
from easel.catalog.models import Pool
from easel.jobs.models import FINAL, Job, State
from easel.reporting.costs import rows_of

DAYS = (7, 30)
TOP = 10
# The platform's own currency: pools' costs are in it, and the curve of revenue shows it.
CURRENCY = "USD"
_JOBS = """
    WITH timed AS (
             SELECT day, state, seconds, sum(jobs) AS jobs FROM reporting.job_days WHERE day >= {since} GROUP BY 1, 2, 3
         ), ranked AS (
             SELECT *, sum(jobs) OVER (PARTITION BY day, state ORDER BY seconds) AS upto,
                    sum(jobs) OVER (PARTITION BY day, state) AS total
               FROM timed
         )
    SELECT day, sum(jobs)::bigint, coalesce(sum(jobs) FILTER (WHERE state IN ('failed', 'expired')), 0)::bigint,
           min(seconds) FILTER (WHERE state = 'succeeded' AND upto >= 0.95 * total)::float
      FROM ranked GROUP BY day
"""
_GPU_FIGURES = ("up", "busy", "loading", "idle", "cost")  # seconds, and what they cost
_GPU = """
    SELECT day, sum(up_seconds)::float, sum(busy_seconds)::float, sum(load_seconds)::float, sum(idle_seconds)::float,
           (sum(cost_micros) / 1e6)::float
      FROM reporting.pool_days WHERE day >= {since} GROUP BY day HAVING sum(workers) > 0
"""
_REVENUE = """
    SELECT day, sum(amount_micros)::bigint FROM reporting.costs
     WHERE day >= {since} AND currency = {currency} GROUP BY day
"""
_TOP = """
    SELECT tenant, coalesce(sum(quantity) FILTER (WHERE meter = 'request'), 0)::bigint,
           sum(amount_micros)::bigint, currency
      FROM reporting.costs WHERE day >= {since} GROUP BY tenant, currency ORDER BY 3 DESC, 1 LIMIT {limit}
"""
_COLOURS = {
    "succeeded or canceled": "#9333ea",
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
    """A chart for the theme, with its legend of (series, colour); `empty` is shown if there are no data."""

    title: str
    kind: str
    data: str
    legend: Sequence[tuple[str, str]] = ()
    empty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`figures` are (what, value); `top` is the tenants charged most, each in its currency."""

    since: date
    until: date
    figures: Sequence[tuple[str, str]]
    charts: Sequence[Chart]
    top: Sequence[tuple[str, int, str]]
    queue: Sequence[tuple[Any, ...]]


def overview(*, days: int, now: datetime) -> Overview:
    """Return the figures of the last `days` days, today included."""
    today = now.astimezone(UTC).date()
    span = [today - timedelta(days=back) for back in reversed(range(days))]
    # Of each day: requests that ended, those that failed or expired, and the p95 seconds of those that succeeded.
    jobs = {day: found for day, *found in _rows(_JOBS, since=span[0])}
    gpu = {day: dict(zip(_GPU_FIGURES, sums, strict=True)) for day, *sums in _rows(_GPU, since=span[0])}
    revenue: dict[date, int] = dict(_rows(_REVENUE, since=span[0], currency=CURRENCY))
    requests, errors = sum(row[0] for row in jobs.values()), sum(row[1] for row in jobs.values())
    busy, up = (sum(found[name] for found in gpu.values()) for name in ("busy", "up"))
    queue = _queue()
    return Overview(
        since=span[0],
        until=today,
        figures=(
            ("Requests that ended", f"{requests:,}"),
            ("Failed or expired", f"{errors:,}" + (f" ({errors / requests:.1%})" if requests else "")),
            ("Revenue", format_micros(sum(revenue.values()), CURRENCY)),
            ("Cost of GPUs", format_micros(round(sum(found["cost"] for found in gpu.values()) * 1e6), CURRENCY)),
            ("GPU busy", f"{busy / up:.1%}" if up else "–"),
            ("Unfinished jobs", f"{sum(sum(row[1:]) for row in queue):,}"),
        ),
        charts=_charts(span, jobs, gpu, revenue),
        top=[
            (tenant, requests, format_micros(micros, currency))
            for tenant, requests, micros, currency in _rows(_TOP, since=span[0], limit=TOP)
        ],
        queue=queue,
    )


def _charts(
    span: Sequence[date],
    jobs: Mapping[date, Sequence[Any]],
    gpu: Mapping[date, Mapping[str, Any]],
    revenue: Mapping[date, int],
) -> tuple[Chart, ...]:
    """Return the charts of the days of `span`; `jobs`, `gpu` and `revenue` have what was found for a day."""
    return (
        _chart(
            "Requests by the day of their end",
            span,
            {
                "succeeded or canceled": {d: r[0] - r[1] for d, r in jobs.items()},
                "failed or expired": {d: r[1] for d, r in jobs.items()},
            },
            "No request has ended in these days: make a tenant, give it credit and a key, and call the API.",
            stacked=True,
        ),
        _chart(
            "Seconds from request to image, p95",
            span,
            {"p95": {day: row[2] for day, row in jobs.items() if row[2] is not None}},
            "No job has succeeded in these days.",
            kind="line",
        ),
        _chart(
            "GPU hours by day",
            span,
            {name: {d: found[name] / 3600 for d, found in gpu.items()} for name in ("busy", "loading", "idle")},
            "No worker has reported in these days: start one with easel worker.",
            stacked=True,
        ),
        _chart(
            f"Revenue and cost of GPUs by day, {CURRENCY}",
            span,
            {
                "revenue": {d: micros / 1e6 for d, micros in revenue.items()},
                "cost": {d: found["cost"] for d, found in gpu.items()},
            },
            "Nothing was charged in these days. A pool's cost needs its price of a GPU hour.",
        ),
    )


def _rows(query: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
    return rows_of(sql.SQL(query).format(**{name: sql.Literal(value) for name, value in values.items()}))


def _queue() -> list[tuple[Any, ...]]:
    """Return (pool, queued, dispatched, running) of every pool."""
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
    span: Sequence[date],
    series: Mapping[str, Mapping[date, Any]],
    empty: str,
    *,
    kind: str = "bar",
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
            # A day between days without a value has no line to lie on.
            **({"pointRadius": 3} if kind == "line" else {}),
            # The theme paints the bars of a day over each other: a cost below the revenue would be hidden.
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
