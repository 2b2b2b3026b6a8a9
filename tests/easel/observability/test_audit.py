"""What the audit finds. An inconsistency that the database refuses is planted past its triggers and rolled back."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction

from billing.models import Charge, Entry, LedgerAccount
from easel.catalog.models import Worker
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Attempt, Job, Output
from easel.observability import audit
from inference.contract import AttemptFinished, StoredOutput
from tests.conftest import NOW

LATER = NOW + timedelta(days=1)


@contextmanager
def past_the_triggers() -> Iterator[None]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
        yield
        transaction.set_rollback(True)


@pytest.fixture
def done(alice, pool, submit):
    """Alice's job, which succeeded and was charged."""
    job = submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    report = AttemptFinished(
        attempt_token=str(attempt.token),
        worker="w1",
        gpu_class="cpu",
        outcome="succeeded",
        gpu_seconds=1.5,
        outputs=(StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),),
    )
    lifecycle.finish(pool=pool, report=report, now=NOW, attempts_max=1)
    return Job.objects.get(id=job.id)


def lines_about(check, *names, now=NOW):
    return [line for line in check(now) if any(str(name) in line for name in names)]


@pytest.mark.parametrize("check", audit.CHECKS, ids=lambda check: check.__name__)
def test_a_healthy_system_breaks_nothing(alice, pool, submit, done, check):
    waiting = submit(alice)
    accounts = LedgerAccount.objects.filter(tenant=alice.tenant).values_list("pk", flat=True)
    named = [f"job {waiting.id}", f"job {done.id}", f"attempt {done.attempts.get().token}"]
    assert not lines_about(check, *named, *(f"account {pk} " for pk in accounts))


def test_the_whole_audit_runs(done):
    found = audit.audit(now=NOW)
    assert list(found) == [check.__name__ for check in audit.CHECKS]
    assert found["ledger_balances"] == found["accounts_match_entries"] == []


def test_all_checks_see_the_same_instant(monkeypatch):
    def isolation(now):
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            yield cursor.fetchone()[0]

    monkeypatch.setattr(audit, "CHECKS", (isolation,))
    assert audit.audit(now=NOW) == {"isolation": ["repeatable read"]}


def test_a_job_that_waits_past_its_expiry_is_found(alice, submit):
    assert lines_about(audit.jobs_end, submit(alice).id, now=LATER)


def test_an_attempt_that_outlives_its_lease_is_found(alice, pool, submit):
    submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    assert lines_about(audit.jobs_end, attempt.token, now=LATER)
    Attempt.objects.filter(token=attempt.token).update(lease_expires_at=LATER)


def test_gpu_seconds_that_nobody_was_given_are_found(pool):
    Worker.objects.filter(pool=pool).update(name="leaky", busy_seconds=100, attributed_seconds=99)
    assert lines_about(audit.gpu_seconds_are_attributed, "leaky")
    Worker.objects.filter(pool=pool).delete()


def test_an_account_that_differs_from_its_entries_is_found(alice):
    with past_the_triggers():
        LedgerAccount.objects.filter(tenant=alice.tenant, kind="credit").update(balance_micros=1)
        found = [*audit.accounts_match_entries(NOW), *audit.ledger_balances(NOW)]
    assert any("its entries sum to" in line for line in found)
    assert any("the balances in USD sum to" in line for line in found)


def test_a_transaction_that_is_out_of_balance_is_found(done):
    with past_the_triggers():
        Entry.objects.filter(transaction__reference=done.id, account__kind="revenue").update(amount_micros=1)
        found = list(audit.ledger_balances(NOW))
    assert any("is out of balance" in line for line in found)


def test_a_charge_that_the_ledger_did_not_earn_is_found(done):
    with past_the_triggers():
        Charge.objects.filter(usage_record__job_id=done.id, usage_record__meter="request").update(amount_micros=501)
        found = lines_about(audit.charges_match_ledger, done.id)
    assert found == [f"post {done.id} has charges of 1151 micros and booked 1150 as revenue"]


@pytest.mark.parametrize("state", ["failed", "queued"])
def test_a_job_whose_end_is_not_that_of_its_hold_is_found(done, state):
    finished_at = NOW if state == "failed" else None
    with past_the_triggers():
        Job.objects.filter(id=done.id).update(state=state, finished_at=finished_at, error_code="x")
        found = lines_about(audit.jobs_match_ledger, done.id)
    assert found == [f"job {done.id} is {state}; its hold was settled by post"]


def test_a_success_without_its_images_is_found(done):
    with past_the_triggers():
        Output.objects.filter(job=done).delete()
        found = lines_about(audit.successes_have_outputs, done.id)
    assert found == [f"job {done.id} is succeeded with 0 of 1 images and 1 succeeded attempts"]


def test_an_unfinished_job_with_an_image_is_found(alice, submit):
    job = submit(alice)
    with past_the_triggers():
        Output.objects.create(job=job, index=0, seed=1, storage_key=str(uuid.uuid4()), sha256="0" * 64, size_bytes=1)
        found = lines_about(audit.successes_have_outputs, job.id)
    assert found == [f"job {job.id} is queued with 1 of 1 images and 0 succeeded attempts"]
