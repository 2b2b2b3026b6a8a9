"""Connections to Redis: one client per process for requests, one for daemons."""

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

# Every connection of the control plane tells this name: only who has logged in can, so that the guard
# (`easel.processes.redis_guard`) knows it from connections that have not.
CLIENT_NAME = "easel"


def redis_fail_fast(seconds_max: float = 0.5) -> "redis.Redis":
    """Redis client for request handlers: fails after `seconds_max` and never retries."""
    return _asked_once(settings.EASEL.redis_url, seconds_max)


@cache
def redis_client() -> "redis.Redis":
    """Redis client for daemons: waits up to 10 s for an answer and checks idle connections before it uses them."""
    return redis.Redis.from_url(
        settings.EASEL.redis_url,
        socket_connect_timeout=2,
        socket_timeout=10,
        health_check_interval=30,
        client_name=CLIENT_NAME,
    )


@cache
def _asked_once(url: str, seconds_max: float) -> "redis.Redis":
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=seconds_max,
        socket_timeout=seconds_max,
        retry=Retry(NoBackoff(), 0),
        client_name=CLIENT_NAME,
    )
