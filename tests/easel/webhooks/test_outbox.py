"""Events and the webhooks that are deleted while they are sent."""

import uuid

import pytest
from django.db import transaction

from easel.webhooks import outbox
from easel.webhooks.endpoints import endpoint_create, endpoint_delete
from easel.webhooks.errors import WebhookNotFound
from easel.webhooks.models import Event, WebhookDelivery
from tests.conftest import NOW


def test_an_event_does_not_fail_because_a_webhook_was_deleted_since_it_was_read(alice):
    first, second = (
        endpoint_create(
            tenant=alice.tenant, url="https://hooks.example/a", events=(), endpoint_id=uuid.uuid4(), now=NOW
        )[0]
        for _ in range(2)
    )
    endpoint_delete(type(first).objects.get(pk=first.pk))
    with pytest.raises(WebhookNotFound):
        outbox.webhook_test(first, now=NOW)
    with transaction.atomic():
        outbox._send([first, second], tenant=alice.tenant, event=Event.TEST, data=dict, now=NOW)
    assert [sent.endpoint_id for sent in WebhookDelivery.objects.filter(endpoint__tenant=alice.tenant)] == [second.pk]
