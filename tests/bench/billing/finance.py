"""What finance asks for, timed: a month's statements, every query of the dashboards, the FOCUS file."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from billing.invoices.statements import statement_draft, statement_final
from deploy.grafana.__main__ import dashboards
from tenants.models import Tenant
from tests.bench.billing.months import month_after

_EXPORT = """
import json, resource, sys, time
import django
django.setup()
from datetime import date
from easel.reporting import exports
begun = time.monotonic()
span = exports.Span(start=date.fromisoformat(sys.argv[1]), end=date.fromisoformat(sys.argv[2]))
rows = size = 0
for block in exports.focus(span, form=sys.argv[3]):
    size += len(block)
    rows += block.count(b"\\n")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": time.monotonic() - begun, "bytes": size, "rows": rows, "peak_mib": peak}))
"""


@dataclass(frozen=True)
class Exported:
    seconds: float
    bytes: int
    rows: int
    peak_mib: float


def statements_seconds(tenants: Iterable[Tenant], month: datetime) -> float:
    """Draws up the month of each tenant and makes it final."""
    now = month_after(month.date()) + timedelta(hours=3)
    begun = time.monotonic()
    for tenant in tenants:
        statement_final(statement_draft(tenant, now=now), now=now)
    return time.monotonic() - begun


def query_seconds(month: datetime) -> dict[str, float]:
    """By panel: each query of PostgreSQL of each dashboard over the month, all tenants chosen; the quicker of two."""
    begin, end = month.isoformat(), (month_after(month.date()) - timedelta(seconds=1)).isoformat()
    found: dict[str, float] = {}
    with connection.cursor() as cursor:
        for text in dashboards().values():
            board = json.loads(text)
            values = {}
            for variable in board["templating"]["list"]:
                cursor.execute(variable["query"])
                chosen = [row[0] for row in cursor.fetchall()]
                values[variable["name"]] = chosen if variable["multi"] else chosen[:1]
            for panel in board["panels"]:
                for target in panel["targets"]:
                    if "rawSql" not in target:
                        continue
                    asked = re.sub(
                        r"\$__timeFilter\(([a-z_]+)\)", rf"\1 BETWEEN '{begin}' AND '{end}'", target["rawSql"]
                    )
                    for name, chosen in values.items():
                        asked = asked.replace(f"${{{name}:sqlstring}}", ",".join(f"'{value}'" for value in chosen))
                    found[f"{board['uid']}: {panel['title']}"] = min(_seconds(cursor, asked) for _ in range(2))
    return found


def _seconds(cursor, asked: str) -> float:
    begun = time.monotonic()
    cursor.execute(asked)
    cursor.fetchall()
    return time.monotonic() - begun


def export(month: datetime, *, form: str) -> Exported:
    """The month's FOCUS file of all tenants, in a process of its own, whose memory is looked at."""
    last = month_after(month.date()) - timedelta(days=1)
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, month.date().isoformat(), last.date().isoformat(), form],
        capture_output=True,
        text=True,
        check=True,
    )
    return Exported(**json.loads(done.stdout.splitlines()[-1]))
