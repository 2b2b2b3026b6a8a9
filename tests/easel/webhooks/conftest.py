"""A receiver on this machine that speaks HTTP, and says what it was sent."""

import asyncio
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings as django_settings

from easel.webhooks.delivery import Answer, Claim, Ways, deliveries_claim, delivery_record, send
from easel.webhooks.endpoints import endpoint_create
from easel.webhooks.models import WebhookEndpoint
from tests.conftest import NOW

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass
class Receiver:
    """Answers with `status`, `headers` and `body`, after `hold` is set where there is one."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thanks"
    hold: threading.Event | None = None
    trickle: threading.Event | None = None  # the body's end comes when it is set
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
            told.arrived.set()
            if told.hold is not None:
                told.hold.wait(30)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body[:-1])
            self.wfile.flush()
            if told.trickle is not None:
                told.trickle.wait(30)
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(told.body[-1:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield told
    for waiting in (told.hold, told.trickle):
        if waiting is not None:
            waiting.set()
    server.shutdown()
    server.server_close()


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


def sent(claim: Claim, allowed: Any = LOOPBACK) -> Answer:
    async def one() -> Answer:
        async with Ways(allowed, connections_max=1) as ways:
            return await send(ways, claim)

    return asyncio.run(one())


def deliver(customer: Any, now: datetime) -> list[Answer]:
    """Sends what is due of a customer, and records it."""
    answers = []
    for claim in claims_of(customer, now):
        answers.append(sent(claim))
        delivery_record(claim, answers[-1], now=now, draw=random.Random(1))
    return answers
