"""Each event arrives at a receiver as the OpenAPI document describes it."""

import json
import uuid
from datetime import UTC, datetime, timedelta

from billing.ledger.postings import balance_adjust
from billing.models import BudgetCrossing
from easel.batches.lifecycle import batches_advance
from easel.catalog.models import Worker
from easel.jobs import lifecycle
from easel.jobs.budgets import budget_set
from easel.webhooks.budget_notices import crossings_notify
from easel.webhooks.models import Event
from easel.webhooks.outbox import webhook_test
from tests.conftest import NOW
from tests.easel.api.conftest import call
from tests.easel.api.described import validator, whole
from tests.easel.batches.conftest import jsonl, turn, work
from tests.easel.webhooks.conftest import deliver

DOLLAR = 1_000_000
LATER = datetime.now(UTC) + timedelta(days=60)  # what is sent by any clock of these tests is due


def begin(customer, version, custom_id="a"):
    """Begins a batch of one line; without a `custom_id` its file is refused."""
    body = {"model": version.model.name, "prompt": "a red circle"}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/images/generations", "body": body}
    upload = {"file": ("requests.jsonl", jsonl([line]))}
    file = call("POST", "/v1/files", customer, data={"purpose": "batch"}, files=upload).json()["id"]
    fields = {"input_file_id": file, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    return call("POST", "/v1/batches", customer, json=fields).json()


def test_every_event_arrives_as_the_document_describes_it(alice, pool, version, submit, end, endpoint, receiver):
    hook = endpoint(alice)
    for outcome in ("succeeded", "failed", "canceled"):
        end(submit(alice), outcome=outcome)
    expiring = submit(alice)
    assert lifecycle.expire(job_id=expiring.id, now=expiring.expires_at)

    Worker.objects.filter(pool=pool).update(beat_at=LATER)
    begin(alice, version)
    turn()
    work(pool)
    turn()
    call("POST", f"/v1/batches/{begin(alice, version)['id']}/cancel", alice)
    turn()
    assert begin(alice, version, custom_id="")["status"] == "failed"
    begin(alice, version)
    batches_advance(now=datetime.now(UTC) + timedelta(hours=25))

    BudgetCrossing.objects.filter(notified_at=None).update(notified_at=NOW)
    budget_set(tenant=alice.tenant, amount_micros=10 * DOLLAR, hard_stop=False, now=NOW)
    balance_adjust(tenant=alice.tenant, amount_micros=6 * DOLLAR, reference=uuid.uuid4(), now=NOW)
    crossings_notify(now=NOW)
    webhook_test(hook, now=NOW)

    while deliver(alice, LATER):  # an endpoint is sent a few at a time
        pass
    arrived = [json.loads(content) for _, content in receiver.seen]
    assert {event["type"] for event in arrived} == set(Event.values) == set(whole()["webhooks"])
    for event in arrived:
        content = whole()["webhooks"][event["type"]]["post"]["requestBody"]["content"]["application/json"]
        validator(json.dumps(content["schema"])).validate(event)
