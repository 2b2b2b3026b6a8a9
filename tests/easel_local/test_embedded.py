"""The embedded PostgreSQL and Redis, for real."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from easel_local.embedded import Endpoints, ServersUnavailable, servers
from easel_local.home import secret_key
from easel_local.orphans import stop_orphan
from tests.processes import is_alive
from tests.template import migrated_home


def until(condition: Callable[[], object], what: str, timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def query(endpoints: Endpoints, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def pids_of(home: Path) -> list[int]:
    pidfiles = [home / "postgres" / "postmaster.pid", home / "run" / "redis.pid"]
    return [int(pidfile.read_text().split()[0]) for pidfile in pidfiles if pidfile.exists()]


OWNER = """
import sys, time
from pathlib import Path
from easel_local.embedded import servers
with servers(Path(sys.argv[1]), {}) as endpoints:
    print(endpoints.redis_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder():
    # Not tmp_path: each start of pytest closes the folder above it to the user that PostgreSQL runs as under root.
    with tempfile.TemporaryDirectory(prefix="easel-local-") as path:
        yield Path(path)


@pytest.fixture
def home(folder):
    return folder / "var"


@pytest.fixture
def cluster(home):
    """A data directory, for tests that are not about making one."""
    migrated_home(home)


@pytest.fixture
def owner(home, cluster):
    """Another process that owns the servers until its stdin is closed."""
    argv = [sys.executable, "-c", OWNER, str(home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        yield popen


def test_the_data_is_still_there_the_next_time(home):
    with servers(home, {}) as first:
        assert query(first, "SHOW timezone") == [("UTC",)]
        query(first, "CREATE TABLE saved AS SELECT 42 AS answer")
        redis.Redis.from_url(first.redis_url).set("saved", "42")
        pids = pids_of(home)
        assert len(pids) == 2
    assert not any(map(is_alive, pids))

    with servers(home, {}) as second:
        assert query(second, "SELECT answer FROM saved") == [(42,)]
        assert redis.Redis.from_url(second.redis_url).get("saved") == b"42"
    assert second == first


@pytest.mark.usefixtures("cluster")
def test_only_its_owner_can_read_how_to_log_in(home):
    with servers(home, {}) as endpoints:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "run").iterdir()}
        assert modes["endpoints.json"] == modes["redis.conf"] == 0o600
        assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(endpoints.redis_url.replace("://:", "://:wrong")).ping()
    assert not (home / "run" / "endpoints.json").exists()


def test_a_second_caller_uses_the_servers_that_run_and_leaves_them_running(home, owner):
    url = owner.stdout.readline().strip()
    with servers(home, {}) as joined:
        assert joined.redis_url == url
    assert query(joined, "SELECT 1") == [(1,)]
    owner.stdin.close()
    assert owner.wait(30) == 0
    assert not pids_of(home)


def test_an_owner_waits_for_those_who_still_use_its_servers(home, owner):
    owner.stdout.readline()
    with servers(home, {}) as joined:
        owner.stdin.close()
        until(lambda: not (home / "run" / "endpoints.json").exists(), "endpoints.json removed")
        assert query(joined, "SELECT 1") == [(1,)]
    assert owner.wait(30) == 0


def test_a_caller_that_must_own_the_servers_waits_for_a_short_lived_owner(home, owner):
    url = owner.stdout.readline().strip()
    pids = pids_of(home)
    owner.stdin.close()
    with servers(home, {}, own=True) as endpoints:
        assert endpoints.redis_url == url
        assert not set(pids) & set(pids_of(home))


def test_the_servers_of_a_killed_owner_are_stopped_and_started_again(home, owner):
    owner.stdout.readline()
    with servers(home, {}) as endpoints:
        query(endpoints, "CREATE TABLE saved AS SELECT 42 AS answer")
    orphans = pids_of(home)
    owner.kill()
    owner.wait()
    with servers(home, {}) as endpoints:
        assert query(endpoints, "SELECT answer FROM saved") == [(42,)]
        assert not any(map(is_alive, orphans))


def test_an_orphan_is_stopped_but_another_program_with_its_pid_is_not(tmp_path):
    sleeper = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    orphan, other = subprocess.Popen(sleeper, cwd=tmp_path), subprocess.Popen(sleeper, cwd="/")
    pidfile = tmp_path / "server.pid"
    try:
        for popen in (orphan, other):
            pidfile.write_text(f"{popen.pid}\n")
            stop_orphan(pidfile, works_in=tmp_path, stop_signal=signal.SIGTERM)
        assert not is_alive(orphan.pid)
        assert other.poll() is None
    finally:
        for popen in (orphan, other):
            popen.kill()
            popen.wait()


@pytest.mark.parametrize("index", [0, 1], ids=["postgres", "redis"])
def test_a_killed_server_is_restarted_at_its_address_with_its_data(home, index):
    with servers(home, {}) as endpoints:
        query(endpoints, "CREATE TABLE saved AS SELECT 42 AS answer")
        client = redis.Redis.from_url(endpoints.redis_url)
        client.set("saved", "42")
        client.bgrewriteaof()
        killed = pids_of(home)[index]
        os.kill(killed, signal.SIGKILL)

        def is_back() -> bool:
            try:
                return query(endpoints, "SELECT answer FROM saved") == [(42,)] and client.get("saved") == b"42"
            except (psycopg.OperationalError, redis.ConnectionError):
                return False

        until(lambda: not is_alive(killed), "the server died")
        until(is_back, "the server came back")
        assert pids_of(home)[index] != killed


def test_a_home_too_deep_for_a_socket_works(folder):
    home = folder / ("deep" * 12) / ("deeper" * 12)
    with servers(home, {}) as endpoints:
        assert query(endpoints, "SELECT 1") == [(1,)]
        socket_dir = Path(psycopg.conninfo.conninfo_to_dict(endpoints.database_url)["host"])
        assert not socket_dir.is_relative_to(home)
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700


def test_a_server_whose_url_is_given_is_not_started(home):
    given = {"DATABASE_URL": "postgresql://db/easel", "REDIS_URL": "redis://cache/0"}
    with servers(home, given) as endpoints:
        assert (endpoints.database_url, endpoints.redis_url) == tuple(given.values())
    assert not home.exists()

    with servers(home, {"DATABASE_URL": "postgresql://db/easel"}) as endpoints:
        assert redis.Redis.from_url(endpoints.redis_url).ping()
        assert not (home / "postgres").exists()
        with pytest.raises(ServersUnavailable, match="DATABASE_URL"), servers(home, {}):
            pass


@pytest.mark.usefixtures("cluster")
def test_a_server_that_cannot_start_is_reported_with_its_log(home):
    with servers(home, {}):
        pass
    (home / "postgres" / "pg_hba.conf").write_text("nonsense\n")
    with pytest.raises(ServersUnavailable, match=r"(?s)postgres did not start.*pg_hba\.conf"), servers(home, {}):
        pass


def test_the_secret_key_is_generated_once_and_only_its_owner_can_read_it(home):
    assert secret_key(home) == secret_key(home)
    assert len(secret_key(home)) >= 64
    assert stat.S_IMODE((home / "secret_key").stat().st_mode) == 0o600
