"""An erasure is complete and of one tenant only, leaves the books, and survives crashes."""

import io
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from importlib import import_module

import pytest
from django.db import IntegrityError, transaction

from billing.models import StoredObject
from core.errors import DomainError
from core.models import AuditEvent
from easel.jobs import dispatch
from easel.jobs.models import Job, State
from easel.privacy import erasure
from easel.privacy.erasure import JobsUnfinished, erase_advance, erase_request
from easel.privacy.holdings import holdings
from easel.processes import scheduler
from easel.serving.experiment_report import experiment_report
from easel.serving.models import Experiment
from easel.storage import store
from tenants.accounts import TenantClosed, tenant_resume
from tenants.keys import key_authenticate
from tenants.models import Tenant
from tenants.retention import Retention
from tests.conftest import NOW, PEPPER
from tests.easel.jobs.test_deletion import reported, tables_that_hold
from tests.easel.privacy.conftest import IN_BOTH_STORES, secret_of

pytestmark = pytest.mark.usefixtures("any_store")

DAYS = Retention(output_days=30, job_days=90)
LATER = NOW + timedelta(hours=1)
# Usage records and daily costs retain adapters' names, to which amounts are attributed.
KEEPS_NAMES = {"billing_usagerecord", "billing_dailycost"}


def erase(customer, *, cancel_jobs: bool = False) -> None:
    erase_request(tenant=customer.tenant, cancel_jobs=cancel_jobs, actor="test", now=LATER)
    advance(customer)


def advance(customer) -> None:
    while erase_advance(tenant=customer.tenant, default=DAYS, actor="test", now=LATER):
        pass
    customer.tenant.refresh_from_db()


def rows_of(customer) -> dict[str, list]:
    return {holding.name: list(holding.rows(customer.tenant)) for holding in holdings()}


def keys_of(customer) -> list[str]:
    return list(StoredObject.objects.filter(project__tenant=customer.tenant).values_list("storage_key", flat=True))


@IN_BOTH_STORES
def test_nothing_that_the_tenant_wrote_or_made_is_left_anywhere(alice, furnish):
    furnish(alice)
    store().put(f"{alice.tenant.slug}/outputs/orphan", io.BytesIO(b"of a crash"), "image/png")
    erase(alice)
    assert alice.tenant.erased_at == LATER
    assert tables_that_hold(secret_of(alice)) == KEEPS_NAMES
    assert store().clear(alice.tenant.slug) == 0
    assert not StoredObject.objects.filter(project__tenant=alice.tenant, deleted_at=None).exists()


def test_money_counts_and_reports_are_what_they_were(alice, furnish):
    furnish(alice)
    experiment = Experiment.objects.get(tenant=alice.tenant)

    def figures():
        reports = experiment_report(Experiment.objects.get(pk=experiment.pk))
        return [(r.jobs, r.succeeded, r.failed, r.feedback, r.cost_micros, r.score, r.seconds) for r in reports]

    charges, jobs, *sums, broken = reported(alice)
    before = figures()
    erase(alice)
    after = reported(alice)
    assert (after[0], after[2:]) == (charges, [*sums, broken])
    assert broken == []
    assert len(after[1]) == len(jobs)
    assert figures() == before


@IN_BOTH_STORES
def test_another_tenant_is_untouched(alice, bob, furnish):
    furnish(alice)
    furnish(bob)
    before = rows_of(bob)
    erase(alice)
    assert rows_of(bob) == before
    assert all(store().get(key) for key in keys_of(bob))


def test_its_keys_are_refused_and_it_can_not_be_resumed(alice, furnish):
    furnish(alice)
    erase(alice)
    with pytest.raises(DomainError) as refused:
        key_authenticate(alice.secret, pepper=PEPPER, now=NOW)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(TenantClosed):
        tenant_resume(tenant=alice.tenant)


def test_unfinished_jobs_refuse_it_and_nothing_is_changed(alice, furnish, submit):
    furnish(alice)
    submit(alice)
    before = rows_of(alice)
    with pytest.raises(JobsUnfinished, match="1 jobs"):
        erase(alice)
    assert rows_of(alice) == before


def test_waiting_jobs_are_canceled_and_one_in_a_workers_hands_is_waited_for(alice, pool, submit, end):
    waiting = submit(alice)
    dispatch.release(pool=pool, now=NOW, lease_seconds=3600)
    also = submit(alice)
    erase(alice, cancel_jobs=True)
    assert Job.objects.get(pk=also.pk).state == State.CANCELED
    assert (Job.objects.get(pk=waiting.pk).cancel_requested_at, alice.tenant.erased_at) == (LATER, None)
    end(Job.objects.get(pk=waiting.pk), outcome="canceled")
    advance(alice)
    assert alice.tenant.erased_at == LATER
    assert not Job.objects.filter(tenant=alice.tenant).exclude(prompt="").exists()


