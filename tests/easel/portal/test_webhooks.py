import uuid

import pytest

from core.models import AuditEvent
from easel.webhooks.endpoints import endpoint_change, endpoint_create
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint
from easel.webhooks.outbox import webhook_test
from tests.conftest import NOW


@pytest.fixture
def hook(alice):
    url = "https://hooks.example/<b>x</b>"
    return endpoint_create(tenant=alice.tenant, url=url, events=(), endpoint_id=uuid.uuid4(), now=NOW)[0]


def page(row, rest="change/"):
    return f"/admin/webhooks/{row._meta.model_name}/{row.pk}/{rest}"


def test_a_webhook_shows_what_was_sent_to_it(viewer, hook):
    delivery = webhook_test(hook, now=NOW)
    shown = viewer.get(page(hook)).text
    assert "webhook.test" in shown
    assert "<b>x</b>" not in shown
    assert "This webhook works." in viewer.get(page(delivery)).text


def test_an_operator_sends_one_again(operator, hook):
    delivery = webhook_test(hook, now=NOW)
    WebhookDelivery.objects.filter(pk=delivery.pk).update(state="failed", attempts=9)
    operator.post(page(delivery, "action/webhook.replay"))
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("pending", 0)


def test_an_operator_enables_one_that_was_disabled(operator, hook):
    endpoint_change(hook, changes={"enabled": False}, now=NOW)
    assert "disabled" in operator.get(page(hook)).text
    operator.post(page(hook, "action/webhook.enable"))
    assert WebhookEndpoint.objects.get(pk=hook.pk).disabled_at is None
    assert AuditEvent.objects.filter(tenant=hook.tenant, action="webhook.enable").exists()


def test_a_viewer_changes_nothing(viewer, hook):
    viewer.post(page(hook, "action/webhook.disable"))
    assert WebhookEndpoint.objects.get(pk=hook.pk).disabled_at is None
