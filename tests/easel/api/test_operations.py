"""Request ids, logs, metrics and health."""

import asyncio
import io
import json
import logging
import re
from datetime import UTC, datetime, timedelta

import pytest
import redis
import structlog
from prometheus_client.parser import text_string_to_metric_families
from redis.backoff import NoBackoff
from redis.retry import Retry

from easel.asgi import application
from easel.catalog.models import Worker
from easel.jobs import dispatch, lifecycle
from easel.observability import health, logs
from easel.serving import routing
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job


def metrics():
    return call("GET", "/metrics").text


def value(name, **labels):
    """The sample of a metric; None when it has none with these labels."""
    for family in text_string_to_metric_families(metrics()):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return sample.value
    return None


def test_a_given_request_id_comes_back(alice):
    answer = call("GET", "/v1/models", alice, headers={"X-Request-Id": "order-7-try-1"})
    assert answer.headers["X-Request-Id"] == "order-7-try-1"


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "a b c d e f", '"quoted-text"'])
def test_any_other_request_id_is_replaced(given):
    answer = call("GET", "/v1/models", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


@pytest.fixture
def logged():
    """What is logged during the test, as the API logs it."""
    root, out = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(service="api", out=out, env={"EASEL_LOG_FORMAT": "json"})
    yield out
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_request_is_one_line_of_json_with_its_tenant(alice, logged):
    call("GET", "/v1/models", alice, headers={"X-Request-Id": "order-7-try-1"})
    (line,) = [json.loads(text) for text in logged.getvalue().splitlines()]
    assert {"ts", "duration_seconds"} <= set(line)
    assert (line["level"], line["service"], line["event"]) == ("info", "api", "request")
    assert (line["request_id"], line["tenant"], line["status"]) == ("order-7-try-1", alice.tenant.slug, 200)


def test_the_secret_of_a_key_is_not_logged(alice, logged):
    call("GET", "/v1/models", alice)
    assert alice.key.key_id in logged.getvalue()
    assert alice.secret.rsplit("_", 1)[-1] not in logged.getvalue()


def test_requests_and_errors_are_counted_by_route_and_status(alice):
    call("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000", alice)
    found = metrics()
    assert 'easel_http_requests_total{method="GET",route="v1/jobs/<uuid:job_id>",status="404"}' in found
    assert 'easel_http_request_seconds_bucket{le="0.1",method="GET",route="v1/jobs/<uuid:job_id>"}' in found


def test_what_clients_invent_makes_no_new_series(alice):
    call("BREW", "/made-up", alice)
    found = metrics()
    assert 'method="other",route="unmatched"' in found
    assert not {"BREW", "made-up"} & set(re.split("[^A-Za-z-]", found))


def test_waiting_jobs_are_shown_by_pool(alice, pool, create):
    create(alice)
    assert f'easel_pending_generations{{pool="{pool.slug}"}} 1.0' in metrics()


def test_the_age_of_the_oldest_waiting_job_is_shown_by_pool(alice, pool, submit):
    assert value("easel_oldest_pending_seconds", pool=pool.slug) == 0
    submit(alice, now=datetime.now(UTC) - timedelta(hours=1))
    submit(alice, now=datetime.now(UTC))
    assert value("easel_oldest_pending_seconds", pool=pool.slug) >= 3600


def test_lost_attempts_are_counted_by_pool(alice, pool, submit):
    submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    assert value("easel_lost_attempts_total", pool=pool.slug) == 0
    lifecycle.lose(token=attempt.token, now=NOW + timedelta(seconds=16), attempts_max=3)
    assert value("easel_lost_attempts_total", pool=pool.slug) == 1


def test_credit_is_shown_by_tenant(alice):
    assert value("easel_credit_units", tenant=alice.tenant.slug, currency="USD") == 10


def test_the_ledgers_balance_is_shown_by_currency(alice):
    assert value("easel_ledger_imbalance_micros", currency="USD") == 0


def test_only_workers_that_beat_count(pool):
    workers = Worker.objects.filter(pool=pool)
    workers.update(beat_at=datetime.now(UTC))
    assert value("easel_workers", pool=pool.slug) == 1
    workers.update(beat_at=datetime.now(UTC) - timedelta(seconds=60))
    assert value("easel_workers", pool=pool.slug) == 0


def test_the_drift_of_a_worker_is_shown_until_it_is_long_gone(pool):
    workers = Worker.objects.filter(pool=pool)
    workers.update(beat_at=datetime.now(UTC), busy_seconds=100, attributed_seconds=99)
    assert value("easel_attribution_drift_ratio", pool=pool.slug, worker="w1") == pytest.approx(0.01)
    workers.update(beat_at=datetime.now(UTC) - timedelta(hours=2))
    assert value("easel_attribution_drift_ratio", pool=pool.slug, worker="w1") is None
    workers.delete()


def test_cost_and_gpu_seconds_are_shown_by_tenant(alice, create):
    end_job(create(alice)["id"], gpu_seconds=2.0)
    found = metrics()
    assert f'easel_cost_units{{currency="USD",tenant="{alice.tenant.slug}"}} 0.0012' in found
    assert f'easel_gpu_seconds_total{{tenant="{alice.tenant.slug}"}} 2.0' in found


def test_ended_jobs_are_counted_by_pool_and_state(alice, pool, create):
    end_job(create(alice)["id"])
    end_job(create(alice)["id"], outcome="failed", error_code="out_of_memory")
    found = metrics()
    for state, count in (("succeeded", 1), ("failed", 1), ("canceled", 0)):
        assert f'easel_finished_generations_total{{pool="{pool.slug}",state="{state}"}} {count}.0' in found


def test_gpu_seconds_that_nobody_pays_are_counted(alice, create):
    def wasted():
        return float(re.search(r"^easel_wasted_gpu_seconds_total (\S+)", metrics(), re.MULTILINE)[1])

    before = wasted()
    end_job(create(alice)["id"], outcome="failed", error_code="out_of_memory", gpu_seconds=3.0)
    assert wasted() == pytest.approx(before + 3.0)


def test_a_body_over_the_limit_is_counted_and_logged(alice, logged):
    call("POST", "/v1/jobs", alice, content=b" " * 1_000_001, headers={"X-Request-Id": "order-7-try-1"})
    (line,) = [json.loads(text) for text in logged.getvalue().splitlines()]
    assert (line["request_id"], line["status"]) == ("order-7-try-1", 413)
    assert 'easel_http_requests_total{method="POST",route="unmatched",status="413"}' in metrics()


def test_ready_says_what_is_unavailable(monkeypatch, database_unavailable):
    monkeypatch.setattr(health, "redis_fail_fast", lambda: redis.Redis(port=1, retry=Retry(NoBackoff(), 0)))
    answer = call("GET", "/healthz/ready")
    assert (answer.status_code, answer.json()["unavailable"]) == (503, ["postgresql", "redis"])


def test_live_answers_while_the_database_is_unavailable(database_unavailable):
    assert call("GET", "/healthz/live").status_code == 200


def test_a_call_while_the_database_is_unavailable_may_be_tried_again(alice, database_unavailable):
    answer = call("GET", "/v1/models", alice)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert (answer.headers["Retry-After"], answer.headers["x-should-retry"]) == ("2", "true")


@pytest.fixture
def defect(monkeypatch):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(routing, "live_models", broken)


def test_a_defect_of_ours_is_answered_without_its_details(alice, defect):
    answer = call("GET", "/v1/models", alice)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "ZeroDivision" not in answer.text


def test_a_defect_of_ours_is_logged_with_its_stack(alice, defect, logged):
    call("GET", "/v1/models", alice)
    lines = [json.loads(text) for text in logged.getvalue().splitlines()]
    assert any(line["level"] == "error" and "ZeroDivisionError" in line["exception"] for line in lines)


def test_live_and_ready_need_no_key():
    assert [call("GET", f"/healthz/{name}").status_code for name in ("live", "ready")] == [200, 200]


def test_a_websocket_is_turned_away():
    sent = []

    async def connect():
        async def send(message):
            sent.append(message["type"])

        await application({"type": "websocket", "path": "/v1/jobs", "headers": []}, None, send)

    asyncio.run(connect())
    assert sent == ["websocket.close"]
