"""The scheduler process: runs each periodic task when it is due, and in threads beside them delivers webhooks and works
off batches.

It is a loop instead of Celery beat, because every task is a conditional update: several schedulers may run at once, so
none has to be elected.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import close_old_connections

from billing.invoices.statements import statements_make
from billing.ledger.grants import grants_expire
from billing.usage.daily_costs import cost_day_seal, cost_days_due
from billing.usage.storage import storage_day_meter, storage_days_due
from core.models import IdempotentRequest
from easel.batches.files import files_expire
from easel.catalog.adapters import adapter_files_delete_retired
from easel.catalog.pool_metering import pool_day_meter, pool_days_due
from easel.jobs import lifecycle
from easel.jobs.deletion import age_out
from easel.jobs.models import Attempt, Job, JobAdapter, State
from easel.jobs.outputs import attempts_sweep, orphans_sweep
from easel.jobs.result_cache import results_trim
from easel.jobs.retries import abandoned_jobs_cancel, calls_delete
from easel.privacy.erasure import erase_advance
from easel.processes import batch_feeder, deliverer, redis_guard
from easel.processes.loop import UNAVAILABLE, run_turns
from easel.reporting.sessions import sessions_end
from easel.serving.guardrail import rollouts_decide
from easel.webhooks.budget_notices import crossings_mail, crossings_notify
from easel.webhooks.delivery import messages_delete
from tenants.models import Tenant

log = structlog.get_logger()
Task = Callable[..., int]  # called with `now`; returns how many things it changed
IDEMPOTENCY_HOURS = 24
ORPHAN_DAYS_AGO = (2, 3, 4)  # several days, so that a platform that was down for a day misses none
MESSAGE_DAYS = 30
BATCH = 1000


def lose_silent_attempts(now: datetime, *, tenants: Collection[Tenant] | None = None) -> int:
    """Give up attempts whose lease has expired: their jobs return to the queue, or fail. `tenants` limits the work."""
    silent = Attempt.objects.filter(state=Attempt.State.LIVE, lease_expires_at__lte=now)
    if tenants is not None:
        silent = silent.filter(job__tenant__in=tenants)
    return sum(
        lifecycle.lose(token=token, now=now, attempts_max=settings.EASEL.attempts_max)
        for token in list(silent.values_list("token", flat=True)[:BATCH])
    )


def delete_expired_files(now: datetime) -> int:
    """Delete files of batches after 30 days, with the lines that they show."""
    return files_expire(now=now)


def expire_jobs(now: datetime, *, tenants: Collection[Tenant] | None = None) -> int:
    """Expire jobs that no worker took in time. They are not charged. `tenants` limits the work."""
    late = Job.objects.filter(state=State.QUEUED, expires_at__lte=now)
    if tenants is not None:
        late = late.filter(tenant__in=tenants)
    return sum(lifecycle.expire(job_id=job_id, now=now) for job_id in list(late.values_list("id", flat=True)[:BATCH]))


def cancel_abandoned_jobs(now: datetime, *, tenants: Collection[Tenant] | None = None) -> int:
    """Cancel jobs whose client disconnected and did not come back within EASEL_DISCONNECT_GRACE_SECONDS."""
    return abandoned_jobs_cancel(now=now, grace_seconds=settings.EASEL.disconnect_grace_seconds, tenants=tenants)


def end_reporting_sessions(now: datetime) -> int:
    """End what logins for reports may not do, and shut the logins that do it on purpose."""
    return sessions_end(have_replica=bool(settings.EASEL.reporting_database_url), now=now)


def delete_client_calls(now: datetime) -> int:
    """Forget calls that ended minutes ago: no retry joins them any more."""
    return calls_delete(now=now)


def delete_idempotency_keys(now: datetime) -> int:
    """Forget Idempotency-Keys after a day; they may be used again."""
    old = IdempotentRequest.objects.filter(created_at__lt=now - timedelta(hours=IDEMPOTENCY_HOURS))
    return old.delete()[0]


def meter_storage(now: datetime) -> int:
    """Charge for the objects stored on each day that is over."""
    return sum(storage_day_meter(day=day, now=now) for day in storage_days_due(now=now))


def seal_cost_days(now: datetime) -> int:
    """Add up the charges of each day that is over, for reports."""
    return sum(cost_day_seal(day=day, now=now) for day in cost_days_due(now=now))


def meter_pools(now: datetime) -> int:
    """Charge for dedicated pools, for the time that their workers were up on each day that is over."""
    return sum(pool_day_meter(day_id=day_id, now=now) for day_id in pool_days_due(now=now))


def delete_what_aged_out(now: datetime) -> int:
    """Delete images, and later the texts of jobs, that are older than their tenant retains them."""
    return age_out(default=settings.EASEL, now=now)


def erase_tenants(now: datetime) -> int:
    """Continue the erasure of each tenant for which one was requested."""
    requested = Tenant.objects.filter(erased_at=None).exclude(erase_requested_at=None)
    return sum(
        erase_advance(tenant=tenant, default=settings.EASEL, actor="platform", now=now)
        for tenant in requested.order_by("erase_requested_at")
    )


def sweep_orphans(now: datetime) -> int:
    """Delete files that a crash left, of days so long ago that their jobs have ended."""
    return sum(orphans_sweep(day=(now - timedelta(days=ago)).date()) for ago in ORPHAN_DAYS_AGO)


def trim_result_cache(*, now: datetime) -> int:
    """Evict cached results beyond EASEL_RESULT_CACHE_BYTES."""
    return results_trim(bytes_max=settings.EASEL.result_cache_bytes)


def delete_retired_adapters(now: datetime) -> int:
    """Delete the files of retired adapters that no unfinished job uses."""
    in_use = JobAdapter.objects.filter(job__finished_at=None).values_list("adapter_version", flat=True)
    return adapter_files_delete_retired(in_use=set(in_use), now=now)


def delete_messages(now: datetime) -> int:
    """Delete webhook messages after 30 days; until then they can be seen and sent again."""
    return messages_delete(before=now - timedelta(days=MESSAGE_DAYS))


# (seconds between two calls, task)
PERIODIC: tuple[tuple[float, Task], ...] = (
    (1, lose_silent_attempts),
    (1, expire_jobs),
    (1, cancel_abandoned_jobs),
    (1, end_reporting_sessions),
    (5, rollouts_decide),
    (60, delete_client_calls),
    (600, delete_idempotency_keys),
    (600, meter_storage),
    (600, meter_pools),
    (60, grants_expire),
    (5, crossings_notify),
    (60, crossings_mail),
    (5, delete_what_aged_out),
    (5, erase_tenants),
    (600, seal_cost_days),
    (600, statements_make),
    (60, delete_retired_adapters),
    (60, delete_expired_files),
    (60, trim_result_cache),
    (60, attempts_sweep),
    (6 * 3600, sweep_orphans),
    (600, delete_messages),
)


def run(stop: threading.Event) -> None:
    """Run the periodic tasks, the webhook deliverer, the batch feeder and the guard of Redis until `stop` is set."""
    beside = [
        threading.Thread(target=deliverer.run, args=(stop,), name="webhooks"),
        threading.Thread(target=batch_feeder.run, args=(stop,), name="batches"),
        threading.Thread(target=redis_guard.run, args=(stop,), name="redis_guard"),
    ]
    for thread in beside:
        thread.start()
    try:
        pause_seconds = min(seconds for seconds, _ in PERIODIC)
        run_turns(_turn_of(PERIODIC), process="scheduler", stop=stop, pause_seconds=pause_seconds)
    finally:
        stop.set()
        for thread in beside:
            thread.join()


def _turn_of(tasks: Sequence[tuple[float, Task]]) -> Callable[[], None]:
    """Return a turn that calls the tasks that are due."""
    due_at = {task: 0.0 for _, task in tasks}  # on the monotonic clock

    def turn() -> None:
        for seconds, task in tasks:
            if time.monotonic() >= due_at[task]:
                due_at[task] = time.monotonic() + seconds
                _call(task)

    return turn


def _call(task: Task) -> None:
    """Call a task. Its failure is logged here, because the other tasks may not depend on what failed."""
    try:
        if count := task(now=datetime.now(UTC)):
            log.info(task.__name__, count=count)
    except UNAVAILABLE as error:
        log.warning("server_unavailable", process="scheduler", task=task.__name__, error=repr(error))
        close_old_connections()
    except Exception:
        log.exception("scheduler_task_failed", task=task.__name__)
