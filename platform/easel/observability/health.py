"""Answers health probes and Prometheus scrapes."""

from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from psycopg_pool import PoolTimeout
from redis.exceptions import RedisError

from core.redis_client import redis_fail_fast
from core.threads import in_thread


async def live(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the process serves requests."""
    return JsonResponse({"status": "ok"})


async def ready(request: HttpRequest) -> HttpResponse:
    """Answer 200 if PostgreSQL and Redis answer, else 503 with the names of those that don't."""
    unavailable = await in_thread(_unavailable)
    return JsonResponse(
        {"status": "unavailable" if unavailable else "ok", "unavailable": unavailable},
        status=503 if unavailable else 200,
    )


async def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the metrics in Prometheus' text format."""
    return HttpResponse(await in_thread(generate_latest), content_type=CONTENT_TYPE_LATEST)


def _unavailable() -> list[str]:
    unavailable = []
    try:
        connection.cursor().execute("SELECT 1")
    except (OperationalError, PoolTimeout):
        unavailable.append("postgresql")
    try:
        redis_fail_fast().ping()
    except RedisError:
        unavailable.append("redis")
    return unavailable
