"""Tenants at work: they submit, repeat, cancel and wait, and remember what they were answered."""

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

_GIVE_UP_SECONDS = 40  # of one request's repetitions
_AGAIN = (429, 503)
_PROMPTS = ("a red circle on a white background", "a blue square", "two green triangles")
_SIZES = ("128x128", "128x128", "128x128", "192x128", "256x256")


@dataclass
class Order:
    """One thing a tenant wanted, however often it had to ask; `tag` is in the job's metadata."""

    tenant: str
    key: str | None
    fields: dict[str, Any]
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: int = 0
    jobs: list[str] = field(default_factory=list)  # as answered by a 2xx, one for each
    has_images: bool = False  # answered with images
    canceled: bool = False  # or so it asked
    refused: list[str] = field(default_factory=list)


class Customer:
    """One tenant's programs: each does what its seed says until `stop`."""

    def __init__(self, slug: str, secret: str, urls: list[str], seed: int) -> None:
        self.slug, self.urls = slug, urls
        self.orders: list[Order] = []
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {secret}"}, timeout=httpx.Timeout(15, connect=2), limits=httpx.Limits()
        )
        self._seed = seed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, programs: int) -> None:
        for number in range(programs):
            chance = random.Random(f"{self._seed}/{self.slug}/{number}")
            self._threads.append(threading.Thread(target=self._program, args=(chance,), daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """What is begun is brought to its end; `join` waits for it."""
        self._stop.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def order_once(self) -> None:
        """One job that nothing shortens."""
        chance = random.Random(f"{self._seed}/{self.slug}")
        order = self._order(chance)
        order.fields |= {"cache": False, "steps": 8}
        order.fields.pop("expires_in_seconds", None)
        self.orders.append(order)
        self._send(order, "/v1/jobs", chance)

    def get(self, path: str, *, seconds: float = 60) -> httpx.Response:
        """The answer, once there is one."""
        deadline = time.monotonic() + seconds
        while True:
            for url in self.urls:
                try:
                    answer = self.client.get(f"{url}{path}" if path.startswith("/") else path)
                except httpx.TransportError:
                    continue
                if answer.status_code not in _AGAIN or time.monotonic() > deadline:
                    return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer to GET {path}")
            time.sleep(0.1)

    def _program(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            order = self._order(chance)
            self.orders.append(order)
            waits = chance.random() < 0.2
            path = "/v1/images/generations" if waits else "/v1/jobs"
            if order.key and chance.random() < 0.2:  # two of its threads have the same thought
                with ThreadPoolExecutor(2) as pool:
                    for _ in range(2):
                        pool.submit(self._send, order, path, random.Random(chance.random()))
            else:
                self._send(order, path, chance)
            if order.key and order.jobs and chance.random() < 0.3:
                self._send(order, path, chance)
            if order.jobs and chance.random() < 0.15:
                self._stop.wait(chance.uniform(0, 1.5))
                self._cancel(order, chance)
            self._stop.wait(chance.uniform(0.05, 0.6))

    def _order(self, chance: random.Random) -> Order:
        fields: dict[str, Any] = {
            "prompt": chance.choice(_PROMPTS),
            "size": chance.choice(_SIZES),
            "n": chance.choice((1, 1, 1, 2, 3)),
            "steps": chance.choice((2, 4, 8)),
            "output_format": chance.choice(("png", "png", "webp")),
        }
        if chance.random() < 0.5:  # what others generated before, as likely as not
            fields |= {"seed": chance.randrange(3), "size": "128x128", "steps": 2}
        if chance.random() < 0.3:
            fields["adapters"] = [{"name": "outline", "scale": chance.choice((0.5, 1.0))}]
        if chance.random() < 0.15:
            fields["expires_in_seconds"] = chance.choice((1, 3, 6))
        order = Order(self.slug, f"key-{chance.randrange(10**9)}" if chance.random() < 0.6 else None, fields)
        order.fields["metadata"] = {"tag": order.tag}
        return order

    def _send(self, order: Order, path: str, chance: random.Random) -> None:
        """Until it is answered. Without a key nobody may send it twice: an answer that was lost may hide a job."""
        headers = {"Idempotency-Key": order.key} if order.key else {}
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            order.sent += 1
            try:
                answer = self.client.post(chance.choice(self.urls) + path, json=order.fields, headers=headers)
            except httpx.TransportError as error:
                order.refused.append(type(error).__name__)
            else:
                if answer.is_success:
                    body = answer.json()
                    order.has_images = order.has_images or "data" in body
                    order.jobs.append(body.get("job_id") or body["id"])
                    return
                order.refused.append(f"{answer.status_code} {answer.json()['error']['code']}")
                if answer.status_code not in _AGAIN:
                    return
            if order.key is None or time.monotonic() > deadline:
                return
            time.sleep(chance.uniform(0.1, 0.5))

    def _cancel(self, order: Order, chance: random.Random) -> None:
        order.canceled = True
        try:
            answer = self.client.post(f"{chance.choice(self.urls)}/v1/jobs/{order.jobs[0]}/cancel")
        except httpx.TransportError:
            return
        if not answer.is_success and answer.status_code not in _AGAIN:
            order.refused.append(f"cancel: {answer.status_code} {answer.text}")
