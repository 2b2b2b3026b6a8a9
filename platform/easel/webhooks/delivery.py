"""One delivery: taken under a lease, sent, recorded. A deliverer that dies in between leaves it to be sent again.

What is not answered with 2xx is tried again for a day, ever less often. Then it is given up, and a webhook that took
nothing for a day is disabled, which is on record and to be seen in the API and the portal.
"""

import asyncio
import json
import random
import ssl
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpcore
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import connection, transaction

from core.audit import audit_record
from easel.webhooks.addresses import CheckedBackend, Network
from easel.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookMessage, WebhookTotal
from easel.webhooks.signing import secret_open, signed_headers

State = WebhookDelivery.State
Outcome = WebhookTotal.Outcome
TIMEOUT_SECONDS = 15
LEASE = timedelta(seconds=2 * TIMEOUT_SECONDS)
# Requests in hand at a time: a slow receiver waits for itself, and a tenant with many of them for its own.
OF_ENDPOINT_MAX, OF_TENANT_MAX = 4, 16
# Seconds until the next attempt, after each that failed: a day in all.
DELAYS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
JITTER = 0.2
# An endpoint that took nothing for so long is disabled when a delivery to it is given up.
PATIENCE = timedelta(hours=20)
RETRY_AFTER_MAX = timedelta(hours=1)
_RESPONSE_BYTES = 500
_THROTTLED = (429, 502, 503, 504)

# As many of each endpoint and of each tenant as may be in hand, tenants in turn. One deliverer takes at a time, so that
# each sees what the others have in hand.
_CLAIM = """
WITH taken AS (
    SELECT endpoint_id, count(*) AS in_hand FROM webhooks_webhookdelivery
     WHERE state = 'pending' AND leased_until > %(now)s GROUP BY endpoint_id
), busy AS (
    SELECT endpoint.tenant_id, sum(taken.in_hand) AS in_hand
      FROM taken JOIN webhooks_webhookendpoint AS endpoint ON endpoint.id = taken.endpoint_id GROUP BY 1
), due AS (
    SELECT waiting.id, endpoint.tenant_id,
           row_number() OVER (PARTITION BY endpoint.tenant_id ORDER BY waiting.next_at, waiting.id) AS position
      FROM webhooks_webhookendpoint AS endpoint LEFT JOIN taken ON taken.endpoint_id = endpoint.id
     CROSS JOIN LATERAL (
        SELECT id, next_at FROM webhooks_webhookdelivery
         WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_at <= %(now)s
           AND (leased_until IS NULL OR leased_until <= %(now)s)
         ORDER BY next_at LIMIT greatest(0, %(of_endpoint)s - coalesce(taken.in_hand, 0))
     ) AS waiting
     WHERE endpoint.disabled_at IS NULL
), chosen AS (
    SELECT due.id FROM due LEFT JOIN busy USING (tenant_id)
     WHERE due.position + coalesce(busy.in_hand, 0) <= %(of_tenant)s ORDER BY due.position LIMIT %(room)s
)
UPDATE webhooks_webhookdelivery AS delivery SET attempts = attempts + 1, leased_until = %(leased_until)s
  FROM chosen WHERE delivery.id = chosen.id
RETURNING delivery.id
"""
# Last in its transaction: everybody's totals are in the same rows.
_COUNT = """
INSERT INTO webhooks_webhooktotal AS total (outcome, attempts) VALUES (%s, 1)
ON CONFLICT (outcome) DO UPDATE SET attempts = total.attempts + 1
"""
_TAKING_LOCK = "SELECT pg_advisory_xact_lock(hashtext('easel webhooks'))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery in hand: what to send, signed for this attempt."""

    delivery_id: uuid.UUID
    endpoint_id: uuid.UUID
    attempt: int
    leased_until: datetime
    url: str
    body: bytes
    headers: dict[str, str]
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """What came of a request; without a `status` there was no answer."""

    outcome: str
    seconds: float
    status: int | None = None
    response: str = ""
    retry_after: timedelta | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@transaction.atomic
def deliveries_claim(*, room: int, now: datetime) -> list[Claim]:
    """Takes up to `room` deliveries that are due."""
    with connection.cursor() as cursor:
        fields: dict[str, Any] = {"now": now, "leased_until": now + LEASE, "room": room}
        cursor.execute(_TAKING_LOCK)
        cursor.execute(_CLAIM, {**fields, "of_endpoint": OF_ENDPOINT_MAX, "of_tenant": OF_TENANT_MAX})
        ids = [found for (found,) in cursor.fetchall()]
    rows = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint", "message")
    claims: list[Claim] = []
    for row in rows:
        try:
            claims.append(_claim(row, now))
        except InvalidToken:
            _disable(row.endpoint, "its secret was sealed under another EASEL_SECRET_KEY: rotate it", now)
    return claims


def _claim(row: WebhookDelivery, now: datetime) -> Claim:
    endpoint, message = row.endpoint, row.message
    in_use = [endpoint.secret]
    if endpoint.previous_secret is not None and endpoint.previous_until is not None and endpoint.previous_until > now:
        in_use.append(endpoint.previous_secret)
    body = message_body(message)
    secrets_in_use = [secret_open(sealed, key=settings.EASEL.secret_key) for sealed in in_use]
    signature = signed_headers(message_id=message_id(message), now=now, body=body, secrets_in_use=secrets_in_use)
    return Claim(
        delivery_id=row.pk,
        endpoint_id=endpoint.pk,
        attempt=row.attempts,
        leased_until=now + LEASE,
        url=endpoint.url,
        body=body,
        headers={"content-type": "application/json", "user-agent": "Easel-Webhooks", **signature},
        sent_at=now,
    )


