import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.models import AuditEvent
from easel.jobs import lifecycle
from easel.observability.metrics import DatabaseState
from easel.processes import deliverer
from easel.webhooks import delivery
from easel.webhooks.delivery import (
    DELAYS,
    ENDPOINT_LEASES_MAX,
    LEASE,
    TENANT_LEASES_MAX,
    delivery_record,
    messages_delete,
)
from easel.webhooks.endpoints import ROTATION, endpoint_change, secret_rotate, webhooks_erase
from easel.webhooks.errors import WebhookDisabled
from easel.webhooks.models import Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookMessage
from easel.webhooks.outbox import delivery_replay, webhook_emit, webhook_test
from easel.webhooks.queries import overdue_seconds
from tests.conftest import NOW
from tests.easel.webhooks.conftest import claims_of, deliver, sent

DAY = timedelta(days=1)


def emit(customer, event=Event.JOB_FAILED, now=NOW):
    return webhook_emit(tenant=customer.tenant, event=event, data=lambda: {"id": "é"}, now=now)


def states(customer):
    return list(WebhookDelivery.objects.filter(endpoint__tenant=customer.tenant).values_list("state", flat=True))


def test_the_event_of_a_job_that_ended_contains_its_cost(alice, endpoint, submit, end):
    endpoint(alice)
    job = end(submit(alice, prompt="a secret of alice"))
    [message] = WebhookMessage.objects.filter(tenant=alice.tenant)
    assert (message.event, message.data["id"]) == ("job.succeeded", str(job.id))
    assert message.data["cost"] == {"amount_micros": 1150, "currency": "USD"}
    assert (message.data["usage"]["cost"], message.data["usage"]["cost_details"]["amount"]) == (0.00115, "0.001150")
    assert "secret of alice" not in json.dumps(message.data)


@pytest.mark.parametrize(("outcome", "event"), [("failed", "job.failed"), ("canceled", "job.canceled")])
def test_every_end_of_a_job_has_its_event(alice, endpoint, submit, end, outcome, event):
    endpoint(alice)
    end(submit(alice), outcome=outcome)
    assert WebhookMessage.objects.get(tenant=alice.tenant).event == event


def test_a_job_that_is_canceled_before_it_began_has_its_event_too(alice, endpoint, submit):
    endpoint(alice)
    lifecycle.cancel(job=submit(alice), now=NOW)
    assert WebhookMessage.objects.get(tenant=alice.tenant).event == "job.canceled"


def test_an_event_that_is_rolled_back_leaves_no_message(alice, endpoint):
    endpoint(alice)
    with transaction.atomic():
        emit(alice)
        transaction.set_rollback(True)
    assert not WebhookMessage.objects.filter(tenant=alice.tenant).exists()


def test_a_webhook_gets_only_the_events_that_it_asked_for(alice, bob, endpoint):
    endpoint(alice, events=("job.succeeded",))
    endpoint(bob)
    assert emit(alice) is None
    assert emit(alice, Event.JOB_SUCCEEDED) is not None


def test_a_receivers_library_verifies_what_arrives(alice, endpoint, receiver):
    now = datetime.now(UTC)  # the library looks at the clock
    made = endpoint(alice)
    message = emit(alice, now=now)
    deliver(alice, now)
    [(headers, body)] = receiver.seen
    verified = Webhook(made.plain_secret).verify(body, headers)
    assert verified == {"type": "job.failed", "timestamp": now.isoformat(), "data": {"id": "é"}}
    assert headers["webhook-id"] == f"msg_{message.pk.hex}"
    assert states(alice) == ["delivered"]
    with pytest.raises(WebhookVerificationError):
        Webhook(made.plain_secret).verify(body + b" ", headers)


def test_the_overdue_metric_is_the_longest_wait(alice, endpoint, receiver):
    waited = 5000 * DAY  # longer than any other's here
    endpoint(alice)
    emit(alice, now=NOW - waited)
    assert overdue_seconds(NOW) == waited.total_seconds()
    deliver(alice, NOW)
    assert overdue_seconds(NOW) < waited.total_seconds()


def test_during_a_rotation_receivers_verify_with_either_secret(alice, endpoint, receiver):
    now = datetime.now(UTC)
    made = endpoint(alice)
    _, new = secret_rotate(made, now=now)
    emit(alice, now=now)
    deliver(alice, now)
    [(headers, body)] = receiver.seen
    for secret in (made.plain_secret, new):
        Webhook(secret).verify(body, headers)


def test_after_the_rotation_the_previous_secret_signs_no_more(alice, endpoint, receiver):
    now = datetime.now(UTC)
    made = endpoint(alice)
    _, new = secret_rotate(made, now=now - ROTATION)
    emit(alice, now=now)
    deliver(alice, now)
    [(headers, body)] = receiver.seen
    Webhook(new).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made.plain_secret).verify(body, headers)


