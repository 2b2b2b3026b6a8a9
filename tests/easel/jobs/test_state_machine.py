import pytest
from django.db import DatabaseError, transaction

from easel.jobs.models import FINAL, TRANSITIONS, Attempt, Job, State
from tests.conftest import NOW

WAY = {  # how a job comes to be in a state
    State.QUEUED: [],
    State.DISPATCHED: [State.DISPATCHED],
    State.RUNNING: [State.DISPATCHED, State.RUNNING],
    **{state: [State.DISPATCHED, state] for state in FINAL if state != State.EXPIRED},
    State.EXPIRED: [State.EXPIRED],
}


def move(job, state):
    fields = {"state": state, "finished_at": NOW if state in FINAL else None}
    if state == State.FAILED:
        fields["error_code"] = "x"
    with transaction.atomic():
        Job.objects.filter(id=job.id).update(**fields)
        transaction.set_rollback(False)


@pytest.mark.parametrize("old", State.values)
@pytest.mark.parametrize("new", State.values)
def test_the_database_allows_the_transitions_and_no_other(alice, submit, old, new):
    job = submit(alice)
    with transaction.atomic():
        for state in WAY[State(old)]:
            move(job, state)
        if old == new or State(new) in TRANSITIONS.get(State(old), set()):
            move(job, State(new))
        else:
            with pytest.raises(DatabaseError, match="is not allowed"):
                move(job, State(new))
        transaction.set_rollback(True)


def test_a_job_begins_queued(alice, submit):
    job = submit(alice)
    job.pk, job.id = None, None
    job.state = State.DISPATCHED
    with pytest.raises(DatabaseError, match="must be queued"), transaction.atomic():
        job.save(force_insert=True)


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"state": State.CANCELED}, "job_finished_at_iff_final"),
        ({"finished_at": NOW}, "job_finished_at_iff_final"),
        ({"state": State.FAILED, "finished_at": NOW}, "job_failure_has_a_code"),
        ({"n": 0}, "job_n_in_range"),
        ({"n": 11}, "job_n_in_range"),
        ({"seed": -1}, "job_seed_not_negative"),
    ],
)
def test_the_database_refuses_a_job_that_contradicts_itself(alice, submit, fields, constraint):
    job = submit(alice)
    with pytest.raises(DatabaseError, match=constraint), transaction.atomic():
        Job.objects.filter(id=job.id).update(**fields)


def test_a_job_has_no_more_than_one_live_attempt(alice, submit):
    job = submit(alice)
    with pytest.raises(DatabaseError, match="attempt_one_live"), transaction.atomic():
        for number in (1, 2):
            Attempt.objects.create(job=job, number=number, dispatched_at=NOW, lease_expires_at=NOW)
