"""A connection of a client: uvicorn's, with the bounds and the error body that uvicorn has no settings for.

uvicorn waits for ever for a head and for a client that doesn't read, takes a head of any length and any number of
connections, and answers what is no HTTP with plain text. This subclass of its protocol adds:

- a time-out and a size for the head, and for an answer that nobody reads (a body's are in `easel.api.intake`),
- a limit of connections, of all and of each address,
- OpenAI's error body for what is malformed, which the application never sees,
- an end of refused requests that lets the client read why: a close with unread data is a reset.
"""

import asyncio
import contextlib
import re
from collections import Counter
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools
import structlog
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from core.errors import DomainError
from easel.api.errors import HeadTooLarge, MalformedRequest, RequestTimeout, TooManyConnections, refusal_json
from easel.api.middleware import request_id_of
from easel.observability import metrics

log = structlog.get_logger()
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_VERSIONS = ("1.0", "1.1")


class Connection(HttpToolsProtocol):
    HEAD_SECONDS = 10.0  # from the first byte to the last, and from the connection to its first request
    HEAD_BYTES_MAX = 2**16
    HEADERS_MAX = 100
    STALLED_SECONDS = 30.0  # while the client reads less than 48 KiB of its answer
    LINGER_SECONDS = 2.0  # in which a refused client may still send, and read why
    LINGER_BYTES_MAX = 2**20
    _by_address: Counter[str] = Counter()

    def connection_made(self, transport: Any) -> None:
        self._raw, self._address = transport, ""
        self._timer: asyncio.TimerHandle | None = None  # of the head, or of the end
        self._stalled: asyncio.TimerHandle | None = None
        self._running: Any = None  # the cycle whose answer is next
        self._refusal: DomainError | None = None
        self._in_head, self._is_broken, self._is_upgrading = True, False, False
        self._has_ended = False  # true while the last of what came has ended a request
        self._body_left = 0  # of a request that offers another protocol
        self._head_bytes = self._dropped_bytes = self._seen = 0
        closing: Any = _Closing(transport, self)
        super().connection_made(closing)
        self._count()
        if not self.transport.is_closing():
            self._expect_head()

    def _count(self) -> None:
        """Refuse the connection if there are too many: of its address, or of all, none of which is idle."""
        self._address = _address_of(self._raw)
        self._by_address[self._address] += 1
        limits = settings.EASEL
        if len(self.connections) > limits.connections_max:
            idle = next((one for one in self.connections if one is not self and one.is_idle()), None)  # type: ignore[union-attr]
            if idle is None:
                self._refuse(TooManyConnections())
                return
            idle.transport.close()
        if self._by_address[self._address] > limits.connections_per_address_max and not limits.trusts(self._address):
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        self._by_address[self._address] -= 1
        if not self._by_address[self._address]:
            del self._by_address[self._address]
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        """Return true between two requests, and before the first."""
        is_answered = self._running is None or self._running.response_complete
        return is_answered and self._in_head and not self._head_bytes

    # --- the head

    def data_received(self, data: bytes) -> None:
        if self._is_broken or self.transport.is_closing():
            self._dropped_bytes += len(data)
            if self._dropped_bytes > self.LINGER_BYTES_MAX:  # the client can't send on, and looks for the answer
                self._raw.pause_reading()
            return
        self._unset_keepalive_if_required()
        self._has_ended = False
        try:
            if not self._is_upgrading:
                self.parser.feed_data(data)
            else:
                self._take_body(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or MalformedRequest("this is not well-formed HTTP/1.1"))
        except httptools.HttpParserUpgrade as upgrade:
            self._is_upgrading = True
            self._take_body(data[upgrade.args[0] :])
        # What ended a request begins no head: the next may come as late as an idle connection is held.
        if self._in_head and not self._has_ended and not self.transport.is_closing() and not self._is_broken:
            self._head_bytes += len(data)
            if self._head_bytes > self.HEAD_BYTES_MAX:
                self._refuse(HeadTooLarge(self._too_large()))
            elif self._timer is None:
                self._expect_head()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self.HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._timer = None
        if self._running is not None and not self._running.response_complete:
            return  # a part of a further request: its time begins when this one is answered
        if self._head_bytes:
            self._refuse(RequestTimeout(f"the request's head did not come within {self.HEAD_SECONDS:.0f} s"))
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head, self._has_ended, self._seen = True, False, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it must not become a header, which a proxy would have removed
        self._take(len(name) + len(value) + 4)
        if len(self.headers) == self.HEADERS_MAX:
            self._refusal = HeadTooLarge(self._too_large())
            raise self._refusal
        super().on_header(name, value)

    def _take(self, size: int) -> None:
        self._seen += size
        if self._seen > self.HEAD_BYTES_MAX:
            self._refusal = HeadTooLarge(self._too_large())
            raise self._refusal

    def _too_large(self) -> str:
        return f"the request's head is over the limit of {self.HEAD_BYTES_MAX} bytes or {self.HEADERS_MAX} headers"

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._check_head()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False
            self._body_left = int(dict(self.headers).get(b"content-length", b"0"))

    def _check_head(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        version = self.parser.get_http_version()
        path = self.url.partition(b"?")[0]
        message = ""
        if version not in _VERSIONS:
            message = f"HTTP {version} is not spoken here: send HTTP/1.1"
        elif len(hosts) > 1 or (not hosts and version == "1.1"):
            message = "send one Host header"
        elif hosts and not _HOST.fullmatch(hosts[0]):
            message = "the Host header is no host"
        elif codings and (codings != [b"chunked"] or version == "1.0"):
            message = "the only Transfer-Encoding is chunked, of HTTP/1.1"
        elif self.parser.should_upgrade() and codings:
            message = "a request that offers another protocol needs a Content-Length"
        elif b"%" in path and not _is_text(path):
            message = "the path is not percent-encoded UTF-8"
        if message:
            self._refusal = MalformedRequest(message)
            raise self._refusal

    def on_message_complete(self) -> None:
        if not self._body_left:
            super().on_message_complete()
            self._in_head = self._has_ended = True

    def _take_body(self, data: bytes) -> None:
        """Take the body of a request that offers another protocol, where the parser stops. The answer is HTTP/1.1.

        Java's client offers HTTP/2 with its first request, and expects that.
        """
        part = data[: self._body_left]
        self._body_left -= len(part)
        if part:
            self.on_body(part)
            if not self._body_left:
                super().on_message_complete()

    # --- the end

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, error: DomainError) -> None:
        """Answer in the application's place, and close."""
        self._is_broken = True
        self.pipeline.clear()
        running = self._running
        if running is not None and not running.response_complete:
            if running is not self.cycle or running.response_started or not running.more_body:
                running.keep_alive = False  # its answer is the last: one to what follows would be taken for it
                return
            running.disconnected = True
            running.message_event.set()
        answer = refusal_json(error)
        request_id = request_id_of("")
        log.info("request", request_id=request_id, method="other", route="unmatched", status=answer.status_code)
        metrics.REQUESTS.labels("other", "unmatched", str(answer.status_code)).inc()
        own = {"X-Request-Id": request_id, "Content-Length": str(len(answer.content)), "Connection": "close"}
        headers = [*self.server_state.default_headers]
        headers += [(name.lower().encode(), value.encode()) for name, value in [*answer.items(), *own.items()]]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", answer.content]))
        self.transport.close()

    def finish(self) -> None:
        """Close the socket: at once, or after a moment where the client may still be sending."""
        if self._timer is not None:
            self._timer.cancel()
        self._unset_keepalive_if_required()
        is_sending = self._is_broken or (self.cycle is not None and self.cycle.more_body)
        if self._raw.get_write_buffer_size():
            self._timer = self.loop.call_later(self.STALLED_SECONDS, self._raw.abort)
        elif is_sending:
            self._timer = self.loop.call_later(self.LINGER_SECONDS, self._raw.abort)
        if is_sending:
            self.flow.resume_reading()
            with contextlib.suppress(OSError, RuntimeError):  # the client is gone
                self._raw.write_eof()
        else:
            self._raw.close()

    # --- a client that doesn't read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.STALLED_SECONDS, self._raw.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class _Closing:
    """A transport whose `close` leaves the end to its connection."""

    def __init__(self, transport: Any, connection: Connection) -> None:
        self._transport, self._connection, self._is_closing = transport, connection, False
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._is_closing = True
            self._connection.finish()


def _address_of(transport: Any) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else ""


def _is_text(path: bytes) -> bool:
    if _BAD_PERCENT.search(path):
        return False
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return True
