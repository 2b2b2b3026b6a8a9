"""The API while PostgreSQL or Redis is stopped or hangs: real servers, struck for real.

The clients' patience is 5 s, of which an answer needs a little over one: without a bound of ours it would take minutes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from easel_local.postgres import Postgres
from easel_local.process import Backoff
from easel_local.redis_server import RedisServer
from easel_local.stack import free_port
from easel_local.supervisor import Supervisor
from tests.commands import Commands
from tests.template import migrated_home

PATIENCE_SECONDS = 5.0


def eventually(happened, what, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


class Stack:
    """An API process beside a PostgreSQL and a Redis of its own."""

    def __init__(self, home):
        self.servers = {"postgres": Postgres(home), "redis": RedisServer(home)}
        self.running = {}
        migrated_home(home)
        self.log = (home / "servers.log").open("ab")
        for name, server in self.servers.items():
            server.prepare()
            self.start(name)
        eventually(self.servers["postgres"].ready, "PostgreSQL")
        eventually(self.servers["redis"].ready, "Redis")
        self.env = {
            **os.environ,
            "EASEL_HOME": str(home),
            "DATABASE_URL": self.servers["postgres"].url,
            "REDIS_URL": self.servers["redis"].url,
        }
        commands = Commands(self.env)
        commands.output("migrate", "--json")
        tenant = json.loads(commands.output("tenant", "create", "alice", "--credit", "1000", "--json"))
        commands.output("tenant", "limit", "alice", "--requests-per-minute", "100000")
        commands.close()
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        argv = [sys.executable, "-m", "easel.cli.main", "api", "--port", port]
        self.api = subprocess.Popen(argv, env=self.env, stdout=self.log, stderr=self.log)
        headers = {"Authorization": f"Bearer {tenant['api_key']}"}
        # As many as there are threads: the pool closes one too many even as another thread takes it up.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, limits=limits)
        eventually(self.is_ready, "the API")

    def start(self, name):
        self.running[name] = Supervisor([self.servers[name].spec()], out=self.log, backoff=Backoff())
        self.running[name].start()

    @contextmanager
    def stopped(self, name):
        self.running[name].stop()
        try:
            yield
        finally:
            self.start(name)
            eventually(self.is_ready, f"the return of {name}")

    @contextmanager
    def paused(self, name):
        (pid,) = self.running[name].pids().values()
        server = psutil.Process(pid)
        # The server first, so that it makes no more of its children: PostgreSQL has one for each connection.
        server.suspend()
        children = server.children(recursive=True)
        for child in children:
            child.suspend()
        try:
            yield
        finally:
            for process in [*children, server]:
                process.resume()

    def is_ready(self):
        try:
            return self.client.get("/healthz/ready").status_code == 200
        except httpx.TransportError:
            return False

    def post(self, path="/v1/jobs", **headers):
        body = {"prompt": "a red circle"} if path == "/v1/jobs" else None
        return self.client.post(path, json=body, headers=headers)

    def posts_again(self):
        eventually(lambda: self.post().status_code == 202, "an admission after the outage")

    def request_ids(self):
        with psycopg.connect(self.servers["postgres"].url) as connection:
            return {row[0] for row in connection.execute("SELECT request_id FROM jobs_job")}

    def close(self):
        self.client.close()
        self.api.send_signal(signal.SIGKILL)
        self.api.wait()
        for supervisor in self.running.values():
            supervisor.stop()


@pytest.fixture(scope="module")
def stack():
    with ExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="easel-outage-", ignore_cleanup_errors=True))
        made = Stack(Path(folder))
        exits.callback(made.close)
        made.posts_again()
        yield made


@pytest.mark.parametrize("away", ["stopped", "paused"])
def test_without_postgresql_a_request_is_refused_soon_and_served_again_by_itself(stack, away):
    with getattr(stack, away)("postgres"):
        eventually(lambda: stack.post().status_code == 503, "the first refusal")
        answer = stack.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert (answer.headers["Retry-After"], answer.headers["x-should-retry"]) == ("2", "true")
    stack.posts_again()


def test_requests_that_a_pause_meets_on_their_way_are_all_answered_and_no_refused_one_is_stored(stack):
    def post(number):
        if number == 20:
            met.enter_context(stack.paused("postgres"))
        request_id = uuid.uuid4().hex
        return request_id, stack.post(**{"X-Request-Id": request_id})

    with ThreadPoolExecutor(40) as threads:
        with ExitStack() as met:
            answers = list(threads.map(post, range(100)))
            assert 503 in {answer.status_code for _, answer in answers}
        stack.posts_again()
    stored = stack.request_ids()
    accepted = {request_id for request_id, answer in answers if answer.status_code == 202}
    refused = {
        request_id
        for request_id, answer in answers
        if answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
    }
    assert accepted <= stored
    assert not refused & stored


@pytest.mark.parametrize("away", ["stopped", "paused"])
def test_without_redis_jobs_are_admitted_and_canceled_as_they_are_durable_without_it(stack, away):
    with getattr(stack, away)("redis"):
        created = stack.post()
        assert created.status_code == 202
        canceled = stack.post(f"/v1/jobs/{created.json()['id']}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
