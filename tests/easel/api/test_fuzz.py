"""Requests that schemathesis makes of the OpenAPI document, valid ones and others, by three keys of two tenants.

`make fuzz` sends 20,000 requests (CASES=…), the suite one to each operation that takes a name or a body. SEED repeats
the requests of a run, but for the ids that the platform makes.
"""

import asyncio
import itertools
import json
import os
import random
from collections import Counter, defaultdict
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import seed as seeded
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.numpy import save
from schemathesis import GenerationMode

from core import clock
from easel.api.document import document
from easel.api.urls import urlpatterns
from easel.observability.audit import accounts_match_entries, ledger_balances
from tests.easel.api.described import check, operation_of
from tests.easel.api.fuzzing import BASE, Aim, Caller, answer_to, leaks, worker_played
from tests.easel.api.objects import FILTERS, rows_of
from tests.easel.catalog.conftest import weights  # noqa: F401 - a fixture
from tests.easel.privacy.conftest import furnish  # noqa: F401 - a fixture

CASES = int(os.environ.get("FUZZ_CASES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
EACH_MAX = 12  # requests of one operation in a turn of a tenant, before new tenants come
# Operations that can't succeed: Easel edits no images.
NEVER_DONE = {"images_edits", "images_variations"}


class Run:
    """What was asked and answered, and what was wrong with it."""

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self.answers: dict[str, Counter[int]] = defaultdict(Counter)
        self.streamed: Counter[bool] = Counter()
        self.faults: list[str] = []
        self.operations: list[tuple[Any, Any]] = []
        served = document(urlpatterns, server_url=BASE)
        schema = schemathesis.openapi.from_dict(json.loads(json.dumps(served)))  # a copy: requests get its examples
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for found in schema.get_all_operations():
            operation = found.ok()
            strategies = [operation.as_strategy(generation_mode=mode) for mode in modes]
            self.operations.append((operation, st.one_of(*strategies)))

    def turn(self, runner: asyncio.Runner, operations: list[Any], caller: Caller, other: Caller, each: int) -> None:
        """Let one tenant send requests, of which a part names objects of the other, whose rows must stay."""
        before = rows_of(other.customer.tenant)
        assert len(before) > 25
        for operation, strategy in operations:
            self._send(runner, operation, strategy, caller, other, each)
        if changed := sorted(set(rows_of(other.customer.tenant).items()) ^ set(before.items())):
            self.faults.append(f"rows of another tenant changed: {changed}")

    def _send(
        self, runner: asyncio.Runner, operation: Any, strategy: Any, caller: Caller, other: Caller, each: int
    ) -> None:
        made = itertools.count()

        @seeded(self.aim.rng.getrandbits(32))
        @hypothesis_settings(
            max_examples=each + 1,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def send(case: Any) -> None:
            if next(made) == 0:
                return  # the simplest case, the same each time
            if (sent := self.aim.sent(case, caller, other)) is None:
                return
            name = operation.definition.raw["operationId"]
            try:
                answer = runner.run(answer_to(sent.request))
            except TimeoutError:
                self.faults.append(f"{name}: no answer to {sent.request.url}")
                return
            self.answers[name][answer.status_code] += 1
            caller.learn(name, answer)
            self.streamed["image_generation.completed" in answer.text] += name == "images_generations"
            wrong = []
            if answer.status_code >= 500 or '"http_code":5' in answer.text:  # a stream ends with its error
                wrong.append("is a 5xx")
            try:
                check(answer)
            except Exception as error:
                wrong.append(f"is not as documented: {str(error)[:300]}")
            if operation_of(operation.method, answer.request.url.path) is None and answer.status_code not in (400, 404):
                wrong.append("has a path that is not in the document")
            if words := leaks(answer, other, sent):
                wrong.append(f"tells {words} of another tenant")
            if sent.foreign and answer.is_success and not any(by == name for by, _ in FILTERS):
                wrong.append(f"is a success with {sent.foreign} of another tenant")
            if sent.reads_only and answer.is_success and operation.method != "get":
                wrong.append("lets a key that reads change something")
            asked = f"{sent.request.url} {str(sent.request.body)[:200]}"
            self.faults += [f"{name}: {answer.status_code} {one}: {answer.text[:200]} {asked}" for one in wrong]

        send()

    def report(self) -> str:
        """Return the number of answers by operation and status."""
        totals = sum(self.answers.values(), Counter())
        lines = [f"{totals.total()} requests: {dict(sorted(totals.items()))}"]
        lines += [f"{name:24} {one.total():5} {dict(sorted(one.items()))}" for name, one in self.answers.items()]
        return "\n".join(lines)

    def never_done(self) -> set[str]:
        """Return the operations that never succeeded."""
        return {name for name, found in self.answers.items() if not any(status < 300 for status in found)}


@pytest.fixture
def run(version, weights, body):  # noqa: F811 - the fixture
    line = {"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": body()}
    jsonl = json.dumps(line).encode()
    return Run(Aim(rng=random.Random(SEED), model=version.model.name, jsonl=jsonl, weights=save(weights())))


def test_every_answer_to_requests_made_of_the_document_is_as_it_says_and_tells_nothing_foreign(
    customer,
    furnish,  # noqa: F811 - the fixture
    pool,
    run,
    settings_of,
    capsys,
):
    settings_of(request_wait_seconds=30)
    count = len(run.operations)
    deep = [(one, strategy) for one, strategy in run.operations if one.path_parameters or one.body]
    assert count > len(deep) > 35
    turns = max(2, round(CASES / count / EACH_MAX))
    each = min(EACH_MAX, -(-CASES // count // turns)) or 1
    for number in range(turns):
        if number % 4 == 0:
            tenants = [Caller(customer(credit="1000"), furnish) for _ in "ab"]
        operations = run.aim.rng.sample(run.operations, count) if CASES else deep[number::2]
        with asyncio.Runner() as runner, worker_played(pool):
            run.turn(runner, operations, tenants[number % 2], tenants[1 - number % 2], each)
    if CASES:
        with capsys.disabled():
            print(f"\n{run.report()}")  # noqa: T201
    faults = run.faults
    assert not faults, f"{len(faults)} faults, of these kinds:\n" + "\n".join(sorted(set(faults))[:40])
    if CASES >= 10_000:  # of fewer requests none may name, say, a webhook together with a delivery of it
        assert run.never_done() == NEVER_DONE
        assert run.streamed[True]
    broken = [*ledger_balances(clock.now()), *accounts_match_entries(clock.now())]
    assert not broken, "\n".join(broken)
