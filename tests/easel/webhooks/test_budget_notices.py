"""Notices of budget thresholds. The e-mails go to a test server for SMTP."""

import socketserver
import threading
import uuid
from datetime import timedelta
from email import message_from_bytes
from email.policy import default

import pytest

from billing.ledger.postings import balance_adjust
from billing.models import BudgetCrossing
from billing.profiles import profile_set
from core.models import AuditEvent
from easel.jobs.budgets import budget_set
from easel.webhooks.budget_notices import crossings_mail, crossings_notify
from easel.webhooks.models import WebhookEndpoint, WebhookMessage
from tests.conftest import NOW

DOLLAR = 1_000_000


class _Session(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as takes a message."""

    def handle(self):
        self.wfile.write(b"220 mail.test\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(message_from_bytes(b"".join(lines), policy=default))
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


@pytest.fixture
def mail(settings_of, monkeypatch):
    """The messages that a mail server has received."""
    from django.conf import settings

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Session) as server:
        server.daemon_threads, server.received = True, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings_of(email_url="smtp://configured")
        wanted = {"HOST": "127.0.0.1", "PORT": server.server_address[1]}
        for name, value in wanted.items():
            monkeypatch.setattr(settings, f"EMAIL_{name}", value)
        monkeypatch.setattr(settings, "EMAIL_BACKEND", "django.core.mail.backends.smtp.EmailBackend")
        yield server.received
        server.shutdown()


@pytest.fixture
def crossed(alice):
    """Alice, who has spent 9 of the 10 dollars of her budget; no crossings of others are due."""
    BudgetCrossing.objects.filter(notified_at=None).update(notified_at=NOW)
    BudgetCrossing.objects.filter(mailed_at=None).update(mailed_at=NOW)
    budget_set(tenant=alice.tenant, amount_micros=10 * DOLLAR, hard_stop=True, now=NOW)
    reference = uuid.uuid4()
    balance_adjust(tenant=alice.tenant, amount_micros=9 * DOLLAR, reference=reference, now=NOW)
    return alice


def test_a_threshold_is_recorded_once(crossed):
    assert [crossings_notify(now=NOW), crossings_notify(now=NOW)] == [2, 0]
    events = AuditEvent.objects.filter(tenant=crossed.tenant, action="budget.threshold_reached")
    assert sorted(event.details["threshold_percent"] for event in events) == [50, 80]
    assert {event.details["spent_micros"] for event in events} == {9 * DOLLAR}


def test_a_threshold_is_sent_to_the_tenants_webhooks(crossed):
    WebhookEndpoint.objects.create(
        tenant=crossed.tenant, url="https://alice.test/hook", secret=b"sealed", created_at=NOW
    )
    crossings_notify(now=NOW)
    sent = WebhookMessage.objects.filter(tenant=crossed.tenant, event="budget.threshold_reached")
    assert sorted(message.data["threshold_percent"] for message in sent) == [50, 80]


def test_a_threshold_is_mailed_once_to_the_billing_address(crossed, mail):
    profile_set(tenant=crossed.tenant, changes={"email": "money@alice.test"}, now=NOW)
    assert [crossings_mail(now=NOW), crossings_mail(now=NOW)] == [2, 0]
    assert [message["to"] for message in mail] == ["money@alice.test"] * 2
    assert mail[1]["subject"] == f"80 % of the budget of {crossed.tenant} for 2026-03 is spent"
    assert "9.000000 USD of the 10.000000 USD" in mail[1].get_content()


def test_without_an_address_nothing_is_mailed_and_nothing_waits(crossed, mail):
    assert crossings_mail(now=NOW) == 0
    assert (mail, BudgetCrossing.objects.filter(mailed_at=None).count()) == ([], 0)


def test_a_server_that_is_away_is_tried_again(crossed, mail, monkeypatch):
    from django.conf import settings

    profile_set(tenant=crossed.tenant, changes={"email": "money@alice.test"}, now=NOW)
    there = settings.EMAIL_PORT
    monkeypatch.setattr(settings, "EMAIL_PORT", 1)
    assert crossings_mail(now=NOW) == 0
    monkeypatch.setattr(settings, "EMAIL_PORT", there)
    assert crossings_mail(now=NOW + timedelta(minutes=1)) == 2
