"""The dashboard of margins: revenue against the cost of GPUs."""

from functools import partial

from deploy.grafana.board import choice, listing, number, page, stacked_days

_CHOSEN = "$__timeFilter(day) AND pool IN (${pool:sqlstring})"
_DAY = "day::timestamp AT TIME ZONE 'UTC' AS time"
_UTILISATION = "sum(busy_seconds) / nullif(sum(up_seconds), 0)"

_dollars = partial(number, unit="currencyUSD", decimals=2)
_dollars_by_day = partial(stacked_days, unit="currencyUSD", stack=False)


def _total(value: str) -> str:
    return f"SELECT {value} AS value FROM reporting.pool_days WHERE {_CHOSEN}"


def _daily(value: str) -> str:
    return f"""SELECT {_DAY}, pool AS metric, {value} AS value FROM reporting.pool_days WHERE {_CHOSEN}
        GROUP BY 1, 2 ORDER BY 1, 2"""


BOARD = page(
    "easel-margin",
    "Easel: price against GPU cost",
    "Cost of GPUs (up time, idle time included, at the pool's cost of a GPU hour) against charges for their use, in"
    " USD.",
    _dollars(
        "Cost of GPUs",
        "Up time of workers at the pool's cost of a GPU hour.",
        _total("coalesce(sum(cost_micros), 0) / 1e6"),
    ),
    _dollars("Revenue of GPU time", "Charges for GPU seconds.", _total("coalesce(sum(revenue_micros), 0) / 1e6")),
    _dollars(
        "Revenue of jobs",
        "Charges for jobs: GPU seconds, image units and requests.",
        _total("coalesce(sum(job_revenue_micros), 0) / 1e6"),
    ),
    _dollars(
        "Margin",
        "Revenue of jobs less the cost of GPUs.",
        _total("coalesce(sum(job_revenue_micros - cost_micros), 0) / 1e6"),
    ),
    number(
        "GPU time in use",
        "Share of up time in which GPUs generated images.",
        _total(_UTILISATION),
        unit="percentunit",
        decimals=1,
    ),
    _dollars(
        "Revenue per charged GPU hour",
        "Charges for GPU seconds, per charged GPU hour.",
        _total("sum(revenue_micros) / 1e6 / nullif(sum(billed_gpu_seconds - foreign_gpu_seconds), 0) * 3600"),
    ),
    _dollars_by_day(
        "Margin by day and pool",
        "Revenue of jobs less the cost of GPUs, per day. Below zero the pool made a loss.",
        _daily("sum(job_revenue_micros - cost_micros) / 1e6"),
    ),
    _dollars_by_day(
        "Cost and revenue by day",
        "Cost of GPUs, revenue of GPU seconds and revenue of jobs, of all selected pools.",
        f"""SELECT {_DAY}, metric, sum(micros) / 1e6 AS value
            FROM reporting.pool_days, LATERAL (VALUES ('cost of GPUs', cost_micros),
            ('revenue of GPU time', revenue_micros), ('revenue of jobs', job_revenue_micros)
            ) AS side (metric, micros)
            WHERE {_CHOSEN} GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    stacked_days(
        "GPU time in use, by day and pool",
        "Share of up time in which GPUs generated images.",
        _daily(_UTILISATION),
        unit="percentunit",
        stack=False,
    ),
    stacked_days(
        "Up time by use",
        "Up time of all selected pools: generating, loading models, idle.",
        f"""SELECT {_DAY}, metric, sum(seconds) AS value
            FROM reporting.pool_days, LATERAL (VALUES ('generating', busy_seconds), ('loading', load_seconds),
            ('idle', idle_seconds)) AS part (metric, seconds)
            WHERE {_CHOSEN} GROUP BY 1, 2 ORDER BY 1, 2""",
        unit="s",
    ),
    listing(
        "Pools",
        "Each pool over the selected time, with the tenant of a dedicated pool.",
        f"""SELECT pool, gpu_class AS "GPU", tenant, sum(up_seconds) AS "up time",
            {_UTILISATION} AS "in use", sum(billed_gpu_seconds) AS "GPU time charged",
            sum(cost_micros) / 1e6 AS cost, sum(revenue_micros) / 1e6 AS "revenue of GPU time",
            sum(job_revenue_micros) / 1e6 AS "revenue of jobs",
            sum(job_revenue_micros - cost_micros) / 1e6 AS margin
            FROM reporting.pool_days WHERE {_CHOSEN} GROUP BY 1, 2, 3 ORDER BY cost DESC""",
        unit="currencyUSD",
        units={"up time": "s", "GPU time charged": "s", "in use": "percentunit"},
    ),
    listing(
        "Departments",
        "Cost of pools by department, with a part of idle, loading and wasted time in proportion to GPU time,"
        " and the charges. The view reporting.cost_allocation has other policies and labels.",
        f"""SELECT CASE department WHEN '' THEN 'none' ELSE department END AS department,
            sum(gpu_seconds) AS "GPU time", sum(direct_micros) / 1e6 AS "cost of its GPU time",
            sum(shared_micros) / 1e6 AS "share of the rest", sum(charged_micros) / 1e6 AS charged,
            sum(charged_micros - direct_micros - shared_micros) / 1e6 AS margin
            FROM reporting.cost_allocation WHERE policy = 'proportional' AND {_CHOSEN}
            GROUP BY 1 ORDER BY charged DESC""",
        unit="currencyUSD",
        units={"GPU time": "s"},
    ),
    variables=[choice("pool", "Pools that are shown.", "SELECT DISTINCT pool FROM reporting.pool_days ORDER BY pool")],
)
