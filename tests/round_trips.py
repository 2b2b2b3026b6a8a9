"""Counts round trips for real: a proxy before a server, which sees who speaks after whom."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import parse_qs, unquote, urlsplit


class Wire:
    """One connection: a trip begins when the client speaks after the server did. Counted once `mark` was seen."""

    def __init__(self, client: socket.socket, server: socket.socket, mark: bytes) -> None:
        self.trips, self.is_marked = 0, False
        self._mark, self._server_spoke = mark, True
        for pump in (self._ask, self._answer):
            threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while data := _read(client):
            if self._server_spoke:
                self._server_spoke = False
                self.trips += 1
            self.is_marked = self.is_marked or self._mark in data
            server.sendall(data)
        server.close()

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        while data := _read(server):
            self._server_spoke = True
            client.sendall(data)
        client.close()


class Proxy:
    """Passes everything on, on a port of its own, and counts the trips of connections that have carried `mark`."""

    def __init__(self, reach: Callable[[], socket.socket], mark: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._reach, self._mark, self._wires = reach, mark, list[Wire]()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def trips(self) -> int:
        return sum(wire.trips for wire in self._wires if wire.is_marked)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self._wires.append(Wire(client, self._reach(), self._mark))


@contextmanager
def counted(database_url: str, redis_url: str) -> Iterator[tuple[dict[str, str], Proxy, Proxy]]:
    """(the environment of a process that goes through them, PostgreSQL's proxy, Redis's)."""
    base, redis = urlsplit(database_url), urlsplit(redis_url)
    folder = unquote(parse_qs(base.query).get("host", [""])[0])
    path = f"{folder}/.s.PGSQL.{parse_qs(base.query).get('port', ['5432'])[0]}"
    postgres = Proxy(lambda: _unix(path) if folder else _tcp(base.hostname, base.port or 5432), b"jobs_job")
    limits = Proxy(lambda: _tcp(redis.hostname, redis.port or 6379), b"ratelimit")
    login = f"{base.username}:{base.password or ''}@" if base.username else ""
    redis_login = f"{redis.username or ''}:{redis.password}@" if redis.password else ""
    env = {
        "DATABASE_URL": f"postgresql://{login}127.0.0.1:{postgres.port}{base.path}?sslmode=disable&gssencmode=disable",
        "REDIS_URL": f"redis://{redis_login}127.0.0.1:{limits.port}{redis.path}",
    }
    with closing(postgres.listener), closing(limits.listener):
        yield env, postgres, limits


def _unix(path: str) -> socket.socket:
    reached = socket.socket(socket.AF_UNIX)
    reached.connect(path)
    return reached


def _tcp(host: str | None, port: int) -> socket.socket:
    return socket.create_connection((host or "127.0.0.1", port))


def _read(of: socket.socket) -> bytes:
    try:
        return of.recv(65536)
    except OSError:
        return b""
