"""The limit of queued jobs, in processes that each remember what they counted last."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from easel.jobs import queue_depth
from easel.jobs.dispatch import release
from easel.jobs.lifecycle import beat, cancel, lose
from easel.jobs.models import Attempt, Job
from tenants.quotas import QueueFull, quota_set
from tests.conftest import NOW, worker_beat

LIMIT = 3
ACTS = ["submit", "submit", "submit", "take", "lose", "cancel"]


@pytest.fixture
def process(monkeypatch):
    """`process(1)` continues as another process of the API, with what that one remembers."""
    memories = {number: {} for number in range(2)}
    return lambda number: monkeypatch.setattr(queue_depth, "_counts", memories[number])


@pytest.mark.parametrize("of_key", [False, True])
@given(steps=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 1)), max_size=24))
def test_a_job_is_refused_exactly_when_the_queue_is_full_whichever_process_admits_it(
    customer, submit, pool, process, of_key, steps
):
    alice = customer()
    quota_set(tenant=alice.tenant, api_key=alice.key if of_key else None, limits={"queued_jobs_max": LIMIT}, now=NOW)
    beat(pool=pool, report=worker_beat(concurrency=1000), now=NOW, lease_seconds=3600)
    for act, number in steps:
        process(number)
        queued = list(Job.objects.filter(tenant=alice.tenant, state="queued"))
        if act == "take":
            release(pool=pool, now=NOW, lease_seconds=3600)
        elif act == "lose":  # the job goes back to the queue
            for attempt in Attempt.objects.filter(job__tenant=alice.tenant, state="live")[:1]:
                assert lose(token=attempt.token, now=NOW + timedelta(hours=2), attempts_max=1000)
        elif act == "cancel":
            for job in queued[:1]:
                cancel(job=job, now=NOW)
        elif len(queued) < LIMIT:
            submit(alice)
        else:
            with pytest.raises(QueueFull):
                submit(alice)
            assert Job.objects.filter(tenant=alice.tenant, state="queued").count() == len(queued)


def test_an_admission_far_from_the_limit_does_not_count_the_queue(alice, submit, process):
    process(0)
    submit(alice)  # counts once
    with CaptureQueriesContext(connection) as queries:
        submit(alice)
    assert not [query["sql"] for query in queries if "COUNT" in query["sql"]]


def test_a_queue_at_its_limit_is_counted_again(alice, submit, process):
    quota_set(tenant=alice.tenant, api_key=None, limits={"queued_jobs_max": 1}, now=NOW)
    process(0)
    submit(alice)
    with CaptureQueriesContext(connection) as queries, pytest.raises(QueueFull):
        submit(alice)
    assert [query["sql"] for query in queries if "COUNT" in query["sql"]]


def test_jobs_of_the_last_month_are_counted_in_this_one(alice, submit, process):
    quota_set(tenant=alice.tenant, api_key=None, limits={"queued_jobs_max": 2}, now=NOW)
    process(0)
    submit(alice)
    submit(alice, now=NOW + timedelta(days=31))
    with pytest.raises(QueueFull):
        submit(alice, now=NOW + timedelta(days=31))


def test_a_count_is_used_for_no_longer_than_a_minute(alice, submit, process):
    process(0)
    submit(alice)
    with CaptureQueriesContext(connection) as queries:
        submit(alice, now=NOW + queue_depth.COUNT_AGE_MAX)
    assert [query["sql"] for query in queries if "COUNT" in query["sql"]]
