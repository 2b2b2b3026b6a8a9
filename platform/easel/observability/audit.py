"""Checks the platform's invariants on the live database (`easel audit`): one function per check, one text per fault."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, DateField, F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest, TruncMonth

from billing.budgets.budgets import budget_charged_micros
from billing.models import (
    Budget,
    BudgetHold,
    BudgetMonth,
    Charge,
    CreditGrant,
    Entry,
    LedgerAccount,
    MonthlyQuantity,
    Rate,
    Transaction,
)
from billing.usage.rerating import rerated
from core.image_units import PIXELS_PER_UNIT
from easel.catalog.models import Worker
from easel.jobs.budgets import jobs_unfinished
from easel.jobs.models import Attempt, Job, State
from tenants.models import MonthlyUse

ATTRIBUTION_DRIFT_MAX = 0.001
OVERDUE = timedelta(minutes=5)
RERATED = 10_000  # the latest charges, which every audit rates again

# How a hold may be settled, by the job's state. A stopped job is posted if the price book charges for the steps done.
_SETTLED_BY: dict[str, tuple[str | None, ...]] = {
    State.SUCCEEDED: ("post",),
    State.FAILED: ("void",),
    State.CANCELED: ("void", "post"),
    State.EXPIRED: ("void", "post"),
}


def ledger_balances(now: datetime) -> Iterator[str]:
    """Every transaction sums to zero, and so do all balances of a currency together."""
    totals = Transaction.objects.annotate(total=Coalesce(Sum("entries__amount_micros"), 0))
    for unbalanced in totals.exclude(total=0):
        yield f"transaction {unbalanced.id} is out of balance by {unbalanced.total} micros"
    sums = LedgerAccount.objects.order_by().values("currency").annotate(total=Sum("balance_micros"))
    for row in sums.exclude(total=0):
        yield f"the balances in {row['currency']} sum to {row['total']} micros"


def accounts_match_entries(now: datetime) -> Iterator[str]:
    """Check that a balance is the sum of its entries."""
    sums = LedgerAccount.objects.annotate(total=Coalesce(Sum("entries__amount_micros"), 0))
    for account in sums.exclude(total=F("balance_micros")):
        yield f"account {account.pk} has {account.balance_micros} micros; its entries sum to {account.total}"


def grants_match_credit(now: datetime) -> Iterator[str]:
    """Check that the rest of a tenant's grants is its credit plus its holds, or zero if the tenant owes."""
    left = CreditGrant.objects.filter(tenant=OuterRef("tenant"), currency=OuterRef("currency")).order_by()
    remaining = Coalesce(Subquery(left.values("tenant").annotate(sum=Sum("remaining_micros")).values("sum")), 0)
    kinds = Q(kind__in=(LedgerAccount.Kind.CREDIT, LedgerAccount.Kind.HELD))
    rows = LedgerAccount.objects.filter(kinds).order_by().values("tenant", "currency")
    rows = rows.annotate(have=Greatest(Sum("balance_micros"), 0), left=remaining)
    for row in rows.exclude(left=F("have")):
        yield f"tenant {row['tenant']} has {row['have']} micros; its grants have {row['left']} left ({row['currency']})"


def charges_match_ledger(now: datetime) -> Iterator[str]:
    """Check that the charges of a transaction are the revenue that it booked."""
    earned = Coalesce(Sum("entries__amount_micros", filter=Q(entries__account__kind=LedgerAccount.Kind.REVENUE)), 0)
    charges = Charge.objects.filter(transaction=OuterRef("pk")).order_by().values("transaction")
    charged = Coalesce(Subquery(charges.annotate(sum=Sum("amount_micros")).values("sum")), 0)
    kinds = (Transaction.Kind.POST, Transaction.Kind.CHARGE, Transaction.Kind.CORRECT)
    made = Transaction.objects.filter(kind__in=kinds).annotate(earned=earned, charged=charged)
    for one in made.exclude(charged=F("earned")):
        yield f"{one.kind} {one.reference} has charges of {one.charged} micros and booked {one.earned} as revenue"


def daily_costs_match_charges(now: datetime) -> Iterator[str]:
    """Check that the daily costs of a sealed day are the sums of its charges."""
    with connection.cursor() as cursor:
        cursor.execute(_DAILY_COSTS)
        for day, said, charged in cursor.fetchall():
            yield f"the daily costs of {day} are {said} (charges, micros, list micros); its charges sum to {charged}"


