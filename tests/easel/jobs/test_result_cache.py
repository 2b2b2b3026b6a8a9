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
def generate(submit, end):
    """Submits a request and plays the worker: images of bytes that tell the job."""

    def generate(customer, **spec) -> Job:
        job = end(submit(customer, **{"seed": 7, **spec}))
        for output in job.outputs.all():
            store().put(output.storage_key, io.BytesIO(f"{job.id}/{output.index}".encode()), "image/png")
        return job

    return generate


def images(job: Job) -> list[bytes]:
    return [store().get(output.storage_key) for output in job.outputs.order_by("index")]


def test_the_same_request_again_has_the_same_images_at_once(alice, generate, submit):
    generated = generate(alice, n=2)
    again = submit(alice, seed=7, n=2, now=LATER)
    assert (again.state, again.cached_from, again.finished_at) == (State.SUCCEEDED, generated, LATER)
    assert images(again) == images(generated)
    assert not again.attempts.exists()
    # Other tests leave jobs of theirs that never had images.
    assert not [line for line in successes_have_outputs(LATER) if str(again.id) in line or str(generated.id) in line]


def test_it_costs_the_request_and_is_counted_as_a_hit_and_leaves_no_hold(alice, generate, submit):
    generate(alice)
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
def test_another_request_is_generated(alice, generate, submit, other):
    generate(alice)
    assert submit(alice, now=LATER, **{"seed": 7, **other}).state == State.QUEUED


def test_another_version_generates_again(alice, generate, submit, version, second):
    generate(alice)
    version.model.routes.update(version=second)
    assert submit(alice, seed=7, steps=8, now=LATER).state == State.QUEUED


def test_another_tenants_images_answer_nobody(alice, bob, generate, submit):
    generate(alice)
    assert submit(bob, seed=7, now=LATER).state == State.QUEUED


def test_a_random_seed_is_never_remembered(alice, generate):
    job = generate(alice, seed=None)
    assert (job.result_key, CachedResult.objects.filter(tenant=alice.tenant).count()) == ("", 0)


def test_a_failure_answers_nobody(alice, submit, end):
    end(submit(alice, seed=7), outcome="failed")
    assert submit(alice, seed=7, now=LATER).state == State.QUEUED


def test_the_images_of_an_answered_job_are_its_own(alice, generate, submit):
    generated = generate(alice)
    again = submit(alice, seed=7, now=LATER)
    outputs_delete(job=generated, actor="test", now=LATER)
    assert images(again) == [f"{generated.id}/0".encode()]
    stored = StoredObject.objects.filter(storage_key__in=again.outputs.values("storage_key"))
    assert [(found.created_at, found.deleted_at) for found in stored] == [(LATER, None)]


def asked(outcome: str) -> float:
    return REGISTRY.get_sample_value("easel_result_cache_requests_total", {"outcome": outcome})


def test_hits_and_misses_are_counted_and_what_was_not_looked_up_is_neither(alice, generate, submit):
    hits, misses = asked("hit"), asked("miss")
    gone = generate(alice, seed=8)
    generate(alice)
    submit(alice, seed=7, now=LATER)
    submit(alice, seed=7, cache=False, now=LATER)
    submit(alice, seed=None, now=LATER)
    for output in gone.outputs.all():
        store().delete(output.storage_key)
    submit(alice, seed=8, now=LATER)
    assert (asked("hit") - hits, asked("miss") - misses) == (1, 3)


def test_deleted_images_answer_nobody(alice, generate, submit):
    outputs_delete(job=generate(alice), actor="test", now=LATER)
    assert submit(alice, seed=7, now=LATER).state == State.QUEUED


def test_images_that_are_gone_unseen_are_generated_again_and_nothing_is_left_of_the_try(alice, generate, submit):
    for output in generate(alice).outputs.all():
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


def test_another_admission_of_the_tenant_does_not_wait_for_the_copies(alice, generate, submit, while_copying):
    generate(alice, n=2)
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
def test_the_api_copies_before_its_transaction_begins(alice, generate, version, while_copying, headers):
    generate(alice)
    states = []
    while_copying(lambda: states.append(connection.in_atomic_block))
    request = {"model": version.model.name, "prompt": "a red circle", "seed": 7}
    answer = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    assert answer.json()["status"] == "succeeded"
    assert set(states) == {False}


def test_a_replay_copies_nothing(alice, generate, version, while_copying):
    generate(alice)
    request = {"model": version.model.name, "prompt": "a red circle", "seed": 7}
    headers = {"Idempotency-Key": "key-1"}
    first = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    copied = []
    while_copying(lambda: copied.append(True))
    again = call("POST", "/v1/jobs", alice, json=request, headers=headers)
    assert (again.json()["id"], copied) == (first.json()["id"], [])


def test_images_are_never_copied_within_a_transaction(alice, generate, submit):
    generate(alice)
    with pytest.raises(RuntimeError, match="before a transaction"), transaction.atomic():
        submit(alice, seed=7, now=LATER)


def test_copies_for_a_request_that_is_refused_are_deleted(alice, generate, submit):
    generated = generate(alice)
    quota_set(tenant=alice.tenant, api_key=None, limits={"concurrent_jobs_max": 0}, now=NOW)
    keys = set(store().keys(f"{alice.tenant.slug}/outputs"))
    with pytest.raises(ConcurrencyExceeded):
        submit(alice, seed=7, now=LATER)
    assert set(store().keys(f"{alice.tenant.slug}/outputs")) == keys
    assert images(generated) == [f"{generated.id}/0".encode()]


def test_images_half_of_which_are_gone_leave_no_copies(alice, generate, submit):
    generated = generate(alice, n=2)
    store().delete(generated.outputs.get(index=1).storage_key)
    keys = set(store().keys(f"{alice.tenant.slug}/outputs"))
    assert submit(alice, seed=7, n=2, now=LATER).state == State.QUEUED
    assert set(store().keys(f"{alice.tenant.slug}/outputs")) == keys


def test_what_was_used_longest_ago_is_forgotten_first_beyond_the_limit(alice, generate, submit):
    CachedResult.objects.all().delete()
    for seed in (1, 2, 3):
        generate(alice, seed=seed)
    submit(alice, seed=1, now=LATER)
    assert results_trim(bytes_max=20) == 1
    assert [submit(alice, seed=seed, now=LATER).state for seed in (1, 2, 3)] == ["succeeded", "queued", "succeeded"]
    assert results_trim(bytes_max=0) == 2
