"""A bad request fails with a code, and changes no bit of its neighbours' images."""

import dataclasses
import hashlib
import time

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import save

from inference.adapters import load_adapter
from inference.contract import AdapterRef, AttemptFinished
from inference.engine import Engine
from inference.errors import ImageNotFinite
from inference.rows import ImageRequest
from inference.scheduler import Scheduler
from inference.worker import transfer
from inference.worker.adapter_store import AdapterStore
from inference.worker.attempts import Attempts


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr(transfer, "_RETRY_SECONDS_MAX", 0.3)
    monkeypatch.setattr(transfer, "_DELAY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(transfer, "_BYTES_PER_SECOND_MIN", 10**9)


class Bench:
    """An engine stepped by hand, behind the attempts of a worker."""

    def __init__(self, model, storage, new_task, folder) -> None:
        self.storage, self.new_task, self.ends = storage, new_task, []
        self.engine = Engine(model, clock=time.monotonic, scheduler=Scheduler(tokens_max=10_000), step_seconds_max=100)
        client = httpx.Client()
        self.attempts = Attempts(
            engine=self.engine,
            adapters=AdapterStore(
                folder=folder,
                disk_bytes_max=10**9,
                memory_bytes_max=10**9,
                client=client,
                parse=lambda path, sha256: load_adapter(path, model.targets, sha256=sha256),
            ),
            client=client,
            clock=time.monotonic,
            worker="w",
            gpu_class="cpu",
            model_versions=("tiny",),
            on_begin=lambda: None,
            on_preview_stored=lambda: None,
            on_finish=self.ends.append,
        )

    def adapter(self, tensors, *, path="/lora", scale=1.0, **changes) -> AdapterRef:
        data = save(tensors)
        self.storage.objects[path] = data
        known = {"name": "style", "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data), "scale": scale}
        return AdapterRef(**{**known, "url": self.storage.url(path), **changes})

    def end_of(self, **fields) -> AttemptFinished:
        """Run an attempt that fails before it generates anything, and return its end."""
        self.attempts.run(self.new_task(**fields), now=time.time())
        return self.ends.pop()


@pytest.fixture
def bench(model, storage, new_task, tmp_path):
    return Bench(model, storage, new_task, tmp_path / "adapters")


@pytest.fixture
def neighbours(load, lora_tensors):
    """Requests of another size, with and without an adapter."""
    common = {"prompt": "a blue star", "steps": 4, "tenant": "globex"}
    return [
        ImageRequest(width=64, height=64, seed=1, **common),
        ImageRequest(width=96, height=32, seed=2, adapters=((load(lora_tensors(5)), 1.0),), **common),
    ]


def pictures(engine: Engine, requests, between=lambda: None) -> list[bytes]:
    """Return the images of requests that are stepped in one batch; `between` is called after their first step."""
    rows = [engine.submit(request) for request in requests]
    engine.step()
    between()
    while engine.step():
        pass
    return [row.result(0).tobytes() for row in rows]


def changed(tensors, part: str, change):
    return {key: change(tensor) if key.endswith(part) else tensor for key, tensor in tensors.items()}


def with_rank(tensors, rank: int):
    tensors = changed(tensors, "lora_A.weight", lambda a: torch.ones(rank, a.shape[1]))
    return changed(tensors, "lora_B.weight", lambda b: torch.ones(b.shape[0], rank))


NAN = float("nan")
BAD = {
    "weights that are NaN": (
        lambda bench, good: {"adapters": (bench.adapter(changed(good, "lora_A.weight", lambda a: a * NAN)),)},
        ("adapter_weight_not_finite", False),
    ),
    "rank 0": (lambda bench, good: {"adapters": (bench.adapter(with_rank(good, 0)),)}, ("adapter_shape", False)),
    "a rank above the bank's": (
        lambda bench, good: {"adapters": (bench.adapter(with_rank(good, 129)),)},
        ("adapter_rank_unsupported", False),
    ),
    "an infinite scale": (
        lambda bench, good: {"adapters": (bench.adapter(good, scale=float("inf")),)},
        ("adapter_scale_bad", False),
    ),
    "40 adapters": (lambda bench, good: {"adapters": (bench.adapter(good),) * 40}, ("too_many_adapters", False)),
    "a side beyond the positions": (lambda bench, good: {"width": 33 * 16}, ("size_unsupported", False)),
    "a prompt too long": (lambda bench, good: {"prompt": "x" * 600}, ("prompt_too_long", False)),
    "a URL that answers 404": (
        lambda bench, good: {"adapters": (bench.adapter(good, url=bench.storage.url("/gone")),)},
        ("storage_refused", True),
    ),
    "a URL that answers 500": (
        lambda bench, good: bench.storage.failures.extend([500] * 100) or {"adapters": (bench.adapter(good),)},
        ("storage_unavailable", True),
    ),
    "a URL that answers slowly": (
        lambda bench, good: bench.storage.trickling.add("/lora") or {"adapters": (bench.adapter(good),)},
        ("storage_unavailable", True),
    ),
    "a URL with another hash": (
        lambda bench, good: {"adapters": (bench.adapter(good, sha256="0" * 64),)},
        ("storage_unavailable", True),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_fails_with_its_code_and_changes_no_bit_of_its_neighbours(bench, neighbours, lora_tensors, what):
    make, (code, retryable) = BAD[what]
    undisturbed = pictures(bench.engine, neighbours)
    ends = []
    beside = pictures(
        bench.engine, neighbours, between=lambda: ends.append(bench.end_of(**make(bench, lora_tensors(1))))
    )
    assert [(end.outcome, end.error_code, end.retryable) for end in ends] == [("failed", code, retryable)]
    assert ends[0].error_message
    assert ends[0].gpu_seconds == 0
    assert beside == undisturbed


def test_an_image_that_is_not_finite_fails_alone_in_the_step_and_the_decoding_that_it_shares(
    bench, neighbours, load, lora_tensors
):
    def third(scale: float) -> ImageRequest:
        return dataclasses.replace(neighbours[0], seed=3, adapters=((load(lora_tensors(7)), scale),))

    expected = pictures(bench.engine, [*neighbours, third(1.0)])[:2]
    rows = [bench.engine.submit(request) for request in [*neighbours, third(1e30)]]
    while bench.engine.step():
        pass
    with pytest.raises(ImageNotFinite) as failed:
        rows[2].result(0)
    assert (failed.value.code, failed.value.retryable) == ("image_not_finite", False)
    assert [row.result(0).tobytes() for row in rows[:2]] == expected
    assert np.ptp(np.asarray(rows[0].result(0))) > 0
