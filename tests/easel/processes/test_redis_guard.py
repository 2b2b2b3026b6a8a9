"""What the guard does against a pool's login that takes too much of a real Redis."""

import socket
import uuid
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import redis
import structlog
from django.conf import settings
from structlog.testing import capture_logs

from core.redis_client import redis_client
from core.redis_version import redis_unpatched
from easel.catalog.models import Pool, PoolFault
from easel.catalog.redis_users import redis_user_set, worker_redis_url
from easel.processes import dispatcher, redis_guard
from easel.processes.redis_guard import Guard
from inference.contract import reports_key
from tests.conftest import NOW

MEBIBYTE = "x" * (1 << 20)


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch):
    monkeypatch.setattr(redis_guard, "POOL_BYTES_MAX", 8 << 20)


@pytest.fixture
def pool_of(customer):
    """Makes dedicated pools, with their users."""

    def make(name):
        tenant = customer(name=name).tenant
        slug = f"{name}-{uuid.uuid4().hex[:8]}"
        pool = Pool(slug=slug, namespace=f"easel-t-{slug}", gpu_class="cpu", created_at=NOW)
        pool.tenant, pool.checkpoint = tenant, "weights"
        pool.save()
        redis_user_set(redis_client(), pool, secret=settings.EASEL.secret_key)
        return pool

    return make


@pytest.fixture
def hostile(pool_of):
    return pool_of("hostile")


@pytest.fixture
def honest(pool_of):
    return pool_of("honest")


@pytest.fixture
def login():
    """Opens connections as a pool's user."""
    with ExitStack() as opened:

        def make(pool):
            url = worker_redis_url(settings.EASEL.redis_url, pool, secret=settings.EASEL.secret_key)
            client = redis.Redis.from_url(url, single_connection_client=True)
            return opened.enter_context(client)

        yield make


def is_shut(login, pool):
    try:
        return not login(pool).ping()
    except redis.exceptions.AuthenticationError:
        return True


def fill(client, pool):
    for number in range(5):
        client.execute_command("XADD", reports_key(pool.namespace), "*", "report", MEBIBYTE)
        client.execute_command("SADD", f"{pool.namespace}:cancel:{number}", MEBIBYTE)


def test_a_pool_that_fills_redis_is_shut_out_for_a_minute_and_its_keys_are_deleted(hostile, honest, login):
    fill(login(hostile), hostile)
    login(honest).execute_command("XADD", reports_key(honest.namespace), "*", "report", MEBIBYTE)
    guard, now = Guard(), datetime.now(UTC)
    guard.turn(now=now)
    assert is_shut(login, hostile)
    assert not is_shut(login, honest)
    assert not list(redis_client().scan_iter(f"{hostile.namespace}:*", count=10_000))
    assert redis_client().exists(reports_key(honest.namespace))
    assert hostile.faults.get().kind == PoolFault.Kind.MEMORY
    guard.turn(now=now + timedelta(seconds=59))
    assert is_shut(login, hostile)
    guard.turn(now=now + timedelta(seconds=60))
    assert not is_shut(login, hostile)


def test_a_pool_that_hides_large_members_among_small_ones_is_shut_out_before_redis_is_full(
    hostile, honest, login, monkeypatch
):
    client = login(hostile)
    for number in range(9):
        members = [f"{number} {MEBIBYTE}", *(f"{number} {small}" for small in range(1000))]
        client.execute_command("SADD", f"{hostile.namespace}:cancel:", *members)
    monkeypatch.setattr(redis_guard, "HIDDEN_BYTES_MIN", 1 << 40)
    Guard().turn(now=datetime.now(UTC))
    assert not is_shut(login, hostile)  # it has room
    monkeypatch.setattr(redis_guard, "FULL", 0.0)
    Guard().turn(now=datetime.now(UTC))
    assert is_shut(login, hostile)
    assert not is_shut(login, honest)


def test_a_pool_that_goes_on_is_shut_out_for_twice_as_long(hostile, login):
    guard, now, seconds = Guard(), datetime.now(UTC), []
    for _ in range(3):
        fill(login(hostile), hostile)
        guard.turn(now=now)
        seconds.append(hostile.faults.get().shut_seconds)
        now += timedelta(seconds=seconds[-1])
        guard.turn(now=now)
    assert seconds == [60, 120, 240]


def test_a_dispatcher_that_starts_lets_no_pool_in_that_is_shut_out(hostile, login):
    fill(login(hostile), hostile)
    Guard().turn(now=datetime.now(UTC))
    dispatcher._set_user(hostile)
    assert is_shut(login, hostile)


def test_a_pool_that_opens_too_many_connections_loses_them_all(hostile, honest, login, monkeypatch):
    monkeypatch.setattr(redis_guard, "POOL_CONNECTIONS_MAX", 5)
    flood = [login(hostile) for _ in range(6)]
    patient = login(honest)
    assert all(client.ping() for client in (*flood, patient))
    Guard().turn(now=datetime.now(UTC))
    left = [each["user"] for each in redis_client().client_list()]
    assert hostile.namespace not in left
    assert honest.namespace in left
    assert hostile.faults.get().kind == PoolFault.Kind.CONNECTIONS


