"""The owner of a dedicated pool against all others: by the login of its workers, or with anything in its keys."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from easel_client import Easel
from inference.contract import QUEUE, AttemptFinished, report_to_json, reports_key
from tests.attacks.conftest import ORDER, PoolOwner
from tests.conftest import worker_beat
from tests.live import LiveEasel

MEBIBYTE = "x" * (1 << 20)
STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")
KEYS = (
    "reports",
    *(f"{QUEUE}{step}" for step in STEPS),
    f"_kombu.binding.{QUEUE}",
    f"_kombu.binding_permanent.{QUEUE}",
    *("unacked", "unacked_index", "unacked_mutex"),
    "cancel:1d9a3f2e-5a0e-4d47-9a52-0f7b8a6f2b11",
)
# Each makes a value of its type and of a size; the size is at least 1 where Redis has no empty value of that type.
VALUES: dict[str, Callable[[Any, str, int], object]] = {
    "string": lambda client, key, size: client.set(key, "x" * size),
    "list": lambda client, key, size: client.rpush(key, "x" * size),
    "long list": lambda client, key, size: client.rpush(key, *range(1 + size // 100)),
    "set": lambda client, key, size: client.sadd(key, "x" * size),
    "sorted set": lambda client, key, size: client.zadd(key, {"x" * size: float("inf")}),
    "hash": lambda client, key, size: client.hset(key, "x" * size, ""),
    "stream": lambda client, key, size: client.xadd(key, {"report": "x" * size}),
    "long stream": lambda client, key, size: [client.xadd(key, {"": ""}) for _ in range(1 + size // 10_000)],
    "stream that has ended": lambda client, key, size: client.xadd(key, {"x": "x" * size}, id=f"{2**64 - 1}-0"),
}
SIZES = (0, 1000, 3_000_000)


def generate(caller: Easel) -> None:
    *_, job = caller.jobs.follow(caller.jobs.create(**ORDER))
    assert job["status"] == "succeeded", job


def beat(owner: PoolOwner) -> None:
    """The pool has a worker that takes jobs, as far as the platform knows."""
    report = report_to_json(worker_beat(worker="attacker", concurrency=4, started_at=time.time()))
    owner.redis().execute_command("XADD", reports_key(owner.namespace), "*", "report", report)


def workers(easel: LiveEasel, owner: PoolOwner) -> float:
    return easel.metrics().get(f'easel_workers{{pool="{owner.slug}"}}', 0.0)


def shut_out(easel: LiveEasel, owner: PoolOwner) -> float:
    return easel.metrics().get(f'easel_pool_shut_out{{pool="{owner.slug}"}}', 0.0)


def its_pool_works(easel: LiveEasel, owner: PoolOwner) -> None:
    """A job of the pool's owner comes to its worker, and the worker's report ends it."""
    client, taken = owner.redis(), []
    job = owner.client.jobs.create(**ORDER)

    def ended() -> bool:
        try:
            beat(owner)
            found = client.execute_command("BRPOP", f"{owner.namespace}:{QUEUE}", 0.5)
        except redis.ResponseError:
            return False  # the platform has not mended the keys yet
        if found is not None:
            ((task, *_), *_) = json.loads(base64.b64decode(json.loads(found[1])["body"]))
            taken.append(task["job_id"])
            who = {"attempt_token": task["attempt_token"], "worker": "attacker", "gpu_class": "cpu"}
            end = AttemptFinished(**who, outcome="failed", error_code="enough")
            client.execute_command("XADD", reports_key(owner.namespace), "*", "report", report_to_json(end))
        return owner.client.jobs.get(job["id"])["status"] == "failed"

    easel.wait_for(ended)
    assert job["id"] in taken


@pytest.fixture
def platforms_redis(easel: LiveEasel) -> Iterator["redis.Redis"]:
    """A connection that may do everything: worse than any login of a pool."""
    endpoints = json.loads((easel.home / "run" / "endpoints.json").read_text())
    with redis.Redis.from_url(endpoints["redis_url"]) as client:
        yield client


def test_keys_of_a_pool_with_any_type_and_size_stop_nobody_else_and_the_pool_works_again(
    easel, tenant, pool_owner, platforms_redis
):
    beat(pool_owner)
    for make in VALUES.values():
        for size in SIZES:
            with platforms_redis.pipeline() as pipe:  # at once: the platform mends what it finds
                for key in (f"{pool_owner.namespace}:{key}" for key in KEYS):
                    pipe.delete(key)
                    make(pipe, key, size)
                pipe.execute()
        pool_owner.client.jobs.create(**ORDER)
        generate(tenant)
    its_pool_works(easel, pool_owner)


@contextlib.contextmanager
def repeated(attack: Callable[["redis.Redis"], object], owner: PoolOwner, *, attackers: int) -> Iterator[None]:
    """Repeats an attack by as many connections with the pool's login, while the body runs."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(redis.RedisError), owner.redis() as client:
                while not over.is_set():
                    attack(client)
            over.wait(0.05)  # refused: try to come in again

    with ThreadPoolExecutor(attackers) as threads:
        for _ in range(attackers):
            threads.submit(run)
        try:
            yield
        finally:
            over.set()


def test_every_value_that_a_pools_login_can_write_stops_nobody_else(tenant, pool_owner):
    def overwrite(client: "redis.Redis") -> None:
        for key in ("reports", QUEUE):
            client.execute_command("SET", f"{pool_owner.namespace}:{key}", "x")

    client = pool_owner.redis()
    last = f"XADD {{}} MAXLEN 0 {2**64 - 1}-0 x y"  # no id can follow
    for words in ("SADD {} x", "ZADD {} 1 x", "HSET {} x y", "XADD {} * report x", last, "SET {} x"):
        for key in (f"{pool_owner.namespace}:{key}" for key in KEYS):
            with contextlib.suppress(redis.ResponseError):  # another type is there already
                client.execute_command(*[word.format(key) for word in words.split(" ")])
    with repeated(overwrite, pool_owner, attackers=1):
        generate(tenant)


def test_a_flood_of_reports_keeps_no_other_report_waiting(easel, tenant, pool_owner):
    key = reports_key(pool_owner.namespace)

    def report(client: "redis.Redis") -> None:
        with client.pipeline(transaction=False) as pipe:
            for text in ("{}", "[" * 5000, report_to_json(worker_beat(worker="attacker"))):
                for _ in range(100):
                    pipe.execute_command("XADD", key, "*", "report", text)
            pipe.execute()

    with repeated(report, pool_owner, attackers=1):
        for _ in range(3):
            generate(tenant)


def test_a_pool_that_fills_redis_is_shut_out_and_nobody_elses_job_is_lost(easel, tenant, pool_owner):
    def fill(client: "redis.Redis") -> None:
        client.execute_command("SADD", f"{pool_owner.namespace}:cancel:{time.monotonic_ns()}", 3 * MEBIBYTE)

    with repeated(fill, pool_owner, attackers=2):
        generate(tenant)
        easel.wait_for(lambda: shut_out(easel, pool_owner))
        generate(tenant)
    with pytest.raises(redis.exceptions.AuthenticationError):
        pool_owner.redis().ping()


def test_a_pool_that_floods_redis_with_connections_is_shut_out_and_nobody_elses_job_is_lost(easel, tenant, pool_owner):
    with contextlib.ExitStack() as opened:
        for _ in range(600):
            client = opened.enter_context(pool_owner.redis())
            with contextlib.suppress(redis.RedisError):  # the guard may have come already
                client.ping()
        generate(tenant)
        easel.wait_for(lambda: shut_out(easel, pool_owner))
    generate(tenant)
