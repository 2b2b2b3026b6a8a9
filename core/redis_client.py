"""Connections to Redis: one client per process for requests, one for daemons."""

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry


@cache
def redis_asked_once() -> "redis.Redis":
    """Redis client for request handlers: fails after 0.5 s and never retries."""
    return redis.Redis.from_url(
        settings.EASEL.redis_url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)
    )


@cache
def redis_client() -> "redis.Redis":
    """Redis client for daemons: waits up to 10 s for an answer and checks idle connections before it uses them."""
    return redis.Redis.from_url(
        settings.EASEL.redis_url, socket_connect_timeout=2, socket_timeout=10, health_check_interval=30
    )
