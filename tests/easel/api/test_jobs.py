import asyncio
import threading
import uuid
from datetime import datetime, timedelta

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import StoredObject
from core.models import AuditEvent
from easel.api import jobs as api_jobs
from easel.jobs import dispatch, lifecycle, queries
from easel.jobs.models import Job
from tests.conftest import NOW
from tests.easel.api.conftest import ask, call, end_job


def test_a_job_is_accepted_with_what_will_be_generated_and_where_to_ask_for_it(alice, create, version):
    job = create(alice, size="256x128", n=2, seed=5, metadata={"order": "7"})
    assert (job["object"], job["status"], job["model"]) == ("job", "queued", version.model.name)
    assert (job["size"], job["n"], job["seed"], job["metadata"]) == ("256x128", 2, 5, {"order": "7"})
    assert job["progress"] == {"steps_done": 0, "steps_total": 16}
    assert job["urls"]["get"].endswith(f"/v1/jobs/{job['id']}")


def test_a_finished_job_shows_its_images_and_its_cost(alice, create):
    job_id = create(alice, n=2)["id"]
    end_job(job_id, gpu_seconds=2.0)
    job = call("GET", f"/v1/jobs/{job_id}", alice).json()
    assert (job["status"], len(job["images"]), job["attempts"]) == ("succeeded", 2, 1)
    assert (job["usage"]["image_units"], job["usage"]["gpu_seconds"]) == (0.5, 2.0)
    # 0.5 image units at 0.002, 2 seconds of a CPU at 0.0001, one request at 0.0005
    assert job["usage"]["cost"] == 0.0017
    details = job["usage"]["cost_details"]
    assert (details["amount"], details["amount_micros"], details["currency"]) == ("0.001700", 1700, "USD")
    assert {(line["meter"], line["quantity"], line["amount_micros"]) for line in details["lines"]} == {
        ("image_unit", "0.5", 1000),
        ("gpu_second", "2", 200),
        ("request", "1", 500),
    }


def test_the_part_of_a_cost_above_its_hold_is_a_line_of_its_own(alice, create):
    job_id = create(alice)["id"]
    held = balances_by_kind(alice.tenant)["held"]
    end_job(job_id, gpu_seconds=1e6)
    details = call("GET", f"/v1/jobs/{job_id}", alice).json()["usage"]["cost_details"]
    assert details["amount_micros"] == held
    waived = [line for line in details["lines"] if line["kind"] == "waiver"]
    assert sum(line["amount_micros"] for line in details["lines"]) == held
    assert waived
    assert all(line["quantity"] == "0" and line["amount_micros"] < 0 for line in waived)


def test_a_failed_job_says_why_and_costs_nothing(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id, outcome="failed", error_code="out_of_memory", error_message="too large", retryable=True)
    job = call("GET", f"/v1/jobs/{job_id}", alice).json()
    assert (job["status"], job["error"]["code"], job["usage"]) == ("failed", "out_of_memory", None)
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_jobs_are_listed_newest_first_in_pages(alice, create):
    made = [create(alice)["id"] for _ in range(5)]
    first = call("GET", "/v1/jobs?limit=3", alice).json()
    second = call("GET", f"/v1/jobs?limit=3&after={first['data'][-1]['id']}", alice).json()
    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_jobs_are_listed_by_status(alice, create):
    done, _ = create(alice)["id"], create(alice)["id"]
    end_job(done)
    listed = call("GET", "/v1/jobs?status=succeeded", alice).json()["data"]
    assert [job["id"] for job in listed] == [done]


def test_a_page_may_be_of_one_status(alice, create):
    made = [create(alice)["id"] for _ in range(4)]
    call("POST", f"/v1/jobs/{made[2]}/cancel", alice)
    listed = call("GET", f"/v1/jobs?status=queued&limit=1&after={made[3]}", alice).json()
    assert ([job["id"] for job in listed["data"]], listed["has_more"]) == ([made[1]], True)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel")])