def message_id(message: WebhookMessage) -> str:
    """What receivers know a repeat by."""
    return f"msg_{message.pk.hex}"


def message_body(message: WebhookMessage) -> bytes:
    """The same bytes at every attempt."""
    told = {"type": message.event, "timestamp": message.created_at.astimezone(UTC).isoformat(), "data": message.data}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


class Ways:
    """The connections that messages go out by: over TLS to the public, without it to the allowed networks alone."""

    def __init__(self, allowed: Iterable[Network], *, connections_max: int) -> None:
        tls = ssl.create_default_context()
        self._pools = {
            scheme: httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=connections_max,
                keepalive_expiry=5,
                network_backend=CheckedBackend(allowed, plain=scheme == "http"),
            )
            for scheme in ("https", "http")
        }

    def of(self, url: str) -> httpcore.AsyncConnectionPool:
        return self._pools["http" if url.startswith("http://") else "https"]

    async def __aenter__(self) -> "Ways":
        return self

    async def __aexit__(self, *_error: object) -> None:
        for pool in self._pools.values():
            await pool.aclose()


async def send(ways: Ways, claim: Claim) -> DeliveryResult:
    """Sends a claim and says what came of it; redirects are not followed. What a receiver does raises nothing."""
    began = time.monotonic()
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
    status, headers, beginning = None, [], b""
    trouble = f"no answer within {TIMEOUT_SECONDS} s"
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            ways.of(claim.url).stream(
                "POST",
                claim.url,
                headers=list(claim.headers.items()),
                content=claim.body,
                extensions={"timeout": timeouts},
            ) as response,
        ):
            status, headers = response.status, response.headers
            async for chunk in response.aiter_stream():
                beginning += chunk
                if len(beginning) >= _RESPONSE_BYTES:  # the rest is nobody's business
                    break
    except (TimeoutError, httpcore.TimeoutException):
        pass  # an answer that goes on for too long is an answer
    except Exception as error:
        # Anything, since a receiver has a say in it: one that is not foreseen must not stop the others' deliveries.
        trouble = (str(error) or type(error).__name__)[:200]
    seconds = time.monotonic() - began
    if status is None:
        return DeliveryResult(outcome=trouble, seconds=seconds)
    return DeliveryResult(
        outcome="delivered" if 200 <= status < 300 else f"answered {status}",
        seconds=seconds,
        status=status,
        response=beginning[:_RESPONSE_BYTES].decode("utf-8", "replace").replace("\x00", ""),
        retry_after=_retry_after(headers) if status in _THROTTLED else None,
    )


@transaction.atomic
def delivery_record(claim: Claim, answer: DeliveryResult, *, now: datetime, draw: random.Random) -> None:
    """Writes down an attempt and what follows from it; one that another deliverer took over changes nothing."""
    endpoint = WebhookEndpoint.objects.select_for_update().filter(pk=claim.endpoint_id).first()
    row = WebhookDelivery.objects.select_for_update().filter(pk=claim.delivery_id).first()
    if endpoint is None or row is None:
        return  # deleted meanwhile
    WebhookAttempt.objects.create(
        delivery=row,
        sent_at=claim.sent_at,
        seconds=answer.seconds,
        status=answer.status,
        outcome=answer.outcome,
        response=answer.response,
    )
    if row.leased_until != claim.leased_until or row.state != State.PENDING:
        return
    row.leased_until = None
    if answer.delivered:
        row.state, endpoint.delivered_at = State.DELIVERED, now
        endpoint.save(update_fields=["delivered_at"])
    elif answer.status == 410:
        row.state = State.FAILED
        _disable(endpoint, "it answered 410 Gone", now)
    elif row.attempts > len(DELAYS):
        row.state = State.FAILED
        if endpoint.delivered_at is None or endpoint.delivered_at < now - PATIENCE:
            _disable(endpoint, f"nothing was delivered for a day: {answer.outcome}"[:200], now)
    else:
        delay = timedelta(seconds=DELAYS[row.attempts - 1] * draw.uniform(1 - JITTER, 1 + JITTER))
        row.next_at = now + max(delay, min(answer.retry_after or delay, RETRY_AFTER_MAX))
    row.save(update_fields=["state", "next_at", "leased_until"])
    came_of_it = {State.DELIVERED: Outcome.DELIVERED, State.FAILED: Outcome.GIVEN_UP, State.PENDING: Outcome.RETRIED}
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [came_of_it[State(row.state)]])


def messages_delete(*, before: datetime) -> int:
    """Deletes messages of long ago, but those that are still on their way; returns how many."""
    old = WebhookMessage.objects.filter(created_at__lt=before).exclude(deliveries__state=State.PENDING)
    ids = list(old.values_list("pk", flat=True)[:1000])
    WebhookMessage.objects.filter(pk__in=ids).delete()
    return len(ids)


def _disable(endpoint: WebhookEndpoint, reason: str, now: datetime) -> None:
    if endpoint.disabled_at is not None:
        return
    endpoint.disabled_at, endpoint.disabled_reason = now, reason
    endpoint.save(update_fields=["disabled_at", "disabled_reason"])
    details = {"url": endpoint.url, "reason": reason}
    subject = str(endpoint.pk)
    audit_record(
        actor="platform", action="webhook.disable", subject=subject, tenant=endpoint.tenant, details=details, now=now
    )


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> timedelta | None:
    for name, value in headers:
        if name.lower() == b"retry-after":
            with suppress(ValueError):
                return timedelta(seconds=min(int(value), int(RETRY_AFTER_MAX.total_seconds())))
    return None
