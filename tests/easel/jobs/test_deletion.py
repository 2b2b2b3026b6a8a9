"""What is deleted, when, by whom; and that money, counts and reports stay what they were."""

import io
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from billing.models import Charge, StoredObject
from core.models import AuditEvent
from easel.jobs import dispatch
from easel.jobs.deletion import age_out, job_delete
from easel.jobs.errors import JobDeleted, JobUnfinished
from easel.jobs.feedback import feedback_give
from easel.jobs.models import Job, Output
from easel.jobs.outputs import attempts_sweep
from easel.jobs.storage_keys import preview_key
from easel.observability import audit
from easel.reporting.costs import costs
from easel.reporting.exports import Span
from easel.serving.experiment_report import experiment_report
from easel.serving.experiments import ArmPlan, experiment_start
from easel.storage import store
from tenants.retention import Retention, RetentionInvalid, retention_of, retention_set
from tests.conftest import NOW

DAYS = Retention(output_days=30, job_days=90)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def generate(submit, end):
    """A job that said a lot, with its image in the store."""

    def make(customer, *, days_ago: int = 0, **spec) -> Job:
        now = NOW - timedelta(days=days_ago)
        job = end(submit(customer, now=now, **{"user": "ann", "metadata": {"order": "7"}, **spec}))
        for output in job.outputs.all():
            store().put(output.storage_key, io.BytesIO(b"0123456789"), "image/png")
        return job

    return make


def is_stored(key: str) -> bool:
    try:
        store().get(key)
    except FileNotFoundError:
        return False
    return True


def aged(customer, now=NOW, default=DAYS) -> None:
    while age_out(default=default, now=now, tenant=customer.tenant):
        pass


def not_deleted(job: Job) -> tuple[bool, bool]:
    """Whether its image and its words are there."""
    job.refresh_from_db()
    (output,) = job.outputs.all()
    assert is_stored(output.storage_key) == (output.deleted_at is None)
    return output.deleted_at is None, job.prompt == "a red circle"


def events(customer, action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(tenant=customer.tenant, action=action))


def reported(customer) -> list[object]:
    """What finance and audits see of a tenant."""
    with connection.cursor() as cursor:
        seen: list[object] = []
        for view in ("charges", "jobs", "job_days", "balances"):
            cursor.execute(f"SELECT * FROM reporting.{view} WHERE tenant = %s ORDER BY 1, 2, 3", [customer.tenant.slug])
            seen.append(cursor.fetchall())
    day = NOW.date()
    span = Span(tenant=customer.tenant.slug, start=day - timedelta(200), end=day)
    groups = ("project", "model", "day")
    rows = costs(span, group_by=groups, currency=customer.tenant.currency, with_unpriced=True)
    names = {customer.tenant.slug, str(customer.tenant.id)}
    names |= {f"job {job_id} " for job_id in customer.tenant.jobs.values_list("id", flat=True)}
    broken = [line for check in audit.CHECKS for line in check(NOW) if any(name in line for name in names)]
    return [*seen, rows, broken]


