"""What tenants don't see of each other: on a shared pool, and with a pool of their own."""

import io
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
import redis
from PIL import Image

from easel_client import Easel
from inference.contract import cancel_key, reports_key
from inference.demo_model import ADAPTERS_DIR
from tests.live import LiveEasel

ORDER = {"prompt": "a red circle on a white background", "size": "128x128", "seed": 7, "cache": False}


@dataclass
class Customer:
    slug: str
    client: Easel
    adapters: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def customers(easel: LiveEasel) -> list[Customer]:
    """Two tenants whose adapters have one name and different weights."""
    made = [new_customer(easel), new_customer(easel)]
    for customer, file in zip(made, ("outline", "mosaic"), strict=True):
        customer.client.adapters.upload(name="style", file=ADAPTERS_DIR / f"{file}.safetensors")
        customer.adapters = ("style",)
    return made


def new_customer(easel: LiveEasel) -> Customer:
    slug = f"iso-{uuid.uuid4().hex[:10]}"
    made = easel.json("tenant", "create", slug, "--credit", "10")
    return Customer(slug, Easel(easel.url, made["api_key"]))


def generate(customer: Customer) -> tuple[dict, bytes]:
    adapters = [{"name": adapter} for adapter in customer.adapters]
    *_, job = customer.client.jobs.follow(customer.client.jobs.create(**ORDER, adapters=adapters))
    assert job["status"] == "succeeded", job
    return job, customer.client.fetch(job["images"][0]["url"])


def difference(one: bytes, other: bytes) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    first, second = (np.asarray(Image.open(io.BytesIO(image)), np.float64) for image in (one, other))
    return float(np.abs(first - second).mean())


def test_a_shared_batch_keeps_each_tenants_adapter_to_its_own_pictures(customers):
    one_by_one = [generate(customer)[1] for customer in customers]
    with ThreadPoolExecutor(8) as threads:
        concurrent = list(threads.map(lambda customer: generate(customer)[1], customers * 4))
    assert difference(*one_by_one) > 5
    assert max(difference(*pair) for pair in zip(concurrent, one_by_one * 4, strict=True)) < 0.5


def test_a_tenants_pictures_and_adapters_lie_under_its_own_prefix(easel, customers):
    for customer in customers:
        job, _ = generate(customer)
        assert f"/storage/{customer.slug}/outputs/" in job["images"][0]["url"]
        stored = {path.relative_to(easel.home / "storage").parts[0] for path in (easel.home / "storage").rglob("*.png")}
        assert customer.slug in stored


def test_no_tenant_is_named_in_another_ones_log_lines(easel, customers):
    jobs = {customer.slug: generate(customer)[0]["id"] for customer in customers}
    for customer, other in (customers, reversed(customers)):
        lines = [line for line in easel.log_lines() if jobs[customer.slug] in line]
        assert lines
        assert not [line for line in lines if other.slug in line or ORDER["prompt"] in line]


def test_device_time_is_counted_by_tenant(easel, customers):
    before = [easel.device_seconds(customer.slug) for customer in customers]
    generate(customers[0])
    after = [easel.device_seconds(customer.slug) for customer in customers]
    assert after[0] > before[0]
    assert after[1] == before[1]


def test_another_tenants_picture_is_not_there(easel, customers):
    job, _ = generate(customers[0])
    headers = {"Authorization": f"Bearer {customers[1].client.api_key}"}
    assert httpx.get(f"{easel.url}/v1/jobs/{job['id']}", headers=headers).status_code == 404
    unsigned = job["images"][0]["url"].partition("?")[0]
    assert httpx.get(unsigned, headers=headers).status_code in (401, 403, 404)


@pytest.fixture
def own_pool(easel: LiveEasel):
    """A customer with a pool of its own and a worker that runs for it."""
    owner = new_customer(easel)
    assert easel.command("pool", "dedicate", owner.slug).returncode == 0
    worker = easel.spawn("worker", "--pool", owner.slug)
    try:
        easel.wait_for(lambda: easel.metrics().get(f'easel_workers{{pool="{owner.slug}"}}'))
        yield owner
    finally:
        worker.terminate()
        worker.wait(timeout=60)


def test_a_dedicated_worker_works_under_a_redis_user_that_sees_nothing_else(easel, own_pool, customers):
    _, picture = generate(own_pool)
    neighbour_job, _ = generate(customers[1])
    assert picture
    finished = f'easel_finished_generations_total{{pool="{own_pool.slug}",state="succeeded"}}'
    assert easel.metrics()[finished] == 1
    environment = dict(
        line.split("=", 1) for line in easel.command("pool", "environment", own_pool.slug).stdout.splitlines()
    )
    assert environment["EASEL_POOL_NAMESPACE"] == f"easel-t-{own_pool.slug}"
    worker = redis.Redis.from_url(environment["REDIS_URL"])
    worker.exists(cancel_key(environment["EASEL_POOL_NAMESPACE"], "token"))
    for command in (
        ("XRANGE", reports_key("easel-shared"), "-", "+"),
        ("SET", cancel_key("easel-shared", neighbour_job["id"]), "1"),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.execute_command(*command)
    assert "DATABASE_URL" not in environment
