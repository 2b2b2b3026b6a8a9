"""The same request again is answered by the images that are there, for the price of a request."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from prometheus_client import REGISTRY

from billing.ledger.accounts import balances_by_kind
from billing.models import StoredObject, UsageRecord
from easel.jobs.models import CachedResult, Job, State
from easel.jobs.outputs import outputs_delete
from easel.jobs.result_cache import results_trim
from easel.observability.audit import successes_have_outputs
from easel.storage import store
from tenants.quotas import ConcurrencyExceeded, quota_set
from tests.conftest import NOW
from tests.easel.api.conftest import call

LATER = NOW + timedelta(minutes=1)


@pytest.fixture
def draw(submit, end):
    """Submits a request and plays the worker: images of bytes that tell the job."""

    def draw(customer, **spec) -> Job:
        job = end(submit(customer, **{"seed": 7, **spec}))
        for output in job.outputs.all():
            store().put(output.storage_key, io.BytesIO(f"{job.id}/{output.index}".encode()), "image/png")
        return job

    return draw


def images(job: Job) -> list[bytes]:
    return [store().get(output.storage_key) for output in job.outputs.order_by("index")]


def test_the_same_request_again_has_the_same_images_at_once(alice, draw, submit):
    drawn = draw(alice, n=2)
    again = submit(alice, seed=7, n=2, now=LATER)
    assert (again.state, again.cached_from, again.finished_at) == (State.SUCCEEDED, drawn, LATER)
    assert images(again) == images(drawn)
    assert not again.attempts.exists()
    # Other tests leave jobs of theirs that never had images.
    assert not [line for line in successes_have_outputs(LATER) if str(again.id) in line or str(drawn.id) in line]


def test_it_costs_the_request_and_is_counted_as_a_hit_and_leaves_no_hold(alice, draw, submit):
    draw(alice)
    before = balances_by_kind(alice.tenant)
    again = submit(alice, seed=7, now=LATER)
    after = balances_by_kind(alice.tenant)
    assert (after["revenue"] - before["revenue"], after["held"]) == (500, 0)
    records = UsageRecord.objects.filter(job_id=again.id).order_by("meter")
    assert [(record.meter, record.quantity) for record in records] == [("cache_hit", 1), ("request", 1)]
    assert {record.dimensions["cached"] for record in records} == {"yes"}


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"seed": None},
        {"prompt": "a red circle."},
        {"size": "256x512"},
        {"steps": 3},
        {"n": 2},
        {"output_format": "webp"},
        {"output_compression": 50},
        {"cache": False},
    ],
)
def test_another_request_is_drawn(alice, draw, submit, other):
    draw(alice)
    assert submit(alice, now=LATER, **{"seed": 7, **other}).state == State.QUEUED


def test_another_version_draws_anew(alice, draw, submit, version, second):
    draw(alice)
    version.model.routes.update(version=second)
    assert submit(alice, seed=7, steps=8, now=LATER).state == State.QUEUED


def test_another_tenants_images_answer_nobody(alice, bob, draw, submit):
    draw(alice)
    assert submit(bob, seed=7, now=LATER).state == State.QUEUED


def test_a_random_seed_is_never_remembered(alice, draw):
    job = draw(alice, seed=None)
    assert (job.result_key, CachedResult.objects.filter(tenant=alice.tenant).count()) == ("", 0)


def test_a_failure_answers_nobody(alice, submit, end):
    end(submit(alice, seed=7), outcome="failed")
    assert submit(alice, seed=7, now=LATER).state == State.QUEUED


def test_the_images_of_an_answered_job_are_its_own(alice, draw, submit):
    drawn = draw(alice)
    again = submit(alice, seed=7, now=LATER)
    outputs_delete(job=drawn, actor="test", now=LATER)
    assert images(again) == [f"{drawn.id}/0".encode()]
    stored = StoredObject.objects.filter(storage_key__in=again.outputs.values("storage_key"))
    assert [(found.created_at, found.deleted_at) for found in stored] == [(LATER, None)]


def asked(outcome: str) -> float:
    return REGISTRY.get_sample_value("easel_result_cache_requests_total", {"outcome": outcome})


def test_hits_and_misses_are_counted_and_what_was_not_looked_up_is_neither(alice, draw, submit):
    hits, misses = asked("hit"), asked("miss")
    gone = draw(alice, seed=8)
    draw(alice)
    submit(alice, seed=7, now=LATER)
    submit(alice, seed=7, cache=False, now=LATER)
    submit(alice, seed=None, now=LATER)
    for output in gone.outputs.all():
        store().delete(output.storage_key)
    submit(alice, seed=8, now=LATER)
    assert (asked("hit") - hits, asked("miss") - misses) == (1, 3)


def test_deleted_images_answer_nobody(alice, draw, submit):
    outputs_delete(job=draw(alice), actor="test", now=LATER)
    assert submit(alice, seed=7, now=LATER).state == State.QUEUED


def test_images_that_are_gone_unseen_are_drawn_anew_and_nothing_is_left_of_the_try(alice, draw, submit):
    for output in draw(alice).outputs.all():
        store().delete(output.storage_key)
    again = submit(alice, seed=7, now=LATER)
    assert (again.state, again.cached_from) == (State.QUEUED, None)
    assert again.outputs.count() == 0


@pytest.fixture
def while_copying(monkeypatch):
    """Calls a function each time an image is copied in the store."""

    def make(function):
        put = store().put

        def put_and_call(key, file, content_type):
            put(key, file, content_type)
            function()

        monkeypatch.setattr(store(), "put", put_and_call)

    return make


def test_another_admission_of_the_tenant_does_not_wait_for_the_copies(alice, draw, submit, while_copying):
    draw(alice, n=2)
    states, admitted = [], []

    def admit_another():
        states.append(connection.in_atomic_block)
        with ThreadPoolExecutor(1) as thread:
            admitted.append(thread.submit(in_thread_of_its_own, lambda: submit(alice, seed=8)).result(timeout=20))

    while_copying(admit_another)
    assert submit(alice, seed=7, n=2, now=LATER).state == State.SUCCEEDED
    assert states == [False, False]
    assert [job.state for job in admitted] == [State.QUEUED, State.QUEUED]


def in_thread_of_its_own(function):
    try:
        return function()
    finally:
        connection.close()


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key-1"}])
def test_the_api_copies_before_its_transaction_begins(alice, draw, version, while_copying, headers):
    draw(alice)
    states = []
    while_copying(lambda: states.append(connection.in_atomic_block))
    request = {"model": version.model.name, "prompt": "a red circle", "seed": 7}
    answer = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    assert answer.json()["status"] == "succeeded"
    assert set(states) == {False}


def test_a_replay_copies_nothing(alice, draw, version, while_copying):
    draw(alice)
    request = {"model": version.model.name, "prompt": "a red circle", "seed": 7}
    headers = {"Idempotency-Key": "key-1"}
    first = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    copied = []
    while_copying(lambda: copied.append(True))
    again = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    assert (again.json()["id"], copied) == (first.json()["id"], [])


def test_images_are_never_copied_within_a_transaction(alice, draw, submit):
    draw(alice)
    with pytest.raises(RuntimeError, match="before a transaction"), transaction.atomic():
        submit(alice, seed=7, now=LATER)


def test_copies_for_a_request_that_is_refused_are_deleted(alice, draw, submit):
    drawn = draw(alice)
    quota_set(tenant=alice.tenant, api_key=None, limits={"concurrent_jobs_max": 0}, now=NOW)
    keys = set(store().keys(f"{alice.tenant.slug}/outputs"))
    with pytest.raises(ConcurrencyExceeded):
        submit(alice, seed=7, now=LATER)
    assert set(store().keys(f"{alice.tenant.slug}/outputs")) == keys
    assert images(drawn) == [f"{drawn.id}/0".encode()]


def test_images_half_of_which_are_gone_leave_no_copies(alice, draw, submit):
    drawn = draw(alice, n=2)
    store().delete(drawn.outputs.get(index=1).storage_key)
    keys = set(store().keys(f"{alice.tenant.slug}/outputs"))
    assert submit(alice, seed=7, n=2, now=LATER).state == State.QUEUED
    assert set(store().keys(f"{alice.tenant.slug}/outputs")) == keys


def test_what_was_used_longest_ago_is_forgotten_first_beyond_the_limit(alice, draw, submit):
    CachedResult.objects.all().delete()
    for seed in (1, 2, 3):
        draw(alice, seed=seed)
    submit(alice, seed=1, now=LATER)
    assert results_trim(bytes_max=20) == 1
    assert [submit(alice, seed=seed, now=LATER).state for seed in (1, 2, 3)] == ["succeeded", "queued", "succeeded"]
    assert results_trim(bytes_max=0) == 2
