"""One delivery: taken under a lease, sent, recorded. A deliverer that dies in between leaves it to be sent again.

What is not answered with 2xx is tried again for a day, ever less often. Then it is given up, and a webhook that took
nothing for a day is disabled, which is on record and to be seen in the API and the portal.
"""

import asyncio
import json
import random
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

from easel.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookMessage
from easel.webhooks.signing import secret_open, signed_headers
from tenants.audit_log import audit_record

State = WebhookDelivery.State
TIMEOUT_SECONDS = 15
LEASE = timedelta(seconds=2 * TIMEOUT_SECONDS)
# Requests to one endpoint at a time: a slow receiver waits for itself.
IN_HAND_MAX = 4
# Seconds until the next attempt, after each that failed: a day in all.
DELAYS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
JITTER = 0.2
# An endpoint that took nothing for so long is disabled when a delivery to it is given up.
PATIENCE = timedelta(hours=20)
RETRY_AFTER_MAX = timedelta(hours=1)
_RESPONSE_BYTES = 500
_THROTTLED = (429, 502, 503, 504)

# As many of each endpoint as may be in hand; what another deliverer is taking is passed over.
_CLAIM = """
UPDATE webhooks_webhookdelivery AS delivery SET attempts = attempts + 1, leased_until = %(leased_until)s
 WHERE id IN (
    SELECT due.id FROM webhooks_webhookendpoint AS endpoint CROSS JOIN LATERAL (
        SELECT waiting.id FROM webhooks_webhookdelivery AS waiting
         WHERE waiting.endpoint_id = endpoint.id AND waiting.state = 'pending' AND waiting.next_at <= %(now)s
           AND (waiting.leased_until IS NULL OR waiting.leased_until <= %(now)s)
         ORDER BY waiting.next_at
         LIMIT greatest(0, %(in_hand)s - (
            SELECT count(*) FROM webhooks_webhookdelivery AS taken
             WHERE taken.endpoint_id = endpoint.id AND taken.state = 'pending' AND taken.leased_until > %(now)s))
           FOR UPDATE SKIP LOCKED
    ) AS due
     WHERE endpoint.disabled_at IS NULL LIMIT %(room)s
 )
RETURNING id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery in hand: what to send, signed for this attempt."""

    delivery_id: uuid.UUID
    endpoint_id: uuid.UUID
    attempt: int
    url: str
    body: bytes
    headers: dict[str, str]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
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
        fields: dict[str, Any] = {"now": now, "leased_until": now + LEASE, "in_hand": IN_HAND_MAX, "room": room}
        cursor.execute(_CLAIM, fields)
        ids = [found for (found,) in cursor.fetchall()]
    rows = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint", "message")
    claims = []
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
    signature = signed_headers(message_id=message_id(message), at=now, body=body, secrets_in_use=secrets_in_use)
    return Claim(
        delivery_id=row.pk,
        endpoint_id=endpoint.pk,
        attempt=row.attempts,
        url=endpoint.url,
        body=body,
        headers={"content-type": "application/json", "user-agent": "Easel-Webhooks", **signature},
        at=now,
    )


def message_id(message: WebhookMessage) -> str:
    """What receivers know a repeat by."""
    return f"msg_{message.pk.hex}"


def message_body(message: WebhookMessage) -> bytes:
    """The same bytes at every attempt."""
    told = {"type": message.event, "timestamp": message.created_at.astimezone(UTC).isoformat(), "data": message.data}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


async def send(pool: httpcore.AsyncConnectionPool, claim: Claim) -> Answer:
    """Sends a claim and says what came of it; redirects are not followed. Never raises for what a receiver does."""
    began = time.monotonic()
    timeouts = {"connect": 5, "read": TIMEOUT_SECONDS, "write": TIMEOUT_SECONDS, "pool": TIMEOUT_SECONDS}
    headers = list(claim.headers.items())
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            request = pool.stream(
                "POST", claim.url, headers=headers, content=claim.body, extensions={"timeout": timeouts}
            )
            async with request as response:
                beginning = b""
                async for chunk in response.aiter_stream():
                    beginning += chunk
                    if len(beginning) >= _RESPONSE_BYTES:  # the rest is nobody's business
                        break
    except TimeoutError:
        return Answer(outcome=f"no answer within {TIMEOUT_SECONDS} s", seconds=time.monotonic() - began)
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        said = str(error) or type(error).__name__
        return Answer(outcome=said[:200], seconds=time.monotonic() - began)
    status = response.status
    delivered = 200 <= status < 300
    return Answer(
        outcome="delivered" if delivered else f"answered {status}",
        seconds=time.monotonic() - began,
        status=status,
        response=beginning[:_RESPONSE_BYTES].decode("utf-8", "replace").replace("\x00", ""),
        retry_after=_retry_after(response.headers) if status in _THROTTLED else None,
    )


@transaction.atomic
def delivery_record(claim: Claim, answer: Answer, *, now: datetime, draw: random.Random) -> None:
    """Writes down an attempt and what follows from it; one that another deliverer took over changes nothing."""
    endpoint = WebhookEndpoint.objects.select_for_update().filter(pk=claim.endpoint_id).first()
    row = WebhookDelivery.objects.select_for_update().filter(pk=claim.delivery_id).first()
    if endpoint is None or row is None:
        return  # deleted meanwhile
    WebhookAttempt.objects.create(
        delivery=row,
        at=claim.at,
        seconds=answer.seconds,
        status=answer.status,
        outcome=answer.outcome,
        response=answer.response,
    )
    if row.attempts != claim.attempt or row.state != State.PENDING:
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


def messages_forget(*, before: datetime) -> int:
    """Deletes messages of long ago, but those that are still on their way; returns how many."""
    old = WebhookMessage.objects.filter(created_at__lt=before).exclude(deliveries__state=State.PENDING)
    ids = list(old.values_list("pk", flat=True)[:1000])
    WebhookMessage.objects.filter(pk__in=ids).delete()
    return len(ids)


def _disable(endpoint: WebhookEndpoint, reason: str, now: datetime) -> None:
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
