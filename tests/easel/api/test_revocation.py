"""What is changed holds from the next request on, in every process that serves."""

import httpx
import pytest

from easel.jobs.models import Job
from tenants.accounts import tenant_suspend
from tenants.keys import key_issue, key_revoke
from tenants.quotas import quota_set
from tests.bench.gateway.submissions import serving
from tests.conftest import NOW, PEPPER


@pytest.fixture(scope="module")
def processes():
    with serving("easel") as one, serving("easel") as other, httpx.Client(timeout=30) as client:
        yield client, (one.port, other.port)


@pytest.fixture
def post(processes, body):
    """Sends a job to each process; returns the answers' codes, `202` or the error's."""
    client, ports = processes

    def send(secret):
        headers = {"Authorization": f"Bearer {secret}"}
        answers = [
            client.post(f"http://127.0.0.1:{port}/v1/jobs", headers=headers, json=body(steps=8)) for port in ports
        ]
        return [answer.json()["error"]["code"] if answer.is_error else answer.status_code for answer in answers]

    return send


def test_a_revoked_key_stops_at_once_in_every_process_that_has_just_served_it(alice, post):
    assert [post(alice.secret) for _ in range(2)] == [[202, 202]] * 2
    key_revoke(key_id=alice.key.key_id, now=NOW)
    assert post(alice.secret) == ["invalid_api_key"] * 2
    assert Job.objects.filter(tenant=alice.tenant).count() == 4


def test_a_suspended_tenant_stops_at_once(alice, post):
    assert post(alice.secret) == [202, 202]
    tenant_suspend(tenant=alice.tenant, now=NOW)
    assert post(alice.secret) == ["account_suspended"] * 2


def test_a_key_that_was_just_issued_serves_at_once(alice, post):
    assert post(alice.secret) == [202, 202]
    _, secret = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    assert post(secret) == [202, 202]


def test_a_limit_that_was_lowered_or_lifted_holds_at_once(alice, post):
    assert post(alice.secret) == [202, 202]
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 7}, now=NOW)
    assert post(alice.secret) == ["steps_invalid"] * 2
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": None}, now=NOW)
    assert post(alice.secret) == [202, 202]
