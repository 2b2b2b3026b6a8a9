import uuid
from collections.abc import Callable
from typing import Any

import pytest

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
