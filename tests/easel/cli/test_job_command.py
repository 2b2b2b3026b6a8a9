"""`easel job show`: the timeline of a job, for operators, with the names of workers."""

import json
import uuid
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner

from easel.cli.jobs import job as command


def show(*arguments):
    return CliRunner().invoke(command, ["show", *map(str, arguments)])


def test_a_job_is_shown_with_its_timeline_as_a_table_and_as_json(alice, submit, end):
    job = end(submit(alice))
    text = show(job.id).output
    assert alice.tenant.slug in text
    events = [line.split()[1] for line in text.split("happened_at")[1].splitlines()[1:]]
    assert [event for event in events if event != "waited"] == ["queued", "dispatched", "began", "succeeded"]
    found = json.loads(show(job.id, "--json").output)
    assert (found["status"], found["queue"]) == ("succeeded", None)
    assert {row["worker"] for row in found["timeline"] if row["event"] == "began"} == {"w1"}


def test_a_waiting_job_is_shown_with_its_place(alice, submit):
    now = datetime.now(UTC)
    submit(alice, now=now)
    found = json.loads(show(submit(alice, now=now + timedelta(seconds=1)).id, "--json").output)
    assert (found["queue"]["position"], found["queue"]["ahead_in_your_account"]) == (2, 1)


def test_an_unknown_job_is_refused():
    refused = show(uuid.uuid4())
    assert refused.exit_code != 0
