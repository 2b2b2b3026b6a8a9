"""Months of use for the billing's benchmarks: jobs that were settled, and their copies over a month.

A tenant's first jobs go through admission and settlement. Their copies are written by the server with its triggers off
(session_replication_role), as a restored backup would be: jobs, attempts, transactions, usage and charges, but neither
holds nor entries, which nothing measured here reads.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from billing.ledger.postings import credit_grant
from billing.models import CostDay, Meter
from billing.pricing.rating import Prices, Quantity
from billing.usage.daily_costs import cost_day_seal
from billing.usage.settlement import settle
from billing.usage.storage import DAY
from easel.catalog.models import ModelVersion
from easel.jobs.admission import job_submit
from easel.jobs.dimensions import dimensions_of
from easel.jobs.models import Attempt, Job
from easel.jobs.spec import Spec
from tenants.accounts import tenant_create
from tenants.keys import key_issue
from tests.conftest import PEPPER, Customer

SIZES = ("256x256", "512x512")
_LIMITS = replace(settings.EASEL, prompt_chars_max=1000, job_ttl_seconds=10**8, queued_jobs_max=10_000)
# Of every row of a job, by the copy's number and the job's id.
_ID = "md5({0}::text || copy.number || %(salt)s)::uuid"
_AT = "%(start)s::timestamptz + (abs(hashtext({0}::text || copy.number)::bigint) %% %(seconds)s) * interval '1 second'"
_COPIES = {
    "jobs_job": (
        "row.id",
        # It waited for 0 to 60 s, most not for long, so that as many times differ as do in a real month.
        {
            "id": _ID.format("row.id"),
            "created_at": "at - 60 * random() ^ 3 * interval '1 s'",
            "finished_at": "at + interval '4 s'",
        },
    ),
    "jobs_attempt": (
        "row.job_id",
        {
            "token": _ID.format("row.token"),
            "job_id": _ID.format("row.job_id"),
            "dispatched_at": "at",
            "started_at": "at + interval '1 s'",
            "finished_at": "at + interval '4 s'",
        },
    ),
    "billing_transaction": (
        "row.reference",
        {
            "id": _ID.format("row.id"),
            "reference": _ID.format("row.reference"),
            "created_at": "at + interval '4 s'",
        },
    ),
    "billing_usagerecord": (
        "row.job_id",
        {
            "id": _ID.format("row.id"),
            "job_id": _ID.format("row.job_id"),
            "idempotency_key": "'job/' || " + _ID.format("row.job_id") + " || '/' || row.meter",
            "occurred_at": "at + interval '4 s'",
        },
    ),
    "billing_charge": (
        "record.job_id",
        {
            "id": _ID.format("row.id"),
            "usage_record_id": _ID.format("row.usage_record_id"),
            "transaction_id": _ID.format("row.transaction_id"),
            "created_at": "at + interval '4 s'",
        },
    ),
}


def month_after(day: date) -> datetime:
    """The beginning of the first month that has begun on no day until `day`."""
    return datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)


def next_month() -> datetime:
    """The first month of which no day is sealed."""
    newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
    return month_after(newest)


def customers(count: int, version: ModelVersion, *, now: datetime) -> tuple[list[Customer], list[uuid.UUID]]:
    """Tenants made at `at`, with a settled job of each of `SIZES`, and those jobs."""
    made, jobs = [], []
    for number in range(count):
        tenant, project = tenant_create(slug=f"bench-{uuid.uuid4().hex[:12]}", now=now)
        project.labels = {"department": f"department-{number % 20}"}
        project.save()
        key, secret = key_issue(project=project, pepper=PEPPER, now=now)
        credit_grant(tenant=tenant, amount_micros=10**9, reference=uuid.uuid4(), now=now)
        made.append(Customer(tenant, project, key, secret))
        jobs += [_settled(made[-1], version, size, now) for size in SIZES]
    return made, jobs


@transaction.atomic
def _settled(customer: Customer, version: ModelVersion, size: str, now: datetime) -> uuid.UUID:
    spec = Spec(prompt="a red circle", model=version.model.name, size=size, steps=8)
    job = job_submit(api_key=customer.key, spec=spec, config=_LIMITS, job_id=uuid.uuid4(), request_id="bench", now=now)
    quantities = (
        Quantity(meter=Meter.GPU_SECOND, amount=Decimal("1.234567891"), gpu_class="cpu"),
        Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(job.width * job.height) / 512**2),
        Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
    )
    prices = Prices.in_force(tenant=customer.tenant, now=now)
    settle(
        project=customer.project,
        job_id=job.id,
        quantities=quantities,
        dimensions=dimensions_of(job),
        prices=prices,
        now=now,
    )
    Attempt.objects.create(
        job=job,
        number=1,
        state=Attempt.State.SUCCEEDED,
        worker="w1",
        gpu_class="cpu",
        gpu_seconds=Decimal("1.234567891"),
        dispatched_at=now,
        lease_expires_at=now,
        started_at=now,
        finished_at=now,
    )
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE jobs_job SET state = 'succeeded', finished_at = %s WHERE id = %s", [now, job.id])
        cursor.execute("SET LOCAL session_replication_role = origin")
    return job.id


@transaction.atomic
def fill(month: datetime, jobs: Sequence[uuid.UUID], *, copies: int) -> None:
    """`copies` of each job, at random times of a month."""
    seconds = int((month_after(month.date()) - month).total_seconds()) - 10
    given = {"jobs": list(jobs), "copies": copies, "start": month, "seconds": seconds, "salt": month.isoformat()}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        indexes = _indexes_drop(cursor)
        for table, (job, changed) in _COPIES.items():
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_identity = 'NO'",
                [table],
            )
            names = [name for (name,) in cursor.fetchall()]
            values = [changed.get(name, f'row."{name}"') for name in names]
            record = "JOIN billing_usagerecord record ON record.id = row.usage_record_id" if "record" in job else ""
            settled = "AND row.kind = 'post'" if table == "billing_transaction" else ""
            cursor.execute(
                f"""
                INSERT INTO {table} ({", ".join(f'"{name}"' for name in names)})
                SELECT {", ".join(values)}
                  FROM {table} row {record} CROSS JOIN generate_series(1, %(copies)s) AS copy (number)
                 CROSS JOIN LATERAL (SELECT {_AT.format(job)} AS at) time
                 WHERE {job} = ANY(%(jobs)s) {settled}
                """,
                given,
            )
        for made in indexes:
            cursor.execute(made)
        cursor.execute("SET LOCAL session_replication_role = origin")
    with connection.cursor() as cursor:
        for table in _COPIES:
            cursor.execute(f"ANALYZE {table}")


def _indexes_drop(cursor) -> list[str]:
    """Drops the tables' indexes but those that foreign keys need; what makes them again, as a restored backup does.

    To sort a million keys at the end takes a fraction of the time that finding a place for each of them takes.
    """
    cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
    cursor.execute(
        """
        SELECT CASE WHEN own.oid IS NULL THEN format('DROP INDEX %%s', indexrelid::regclass)
                    ELSE format('ALTER TABLE %%s DROP CONSTRAINT %%I', indrelid::regclass, own.conname) END,
               CASE WHEN own.oid IS NULL THEN pg_get_indexdef(indexrelid)
                    ELSE format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s',
                                indrelid::regclass, own.conname, pg_get_constraintdef(own.oid)) END
          FROM pg_index LEFT JOIN pg_constraint own ON own.conindid = indexrelid AND own.conrelid = indrelid
         WHERE indrelid::regclass::text = ANY(%s)
           AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype = 'f')
        """,
        [list(_COPIES)],
    )
    found = cursor.fetchall()
    for drop, _ in found:
        cursor.execute(drop)
    return [make for _, make in found]


def seal_until(end: datetime) -> int:
    """Seals the days before `end`; how many."""
    newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
    days = [newest + DAY * number for number in range(1, (end.date() - newest).days)]
    for day in days:
        cost_day_seal(day=day, now=end + timedelta(hours=2))
    with connection.cursor() as cursor:
        # As autovacuum would by itself.
        cursor.execute("ANALYZE billing_dailycost, jobs_dailyjobs, tenants_tenant, tenants_project")
    return len(days)


def jobs_in(month: datetime) -> int:
    return Job.objects.filter(created_at__gte=month, created_at__lt=month_after(month.date())).count()
