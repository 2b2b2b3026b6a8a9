"""Time-outs and limits of connections, with the server's own times shortened."""

import asyncio
import contextlib
import dataclasses
import re
from ipaddress import ip_network

import pytest
from django.conf import settings

from easel.api import intake
from easel.api.connection import Connection
from tests.easel.api.serving import port_of, served

HEAD = b"GET /v1 HTTP/1.1\r\nHost: easel.test\r\n"


class Hasty(Connection):
    HEAD_SECONDS = STALLED_SECONDS = LINGER_SECONDS = 0.2


@contextlib.asynccontextmanager
async def connected(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    with contextlib.closing(writer):
        yield reader, writer


async def sent(server, *parts):
    """All that the server answers to some bytes, until it closes."""
    async with connected(server) as (reader, writer):
        writer.write(b"".join(parts))
        async with asyncio.timeout(30):
            return await reader.read()


def code_of(answer):
    """The code of the one answer's error body."""
    assert answer.count(b"HTTP/1.1 ") == 1
    return re.findall(rb'{"error":{.*"code":"([a-z_]+)"}}', answer)[-1].decode()


def run(scenario, **options):
    async def main():
        async with served(http=Hasty, **options) as server:
            return await scenario(server)

    return asyncio.run(main())


@pytest.fixture
def limits(monkeypatch):
    def set_limits(**changed):
        monkeypatch.setattr(settings, "EASEL", dataclasses.replace(settings.EASEL, **changed))

    return set_limits


@pytest.mark.parametrize("begin", [HEAD, b"\r\n"], ids=["half a head", "an empty line"])
def test_a_head_that_does_not_end_is_answered_and_closed(begin):
    assert code_of(run(lambda server: sent(server, begin))) == "request_timeout"


@pytest.mark.parametrize("begin", [b"", HEAD + b"\r\n"], ids=["nothing", "one request"])
def test_a_connection_without_a_further_request_is_closed(begin):
    answer = run(lambda server: sent(server, begin), timeout_keep_alive=0.2)
    assert answer.count(b"HTTP/1.1 ") == begin.count(b"GET")


def test_a_trickle_does_not_prolong_the_time_of_a_head():
    async def trickle(server):
        async with connected(server) as (reader, writer), asyncio.timeout(30):
            writer.write(HEAD)
            answer = asyncio.create_task(reader.read())
            while not answer.done():
                writer.write(b"X-A: b\r\n")
                await asyncio.sleep(0.05)
            return await answer

    assert code_of(run(trickle)) == "request_timeout"


@pytest.mark.parametrize("times", [{"SILENT_SECONDS": 0.1}, {"SECONDS": 0.1, "BYTES_PER_SECOND": 1e9}])
def test_a_body_that_does_not_come_is_answered_and_closed(alice, monkeypatch, times):
    for name, seconds in times.items():
        monkeypatch.setattr(intake, name, seconds)
    key = f"Authorization: Bearer {alice.secret}\r\nContent-Length: 900\r\n\r\n".encode()
    answer = run(lambda server: sent(server, HEAD.replace(b"GET /v1", b"POST /v1/jobs"), key, b"{"))
    assert (code_of(answer), b"connection: close" in answer.lower()) == ("request_timeout", True)


def test_a_client_that_does_not_read_its_answer_is_cut_off():
    async def stall(server):
        async with connected(server) as (_, writer), asyncio.timeout(30):
            writer.transport.pause_reading()
            writer.write((HEAD.replace(b"/v1", b"/docs/reference.js") + b"\r\n") * 8)
            await asyncio.sleep(0)
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
            while server.server_state.connections:
                await asyncio.sleep(0.01)

    run(stall, timeout_keep_alive=600)


def test_a_new_connection_takes_the_place_of_an_idle_one(limits):
    limits(connections_max=1)

    async def two(server):
        async with connected(server) as (idle, _):
            answer = await sent(server, HEAD, b"Connection: close\r\n\r\n")
            return answer, await idle.read()

    answer, rest = run(two, timeout_keep_alive=600)
    assert (answer.split()[1], rest) == (b"200", b"")


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_address_max"])
def test_a_connection_too_many_is_refused(limits, limit):
    limits(**{limit: 1})

    async def two(server):
        async with connected(server) as (_, writer):
            writer.write(HEAD)  # busy: it is within a head
            await asyncio.sleep(0.05)
            return await sent(server, HEAD, b"\r\n")

    answer = run(two)
    assert (answer.split()[1], code_of(answer)) == (b"503", "too_many_connections")


def test_a_proxy_that_is_trusted_has_as_many_connections_as_all(limits):
    limits(connections_per_address_max=1, trusted_proxies=(ip_network("127.0.0.0/8"),))

    async def two(server):
        async with connected(server):
            return await sent(server, HEAD, b"Connection: close\r\n\r\n")

    assert run(two).split()[1] == b"200"


def test_an_offer_of_another_protocol_is_answered_in_http_1():
    """Java's client offers HTTP/2 with its first request, which has a body: uvicorn loses the body."""
    body = b'{"unknown": 1}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    head = HEAD.replace(b"GET /v1", b"POST /v1/errors") + offer + f"Content-Length: {len(body)}\r\n\r\n".encode()
    for parts in ([head + body], [head, body], [head + body[:5], body[5:]]):
        assert code_of(run(lambda server, parts=parts: sent(server, *parts))) == "method_not_allowed"
