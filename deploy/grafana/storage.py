"""The dashboard of storage: sizes and charges."""

from functools import partial

from deploy.grafana.board import listing, number, page, ranking, stacked_days
from deploy.grafana.cost import CURRENCY, TENANT

_NOW = "is_today AND tenant IN (${tenant:sqlstring})"
_DAYS = "$__timeFilter(day) AND tenant IN (${tenant:sqlstring})"
_CHARGED = _DAYS + " AND currency = ${currency:sqlstring} AND meter = 'storage_gb_second'"
_DAY = "day::timestamp AT TIME ZONE 'UTC' AS time"

_number = partial(number, span=6)
_bytes_by = partial(ranking, unit="decbytes", span=12)
_stacked_days = partial(stacked_days, span=8)

BOARD = page(
    "easel-storage",
    "Easel: storage",
    "Stored images and LoRA adapters. They are charged by size and time, each day once it is over.",
    _number(
        "Stored now",
        "Images and adapters of the selected tenants.",
        f"SELECT coalesce(sum(bytes), 0) AS bytes FROM reporting.storage WHERE {_NOW}",
        unit="decbytes",
    ),
    _number(
        "Files now",
        "Number of stored images and adapters.",
        f"SELECT coalesce(sum(objects), 0) AS files FROM reporting.storage WHERE {_NOW}",
    ),
    _number(
        "Stored in the selected time, GB-days",
        "One GB (1,000,000,000 bytes) stored for one day is one GB-day. Today counts up to now.",
        f"SELECT coalesce(sum(gb_days), 0) AS gb_days FROM reporting.storage WHERE {_DAYS}",
        decimals=3,
    ),
    _number(
        "Charged for storage, ${currency}",
        "Charges of the days that are over.",
        f"SELECT coalesce(sum(amount_micros), 0) / 1e6 AS charged FROM reporting.costs WHERE {_CHARGED}",
        decimals=6,
    ),
    _bytes_by(
        "Stored now, by tenant",
        "The tenants with the largest storage.",
        f"""SELECT tenant, sum(bytes) AS bytes FROM reporting.storage WHERE {_NOW}
            GROUP BY 1 ORDER BY 2 DESC LIMIT 20""",
    ),
    _bytes_by(
        "Stored now, by kind",
        "Outputs are images, adapters are LoRA weights.",
        f"SELECT kind, sum(bytes) AS bytes FROM reporting.storage WHERE {_NOW} GROUP BY 1 ORDER BY 2 DESC",
    ),
    _stacked_days(
        "Stored at the end of each day, by kind",
        "Bytes stored at midnight (UTC); today, now.",
        f"""SELECT {_DAY}, kind AS metric, sum(bytes) AS bytes FROM reporting.storage WHERE {_DAYS}
            GROUP BY 1, 2 ORDER BY 1, 2""",
        unit="decbytes",
    ),
    _stacked_days(
        "GB-days by tenant",
        "Size times duration, for each day.",
        f"""SELECT {_DAY}, tenant AS metric, sum(gb_days) AS gb_days FROM reporting.storage WHERE {_DAYS}
            GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    _stacked_days(
        "Charged for storage by tenant, ${currency}",
        "Charges of each day's storage; today is charged after midnight.",
        f"""SELECT {_DAY}, tenant AS metric, sum(amount_micros) / 1e6 AS cost
            FROM reporting.costs WHERE {_CHARGED} GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    listing(
        "Projects",
        "Storage of each project, now and in the selected time.",
        f"""SELECT tenant, project, department, kind, sum(gb_days) AS "GB-days",
            coalesce(sum(bytes) FILTER (WHERE is_today), 0) AS "bytes now",
            coalesce(sum(objects) FILTER (WHERE is_today), 0) AS "files now"
            FROM reporting.storage WHERE {_DAYS}
            GROUP BY tenant, project, department, kind ORDER BY 5 DESC""",
        units={"bytes now": "decbytes"},
    ),
    variables=[TENANT, CURRENCY],
)
