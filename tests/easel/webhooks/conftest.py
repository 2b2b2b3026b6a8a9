"""Webhooks of a tenant, and their deliveries made one by one."""

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings as django_settings

from easel.webhooks.delivery import Claim, DeliveryResult, Ways, deliveries_claim, delivery_record, send
from easel.webhooks.endpoints import endpoint_create
from easel.webhooks.models import WebhookEndpoint
from tests.conftest import NOW
from tests.receiver import Receiver, receiving

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as told:
        yield told


@pytest.fixture
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `EASEL_WEBHOOK_ALLOW=127.0.0.0/8,::1/128` has it."""
    monkeypatch.setattr(django_settings, "EASEL", _with(django_settings.EASEL, webhook_allow=LOOPBACK))


def _with(config: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(config, **changes)


@pytest.fixture
def endpoint(loopback_allowed: None, receiver: Receiver) -> Callable[..., WebhookEndpoint]:
    """Makes a webhook of a customer's: `endpoint(alice)`; its secret is its `plain_secret`."""

    def make(customer: Any, *, url: str = "", events: tuple[str, ...] = ()) -> WebhookEndpoint:
        made, secret = endpoint_create(
            tenant=customer.tenant, url=url or receiver.url, events=events, endpoint_id=uuid.uuid4(), now=NOW
        )
        made.plain_secret = secret  # type: ignore[attr-defined]
        return made

    return make


def claims_of(customer: Any, now: datetime) -> list[Claim]:
    """Takes what is due of one customer; what else is due in this database is left to be due later."""
    mine = set(WebhookEndpoint.objects.filter(tenant=customer.tenant).values_list("id", flat=True))
    return [claim for claim in deliveries_claim(room=1000, now=now) if claim.endpoint_id in mine]


def sent(claim: Claim, allowed: Any = LOOPBACK) -> DeliveryResult:
    async def one() -> DeliveryResult:
        async with Ways(allowed, connections_max=1) as ways:
            return await send(ways, claim)

    return asyncio.run(one())


def deliver(customer: Any, now: datetime) -> list[DeliveryResult]:
    """Sends what is due of a customer, and records it."""
    answers = []
    for claim in claims_of(customer, now):
        answers.append(sent(claim))
        delivery_record(claim, answers[-1], now=now, draw=random.Random(1))
    return answers
