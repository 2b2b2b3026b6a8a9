"""A client of bytes, for requests that no HTTP library would send."""

import json
import re
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RawResponse:
    """What came until the server closed the connection, or until the last chunk of a first answer."""

    status: int
    head: str
    body: bytes
    is_closed: bool

    @property
    def code(self) -> str:
        """The code of OpenAI's error body; fails for any other body."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "content-type: application/json" in self.head.lower()
        return str(error["code"])

    def json(self) -> Any:
        whole = b"".join(_chunks(self.body)) if "transfer-encoding: chunked" in self.head.lower() else self.body
        return json.loads(whole)


def exchange(port: int, *parts: bytes, seconds: float = 20) -> RawResponse:
    """Send the parts, as far as the server takes them, and return the first final answer."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=seconds)) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it was refused in the middle, and its answer is there
        return read_answer(connection)


def read_answer(connection: socket.socket) -> RawResponse:
    got = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            part = b""
        got += part
        head, ended, body = got.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = re.search(r"\r\ncontent-length: (\d+)", text.lower())
        is_whole = bool(ended) and (body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1]))
        is_closing = "connection: close" in text.lower()
        if not part or (is_whole and not is_closing):
            assert got, "the server closed the connection without an answer"
            return RawResponse(int(text.split()[1]), text, body, is_closed=not part)


def _chunks(body: bytes) -> Any:
    while body:
        size, _, rest = body.partition(b"\r\n")
        yield rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
