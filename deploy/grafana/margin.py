"""Price against GPU cost: what the GPUs were paid for, and what they brought in."""

from typing import Any

from deploy.grafana.board import SqlQuery, by_time, choice, listing, number, page, rows, stacked_days

_CHOSEN = "$__timeFilter(day) AND pool IN (${pool:sqlstring})"
_DAY = "day::timestamp AT TIME ZONE 'UTC' AS time"
_UTILISATION = "sum(busy_seconds) / nullif(sum(up_seconds), 0)"


def _total(value: str) -> SqlQuery:
    return rows(f"SELECT {value} AS value FROM reporting.pool_days WHERE {_CHOSEN}")


def _daily(value: str) -> SqlQuery:
    return by_time(
        f"""SELECT {_DAY}, pool AS metric, {value} AS value FROM reporting.pool_days WHERE {_CHOSEN}
        GROUP BY 1, 2 ORDER BY 1, 2"""
    )


def dashboard() -> dict[str, Any]:
    return page(
        "easel-margin",
        "Easel: price against GPU cost",
        "What the GPUs cost us (time up at their hourly cost, idle time too) and what tenants paid for their use, in"
        " USD. The cost of a GPU hour is set for each pool.",
        [
            number(
                "Cost of GPUs",
                "Time that workers were up, at the pool's cost of a GPU hour.",
                _total("coalesce(sum(cost_micros), 0) / 1e6"),
                unit="currencyUSD",
                decimals=2,
            ),
            number(
                "Paid for GPU time",
                "What tenants were charged for GPU seconds.",
                _total("coalesce(sum(revenue_micros), 0) / 1e6"),
                unit="currencyUSD",
                decimals=2,
            ),
            number(
                "Paid for images in all",
                "What tenants were charged for jobs: GPU seconds, image units and requests.",
                _total("coalesce(sum(job_revenue_micros), 0) / 1e6"),
                unit="currencyUSD",
                decimals=2,
            ),
            number(
                "Margin",
                "Paid for images in all, less the cost of GPUs.",
                _total("coalesce(sum(job_revenue_micros - cost_micros), 0) / 1e6"),
                unit="currencyUSD",
                decimals=2,
            ),
            number(
                "GPU time in use",
                "Share of the time up that GPUs drew images. Idle time is what makes an image dear.",
                _total(_UTILISATION),
                unit="percentunit",
                decimals=1,
            ),
            number(
                "Price of a GPU hour that was sold",
                "What tenants were charged for GPU seconds, for each hour of them.",
                _total("sum(revenue_micros) / 1e6 / nullif(sum(billed_gpu_seconds - foreign_gpu_seconds), 0) * 3600"),
                unit="currencyUSD",
                decimals=2,
            ),
            stacked_days(
                "Margin by day and pool",
                "Paid for images in all, less the cost of GPUs. Below zero the pool cost more than it brought in.",
                _daily("sum(job_revenue_micros - cost_micros) / 1e6"),
                unit="currencyUSD",
                stack=False,
            ),
            stacked_days(
                "Cost and revenue by day",
                "All chosen pools: what the GPUs cost, and what tenants paid for GPU seconds and for images in all.",
                by_time(
                    f"""SELECT {_DAY}, metric, sum(micros) / 1e6 AS value
                    FROM reporting.pool_days, LATERAL (VALUES ('cost of GPUs', cost_micros),
                    ('paid for GPU time', revenue_micros), ('paid for images in all', job_revenue_micros)
                    ) AS side (metric, micros)
                    WHERE {_CHOSEN} GROUP BY 1, 2 ORDER BY 1, 2"""
                ),
                unit="currencyUSD",
                stack=False,
            ),
            stacked_days(
                "GPU time in use, by day and pool",
                "Share of the time up that GPUs drew images.",
                _daily(_UTILISATION),
                unit="percentunit",
                stack=False,
            ),
            stacked_days(
                "Where GPU time went",
                "Seconds up of all chosen pools: drawing, loading models, idle.",
                by_time(
                    f"""SELECT {_DAY}, metric, sum(seconds) AS value
                    FROM reporting.pool_days, LATERAL (VALUES ('drawing', busy_seconds), ('loading', load_seconds),
                    ('idle', idle_seconds)) AS part (metric, seconds)
                    WHERE {_CHOSEN} GROUP BY 1, 2 ORDER BY 1, 2"""
                ),
                unit="s",
            ),
            listing(
                "Pools",
                "Each pool over the chosen time. A dedicated pool has the tenant that it belongs to.",
                rows(
                    f"""SELECT pool, gpu_class AS "GPU", tenant, sum(up_seconds) AS "time up",
                    {_UTILISATION} AS "in use", sum(billed_gpu_seconds) AS "GPU time charged",
                    sum(cost_micros) / 1e6 AS cost, sum(revenue_micros) / 1e6 AS "paid for GPU time",
                    sum(job_revenue_micros) / 1e6 AS "paid in all",
                    sum(job_revenue_micros - cost_micros) / 1e6 AS margin
                    FROM reporting.pool_days WHERE {_CHOSEN} GROUP BY 1, 2, 3 ORDER BY cost DESC"""
                ),
                unit="currencyUSD",
                units={"time up": "s", "GPU time charged": "s", "in use": "percentunit"},
            ),
            listing(
                "Departments",
                "What the pools cost to draw for each department, with its part of idle, loading and wasted time in"
                " proportion to its GPU time, beside what it was charged. The view has other policies and labels.",
                rows(
                    f"""SELECT CASE department WHEN '' THEN 'none' ELSE department END AS department,
                    sum(gpu_seconds) AS "GPU time", sum(direct_micros) / 1e6 AS "cost of its GPU time",
                    sum(shared_micros) / 1e6 AS "share of the rest", sum(charged_micros) / 1e6 AS charged,
                    sum(charged_micros - direct_micros - shared_micros) / 1e6 AS margin
                    FROM reporting.cost_allocation WHERE policy = 'proportional' AND {_CHOSEN}
                    GROUP BY 1 ORDER BY charged DESC"""
                ),
                unit="currencyUSD",
                units={"GPU time": "s"},
            ),
        ],
        variables=[
            choice(
                "pool",
                "Pool",
                "Which pools to show.",
                "SELECT DISTINCT pool FROM reporting.pool_days ORDER BY pool",
                several=True,
            )
        ],
        since="now-30d",
    )
