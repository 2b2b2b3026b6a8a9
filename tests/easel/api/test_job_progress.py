"""What a job's answer says of its place in the queue and of its timeline."""

import json

from easel.catalog.models import Worker
from easel.jobs import dispatch
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job


def test_a_waiting_job_shows_its_place(alice, pool, create):
    create(alice)
    job = call("GET", f"/v1/jobs/{create(alice)['id']}", alice).json()
    assert (job["queue"]["position"], job["queue"]["ahead_in_your_account"]) == (2, 1)
    assert (job["queue"]["position_is_exact"], job["queue"]["eta_seconds"]) == (True, None)


def test_an_ended_job_has_no_place_and_its_whole_timeline(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)
    job = call("GET", f"/v1/jobs/{job_id}", alice).json()
    events = [row["event"] for row in job["timeline"]]
    assert job["queue"] is None
    assert {"queued", "dispatched", "began", "succeeded"} <= set(events)
    assert job["timeline"] == sorted(job["timeline"], key=lambda row: row["time"])


def test_lists_and_submissions_leave_out_what_takes_more_queries(alice, create):
    made = create(alice)
    [listed] = call("GET", "/v1/jobs", alice).json()["data"]
    for shown in (made, listed):
        assert not {"queue", "timeline"} & set(shown)


def test_the_events_of_a_job_have_its_place_and_timeline(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)
    received = call("GET", f"/v1/jobs/{job_id}/events", alice).text
    data = next(line.removeprefix("data: ") for line in received.splitlines() if line.startswith("data: "))
    job = json.loads(data)
    assert (job["queue"], job["timeline"][-1]["event"]) == (None, "succeeded")


def test_a_tenants_answer_names_no_worker_and_no_other_tenant(alice, bob, pool, create):
    Worker.objects.filter(pool=pool).update(concurrency=1)
    create(bob)
    job_id = create(alice)["id"]
    dispatch.release(pool=pool, now=NOW, lease_seconds=3600)
    received = call("GET", f"/v1/jobs/{job_id}", alice).text
    assert bob.tenant.slug not in received
    assert '"worker":"w1"' not in received
