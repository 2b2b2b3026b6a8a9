"""Who has stolen a key, and goes on with what it began before the key was revoked."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

from easel_client import Easel
from tests.attacks.conftest import ORDER, PoolOwner
from tests.live import LiveEasel


def test_a_waiting_call_and_a_stream_of_a_revoked_key_end_at_once(easel: LiveEasel, pool_owner: PoolOwner):
    """The pool has no worker, so that a call waits for five minutes: longer than its client here."""
    headers = {"Authorization": f"Bearer {pool_owner.secret}"}
    stolen = httpx.Client(base_url=easel.url, headers=headers, timeout=60)
    job_id = stolen.post("/v1/jobs", json=ORDER).json()["id"]
    waiting = easel.metrics()["easel_waiting_clients"]
    following = threading.Event()

    def followed() -> str:
        with stolen.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            lines = []
            for line in answer.iter_lines():
                lines.append(line)
                following.set()
        return "\n".join(lines)

    with ThreadPoolExecutor(3) as attacks:
        calls = [
            attacks.submit(stolen.post, "/v1/images/generations", json={**ORDER, "stream": stream})
            for stream in (False, True)
        ]
        stream = attacks.submit(followed)
        assert following.wait(60)
        easel.wait_for(lambda: easel.metrics()["easel_waiting_clients"] >= waiting + 3)
        assert easel.command("key", "revoke", pool_owner.key_id).returncode == 0
        whole, images = (call.result() for call in calls)
        events = stream.result()
    assert (whole.status_code, whole.json()["error"]["code"]) == (401, "invalid_api_key")
    for text in (images.text, events):
        last = text.strip().split("\n\n")[-1]
        assert last.startswith("event: error\n"), text
        assert '"code": "invalid_api_key"' in last
    assert stolen.get(f"/v1/jobs/{job_id}").status_code == 401


def test_the_urls_that_a_revoked_key_has_collected_lead_to_no_image(easel: LiveEasel, tenant: Easel):
    job = tenant.jobs.wait(tenant.jobs.create(**ORDER))
    (image,) = job["images"]
    assert httpx.get(image["url"]).content.startswith(b"\x89PNG")
    assert easel.command("key", "revoke", httpx.URL(image["url"]).params["key"]).returncode == 0
    refused = httpx.get(image["url"])
    assert (refused.status_code, b"PNG" in refused.content) == (403, False)


def test_a_key_is_no_use_from_another_network_whatever_the_caller_says(easel: LiveEasel, pool_owner: PoolOwner):
    """No proxy is trusted by default, so that a header says nothing of where a call comes from."""
    assert easel.command("key", "access", pool_owner.key_id, "--address", "192.0.2.7").returncode == 0
    for lie in ({}, {"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}, {"X-Real-IP": "192.0.2.7"}):
        headers = {"Authorization": f"Bearer {pool_owner.secret}", **lie}
        answer = httpx.get(f"{easel.url}/v1/models", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "address_not_allowed")