def test_another_tenants_job_is_404(alice, bob, create, method, path):
    answer = call(method, f"/v1/jobs/{create(alice)['id']}{path}", bob)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


def test_only_a_submission_runs_on_the_threads_for_admission(alice, create, monkeypatch):
    threads = set()
    for module, name in ((api_jobs, "submit"), (queries, "jobs_page")):
        monkeypatch.setattr(module, name, _recording_threads(getattr(module, name), threads))
    create(alice)
    call("GET", "/v1/jobs", alice)
    assert threads == {("submit", "short"), ("jobs_page", "request")}


def _recording_threads(function, threads):
    """Wrap `function` so that each call adds its name and its thread's pool to `threads`."""

    def wrapper(*args, **kwargs):
        threads.add((function.__name__, threading.current_thread().name.partition("_")[0]))
        return function(*args, **kwargs)

    return wrapper


def test_another_tenants_jobs_are_not_listed(alice, bob, create):
    theirs = create(alice)["id"]
    assert call("GET", "/v1/jobs", bob).json()["data"] == []
    assert call("GET", f"/v1/jobs?after={theirs}", bob).status_code == 404


def test_a_waiting_job_is_canceled_at_once_and_its_hold_returned(alice, create):
    job_id = create(alice)["id"]
    assert call("POST", f"/v1/jobs/{job_id}/cancel", alice).json()["status"] == "canceled"
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_canceling_again_changes_nothing(alice, create):
    job_id = create(alice)["id"]
    answers = [call("POST", f"/v1/jobs/{job_id}/cancel", alice) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def test_a_job_in_a_workers_hands_is_canceled_when_the_worker_stops(alice, pool, create):
    job_id = create(alice)["id"]
    dispatch.release(pool=pool, now=NOW, lease_seconds=3600)
    assert call("POST", f"/v1/jobs/{job_id}/cancel", alice).json()["status"] == "dispatched"
    end_job(job_id, outcome="canceled")
    assert call("GET", f"/v1/jobs/{job_id}", alice).json()["status"] == "canceled"
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_canceling_a_finished_job_leaves_it_finished(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)
    assert call("POST", f"/v1/jobs/{job_id}/cancel", alice).json()["status"] == "succeeded"


def keyed(customer, content, key="key-1"):
    return ask("POST", "/v1/jobs", secret=customer.secret, json=content, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_give_the_same_job(alice, body):
    first, again = (asyncio.run(keyed(alice, body())) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert Job.objects.filter(tenant=alice.tenant).count() == 1


def test_the_same_key_with_another_body_is_refused(alice, body):
    asyncio.run(keyed(alice, body()))
    answer = asyncio.run(keyed(alice, body(n=2)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_two_tenants_may_use_the_same_key(alice, bob, body):
    first, second = asyncio.run(keyed(alice, body())), asyncio.run(keyed(bob, body()))
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\x00b", "a\nb"])
def test_a_key_that_is_no_short_text_is_refused(alice, body, key):
    answer = asyncio.run(keyed(alice, body(), key=key.encode("latin-1")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_key_invalid")


def test_a_refused_request_does_not_use_up_its_key(alice, body):
    asyncio.run(keyed(alice, body(size="1x1")))
    assert asyncio.run(keyed(alice, body())).status_code == 202


def test_requests_at_once_with_one_key_make_one_job(alice, body):
    async def at_once():
        return await asyncio.gather(*(keyed(alice, body()) for _ in range(8)))

    answers = asyncio.run(at_once())
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert balances_by_kind(alice.tenant)["held"] == 1800
    assert Job.objects.filter(tenant=alice.tenant).count() == 1


def test_requests_at_once_never_hold_more_than_the_balance(customer, body):
    cost = 1800  # 0.25 units x 8 steps x 4 s at 0.0001, 0.25 units at 0.002, a request at 0.0005
    poor = customer(credit=f"{3 * cost / 1_000_000:.6f}")

    async def at_once():
        wanted = (ask("POST", "/v1/jobs", secret=poor.secret, json=body()) for _ in range(8))
        return await asyncio.gather(*wanted)

    statuses = sorted(answer.status_code for answer in asyncio.run(at_once()))
    assert statuses == [202] * 3 + [429] * 5


def test_a_job_that_nobody_took_expires(alice, create):
    job_id = create(alice)["id"]
    Job.objects.filter(id=job_id).update(expires_at=NOW)
    lifecycle.expire(job_id=uuid.UUID(job_id), now=Job.objects.get(id=job_id).created_at)
    job = call("GET", f"/v1/jobs/{job_id}", alice).json()
    assert (job["status"], job["error"]["code"]) == ("expired", "job_expired")


def test_a_request_names_its_deadline(alice, create):
    job = create(alice, expires_in_seconds=60)
    lives = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["created_at"])
    assert lives == timedelta(seconds=60)


@pytest.mark.parametrize("seconds", [0, -1, 3601, 1.5, "60"])
def test_a_deadline_is_within_the_platforms_time_for_jobs(alice, body, seconds):
    answer = call("POST", "/v1/jobs", alice, json=body(expires_in_seconds=seconds))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_in_seconds")


def test_deleted_images_are_gone_and_no_longer_charged_as_stored(alice, create):
    job = create(alice, n=2)
    end_job(job["id"])
    urls = [image["url"] for image in call("GET", f"/v1/jobs/{job['id']}", alice).json()["images"]]
    answer = call("DELETE", f"/v1/jobs/{job['id']}/images", alice)
    assert (answer.status_code, answer.json()["images"], answer.json()["status"]) == (200, [], "succeeded")
    assert answer.json()["usage"]["cost"] > 0
    assert [call("GET", url).status_code for url in urls] == [404, 404]
    stored = StoredObject.objects.filter(project=alice.project)
    assert [found.deleted_at is None for found in stored] == [False, False]


def test_images_of_another_tenant_are_not_there_to_be_deleted(alice, bob, create):
    job = create(alice)
    end_job(job["id"])
    assert call("DELETE", f"/v1/jobs/{job['id']}/images", bob).status_code == 404
    assert call("GET", f"/v1/jobs/{job['id']}", alice).json()["images"]


def test_a_deleted_job_keeps_its_numbers_and_loses_its_words(alice, create):
    job = create(alice, user="ann", metadata={"order": "7"})
    end_job(job["id"])
    usage = call("GET", f"/v1/jobs/{job['id']}", alice).json()["usage"]
    gone = call("DELETE", f"/v1/jobs/{job['id']}", alice).json()
    assert (gone["prompt"], gone["metadata"], gone["images"], gone["status"]) == (None, {}, [], "succeeded")
    assert gone["usage"] == usage
    assert call("GET", f"/v1/jobs/{job['id']}", alice).json() == gone
    assert call("GET", "/v1/jobs", alice).json()["data"] == []
    assert call("DELETE", f"/v1/jobs/{job['id']}", alice).json() == gone
    (event,) = AuditEvent.objects.filter(tenant=alice.tenant)
    assert (event.actor, event.action, event.subject) == (f"key:{alice.key.key_id}", "job.delete", job["id"])


def test_an_unfinished_job_is_canceled_before_it_is_deleted(alice, create):
    job = create(alice)
    refused = call("DELETE", f"/v1/jobs/{job['id']}", alice)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_unfinished")
    call("POST", f"/v1/jobs/{job['id']}/cancel", alice)
    assert call("DELETE", f"/v1/jobs/{job['id']}", alice).json()["prompt"] is None


def test_a_job_of_another_tenant_is_not_there_to_be_deleted(alice, bob, create):
    job = create(alice)
    end_job(job["id"])
    assert call("DELETE", f"/v1/jobs/{job['id']}", bob).status_code == 404
    assert call("GET", f"/v1/jobs/{job['id']}", alice).json()["prompt"] == "a red circle"


def test_the_quota_shows_how_long_jobs_are_retained(alice):
    assert call("GET", "/v1/quota", alice).json()["retention"] == {"output_days": 30, "job_days": 90}
