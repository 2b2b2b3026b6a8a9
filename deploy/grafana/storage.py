"""Storage: what tenants keep, and what keeping it costs."""

from typing import Any

from deploy.grafana.board import by_time, listing, number, page, ranking, rows, stacked_days
from deploy.grafana.cost import CURRENCY, TENANT

_NOW = "is_today AND tenant IN (${tenant:sqlstring})"
_DAYS = "$__timeFilter(day) AND tenant IN (${tenant:sqlstring})"
_CHARGED = (
    "$__timeFilter(day) AND tenant IN (${tenant:sqlstring}) AND currency = ${currency:sqlstring}"
    " AND meter = 'storage_gb_second'"
)
_DAY = "day::timestamp AT TIME ZONE 'UTC' AS time"


def dashboard() -> dict[str, Any]:
    return page(
        "easel-storage",
        "Easel: storage",
        "Images and LoRA adapters that tenants keep. They are charged by size and time, each day when it is over.",
        [
            number(
                "Kept now",
                "All that the chosen tenants keep.",
                rows(f"SELECT coalesce(sum(bytes), 0) AS bytes FROM reporting.storage WHERE {_NOW}"),
                unit="decbytes",
                span=6,
            ),
            number(
                "Files now",
                "How many images and adapters that is.",
                rows(f"SELECT coalesce(sum(objects), 0) AS files FROM reporting.storage WHERE {_NOW}"),
                unit="none",
                span=6,
            ),
            number(
                "Kept in the chosen time, GB-days",
                "One GB (1,000,000,000 bytes) kept for one day is one GB-day. Today counts as far as it has passed.",
                rows(f"SELECT coalesce(sum(gb_days), 0) AS gb_days FROM reporting.storage WHERE {_DAYS}"),
                unit="none",
                span=6,
                decimals=3,
            ),
            number(
                "Charged for storage, ${currency}",
                "Charges of the days that are over.",
                rows(f"SELECT coalesce(sum(amount_micros), 0) / 1e6 AS charged FROM reporting.costs WHERE {_CHARGED}"),
                unit="none",
                span=6,
                decimals=6,
            ),
            ranking(
                "Kept now, by tenant",
                "The tenants that keep most.",
                rows(
                    f"""SELECT tenant, sum(bytes) AS bytes FROM reporting.storage WHERE {_NOW}
                    GROUP BY 1 ORDER BY 2 DESC LIMIT 20"""
                ),
                unit="decbytes",
                span=12,
            ),
            ranking(
                "Kept now, by kind",
                "Outputs are images, adapters are LoRA weights.",
                rows(
                    f"SELECT kind, sum(bytes) AS bytes FROM reporting.storage WHERE {_NOW} GROUP BY 1 ORDER BY 2 DESC"
                ),
                unit="decbytes",
                span=12,
            ),
            stacked_days(
                "Kept at the end of each day, by kind",
                "Bytes there at midnight (UTC); today, now.",
                by_time(
                    f"""SELECT {_DAY}, kind AS metric, sum(bytes) AS bytes FROM reporting.storage WHERE {_DAYS}
                    GROUP BY 1, 2 ORDER BY 1, 2"""
                ),
                unit="decbytes",
                span=8,
            ),
            stacked_days(
                "GB-days by tenant",
                "Size times the time that it was kept on each day.",
                by_time(
                    f"""SELECT {_DAY}, tenant AS metric, sum(gb_days) AS gb_days FROM reporting.storage WHERE {_DAYS}
                    GROUP BY 1, 2 ORDER BY 1, 2"""
                ),
                unit="none",
                span=8,
            ),
            stacked_days(
                "Charged for storage by tenant, ${currency}",
                "What each day's storage was charged; today's comes after midnight.",
                by_time(
                    f"""SELECT {_DAY}, tenant AS metric, sum(amount_micros) / 1e6 AS cost
                    FROM reporting.costs WHERE {_CHARGED} GROUP BY 1, 2 ORDER BY 1, 2"""
                ),
                unit="none",
                span=8,
            ),
            listing(
                "Projects",
                "What each project keeps now, and kept in the chosen time.",
                rows(
                    f"""SELECT tenant, project, department, kind, sum(gb_days) AS "GB-days",
                    coalesce(sum(bytes) FILTER (WHERE is_today), 0) AS "bytes now",
                    coalesce(sum(objects) FILTER (WHERE is_today), 0) AS "files now"
                    FROM reporting.storage WHERE {_DAYS}
                    GROUP BY tenant, project, department, kind ORDER BY 5 DESC"""
                ),
                unit="none",
                units={"bytes now": "decbytes"},
            ),
        ],
        variables=[TENANT, CURRENCY],
        since="now-30d",
    )
