"""`make bench-billing`: what finance asks for, at 10,000, 100,000 and 1,000,000 jobs a month of 1,000 tenants.

Every month has the jobs of its size; those before it stay. `name value` lines last; QUICK=1 is smaller and ends within
five minutes, RECORD=1 writes what it found into tests/bench/RESULTS.md.
"""

import os
import platform
import time

import tests.conftest  # noqa: F401  PostgreSQL, Redis and Django, before any model is imported

# isort: split
from tests.bench.billing import finance, months
from tests.bench.gateway.fixtures import served_model
from tests.bench.report import Report, say


def main() -> None:
    quick = bool(os.environ.get("QUICK"))
    begun = time.monotonic()
    report = Report()
    sizes = (1_000, 10_000, 50_000) if quick else (10_000, 100_000, 1_000_000)
    count = 100 if quick else 1_000
    month = months.next_month()
    owners, jobs = months.customers(count, served_model(), now=month)
    say(f"  {count} tenants with a job of each size")
    for size in sizes:
        measure(report, month, owners, jobs, size)
        month = months.month_after(month.date())
    device = f"{platform.machine()}, {os.cpu_count()} cores, shared with other work"
    report.publish("Billing", "make bench-billing", device, seconds=time.monotonic() - begun, quick=quick)


def measure(report: Report, month, owners, jobs, size: int) -> None:
    begun = time.monotonic()
    months.fill(month, jobs, copies=size // len(jobs))
    report.add(f"load_seconds_{size}", time.monotonic() - begun)
    begun = time.monotonic()
    days = months.seal_until(months.month_after(month.date()))
    report.add(f"seal_ms_per_day_{size}", (time.monotonic() - begun) / days * 1000)
    seconds = finance.query_seconds(month)
    slowest = sorted(seconds, key=seconds.__getitem__, reverse=True)
    for name in slowest[:3]:
        say(f"  {seconds[name]:.2f} s  {name}")
    report.add(f"slowest_dashboard_query_seconds_{size}", seconds[slowest[0]], target_max=1.0)
    taken = finance.statements_seconds([owner.tenant for owner in owners], month)
    report.add(f"statements_seconds_{size}", taken)
    report.add(f"statement_ms_{size}", taken / len(owners) * 1000)
    for form in ("csv", "parquet"):
        made = finance.export(month, form=form)
        report.add(f"focus_{form}_seconds_{size}", made.seconds)
        report.add(f"focus_{form}_peak_mib_{size}", made.peak_mib)
        if form == "csv":
            report.add(f"focus_rows_{size}", made.rows)
            report.add(f"focus_rows_per_s_{size}", made.rows / made.seconds)


if __name__ == "__main__":
    main()
