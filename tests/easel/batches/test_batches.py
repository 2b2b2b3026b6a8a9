"""A batch from its file to its results, as OpenAI's client sees it."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import openai
import pytest
from django.conf import settings
from django.db import connections, transaction

from billing.ledger.accounts import balances_by_kind
from easel.api import batch_results
from easel.batches.files import file_id_of
from easel.batches.models import Batch, File, Line
from easel.catalog.models import Worker
from easel.catalog.pools import dedicated_pool_create
from easel.jobs import dispatch
from easel.jobs.lifecycle import beat
from easel.jobs.models import Job, State
from easel.jobs.outputs import PORTAL_LINKS
from easel.privacy.erasure import JobsUnfinished, erase_advance, erase_request
from easel.processes.scheduler import expire_jobs
from tests.conftest import NOW, worker_beat
from tests.easel.batches.conftest import finish, read, retrieve, sdk, turn, work


def batch_id_of(batch):
    return uuid.UUID(batch.id.removeprefix("batch_"))


def line_of(batch, custom_id):
    return Line.objects.get(batch=batch_id_of(batch), custom_id=custom_id)


def jobs_of(customer):
    return Job.objects.filter(tenant=customer.tenant)


def test_a_batch_is_worked_off_and_its_images_are_in_the_output_file(alice, live, line, batch):
    made = batch(alice, [line("a"), line("b", body={"n": 2})], metadata={"run": "7"})
    assert (made.status, made.object, made.completion_window, made.metadata) == (
        "in_progress",
        "batch",
        "24h",
        {"run": "7"},
    )
    assert made.expires_at - made.created_at == 24 * 3600
    turn()
    assert {job.state for job in work(live)} == {State.SUCCEEDED}
    turn()
    done = retrieve(alice, made.id)
    assert (done.status, done.error_file_id) == ("completed", None)
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (2, 2, 0)
    assert done.completed_at >= done.in_progress_at
    first, second = read(alice, done.output_file_id)
    assert (first["custom_id"], second["custom_id"], first["error"]) == ("a", "b", None)
    assert (first["response"]["status_code"], len(first["response"]["body"]["data"])) == (200, 1)
    assert len(second["response"]["body"]["data"]) == 2
    assert httpx.URL(first["response"]["body"]["data"][0]["url"]).path.endswith(".png")


def test_a_line_may_ask_for_the_image_itself(alice, live, line, batch):
    made = batch(alice, [line("a", body={"response_format": "b64_json"})])
    turn()
    work(live)
    turn()
    (result,) = read(alice, retrieve(alice, made.id).output_file_id)
    assert set(result["response"]["body"]["data"][0]) == {"b64_json"}


def test_the_images_of_one_line_at_a_time_are_in_memory(alice, live, line, batch, monkeypatch):
    made = batch(alice, [line(name, body={"response_format": "b64_json"}) for name in "ab"])
    turn()
    work(live)
    turn()
    monkeypatch.setattr(batch_results, "_BLOCK_BYTES", 1)
    output = File.objects.get(pk=file_id_of(retrieve(alice, made.id).output_file_id))
    assert [block.count(b"b64_json") for block in batch_results.results_of(output, PORTAL_LINKS)] == [1, 1]


def test_the_work_of_a_batch_costs_what_the_price_book_leaves(customer, live, half_price, line, batch):
    wendy = customer(name="wendy", currency=half_price)
    made = batch(wendy, [line("a")])
    assert balances_by_kind(wendy.tenant).get("held", 0) == 0  # nothing is held before a line's turn
    turn()
    # Half of 0.25 units x 8 steps x 4 s at 0.0001, 0.25 units at 0.002 and a request at 0.0005.
    assert balances_by_kind(wendy.tenant)["held"] == 900
    work(live)
    turn()
    (result,) = read(wendy, retrieve(wendy, made.id).output_file_id)
    # Half of 1.5 s at 0.0001, 0.25 units at 0.002 and a request at 0.0005.
    assert result["response"]["body"]["usage"]["cost"] == 0.000575
    assert balances_by_kind(wendy.tenant)["revenue"] == 575


def test_only_as_many_lines_become_jobs_as_soon_run(alice, live, line, batch):
    batch(alice, [line(str(i)) for i in range(12)])
    for _ in range(3):
        turn()
    assert jobs_of(alice).count() == 8  # two for each of the pool's four places


def test_no_line_becomes_a_job_while_another_job_waits(alice, bob, live, line, batch, submit):
    for _ in range(6):
        submit(bob, now=datetime.now(UTC))
    batch(alice, [line("a")])
    dispatch.release(pool=live, now=datetime.now(UTC), lease_seconds=3600)
    turn()
    assert not jobs_of(alice).exists()


def test_tenants_share_what_is_idle(alice, bob, live, line, batch):
    batch(alice, [line(str(i)) for i in range(9)])
    batch(bob, [line(str(i)) for i in range(9)])
    turn()
    released = dispatch.release_batch(pool=live, now=datetime.now(UTC), lease_seconds=3600)
    assert {Job.objects.get(pk=one.job_id).tenant for one in released} == {alice.tenant, bob.tenant}


class Killed(Exception):
    """The process ends here."""


def test_a_crash_between_line_and_job_neither_doubles_nor_loses_it(alice, live, line, batch):
    made = batch(alice, [line("a")])
    with pytest.raises(Killed), transaction.atomic():
        turn()
        raise Killed
    assert not jobs_of(alice).exists()
    turn()
    turn()
    assert jobs_of(alice).get().pk == line_of(made, "a").pk


def test_schedulers_at_once_make_one_job_of_a_line(alice, live, line, batch):
    batch(alice, [line(str(i)) for i in range(6)])

    def feed(_):
        try:
            turn()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(feed, range(3)))
    turn()  # where two chose the same lines, some are left
    assert Line.objects.filter(batch__tenant=alice.tenant, state="begun").count() == jobs_of(alice).count() == 6


def test_a_line_that_becomes_a_job_locks_no_row_that_other_work_of_its_tenant_refers_to(alice, live, line, batch):
    made = batch(alice, [line("a")])

    def feed():
        try:
            turn()
        finally:
            connections.close_all()

    # As a charge does that is about to be committed: it has the credit and refers to the tenant, the key and the batch.
    rows = {"tenants_tenant": alice.tenant.pk, "tenants_apikey": alice.key.pk, "batches_batch": batch_id_of(made)}
    with ThreadPoolExecutor(1) as threads, transaction.atomic(), connections["default"].cursor() as cursor:
        for table, row_id in rows.items():
            cursor.execute(f"SELECT FROM {table} WHERE id = %s FOR KEY SHARE", [row_id])
        threads.submit(feed).result()
    assert jobs_of(alice).get().pk == line_of(made, "a").pk


def test_a_line_that_fails_is_in_the_error_file_with_the_answer_of_the_call(alice, live, line, batch):
    made = batch(alice, [line("a"), line("b")])
    turn()
    first, second = dispatch.release_batch(pool=live, now=datetime.now(UTC), lease_seconds=3600)
    finish(first)
    finish(second, outcome="failed", error_code="prompt_too_long", error_message="600 tokens")
    turn()
    done = retrieve(alice, made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 1)
    (failed,) = read(alice, done.error_file_id)
    assert (failed["response"]["status_code"], failed["response"]["body"]["error"]["code"]) == (400, "prompt_too_long")
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_what_is_left_when_the_time_is_over_expires_uncharged(alice, live, line, batch):
    made = batch(alice, [line(str(i)) for i in range(8)], completion_window="2h")
    turn()
    work(live)  # four of them
    late = datetime.now(UTC) + timedelta(hours=2)
    turn(late)
    expire_jobs(late, tenants=[alice.tenant])
    turn(late)
    done = retrieve(alice, made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("expired", 4, 4)
    assert (done.expired_at, done.completed_at) == (int(late.timestamp()), None)
    assert len(read(alice, done.output_file_id)) == 4
    expired = read(alice, done.error_file_id)
    assert {(one["response"], one["error"]["code"]) for one in expired} == {(None, "batch_expired")}
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_a_canceled_batch_finishes_what_a_worker_has_begun(alice, live, line, batch):
    made = batch(alice, [line(str(i)) for i in range(8)])
    turn()
    running = dispatch.release_batch(pool=live, now=datetime.now(UTC), lease_seconds=3600)
    asked = sdk(alice, lambda client: client.batches.cancel(made.id))
    assert (asked.status, asked.cancelling_at is not None) == ("cancelling", True)
    turn()
    assert retrieve(alice, made.id).status == "cancelling"
    assert jobs_of(alice).filter(state=State.CANCELED).count() == 4
    for attempt in running:
        finish(attempt)
    turn()
    done = retrieve(alice, made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("cancelled", 4, 4)
    assert {one["error"]["code"] for one in read(alice, done.error_file_id)} == {"batch_cancelled"}
    assert sdk(alice, lambda client: client.batches.cancel(made.id)).status == "cancelled"


def test_another_tenants_batches_and_files_are_not_found(alice, bob, live, line, batch):
    made = batch(alice, [line("a")])
    for use in (
        lambda client: client.batches.retrieve(made.id),
        lambda client: client.batches.cancel(made.id),
        lambda client: client.files.retrieve(made.input_file_id),
        lambda client: client.files.content(made.input_file_id),
        lambda client: client.files.delete(made.input_file_id),
        lambda client: client.batches.create(
            input_file_id=made.input_file_id, endpoint="/v1/images/generations", completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            sdk(bob, use)
    assert sdk(bob, lambda client: client.batches.list()).data == []
    assert sdk(bob, lambda client: client.files.list()).data == []


def test_lists_turn_their_pages(alice, live, line, batch):
    made = [batch(alice, [line("a")]).id for _ in range(3)]

    async def everything(client):
        return [one.id async for one in client.batches.list(limit=2)], [one.id async for one in client.files.list()]

    batches, files = sdk(alice, everything)
    assert batches == made[::-1]
    assert len(files) == 3


def test_a_retry_with_its_idempotency_key_is_the_same_batch(alice, live, line):
    async def twice(client):
        file = await client.files.create(file=("a.jsonl", b'{"custom_id": 1}'), purpose="batch")
        terms = {
            "input_file_id": file.id,
            "endpoint": "/v1/images/generations",
            "completion_window": "24h",
            "extra_headers": {"Idempotency-Key": "once"},
        }
        return await client.batches.create(**terms), await client.batches.create(**terms)

    first, again = sdk(alice, twice)
    assert first.id == again.id


def test_a_deleted_file_leaves_its_batch_and_its_images(alice, live, line, batch):
    made = batch(alice, [line("a")])
    assert sdk(alice, lambda client: client.files.delete(made.input_file_id)).deleted
    turn()
    (job,) = work(live)
    turn()
    done = retrieve(alice, made.id)
    assert done.status == "completed"
    sdk(alice, lambda client: client.files.delete(done.output_file_id))
    with pytest.raises(openai.NotFoundError):
        read(alice, done.output_file_id)
    assert job.outputs.filter(deleted_at=None).exists()
    assert not Line.objects.filter(batch=uuid.UUID(made.id.removeprefix("batch_"))).exists()


def test_an_erasure_waits_for_a_batch_or_cancels_it(alice, live, line, batch):
    batch(alice, [line("a"), line("b")])
    asked = {"tenant": alice.tenant, "actor": "test", "now": datetime.now(UTC)}
    with pytest.raises(JobsUnfinished, match="2 jobs"):
        erase_request(**asked, cancel_jobs=False)
    erase_request(**asked, cancel_jobs=True)
    while erase_advance(**asked, default=settings.EASEL):
        pass
    alice.tenant.refresh_from_db()
    assert alice.tenant.erased_at is not None
    for table in (Batch, File):
        assert not table.objects.filter(tenant=alice.tenant).exists()
    assert not jobs_of(alice).exists()


@pytest.fixture
def own_pool(alice, version):
    """A dedicated pool of alice's with a live worker: her jobs go there from its creation on."""

    def make():
        made = dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="cpu", now=NOW)
        later = datetime.now(UTC) + timedelta(days=30)
        beat(pool=made, report=worker_beat(worker="own", concurrency=4), now=later, lease_seconds=15)
        return made

    return make


def test_lines_go_with_their_tenant_to_another_pool_and_are_fed_by_its_room(alice, live, line, batch, own_pool):
    batch(alice, [line(str(i)) for i in range(12)])
    own = own_pool()
    for _ in range(9):
        turn()
    # Two for each of its four places, and none because the pool that they were expected in is idle.
    assert jobs_of(alice).filter(pool=own).count() == jobs_of(alice).count() == 8


def test_lines_leave_a_pool_whose_workers_are_gone(alice, live, line, batch, own_pool):
    batch(alice, [line("a")])
    own = own_pool()
    Worker.objects.filter(pool=live).delete()
    for _ in range(2):
        turn()
    assert jobs_of(alice).get().pool == own


def test_lines_wait_where_no_other_pool_would_serve_them(alice, live, line, batch):
    made = batch(alice, [line("a")])
    Worker.objects.filter(pool=live).delete()
    turn()
    assert line_of(made, "a").state == Line.State.WAITING
    assert line_of(made, "a").pool == live
