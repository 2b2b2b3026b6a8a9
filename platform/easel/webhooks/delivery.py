"""Claims a delivery under a lease, sends it, and records the result.

If a deliverer dies in between, the lease expires and another sends the message again. A delivery that isn't answered
with 2xx is retried for about a day, at growing intervals, and then fails. A webhook that accepted nothing for 20 hours
is disabled, which the audit log, the API and the portal show.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpcore
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import connection, transaction

from core.audit import audit_record
from core.locks import lock_take
from easel.webhooks.addresses import CheckedBackend, Network
from easel.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookMessage, WebhookTotal
from easel.webhooks.signing import secret_open, signed_headers

State = WebhookDelivery.State
Outcome = WebhookTotal.Outcome
TIMEOUT_SECONDS = 15
LEASE = timedelta(seconds=2 * TIMEOUT_SECONDS)
# Limits of leased deliveries: a slow receiver delays only its own, a tenant with many slow ones only that tenant's.
ENDPOINT_LEASES_MAX, TENANT_LEASES_MAX = 4, 16
# Seconds from a failed attempt to the next one; together about a day.
DELAYS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
JITTER = 0.2
# An endpoint that accepted nothing for so long is disabled when a delivery to it fails.
DISABLE_AFTER = timedelta(hours=20)
RETRY_AFTER_MAX = timedelta(hours=1)
_RESPONSE_BYTES = 500
_THROTTLED = (429, 502, 503, 504)

# Claims due deliveries up to the limits of each endpoint and tenant, tenants in turn. A lock serialises deliverers, so
# that each sees the leases of the others.
_CLAIM = """
WITH leased AS (
    SELECT endpoint_id, count(*) AS leases FROM webhooks_webhookdelivery
     WHERE state = 'pending' AND leased_until > %(now)s GROUP BY endpoint_id
), busy AS (
    SELECT endpoint.tenant_id, sum(leased.leases) AS leases
      FROM leased JOIN webhooks_webhookendpoint AS endpoint ON endpoint.id = leased.endpoint_id GROUP BY 1
), due AS (
    SELECT waiting.id, endpoint.tenant_id,
           row_number() OVER (PARTITION BY endpoint.tenant_id ORDER BY waiting.next_at, waiting.id) AS position
      FROM webhooks_webhookendpoint AS endpoint LEFT JOIN leased ON leased.endpoint_id = endpoint.id
     CROSS JOIN LATERAL (
        SELECT id, next_at FROM webhooks_webhookdelivery
         WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_at <= %(now)s
           AND (leased_until IS NULL OR leased_until <= %(now)s)
         ORDER BY next_at LIMIT greatest(0, %(endpoint_leases_max)s - coalesce(leased.leases, 0))
     ) AS waiting
     WHERE endpoint.disabled_at IS NULL
), chosen AS (
    SELECT due.id FROM due LEFT JOIN busy USING (tenant_id)
     WHERE due.position + coalesce(busy.leases, 0) <= %(tenant_leases_max)s ORDER BY due.position LIMIT %(room)s
)
UPDATE webhooks_webhookdelivery AS delivery SET attempts = attempts + 1, leased_until = %(leased_until)s
  FROM chosen WHERE delivery.id = chosen.id
RETURNING delivery.id
"""
# Runs last in its transaction, because all deliverers update these few rows.
_COUNT = """
INSERT INTO webhooks_webhooktotal AS total (outcome, attempts) VALUES (%s, 1)
ON CONFLICT (outcome) DO UPDATE SET attempts = total.attempts + 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A leased delivery, as it was claimed, with its request, signed for this attempt."""

    delivery: WebhookDelivery
    body: bytes
    headers: dict[str, str]
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """A receiver's answer to a request; `status` is None if there was no answer."""

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
    """Leases up to `room` due deliveries."""
    limits = {"room": room, "endpoint_leases_max": ENDPOINT_LEASES_MAX, "tenant_leases_max": TENANT_LEASES_MAX}
    lock_take("webhook deliveries")
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"now": now, "leased_until": now + LEASE, **limits})
        ids = [found for (found,) in cursor.fetchall()]
    rows = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint", "message")
    claims: list[Claim] = []
    for row in rows:
        try:
            claims.append(_claim(row, now))
        except InvalidToken:
            _disable(row.endpoint, "its secret was encrypted with another EASEL_SECRET_KEY: rotate it", now)
    return claims


def _claim(row: WebhookDelivery, now: datetime) -> Claim:
    endpoint, message = row.endpoint, row.message
    in_use = [endpoint.secret]
    if endpoint.previous_secret is not None and endpoint.previous_until is not None and endpoint.previous_until > now:
        in_use.append(endpoint.previous_secret)
    body = message_body(message)
    secrets_in_use = [secret_open(sealed, key=settings.EASEL.secret_key) for sealed in in_use]
    signature = signed_headers(message_id=message_id(message), now=now, body=body, secrets_in_use=secrets_in_use)
    headers = {"content-type": "application/json", "user-agent": "Easel-Webhooks", **signature}
    return Claim(delivery=row, body=body, headers=headers, sent_at=now)


