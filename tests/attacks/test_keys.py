"""Who has stolen a key, and goes on with what it began before the key was revoked."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

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
    for told in (images.text, events):
        last = told.strip().split("\n\n")[-1]
        assert last.startswith("event: error\n"), told
        assert '"code": "invalid_api_key"' in last
    assert stolen.get(f"/v1/jobs/{job_id}").status_code == 401
