"""Requests that schemathesis makes of the OpenAPI document, valid ones and others, by keys of two tenants.

Every answer must be as the document describes it, and none a 5xx. The second tenant asks for the first one's objects by
their ids, and may read nothing of them. `make fuzz` sends 20,000 requests (CASES=…), the suite a few of each operation.
"""

import asyncio
import dataclasses
import json
import os
import random
import uuid
from collections import Counter
from urllib.parse import quote

import httpx
import pytest
import requests
import schemathesis
from django.conf import settings
from hypothesis import HealthCheck, Phase, given
from hypothesis import seed as seeded
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from easel.api.document import document
from easel.api.urls import urlpatterns
from easel.asgi import application
from tests.easel.api.conftest import call
from tests.easel.api.described import check

CASES = int(os.environ.get("FUZZ_CASES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CASES_EACH_MIN = 2
# Answers of these come when a job ends, and here no worker ends one.
ENDLESS = {("get", "/v1/jobs/{job_id}/events")}
BASE = "http://easel.test"


async def send(sent: requests.PreparedRequest) -> httpx.Response:
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    body = sent.body if isinstance(sent.body, bytes) else (sent.body or "").encode()
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:
        headers = {name: value for name, value in sent.headers.items() if name.lower() != "content-length"}
        return await client.request(sent.method, sent.url, headers=headers, content=body)


def operations():
    schema = schemathesis.openapi.from_dict(document(urlpatterns, server_url=BASE))
    found = [result.ok() for result in schema.get_all_operations()]
    return [one for one in found if (one.method, one.path) not in ENDLESS]


def kinds_of_ids(path):
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(settings, "EASEL", dataclasses.replace(settings.EASEL, request_wait_seconds=1))


def test_every_answer_to_requests_made_of_the_document_is_as_it_says_and_tells_nothing_foreign(
    alice, bob, create, version, no_waiting, capsys
):
    secret_text = f"secret-{uuid.uuid4().hex}"
    job = create(alice, prompt=secret_text, metadata={"note": secret_text})
    project = call("POST", "/v1/projects", alice, json={"slug": f"p-{secret_text[:20]}"})
    webhook = call("POST", "/v1/webhooks", alice, json={"url": f"https://hooks.example/{secret_text}"})
    hers = [job["id"], *(answer.json()["id"] for answer in (webhook, project) if "id" in answer.json())]
    found = operations()
    assert len(found) > 40
    each = max(CASES_EACH_MIN, CASES // len(found))
    rng = random.Random(SEED)
    faults, answers = [], Counter()
    for operation in found:
        _fuzz(operation, each, (alice, bob), hers, version.model.name, secret_text, rng, faults, answers)
    if CASES:
        with capsys.disabled():
            print(f"\n{answers.total()} requests: {dict(sorted(answers.items()))}")  # noqa: T201
    assert not faults, f"{len(faults)} faults, of these kinds:\n" + "\n".join(sorted(set(faults))[:40])
    # Some requests went through, and others were refused for their content and for their ids.
    assert {200, 400, 404} <= set(answers)


def _fuzz(operation, cases, customers, hers, model, secret_text, rng, faults, answers):
    _, bob = customers
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    strategy = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

    @seeded(SEED)
    @hypothesis_settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(case):
        customer = rng.choice(customers)
        foreign = customer is bob and case.path_parameters and rng.random() < 0.7
        if foreign:
            case.path_parameters = {**case.path_parameters, **{name: rng.choice(hers) for name in case.path_parameters}}
        if isinstance(case.body, dict) and "model" in case.body and rng.random() < 0.7:
            case.body = {**case.body, "model": model}  # else few requests get past the look-up of the model
        if customer is not bob and case.path_parameters and rng.random() < 0.5:
            case.path_parameters = {**case.path_parameters, **{name: rng.choice(hers) for name in case.path_parameters}}
        kwargs = case.as_transport_kwargs(base_url=BASE)
        headers = {name: value for name, value in dict(kwargs.pop("headers", {})).items() if _is_sent(name, value)}
        headers["Authorization"] = f"Bearer {customer.secret}"
        kwargs.pop("cookies", None)
        try:
            sent = requests.Request(headers=headers, **kwargs).prepare()
        except (ValueError, requests.RequestException):
            return  # no HTTP client sends it
        answer = asyncio.run(send(sent))
        answers[answer.status_code] += 1
        where = f"{operation.method.upper()} {operation.path}"
        if answer.status_code >= 500 and answer.status_code not in (503, 504):
            faults.append(f"{where}: {answer.status_code} {answer.text[:200]}")
        try:
            check(answer)
        except Exception as error:
            faults.append(f"{where}: {answer.status_code} {str(error)[:300]}")
        if customer is bob and secret_text in answer.text.replace(json.dumps(sent.url), "").replace(
            quote(sent.url), ""
        ):
            faults.append(f"{where}: another tenant's text is answered")
        if foreign and answer.is_success and operation.method != "put":
            faults.append(f"{where}: answers {answer.status_code} for another tenant's id")

    run()


def _is_sent(name, value):
    """True for a header that an HTTP client sends, and this server's parser takes."""
    return (
        name.lower() not in ("authorization", "api-key", "host") and str(value).isascii() and str(value).isprintable()
    )