def message_id(message: WebhookMessage) -> str:
    """Return the message's id in requests, by which receivers recognise a repeat."""
    return f"msg_{message.pk.hex}"


def message_body(message: WebhookMessage) -> bytes:
    """Return the request body, equal in every attempt."""
    body = {"type": message.event, "timestamp": message.created_at.astimezone(UTC).isoformat(), "data": message.data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


class ConnectionPools:
    """Connection pools: with TLS to public addresses and allowed networks, without TLS to allowed networks only."""

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

    def for_url(self, url: str) -> httpcore.AsyncConnectionPool:
        return self._pools["http" if url.startswith("http://") else "https"]

    async def __aenter__(self) -> "ConnectionPools":
        return self

    async def __aexit__(self, *_error: object) -> None:
        for pool in self._pools.values():
            await pool.aclose()


async def send(pools: ConnectionPools, claim: Claim) -> DeliveryResult:
    """Send a delivery and return the result. It follows no redirect and raises nothing, whatever the receiver does."""
    started = time.monotonic()
    url, headers_sent = claim.delivery.endpoint.url, list(claim.headers.items())
    extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)}
    status, headers, beginning = None, [], b""
    failure = f"no answer within {TIMEOUT_SECONDS} s"
    try:
        pool = pools.for_url(url)
        request = pool.stream("POST", url, headers=headers_sent, content=claim.body, extensions=extensions)
        async with asyncio.timeout(TIMEOUT_SECONDS), request as response:
            status, headers = response.status, response.headers
            async for chunk in response.aiter_stream():
                beginning += chunk
                if len(beginning) >= _RESPONSE_BYTES:  # the rest isn't recorded
                    break
    except (TimeoutError, httpcore.TimeoutException):
        pass  # a status that arrived counts, even if the body took too long
    except Exception as error:
        # Receivers can cause any exception, and none of them may stop the other deliveries.
        failure = (str(error) or type(error).__name__)[:200]
    seconds = time.monotonic() - started
    if status is None:
        return DeliveryResult(outcome=failure, seconds=seconds)
    return DeliveryResult(
        outcome="delivered" if 200 <= status < 300 else f"answered {status}",
        seconds=seconds,
        status=status,
        response=beginning[:_RESPONSE_BYTES].decode("utf-8", "replace").replace("\x00", ""),
        retry_after=_retry_after(headers) if status in _THROTTLED else None,
    )


@transaction.atomic
def delivery_record(claim: Claim, result: DeliveryResult, *, now: datetime, rng: random.Random) -> None:
    """Record an attempt and update its delivery, unless another deliverer has taken the delivery over."""
    endpoint = WebhookEndpoint.objects.select_for_update().filter(pk=claim.delivery.endpoint_id).first()
    row = WebhookDelivery.objects.select_for_update().filter(pk=claim.delivery.pk).first()
    if endpoint is None or row is None:
        return  # deleted meanwhile
    recorded = {name: getattr(result, name) for name in ("seconds", "status", "outcome", "response")}
    WebhookAttempt.objects.create(delivery=row, sent_at=claim.sent_at, **recorded)
    if row.leased_until != claim.delivery.leased_until or row.state != State.PENDING:
        return
    row.leased_until = None
    if result.delivered:
        row.state, endpoint.delivered_at = State.DELIVERED, now
        endpoint.save(update_fields=["delivered_at"])
    elif result.status == 410:
        row.state = State.FAILED
        _disable(endpoint, "it answered 410 Gone", now)
    elif row.attempts > len(DELAYS):
        row.state = State.FAILED
        if endpoint.delivered_at is None or endpoint.delivered_at < now - DISABLE_AFTER:
            _disable(
                endpoint,
                f"nothing was delivered for {DISABLE_AFTER // timedelta(hours=1)} hours: {result.outcome}"[:200],
                now,
            )
    else:
        delay = timedelta(seconds=DELAYS[row.attempts - 1] * rng.uniform(1 - JITTER, 1 + JITTER))
        row.next_at = now + max(delay, min(result.retry_after or delay, RETRY_AFTER_MAX))
    row.save(update_fields=["state", "next_at", "leased_until"])
    outcomes = {State.DELIVERED: Outcome.DELIVERED, State.FAILED: Outcome.GIVEN_UP, State.PENDING: Outcome.RETRIED}
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [outcomes[State(row.state)]])


def messages_delete(*, before: datetime) -> int:
    """Delete messages from before an instant that have no pending delivery; return their number."""
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
    tenant, subject = endpoint.tenant, str(endpoint.pk)
    audit_record(actor="platform", action="webhook.disable", subject=subject, tenant=tenant, details=details, now=now)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> timedelta | None:
    for name, value in headers:
        if name.lower() == b"retry-after":
            with suppress(ValueError):
                return timedelta(seconds=min(int(value), int(RETRY_AFTER_MAX.total_seconds())))
    return None