def test_an_erasure_is_recorded_from_request_to_end_and_idempotent(alice, furnish):
    furnish(alice)
    for _ in range(2):
        erase(alice)
    events = AuditEvent.objects.filter(tenant=alice.tenant).exclude(actor="platform")
    actions = sorted(event.action for event in events)
    assert actions == ["images.age_out", "jobs.age_out", "tenant.create", "tenant.erase", "tenant.erased"]
    done = events.get(action="tenant.erased").details
    assert done == {"jobs": 9, "images": 8, "adapters": 1, "objects_left_in_storage": 0}


STEPS = (
    "easel.jobs.outputs.objects_deleted",
    "easel.jobs.deletion.attempt_files_delete",
    "easel.jobs.deletion.audit_record",
    "easel.catalog.adapters.objects_deleted",
    "easel.privacy.erasure.experiments_erase",
    "easel.privacy.erasure.tenant_forget",
    "easel.privacy.erasure.audit_record",
)


def test_an_erasure_continues_after_crashes_at_every_step(alice, bob, furnish, monkeypatch):
    """Each step fails at its first call, in a later try at its second, and so on."""
    furnish(alice)
    charges, _, *sums, _ = reported(alice)
    theirs = rows_of(bob)
    erase_request(tenant=alice.tenant, cancel_jobs=False, actor="test", now=LATER)
    monkeypatch.setattr("easel.jobs.deletion.BATCH_JOBS", 2)

    crashes, calls = Counter(), Counter()

    def breaking(step, real):
        def broken(*args, **fields):
            calls[step] += 1
            if calls[step] == crashes[step] + 1:
                crashes[step] += 1
                raise ZeroDivisionError(step)
            return real(*args, **fields)

        return broken

    with monkeypatch.context() as patched:
        for step in STEPS:
            module, _, name = step.rpartition(".")
            patched.setattr(step, breaking(step, getattr(import_module(module), name)))
        while alice.tenant.erased_at is None:
            calls.clear()
            with suppress(ZeroDivisionError):
                advance(alice)
    assert crashes.keys() == set(STEPS)
    assert alice.tenant.erased_at == LATER
    assert tables_that_hold(secret_of(alice)) == KEEPS_NAMES
    assert store().clear(alice.tenant.slug) == 0
    after = reported(alice)
    assert (after[0], after[2:]) == (charges, [*sums, []])
    assert rows_of(bob) == theirs


def test_the_scheduler_finishes_what_was_asked_for(alice, furnish):
    furnish(alice)
    erase_request(tenant=alice.tenant, cancel_jobs=False, actor="operator:ann", now=LATER)
    while scheduler.erase_tenants(LATER):
        pass
    alice.tenant.refresh_from_db()
    assert alice.tenant.erased_at == LATER


def test_a_job_that_slipped_in_is_deleted_when_it_ends(alice, submit, end):
    erase(alice)
    job = end(submit(alice, user="ann"))
    scheduler.delete_what_aged_out(LATER)
    job.refresh_from_db()
    assert (job.prompt, job.user) == ("", "")


def test_the_database_lets_no_tenant_be_erased_with_its_name_or_its_keys_in(alice):
    for fields in ({"erased_at": NOW}, {"erase_requested_at": NOW}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Tenant.objects.filter(pk=alice.tenant.pk).update(**fields)


# Every table with tenants' rows: an erasure deletes from it, or retains it because amounts are explained by it.
DELETED = {
    "adapter", "adapter_version", "alias", "api_key", "arm", "attempt", "batch", "block_list_entry", "experiment",
    "feedback", "file", "job", "job_adapter", "line", "output", "stored_object", "tenant",
    "webhook_attempt",
    "webhook_delivery",
    "webhook_endpoint",
    "webhook_message",
}  # fmt: skip
RETAINED = {
    "adjustment", "audit_event", "billing_profile", "budget", "budget_crossing", "budget_hold",
    "budget_month", "charge", "contract", "credit_draw", "credit_grant", "daily_cost", "daily_jobs", "entry",
    "ledger_account", "monthly_quantity", "monthly_use", "price_tier",
    "price_book", "project", "quota", "rate", "statement", "statement_line", "transaction",
    "usage_record",
}  # fmt: skip


def test_every_table_of_tenants_is_erased_or_retained_for_the_books():
    """A new table: let `easel.privacy.erasure` delete what tenants write into it, or add it to RETAINED."""
    assert {holding.name for holding in holdings()} == DELETED | RETAINED


def test_progress_is_the_jobs_that_are_left(alice, furnish, monkeypatch):
    monkeypatch.setattr("easel.jobs.deletion.BATCH_JOBS", 4)
    furnish(alice)
    erase_request(tenant=alice.tenant, cancel_jobs=False, actor="test", now=LATER)
    left = []
    while erasure.erase_advance(tenant=alice.tenant, default=DAYS, actor="test", now=LATER):
        left.append(alice.tenant.jobs.filter(deleted_at=None).count())
    assert left == [5, 1, 0]
