"""What tests of more than one app need."""

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from easel.generation.admission import AdapterUse, Limits, Spec, job_submit
from easel.generation.models import Job
from tests.conftest import NOW, Customer

LIMITS = Limits(prompt_chars_max=100, job_ttl_seconds=3600)


@pytest.fixture
def submit(version) -> Callable[..., Job]:
    """Admits a job: `submit(alice, size="512x512")`."""

    def make(customer: Customer, *, now=NOW, job_id: uuid.UUID | None = None, **spec: Any) -> Job:
        spec["adapters"] = tuple(AdapterUse(name=name) for name in spec.pop("adapters", ()))
        return job_submit(
            api_key=customer.key,
            spec=Spec(**{"prompt": "a red circle", "model": version.model.name, **spec}),
            limits=LIMITS,
            job_id=job_id or uuid.uuid4(),
            request_id="request-1",
            now=now,
        )

    return make


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes Easel's settings for one test: `settings_of(request_wait_seconds=0)`."""

    def change(**values: Any) -> None:
        monkeypatch.setattr(settings, "EASEL", dataclasses.replace(settings.EASEL, **values))

    return change