def tables_that_hold(text: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        found = set()
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT EXISTS (SELECT FROM "{table}" AS row WHERE row::text LIKE %s)', [f"%{text}%"])
            if cursor.fetchone()[0]:
                found.add(table)
    return found


def test_images_age_out_first_and_then_what_the_job_said(alice, generate):
    jobs = {days: generate(alice, days_ago=days) for days in (29, 31, 89, 91)}
    aged(alice)
    assert {days: not_deleted(job) for days, job in jobs.items()} == {
        29: (True, True),
        31: (False, True),
        89: (False, True),
        91: (False, False),
    }


def test_a_day_is_retained_whole(alice, generate):
    job = generate(alice, days_ago=30)
    aged(alice, now=NOW.replace(hour=23))
    assert not_deleted(job) == (True, True)
    aged(alice, now=(NOW + timedelta(days=1)).replace(hour=0))
    assert not_deleted(job) == (False, True)


def test_a_tenants_own_days_hold_for_it_alone(alice, bob, generate):
    retention_set(tenant=alice.tenant, changes={"output_days": 2, "job_days": 5}, default=DAYS)
    retention_set(tenant=bob.tenant, changes={"job_days": 365}, default=DAYS)
    mine, theirs = generate(alice, days_ago=7), generate(bob, days_ago=100)
    aged(alice)
    aged(bob)
    assert (not_deleted(mine), not_deleted(theirs)) == ((False, False), (False, True))


def test_an_unfinished_job_never_ages_out(alice, submit):
    job = submit(alice, now=NOW - timedelta(days=300))
    aged(alice)
    assert Job.objects.get(pk=job.pk).prompt == "a red circle"


def test_what_ages_out_is_on_record(alice, generate):
    for _ in range(3):
        generate(alice, days_ago=31)
    generate(alice, days_ago=91)
    aged(alice)
    aged(alice)
    (images,), (jobs,) = events(alice, "images.age_out"), events(alice, "jobs.age_out")
    assert (images.actor, images.details) == ("platform", {"jobs": 4, "images": 4})
    assert (jobs.actor, jobs.details) == ("platform", {"jobs": 1, "images": 0})


def test_reports_statements_and_the_audit_are_what_they_were(alice, generate, submit, end):
    job = generate(alice, seed=7, days_ago=92)
    assert submit(alice, seed=7, now=NOW - timedelta(days=91)).cached_from == job
    end(submit(alice, now=NOW - timedelta(days=91)), outcome="failed", error_message="no room for a red circle")
    generate(alice)
    before = reported(alice)
    aged(alice)
    assert Job.objects.filter(tenant=alice.tenant, deleted_at=None).count() == 1
    assert reported(alice) == before
    assert before[-1] == []


def test_nothing_that_the_tenant_wrote_is_left_in_the_database(alice, generate, submit, end):
    secret = f"plugh{alice.tenant.id.hex[:8]}"
    job = generate(alice, prompt=f"a {secret}", user=secret, metadata={secret: secret}, seed=3)
    Job.objects.filter(pk=job.pk).update(request_id=secret)
    feedback_give(job=job, score=1, comment=secret, now=NOW)
    failed = end(submit(alice, prompt=secret), outcome="failed", error_message=secret)
    for one in (job, failed):
        job_delete(job=one, actor="test", now=NOW)
    assert tables_that_hold(secret) == set()
    assert list(Job.objects.values_list("result_key", "error_code").filter(pk=job.pk)) == [("", "")]


def test_an_experiments_report_does_not_change_when_some_of_a_callers_jobs_are_deleted(
    alice, version, second, generate
):
    arms = [ArmPlan(name=name, weight=50, version=number) for name, number in (("a", 1), ("b", 2))]
    experiment = experiment_start(tenant=alice.tenant, name="styles", model_name=version.model.name, arms=arms, now=NOW)
    jobs = [generate(alice, user=f"user-{number % 4}") for number in range(12)]
    for number, job in enumerate(jobs):
        feedback_give(job=job, score=number / 16, comment="", now=NOW)  # sums exactly, in any order
    before = experiment_report(experiment)
    for job in jobs[:6]:
        job_delete(job=job, actor="test", now=NOW)
    assert experiment_report(experiment) == before
    assert "user" not in "".join(Job.objects.filter(pk__in=[job.pk for job in jobs[:6]]).values_list("user", flat=True))


def test_an_unfinished_job_is_not_deleted(alice, submit, pool):
    job = submit(alice)
    dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    with pytest.raises(JobUnfinished, match="cancel it first"):
        job_delete(job=job, actor="test", now=NOW)
    assert Job.objects.get(pk=job.pk).prompt == "a red circle"


def test_deleting_twice_is_one_record(alice, generate):
    job = generate(alice)
    assert [job_delete(job=job, actor="key:k", now=NOW).jobs for _ in range(2)] == [1, 0]
    (event,) = events(alice, "job.delete")
    assert (event.actor, event.subject, event.details) == ("key:k", str(job.id), {"images": 1})


def test_a_deleted_job_pays_for_its_storage_no_longer_and_answers_no_other(alice, generate, submit):
    job = generate(alice, seed=7)
    job_delete(job=job, actor="test", now=LATER)
    assert [found.deleted_at for found in StoredObject.objects.filter(project=alice.project)] == [LATER]
    assert submit(alice, seed=7, now=LATER).state == "queued"


def test_a_deleted_job_takes_no_feedback(alice, generate):
    job = generate(alice)
    job_delete(job=job, actor="test", now=NOW)
    with pytest.raises(JobDeleted):
        feedback_give(job=job, score=1, comment="", now=NOW)


def test_previews_go_with_their_job_and_what_is_written_late_goes_with_the_sweep(alice, generate):
    job = generate(alice, partial_images=1)
    preview = preview_key(job, job.attempts.get().token, 0, 0)
    store().put(preview, io.BytesIO(b"preview"), "image/png")
    job_delete(job=job, actor="test", now=NOW)
    assert not is_stored(preview)
    store().put(preview, io.BytesIO(b"late"), "image/png")
    attempts_sweep(now=NOW + timedelta(days=1))
    assert not is_stored(preview)


def test_a_crash_between_files_and_rows_is_mended_by_the_next_call(alice, generate, monkeypatch):
    jobs = [generate(alice, days_ago=91) for _ in range(3)]
    charged = Charge.objects.filter(usage_record__tenant=alice.tenant).count()
    monkeypatch.setattr("easel.jobs.outputs.objects_deleted", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        age_out(default=DAYS, now=NOW, tenant=alice.tenant)
    assert Output.objects.filter(job__in=jobs, deleted_at=None).count() == 3
    assert events(alice, "images.age_out") == []
    monkeypatch.undo()
    aged(alice)
    assert [not_deleted(job) for job in jobs] == [(False, False)] * 3
    assert Charge.objects.filter(usage_record__tenant=alice.tenant).count() == charged


def test_two_schedulers_at_once_share_the_work(alice, generate):
    job, other = generate(alice, days_ago=91), generate(alice, days_ago=91)
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=job.pk)
        from threading import Thread

        thread = Thread(target=lambda: (age_out(default=DAYS, now=NOW, tenant=alice.tenant), connection.close()))
        thread.start()
        thread.join()
    assert (not_deleted(job), not_deleted(other)) == ((True, True), (False, False))


def test_the_database_keeps_no_deleted_job_with_words(alice, generate):
    job = generate(alice)
    with pytest.raises(IntegrityError, match="job_deleted_has_no_words"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(deleted_at=NOW, images_deleted_at=NOW)


def test_fewer_job_days_mean_fewer_for_images_too(alice):
    assert retention_of(alice.tenant, default=DAYS) == DAYS
    holds = retention_set(tenant=alice.tenant, changes={"job_days": 7}, default=DAYS)
    assert holds == Retention(output_days=7, job_days=7)
    assert retention_set(tenant=alice.tenant, changes={"job_days": None}, default=DAYS) == DAYS


@pytest.mark.parametrize("changes", [{"output_days": 0}, {"job_days": 3651}, {"output_days": 91}, {"job_days": -1}])
def test_days_out_of_bounds_are_refused(alice, changes):
    with pytest.raises(RetentionInvalid):
        retention_set(tenant=alice.tenant, changes=changes, default=DAYS)
    alice.tenant.refresh_from_db()
    assert retention_of(alice.tenant, default=DAYS) == DAYS
