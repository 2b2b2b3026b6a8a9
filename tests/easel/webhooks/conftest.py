"""Webhooks of a tenant, and their deliveries one by one."""

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings as django_settings

from easel.webhooks.delivery import Claim, ConnectionPools, DeliveryResult, deliveries_claim, delivery_record, send
from easel.webhooks.endpoints import endpoint_create
from easel.webhooks.models import WebhookEndpoint
from tests.conftest import NOW
from tests.receiver import Receiver, receiving

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with `EASEL_WEBHOOK_ALLOW=127.0.0.0/8,::1/128`."""
    monkeypatch.setattr(django_settings, "EASEL", _with(django_settings.EASEL, webhook_allow=LOOPBACK))


def _with(config: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(config, **changes)


@pytest.fixture
def endpoint(loopback_allowed: None, receiver: Receiver) -> Callable[..., WebhookEndpoint]:
    """Creates a webhook of a customer: `endpoint(alice)`; `plain_secret` is its secret."""

    def make(customer: Any, *, url: str = "", events: tuple[str, ...] = ()) -> WebhookEndpoint:
        made, secret = endpoint_create(
            tenant=customer.tenant, url=url or receiver.url, events=events, endpoint_id=uuid.uuid4(), now=NOW
        )
        made.plain_secret = secret  # type: ignore[attr-defined]
        return made

    return make


def claims_of(customer: Any, now: datetime) -> list[Claim]:
    """Claims the due deliveries of one customer; those of others in this database stay leased."""
    mine = set(WebhookEndpoint.objects.filter(tenant=customer.tenant).values_list("id", flat=True))
    return [claim for claim in deliveries_claim(room=1000, now=now) if claim.delivery.endpoint_id in mine]


def sent(claim: Claim, allowed: Any = LOOPBACK) -> DeliveryResult:
    async def one() -> DeliveryResult:
        async with ConnectionPools(allowed, connections_max=1) as pools:
            return await send(pools, claim)

    return asyncio.run(one())


def deliver(customer: Any, now: datetime) -> list[DeliveryResult]:
    """Sends a customer's due deliveries and records the results."""
    answers = []
    for claim in claims_of(customer, now):
        answers.append(sent(claim))
        delivery_record(claim, answers[-1], now=now, rng=random.Random(1))
    return answers