_DAILY_COSTS = """
    WITH side AS (
             SELECT (booked_at AT TIME ZONE 'UTC')::date AS day, charges AS said, amount_micros AS said_micros,
                    list_micros AS said_list, 0 AS charged, 0 AS charged_micros, 0 AS charged_list
               FROM billing_dailycost
             UNION ALL
             SELECT (created_at AT TIME ZONE 'UTC')::date, 0, 0, 0, 1, amount_micros,
                    coalesce(list_micros, amount_micros)
               FROM billing_charge
              WHERE created_at < (SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' FROM billing_costday)
         )
    SELECT day, (sum(said), sum(said_micros), sum(said_list))::text,
           (sum(charged), sum(charged_micros), sum(charged_list))::text
      FROM side GROUP BY day
    HAVING sum(said) <> sum(charged) OR sum(said_micros) <> sum(charged_micros) OR sum(said_list) <> sum(charged_list)
     ORDER BY day
"""


def daily_jobs_match_jobs(now: datetime) -> Iterator[str]:
    """Check that the daily jobs of a sealed day are the counts of the jobs that ended on it."""
    with connection.cursor() as cursor:
        cursor.execute(_DAILY_JOBS)
        for day, tenant, state, said, ended in cursor.fetchall():
            yield f"the daily jobs of {day} count {said} (jobs, images) of tenant {tenant} {state}; there are {ended}"


_DAILY_JOBS = """
    WITH side AS (
             SELECT day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds,
                    jobs AS said, images AS said_images, 0 AS ended, 0 AS ended_images
               FROM jobs_dailyjobs
             UNION ALL
             SELECT (job.finished_at AT TIME ZONE 'UTC')::date, job.tenant_id, job.project_id, pool.slug, model.name,
                    model.name || '@' || version.number, job.quality, job.tier, job.width || 'x' || job.height,
                    job.state, jobs_step_of_ten(extract(epoch FROM job.finished_at - job.created_at)),
                    0, 0, 1, job.n
               FROM jobs_job job
               JOIN catalog_pool pool ON pool.id = job.pool_id
               JOIN catalog_modelversion version ON version.id = job.model_version_id
               JOIN catalog_model model ON model.id = version.model_id
              WHERE job.finished_at < (SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' FROM billing_costday)
         )
    SELECT day, tenant_id, state, (sum(said), sum(said_images))::text, (sum(ended), sum(ended_images))::text
      FROM side
     GROUP BY day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds
    HAVING sum(said) <> sum(ended) OR sum(said_images) <> sum(ended_images)
     ORDER BY day, tenant_id, state
"""


def budgets_match_charges(now: datetime) -> Iterator[str]:
    """Check that a budget's months count its owner's charges, and their holds are those of its unfinished jobs."""
    held = Sum("holds__amount_micros")
    for month in BudgetMonth.objects.annotate(total=Coalesce(held, 0)).exclude(held_micros=F("total")):
        yield f"a month of budget {month.budget_id} holds {month.held_micros} micros; its holds sum to {month.total}"
    for budget in Budget.objects.select_related("tenant", "project", "api_key"):
        counted = budget.months.aggregate(sum=Coalesce(Sum("spent_micros"), 0))["sum"]
        if counted != (charged := budget_charged_micros(budget)):
            yield f"budget {budget.pk} counts {counted} micros; its owner was charged {charged}"
        jobs = jobs_unfinished(tenant=budget.tenant, project=budget.project, api_key=budget.api_key)
        entries = Entry.objects.filter(account__kind=LedgerAccount.Kind.HELD, transaction__kind=Transaction.Kind.HOLD)
        entries = entries.filter(transaction__reference__in=jobs, transaction__created_at__gte=budget.counts_from)
        holds = BudgetHold.objects.filter(budget_month__budget=budget)
        of_jobs = set(entries.values_list("transaction__reference", "amount_micros"))
        if of_jobs != set(holds.values_list("reference", "amount_micros")):
            yield f"the {holds.count()} holds of budget {budget.pk} are not those of its {len(of_jobs)} jobs"


def jobs_match_ledger(now: datetime) -> Iterator[str]:
    """Check that holds of succeeded jobs are posted, of failed ones voided, and of unfinished ones not settled."""
    settlements = Transaction.objects.filter(kind__in=(Transaction.Kind.POST, Transaction.Kind.VOID))
    settled = dict(settlements.values_list("reference", "kind"))
    for job_id, state in Job.objects.values_list("id", "state").iterator():
        if settled.get(job_id) not in _SETTLED_BY.get(state, (None,)):
            yield f"job {job_id} is {state}; its hold was settled by {settled.get(job_id)}"


def jobs_end(now: datetime) -> Iterator[str]:
    """No queued job is past its expiry, and no live attempt past its lease."""
    overdue = Job.objects.filter(state=State.QUEUED, expires_at__lt=now - OVERDUE)
    for job_id in overdue.values_list("id", flat=True):
        yield f"job {job_id} is still queued past its expiry"
    silent = Attempt.objects.filter(state=Attempt.State.LIVE, lease_expires_at__lt=now - OVERDUE)
    for token in silent.values_list("token", flat=True):
        yield f"attempt {token} is still live past its lease"