@pytest.mark.parametrize("status", [500, 404, 301, 429])
def test_a_delivery_that_fails_is_retried_later(alice, endpoint, receiver, status):
    endpoint(alice)
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    emit(alice)
    deliver(alice, NOW)
    row = WebhookDelivery.objects.get(endpoint__tenant=alice.tenant)
    assert (row.state, len(receiver.seen)) == ("pending", 1)
    assert 0.8 * DELAYS[0] <= (row.next_at - NOW).total_seconds() <= 1.2 * DELAYS[0]
    assert WebhookAttempt.objects.get(delivery=row).outcome == f"answered {status}"


def test_a_repeat_has_the_same_id_and_bytes_and_a_time_of_its_own(alice, endpoint, receiver):
    endpoint(alice)
    receiver.status = 500
    emit(alice)
    deliver(alice, NOW)
    deliver(alice, NOW + timedelta(minutes=1))
    (first, body), (second, again) = receiver.seen
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 60


def test_a_receiver_that_asks_for_time_gets_it(alice, endpoint, receiver):
    endpoint(alice)
    receiver.status, receiver.headers = 429, {"Retry-After": "120"}
    emit(alice)
    deliver(alice, NOW)
    assert WebhookDelivery.objects.get(endpoint__tenant=alice.tenant).next_at == NOW + timedelta(seconds=120)


def test_a_day_of_failures_gives_up_and_disables_with_a_record(alice, endpoint, receiver):
    made = endpoint(alice)
    receiver.status = 500
    emit(alice)
    now = NOW
    for _ in range(len(DELAYS) + 1):
        deliver(alice, now)
        now = WebhookDelivery.objects.get(endpoint=made).next_at
    assert states(alice) == ["failed"]
    assert timedelta(hours=16) < now - NOW < timedelta(hours=30)
    made.refresh_from_db()
    assert made.disabled_reason == "nothing was delivered for 20 hours: answered 500"
    record = AuditEvent.objects.get(tenant=alice.tenant, action="webhook.disable")
    assert record.details["reason"] == made.disabled_reason


def test_the_metric_of_attempts_never_falls(alice, endpoint, receiver):
    """Prometheus takes a counter that falls for a reset one, and would count all attempts again."""

    def totals():
        [attempts] = [family for family in DatabaseState().collect() if family.name == "easel_webhook_attempts"]
        return {sample.labels["outcome"]: sample.value for sample in attempts.samples}

    before = totals()
    endpoint(alice)
    for now, status in ((NOW, 200), (NOW + DAY, 503), (NOW + 2 * DAY, 410)):
        receiver.status = status
        emit(alice, now=now)
        deliver(alice, now)
    webhooks_erase(tenant=alice.tenant)
    came = {outcome: count - before[outcome] for outcome, count in totals().items()}
    assert came == {"delivered": 1, "retried": 1, "given_up": 2}  # what was retried came with the last


def test_an_answer_410_disables_the_webhook_at_once(alice, endpoint, receiver):
    made = endpoint(alice)
    receiver.status = 410
    emit(alice)
    deliver(alice, NOW)
    made.refresh_from_db()
    assert (states(alice), made.disabled_reason) == (["failed"], "it answered 410 Gone")


def test_deliveries_pending_when_a_webhook_is_disabled_are_sent_when_it_is_enabled(alice, endpoint, receiver):
    made = endpoint(alice)
    emit(alice)
    made = endpoint_change(made, changes={"enabled": False}, now=NOW)
    assert emit(alice) is None
    assert deliver(alice, NOW) == []
    endpoint_change(made, changes={"enabled": True}, now=NOW)
    deliver(alice, NOW)
    assert states(alice) == ["delivered"]


def test_a_delivery_whose_deliverer_died_is_sent_again(alice, endpoint, receiver):
    endpoint(alice)
    emit(alice)
    [claim] = claims_of(alice, NOW)
    sent(claim)  # and then it is killed
    assert claims_of(alice, NOW + LEASE / 2) == []
    deliver(alice, NOW + LEASE)
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1
    assert (len(receiver.seen), states(alice)) == (2, ["delivered"])


def test_a_result_that_arrives_after_another_deliverer_took_over_changes_nothing(alice, endpoint, receiver):
    endpoint(alice)
    emit(alice)
    [claim] = claims_of(alice, NOW)
    deliver(alice, NOW + LEASE)
    receiver.status = 410
    delivery_record(claim, sent(claim), now=NOW + LEASE, rng=random.Random(1))
    assert states(alice) == ["delivered"]
    assert WebhookAttempt.objects.filter(delivery__endpoint__tenant=alice.tenant).count() == 2


def test_an_endpoint_has_a_few_leases_and_its_other_deliveries_wait(alice, bob, endpoint):
    endpoint(alice)
    for _ in range(3 * ENDPOINT_LEASES_MAX):
        emit(alice)
    assert len(claims_of(alice, NOW)) == ENDPOINT_LEASES_MAX
    endpoint(bob)
    emit(bob)
    assert len(claims_of(bob, NOW)) == 1
    assert claims_of(alice, NOW) == []


