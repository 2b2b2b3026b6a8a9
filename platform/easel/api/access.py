"""Ends what is still being answered when its caller loses access: a wait, a stream, a long download.

A key may be revoked, expire, or lose its scope or its caller's network, and its tenant be suspended, while its request
is open. What is sent in pieces is watched from the first piece on, and so is a call that waits for its images. One task
of this process reads the keys of all open answers, with one query: at each notification of a change, and each
RECHECK_SECONDS, in case one was lost and for what time alone ends.
Whoever reads images on a thread also asks there (`confirm`), after the read, so that no image leaves on old knowledge.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest

from core import clock
from core.errors import DomainError
from core.revision import revision_begin
from core.threads import in_thread
from tenants.keys import key_check, key_find, keys_read
from tenants.models import ApiKey, Scope

log = structlog.get_logger()
AsgiScope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ACCESS = "easel.access"  # where `easel.api.resource.authenticate` leaves the caller's access in the scope
CHANNEL = "easel_access"  # notified by triggers, see `tenants/sql/triggers.sql`
CHUNK_BYTES = 2**16  # what leaves without another look; as much as the server buffers for a slow reader
RECHECK_SECONDS = 1.0
PAUSE_SECONDS = 0.05  # between two reads: a flood of notifications costs no more than twenty queries a second


class BrokenOff(Exception):
    """An answer ends here, unfinished, so that its client sees that it failed: its status was sent as a success."""


class Access:
    """The right of one request to its answer: its key, its address, and the scopes of which the key must have one."""

    __slots__ = ("address", "error", "is_notified", "key_pk", "scopes", "wakes")

    def __init__(self, key: ApiKey, *, address: str | None = None) -> None:
        self.key_pk, self.address = key.pk, address
        self.scopes: Collection[str] = ()
        self.error: DomainError | None = None  # set once access is lost
        self.is_notified = False  # true once the application was given the error: what it sends then is the refusal
        self.wakes: set[asyncio.Event] = set()  # of those who wait for something else meanwhile

    def check(self) -> None:
        """Raise the refusal, as far as this process knows of one."""
        if self.error is not None:
            self.is_notified = True
            raise self.error

    def confirm(self) -> None:
        """Ask the database, on a thread. Raises what `key_check` raises."""
        if self.error is None:
            self.error = self.loss(keys_read([self.key_pk]), now=clock.now())
        self.check()

    def loss(self, keys: dict[UUID, ApiKey], *, now: datetime) -> DomainError | None:
        """Return the refusal that the keys' rows make of this request, if any."""
        try:
            key_check(keys.get(self.key_pk), now=now, address=self.address, scopes=self.scopes)
        except DomainError as error:
            return error
        return None

    def open(self) -> None:
        """Have this watched until `close`, on the event loop."""
        global _watching
        if self in _open:
            return
        _open.add(self)
        if _watching is None or _watching.done() or _watching.get_loop() is not asyncio.get_running_loop():
            # In a context of its own: it looks at the keys of all tenants, and outlives the request that began it.
            _watching = asyncio.get_running_loop().create_task(_watch(), context=contextvars.Context())
        changed()  # between the request's own look and now

    def close(self) -> None:
        _open.discard(self)

    def end(self, error: DomainError) -> None:
        """Refuse what is left of the answer, and wake who waits for something else before they give it."""
        self.error = error
        for wake in self.wakes:
            wake.set()


_open: set[Access] = set()
_watching: asyncio.Task[None] | None = None
_changed = asyncio.Event()


def access_of(request: HttpRequest) -> Access:
    """Return the access of a request that was let in."""
    access: Access = request.scope[ACCESS]  # type: ignore[attr-defined]  # of ASGI
    return access


def link_access(key_id: str, *, address: str) -> Access:
    """Return the access of who has the URL of an image that was signed for a key. Raises what `key_check` raises."""
    revision_begin()
    key, scopes = key_find(key_id), (Scope.GENERATE, Scope.READ)
    key_check(key, now=clock.now(), address=address, scopes=scopes)
    assert key is not None  # checked
    access = Access(key, address=address)
    access.scopes = scopes
    return access


def changed() -> None:
    """Look again soon: a key or a tenant may have changed."""
    _changed.set()


async def _watch() -> None:
    """Look at all open answers, until there are none."""
    global _changed
    _changed = asyncio.Event()
    while _open:
        try:
            for access, error in await in_thread(_losses, [*_open], clock.now()):
                access.end(error)
        except (OperationalError, InterfaceError) as error:
            log.warning("database_unavailable", error=repr(error))
        except Exception:  # the next look may succeed, and without one nobody's access would end
            log.exception("access_not_read")
        await asyncio.sleep(PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECHECK_SECONDS - PAUSE_SECONDS):
                await _changed.wait()
        _changed.clear()


def _losses(watched: list[Access], now: datetime) -> list[tuple[Access, DomainError]]:
    keys = keys_read({access.key_pk for access in watched})
    return [(access, error) for access in watched if (error := access.loss(keys, now=now)) is not None]


class GuardedAnswers:
    """ASGI application that looks at the caller's access before each piece of another's answer leaves.

    An answer in one small piece follows its request's own look at once. Raises `BrokenOff` into the application, whose
    client sees that its answer is unfinished.
    """

    def __init__(self, app: Callable[[AsgiScope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            access: Access | None = scope.get(ACCESS)
            if access is None or message["type"] != "http.response.body":
                await send(message)
                return
            body, more = message.get("body", b""), message.get("more_body", False)
            if more or len(body) > CHUNK_BYTES:
                access.open()
            for start in range(0, len(body) or 1, CHUNK_BYTES):
                if access.error is not None and not access.is_notified:
                    raise BrokenOff(access.error.code)
                part = body[start : start + CHUNK_BYTES]
                await send({**message, "body": part, "more_body": more or start + CHUNK_BYTES < len(body)})

        try:
            await self._app(scope, receive, guarded)
        finally:
            if (access := scope.get(ACCESS)) is not None:
                access.close()