def successes_have_outputs(now: datetime) -> Iterator[str]:
    """Check that a succeeded job has `n` images and one succeeded attempt, or cached images; others have none."""
    jobs = Job.objects.annotate(
        images=Count("outputs", distinct=True),
        wins=Count("attempts", filter=Q(attempts__state=Attempt.State.SUCCEEDED), distinct=True),
    )
    broken = (
        jobs.exclude(state=State.SUCCEEDED, images=F("n"), wins=1, cached_from=None)
        .exclude(state=State.SUCCEEDED, images=F("n"), wins=0, cached_from__isnull=False)
        .exclude(~Q(state=State.SUCCEEDED), images=0, wins=0)
    )
    for job in broken:
        yield f"job {job.id} is {job.state} with {job.images} of {job.n} images and {job.wins} succeeded attempts"


def gpu_seconds_are_attributed(now: datetime) -> Iterator[str]:
    """Check that the GPU seconds that a worker attributed are those that its device was busy, within 0.1 %."""
    for worker in Worker.objects.filter(busy_seconds__gt=0):
        drift = abs(worker.attributed_seconds - worker.busy_seconds) / worker.busy_seconds
        if drift > ATTRIBUTION_DRIFT_MAX:
            yield f"worker {worker.name} was busy {worker.busy_seconds} s; it attributed {worker.attributed_seconds} s"


def months_match_jobs(now: datetime) -> Iterator[str]:
    """Check that a month's image units are those of its jobs, except jobs that ended without an image."""
    jobs = Job.objects.filter(Q(finished_at=None) | Q(state=State.SUCCEEDED)).order_by()
    months = jobs.annotate(month=TruncMonth("created_at", output_field=DateField()))
    pixels = Sum(F("width") * F("height") * F("n"))
    of_jobs: dict[tuple[UUID, UUID | None, date], Decimal] = {}
    for tenant_id, month, total in months.values_list("tenant", "month").annotate(total=pixels):
        of_jobs[tenant_id, None, month] = Decimal(total) / PIXELS_PER_UNIT
    families = months.annotate(family=Coalesce("api_key__first_key", "api_key"))
    for tenant_id, family_id, month, total in families.values_list("tenant", "family", "month").annotate(total=pixels):
        of_jobs[tenant_id, family_id, month] = Decimal(total) / PIXELS_PER_UNIT
    for row in MonthlyUse.objects.select_related("tenant"):
        units = of_jobs.pop((row.tenant_id, row.api_key_id, row.month), Decimal(0))
        if row.image_units != units:
            yield f"{row.tenant} has {row.image_units} image units in {row.month:%Y-%m}; its jobs have {units}"
    for (tenant_id, _, month), units in of_jobs.items():
        yield f"tenant {tenant_id} has no count of image units in {month:%Y-%m}; its jobs have {units}"


def charges_match_rating(now: datetime, *, latest: int | None = RERATED) -> Iterator[str]:
    """Check that charges, the `latest` or all, are the same when rated again from usage records and prices."""
    charges = Charge.objects.order_by("-created_at", "-pk")
    for difference in rerated(charges[:latest]):
        yield str(difference)


def months_match_charges(now: datetime) -> Iterator[str]:
    """Check that the monthly quantities of a graduated rate are those of its charges."""
    charges = Charge.objects.exclude(rate__mode=Rate.Mode.FLAT).exclude(kind=Charge.Kind.WAIVER).order_by()
    quantities = charges.values_list("usage_record__tenant", "rate").annotate(Sum("usage_record__quantity"))
    used = {(tenant, rate): quantity for tenant, rate, quantity in quantities}
    months = MonthlyQuantity.objects.order_by().values_list("tenant", "rate").annotate(Sum("quantity"))
    counted = {(tenant, rate): quantity for tenant, rate, quantity in months}
    for tenant, rate in sorted({*used, *counted}, key=str):
        charged, counts = used.get((tenant, rate), 0), counted.get((tenant, rate), 0)
        if charged != counts:
            yield f"tenant {tenant} was charged for {charged} of rate {rate}; its months count {counts}"


CHECKS: tuple[Callable[[datetime], Iterator[str]], ...] = (
    ledger_balances,
    accounts_match_entries,
    grants_match_credit,
    charges_match_ledger,
    daily_costs_match_charges,
    daily_jobs_match_jobs,
    budgets_match_charges,
    charges_match_rating,
    months_match_charges,
    jobs_match_ledger,
    jobs_end,
    successes_have_outputs,
    gpu_seconds_are_attributed,
    months_match_jobs,
)


@transaction.atomic
def audit(*, now: datetime, full: bool = False) -> dict[str, list[str]]:
    """Return the faults by check. With `full`, all charges are rated again instead of the latest."""
    with connection.cursor() as cursor:
        # All checks see one snapshot: a job that ended between two queries would look like a fault.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    found = {check.__name__: list(check(now)) for check in CHECKS}
    return {**found, charges_match_rating.__name__: list(charges_match_rating(now, latest=None))} if full else found
