"""The scheduler process: work that is due by the clock. Every verb it calls is conditional, so two may run."""

import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from billing.invoices.statements import statements_make
from billing.ledger.expiry import grants_expire
from billing.usage.daily_costs import cost_day_seal, cost_days_due
from billing.usage.storage import storage_day_meter, storage_days_due
from core.models import IdempotentRequest
from easel.catalog.adapters import adapter_files_delete_retired
from easel.catalog.pool_metering import pool_day_meter, pool_days_due
from easel.jobs import lifecycle
from easel.jobs.deletion import age_out
from easel.jobs.models import (
    Attempt,
    Job,
    JobAdapter,
    State,
)
from easel.jobs.outputs import attempts_sweep, orphans_sweep
from easel.jobs.result_cache import results_trim
from easel.privacy.erasure import erase_advance
from easel.processes import deliverer
from easel.serving.guardrail import rollouts_decide
from easel.webhooks.budget_notices import crossings_mail, crossings_notify
from easel.webhooks.delivery import messages_delete
from tenants.models import Tenant

log = structlog.get_logger()
IDEMPOTENCY_HOURS = 24
ORPHAN_DAYS = (2, 3, 4)  # ago: a platform that was down for a day sweeps that one too
MESSAGE_DAYS = 30


def lose_silent_attempts(now: datetime, *, tenants: Collection[Tenant] | None = None) -> int:
    """Attempts whose lease ran out: their jobs go back to the queue, or fail. `tenants` limits it to their jobs."""
    silent = Attempt.objects.filter(state=Attempt.State.LIVE, lease_expires_at__lte=now)
    if tenants is not None:
        silent = silent.filter(job__tenant__in=tenants)
    return sum(
        lifecycle.lose(token=token, now=now, attempts_max=settings.EASEL.attempts_max)
        for token in list(silent.values_list("token", flat=True)[:1000])
    )


def expire_jobs(now: datetime, *, tenants: Collection[Tenant] | None = None) -> int:
    """Jobs that no worker took in time end uncharged. `tenants` limits it to their jobs."""
    late = Job.objects.filter(state=State.QUEUED, expires_at__lte=now)
    if tenants is not None:
        late = late.filter(tenant__in=tenants)
    return sum(lifecycle.expire(job_id=job_id, now=now) for job_id in list(late.values_list("id", flat=True)[:1000]))


def delete_idempotency_keys(now: datetime) -> int:
    """Keys older than a day may be used again."""
    old = IdempotentRequest.objects.filter(created_at__lt=now - timedelta(hours=IDEMPOTENCY_HOURS))
    return old.delete()[0]


def meter_storage(now: datetime) -> int:
    """The days that are over are charged for what was kept on them."""
    return sum(storage_day_meter(day=day, now=now) for day in storage_days_due(now=now))


def seal_cost_days(now: datetime) -> int:
    """The charges of the days that are over are added up for reports."""
    return sum(cost_day_seal(day=day, now=now) for day in cost_days_due(now=now))


def make_statements(now: datetime) -> int:
    """The months that are over are drawn up, and final three days later."""
    return statements_make(now=now)


def meter_pools(now: datetime) -> int:
    """Dedicated pools are charged for the days on which their workers were up."""
    return sum(pool_day_meter(day_id=day_id, now=now) for day_id in pool_days_due(now=now))


def expire_grants(now: datetime) -> int:
    """Credit that ran out is taken."""
    return grants_expire(now=now)


def notify_budgets(now: datetime) -> int:
    """Thresholds that budgets have reached are told."""
    return crossings_notify(now=now)


def mail_budgets(now: datetime) -> int:
    """The same by e-mail."""
    return crossings_mail(now=now)


def delete_what_aged_out(now: datetime) -> int:
    """Images, and later what their jobs say, go when the days are over that their tenant has them kept."""
    return age_out(default=settings.EASEL, now=now)


def erase_tenants(now: datetime) -> int:
    """Erasures that were asked for in the portal, or broken off, go on."""
    asked = Tenant.objects.filter(erased_at=None).exclude(erase_requested_at=None)
    return sum(
        erase_advance(tenant=tenant, default=settings.EASEL, actor="platform", now=now)
        for tenant in asked.order_by("erase_requested_at")
    )


def sweep_attempts(now: datetime) -> int:
    """What attempts left in the storage that is no image."""
    return attempts_sweep(now=now)


def sweep_orphans(now: datetime) -> int:
    """What crashes left in the storage; days old enough that none of their jobs is under way."""
    return sum(orphans_sweep(day=(now - timedelta(days=ago)).date()) for ago in ORPHAN_DAYS)


def trim_result_cache(_now: datetime) -> int:
    """What answers requests for the same again is kept up to EASEL_RESULT_CACHE_BYTES."""
    return results_trim(bytes_max=settings.EASEL.result_cache_bytes)


def delete_retired_adapters(now: datetime) -> int:
    """Files of retired adapters go once no job needs them."""
    needed = JobAdapter.objects.filter(job__finished_at=None).values_list("adapter_version", flat=True)
    return adapter_files_delete_retired(in_use=set(needed), now=now)


def decide_rollouts(now: datetime) -> int:
    """Canaries go on, or back."""
    return rollouts_decide(now=now)


def delete_messages(now: datetime) -> int:
    """What webhooks were told is kept for 30 days, to be looked at and sent again."""
    return messages_delete(before=now - timedelta(days=MESSAGE_DAYS))


PERIODIC: tuple[tuple[float, Callable[[datetime], int]], ...] = (
    (1, lose_silent_attempts),
    (1, expire_jobs),
    (5, decide_rollouts),
    (600, delete_idempotency_keys),
    (600, meter_storage),
    (600, meter_pools),
    (60, expire_grants),
    (5, notify_budgets),
    (60, mail_budgets),
    (5, delete_what_aged_out),
    (5, erase_tenants),
    (600, seal_cost_days),
    (600, make_statements),
    (60, delete_retired_adapters),
    (60, trim_result_cache),
    (60, sweep_attempts),
    (6 * 3600, sweep_orphans),
    (600, delete_messages),
)


def run(stop: threading.Event) -> None:
    """Until `stop`: calls each task whenever its seconds have passed, and delivers webhooks beside that."""
    delivering = threading.Thread(target=deliverer.run, args=(stop,), name="webhooks")
    delivering.start()
    try:
        _tick(stop)
    finally:
        stop.set()
        delivering.join()


def _tick(stop: threading.Event) -> None:
    due = {task: 0.0 for _, task in PERIODIC}
    while not stop.is_set():
        for seconds, task in PERIODIC:
            if time.monotonic() < due[task]:
                continue
            due[task] = time.monotonic() + seconds
            try:
                if done := task(datetime.now(UTC)):
                    log.info(task.__name__, count=done)
            except (OperationalError, InterfaceError) as error:
                log.warning("scheduler_waits", error=repr(error))
                close_old_connections()
            except Exception:  # a bucket that refuses must not keep leases from being looked at
                log.exception("scheduler_task_failed", task=task.__name__)
        stop.wait(min(seconds for seconds, _ in PERIODIC))
