"""Clients with and without a key, each with a socket of its own, that send what no library sends."""

import socket
import uuid
from contextlib import closing

import pytest

from tests.easel.api.sockets import exchange, read_answer
from tests.live import LiveEasel

HOST = b"Host: easel.test\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST


def new_key(easel: LiveEasel) -> str:
    made: str = easel.json("tenant", "create", f"in-{uuid.uuid4().hex[:10]}", "--credit", "10")["api_key"]
    return made


@pytest.fixture
def key(easel: LiveEasel) -> str:
    return new_key(easel)


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/0.9": b"GET /v1\r\n\r\n",
    "HTTP/2.0 in a line": b"GET /v1 HTTP/2.0\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /v1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"FOO /v1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT easel.test:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET /v1 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1 HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a host that is none": b"GET /v1 HTTP/1.1\r\nHost: a b/<c>\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the path": b"GET /v1/a\x00b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a byte in the path": b"GET /v1/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a byte in the query": b"GET /v1?a=\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /v1/a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad percent-encoding": b"GET /v1/%zz HTTP/1.1\r\n" + HOST + b"\r\n",
    "percent-encoded bytes that are no text": b"GET /v1/%ff HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in a header": b"GET /v1 HTTP/1.1\r\n" + HOST + b"X-A: b\x00\r\n\r\n",
    "a header without a colon": b"GET /v1 HTTP/1.1\r\n" + HOST + b"XA\r\n\r\n",
    "a header over two lines": b"GET /v1 HTTP/1.1\r\n" + HOST + b"X-A: b\r\n  c\r\n\r\n",
    "a length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length that is no number": POST + b"Content-Length: abc\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "an unknown transfer encoding": POST + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "chunks of something compressed": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
    "a bad chunk": POST + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
}


def head(method: bytes, path: bytes, *headers: bytes, key: str = "") -> bytes:
    given = f"Authorization: Bearer {key}\r\n".encode() if key else b""
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + given + b"".join(headers) + b"\r\n"


def test_what_is_no_http_is_answered_with_the_one_error_body(easel: LiveEasel) -> None:
    answers = {what: exchange(easel.port, sent) for what, sent in MALFORMED.items()}
    assert {what: (answer.status, answer.code) for what, answer in answers.items()} == dict.fromkeys(
        MALFORMED, (400, "invalid_request")
    )
    assert all(answer.is_closed for answer in answers.values())


def test_a_head_without_end_is_refused(easel: LiveEasel) -> None:
    begin = b"GET /v1 HTTP/1.1\r\n" + HOST
    heads = [b"GET /" + b"a" * 70_000, begin + b"X: " + b"a" * 70_000, begin + b"X: a\r\n" * 101 + b"\r\n"]
    assert [exchange(easel.port, sent).code for sent in heads] == ["head_too_large"] * 3


@pytest.mark.parametrize("method", [b"TRACE", b"PROPFIND", b"SOURCE"])
def test_a_method_of_no_path_is_refused_everywhere(easel: LiveEasel, method: bytes) -> None:
    answers = [exchange(easel.port, head(method, path)) for path in (b"/v1/jobs", b"/", b"/admin/", b"/storage/a")]
    assert [(answer.status, answer.code) for answer in answers] == [(405, "method_not_allowed")] * 4


def test_nobody_without_a_live_key_can_make_us_read_a_body(easel: LiveEasel) -> None:
    large, unknown = b"Content-Length: 60000000\r\n", "easel_sk_000000000000_" + "0" * 38
    revoked = new_key(easel)
    easel.command("key", "revoke", revoked.split("_")[2])
    announced = {
        "no key, 60 MB": head(b"POST", b"/v1/files", FORM, large),
        "no key, 1 kB": head(b"POST", b"/v1/jobs", JSON, b"Content-Length: 1000\r\n"),
        "no key, chunks": head(b"POST", b"/v1/images/generations", JSON, CHUNKED),
        "unknown": head(b"POST", b"/v1/files", FORM, large, key=unknown),
        "revoked": head(b"POST", b"/v1/files", FORM, large, key=revoked),
        "expects 100": head(b"POST", b"/v1/files", FORM, large, b"Expect: 100-continue\r\n"),
        "another resource": head(b"POST", b"/v1/batches/batch_1/cancel", JSON, b"Content-Length: 999\r\n"),
    }
    answers = {what: exchange(easel.port, sent) for what, sent in announced.items()}
    assert {what: (answer.status, answer.code, answer.is_closed) for what, answer in answers.items()} == dict.fromkeys(
        announced, (401, "invalid_api_key", True)
    )
    assert exchange(easel.port, head(b"PUT", b"/storage/a?expires=1", large)).status == 403
    assert exchange(easel.port, head(b"POST", b"/admin/jobs/job/", b"Content-Length: 999\r\n")).status == 302
    assert exchange(easel.port, head(b"POST", b"/docs", b"Content-Length: 999\r\n")).code == "method_not_allowed"
    # One that sends on is cut off, after it could read why.
    assert exchange(easel.port, announced["no key, 60 MB"], *[bytes(2**16)] * 400).code == "invalid_api_key"


def test_a_live_key_may_send_a_body_within_its_limit_only(easel: LiveEasel, key: str) -> None:
    def ask(path: bytes, *headers: bytes) -> bytes:
        return head(b"POST", path, *headers, b"Expect: 100-continue\r\n", key=key)

    assert exchange(easel.port, ask(b"/v1/files", FORM, b"Content-Length: 200000000\r\n")).code == "body_too_large"
    assert exchange(easel.port, ask(b"/v1/jobs", JSON, b"Content-Length: 1000001\r\n")).code == "body_too_large"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    endless = [head(b"POST", b"/v1/jobs", JSON, CHUNKED, key=key), *[chunk] * 30]
    assert exchange(easel.port, *endless).code == "body_too_large"
    with closing(socket.create_connection(("127.0.0.1", easel.port), timeout=20)) as connection:
        connection.sendall(ask(b"/v1/jobs", JSON, b"Content-Length: 2\r\n"))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_answer(connection).code == "missing_required_parameter"


def test_a_trailer_is_no_header(easel: LiveEasel, key: str) -> None:
    body = b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"
    assert exchange(easel.port, head(b"POST", b"/v1/jobs", JSON, CHUNKED) + body).code == "invalid_api_key"


def test_garbage_behind_a_request_is_not_answered_as_another(easel: LiveEasel, key: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", easel.port), timeout=20)) as connection:
        connection.sendall(head(b"GET", b"/v1/models", key=key) + b"GARBAGE\r\n\r\n")
        got = b"".join(iter(lambda: connection.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 200")
    assert got.count(b"HTTP/1.1 ") == 1


def test_json_that_breaks_parsers_is_refused(easel: LiveEasel, key: str) -> None:
    bodies = {
        "deep": b"[" * 200_000,
        "deep in a field": b'{"prompt":"a","metadata":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        "a number of 5000 digits": b'{"prompt":"a","seed":' + b"9" * 5000 + b"}",
        "compressed": b"\x1f\x8b\x08\x00\x00",
    }
    for what, body in bodies.items():
        length = f"Content-Length: {len(body)}\r\n".encode()
        assert exchange(easel.port, head(b"POST", b"/v1/jobs", JSON, length, key=key) + body).status == 400, what