@pytest.mark.parametrize("hidden", ["commands before EXEC", "keys of a BRPOP"])
def test_a_pool_that_fills_redis_where_it_does_not_tell_is_shut_out(hostile, honest, login, monkeypatch, hidden):
    client, patient = login(hostile), login(honest)
    patient.ping()
    if hidden == "keys of a BRPOP":
        keys = [f"{hostile.namespace}:{number}" for number in range(100_000)]
        client.connection.send_command("BRPOP", *keys, 60)
    else:
        client.execute_command("MULTI")
        for _ in range(3):
            client.execute_command("XADD", reports_key(hostile.namespace), "*", "report", MEBIBYTE)
    monkeypatch.setattr(redis_guard, "FULL", 0.0)
    monkeypatch.setattr(redis_guard, "POOL_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(redis_guard, "HIDDEN_BYTES_MIN", 1 << 18)
    Guard().turn(now=datetime.now(UTC))
    assert is_shut(login, hostile)
    assert patient.ping()


@pytest.fixture
def stranger():
    """Opens connections to Redis that are nobody's."""
    host, port = settings.EASEL.redis_url.rpartition("@")[2].removesuffix("/0").split(":")
    with ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection((host, int(port))))


def is_open(connection):
    host, port = connection.getsockname()
    return f"{host}:{port}" in {each["addr"] for each in redis_client().client_list()}


def test_many_connections_that_never_log_in_are_closed(monkeypatch, stranger):
    monkeypatch.setattr(redis_guard, "STRANGERS_MAX", 3)
    monkeypatch.setattr(redis_guard, "STRANGERS_SECONDS", 0)
    guard, strangers = Guard(), [stranger() for _ in range(4)]
    assert all(map(is_open, strangers))
    redis_guard._client().ping()
    redis_client().config_set("maxclients", len(redis_client().client_list()))  # no room for one more
    try:
        guard.turn(now=datetime.now(UTC))
    finally:
        redis_client().config_set("maxclients", 4000)
    assert not any(map(is_open, strangers))


def test_connections_that_send_commands_without_a_login_are_closed_where_redis_is_crowded(monkeypatch, stranger):
    monkeypatch.setattr(redis_guard, "STRANGERS_MAX", 3)
    monkeypatch.setattr(redis_guard, "STRANGERS_SECONDS", 0)
    platforms = [redis_client().connection_pool.get_connection() for _ in range(4)]
    strangers = [stranger() for _ in range(4)]
    for one in strangers:
        one.sendall(b"PING\r\n")
        assert one.recv(100).startswith(b"-NOAUTH")
    Guard().turn(now=datetime.now(UTC))
    assert all(map(is_open, strangers))  # an operator's would look the same
    monkeypatch.setattr(redis_guard, "CROWDED", 0.0)
    Guard().turn(now=datetime.now(UTC))
    assert not any(map(is_open, strangers))
    for connection in platforms:
        connection.send_command("PING")
        assert connection.read_response()
        redis_client().connection_pool.release(connection)


def test_a_connection_without_a_login_that_reads_no_answers_is_closed_before_they_fill_redis(monkeypatch, stranger):
    greedy = stranger()
    greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    greedy.settimeout(0.5)
    with suppress(OSError):  # newer servers close it themselves
        for _ in range(200):
            greedy.sendall(b"PING\r\n" * 2000)
    monkeypatch.setattr(redis_guard, "STRANGER_BYTES_MAX", 100_000)
    monkeypatch.setattr(redis_guard, "FULL", 0.0)
    Guard().turn(now=datetime.now(UTC))
    assert not is_open(greedy)


def test_a_server_that_lets_everybody_in_is_named(monkeypatch):
    monkeypatch.setattr(dispatcher, "log", structlog.get_logger())  # another test may have bound it already
    client, password = redis_client(), urlsplit(settings.EASEL.redis_url).password
    client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all"])
    try:
        with capture_logs() as warned:
            dispatcher._warn(client, client.info("server"))
    finally:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", f">{password}")
    with capture_logs() as quiet:
        dispatcher._warn(client, client.info("server"))
    assert "redis_open" in {line["event"] for line in warned}
    assert "redis_open" not in {line["event"] for line in quiet}


@pytest.mark.parametrize(
    ("server", "is_patched"),
    [
        ({"redis_version": "6.2.14"}, False),
        ({"redis_version": "6.2.20"}, True),
        ({"redis_version": "7.0.15"}, False),
        ({"redis_version": "7.2.13"}, False),
        ({"redis_version": "7.4.9"}, True),
        ({"redis_version": "8.0.4"}, False),
        ({"redis_version": "8.6.2"}, False),
        ({"redis_version": "8.8.0"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.6", "server_name": "valkey"}, False),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.7", "server_name": "valkey"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0", "server_name": "valkey"}, True),
        ({"redis_version": "unstable"}, False),
    ],
)
def test_a_server_without_the_fixes_of_its_line_is_named(server, is_patched):
    assert (redis_unpatched(server) == "") == is_patched