def test_a_tenant_with_many_webhooks_does_not_fill_the_deliverer(alice, endpoint):
    for _ in range(TENANT_LEASES_MAX // ENDPOINT_LEASES_MAX + 2):
        endpoint(alice)
    for _ in range(ENDPOINT_LEASES_MAX):
        emit(alice)
    assert len(claims_of(alice, NOW)) == TENANT_LEASES_MAX


def test_a_result_from_before_a_replay_changes_nothing(alice, endpoint, receiver):
    endpoint(alice)
    receiver.status = 410
    emit(alice)
    [claim] = claims_of(alice, NOW)
    delivery_replay(WebhookDelivery.objects.get(endpoint__tenant=alice.tenant), now=NOW + DAY)
    [again] = claims_of(alice, NOW + DAY)
    assert again.delivery.attempts == claim.delivery.attempts
    delivery_record(claim, sent(claim), now=NOW + DAY, rng=random.Random(1))
    assert states(alice) == ["pending"]


def test_an_endpoint_with_an_unusable_url_does_not_stop_others_deliveries(alice, bob, endpoint, receiver):
    strange = endpoint(alice)
    WebhookEndpoint.objects.filter(pk=strange.pk).update(url="https://" + "a" * 64 + ".example/")
    endpoint(bob)
    emit(alice)
    stop = threading.Event()
    running = threading.Thread(target=deliverer.run, args=(stop,))
    running.start()
    try:
        emit(bob)
        assert receiver.arrived.wait(30)
    finally:
        stop.set()
        running.join(30)
    assert (states(alice), states(bob)) == (["pending"], ["delivered"])


def test_a_success_with_an_endless_body_is_a_success(alice, endpoint, receiver, monkeypatch):
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.5)
    receiver.trickle = threading.Event()
    endpoint(alice)
    emit(alice)
    [answer] = deliver(alice, NOW)
    assert (answer.outcome, states(alice)) == ("delivered", ["delivered"])


def test_a_webhook_that_is_disabled_meanwhile_keeps_its_reason(alice, endpoint, receiver):
    made = endpoint(alice)
    receiver.status = 410
    emit(alice)
    [claim] = claims_of(alice, NOW)
    endpoint_change(made, changes={"enabled": False}, now=NOW)
    delivery_record(claim, sent(claim), now=NOW, rng=random.Random(1))
    made.refresh_from_db()
    assert made.disabled_reason == "switched off"


def test_deliverers_at_once_claim_different_deliveries(alice, endpoint):
    endpoint(alice)
    for _ in range(ENDPOINT_LEASES_MAX + 1):
        emit(alice)
    start = threading.Barrier(4)

    def take(_):
        start.wait()
        try:
            return claims_of(alice, NOW)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        taken = [claim.delivery.pk for claims in threads.map(take, range(4)) for claim in claims]
    assert len(taken) == len(set(taken)) == ENDPOINT_LEASES_MAX


@pytest.mark.parametrize(("body", "recorded"), [(b"x" * 10_000_000, "x" * 500), (b"\xff\x00ok", "�ok")])
def test_the_beginning_of_an_answer_is_recorded(alice, endpoint, receiver, body, recorded):
    endpoint(alice)
    receiver.body = body
    emit(alice)
    [answer] = deliver(alice, NOW)
    assert answer.response == recorded


def test_a_host_name_without_an_address_is_a_failure(alice, endpoint):
    endpoint(alice, url="http://no-such-host.invalid/hook")
    emit(alice)
    [answer] = deliver(alice, NOW)
    assert answer.outcome == "no-such-host.invalid has no address"


def test_a_replayed_message_has_the_same_id(alice, endpoint, receiver):
    endpoint(alice)
    emit(alice)
    deliver(alice, NOW)
    delivery_replay(WebhookDelivery.objects.get(endpoint__tenant=alice.tenant), now=NOW + DAY)
    deliver(alice, NOW + DAY)
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1
    assert len(receiver.seen) == 2


def test_a_disabled_webhook_can_not_be_tested(alice, endpoint):
    made = endpoint_change(endpoint(alice), changes={"enabled": False}, now=NOW)
    with pytest.raises(WebhookDisabled):
        webhook_test(made, now=NOW)


def test_a_secret_encrypted_with_another_key_disables_its_webhook_only(alice, endpoint):
    made = endpoint(alice)
    WebhookEndpoint.objects.filter(pk=made.pk).update(secret=b"other")
    emit(alice)
    assert claims_of(alice, NOW) == []
    made.refresh_from_db()
    assert "rotate it" in made.disabled_reason


def test_old_messages_are_deleted_unless_pending(alice, endpoint, receiver):
    endpoint(alice)
    emit(alice)
    deliver(alice, NOW)
    waiting = emit(alice)
    messages_delete(before=NOW + timedelta(microseconds=1))
    assert list(WebhookMessage.objects.filter(tenant=alice.tenant)) == [waiting]


def test_the_deliverer_wakes_for_a_message_and_ends_on_a_stop(alice, endpoint, receiver):
    endpoint(alice)
    stop = threading.Event()
    running = threading.Thread(target=deliverer.run, args=(stop,))
    running.start()
    try:
        emit(alice)
        assert receiver.arrived.wait(30)
    finally:
        stop.set()
        running.join(30)
    assert states(alice) == ["delivered"]
