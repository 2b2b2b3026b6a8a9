"""A tenant with some of everything, its files in a folder or in a bucket of a server that speaks S3."""

import io
import json
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import transaction
from moto.server import ThreadedMotoServer
from safetensors.numpy import save

from core.audit import audit_record
from core.idempotency import idempotent
from easel.batches.files import file_add
from easel.batches.lifecycle import batch_prepare, batch_write, batches_advance
from easel.batches.reading import Request
from easel.catalog.adapters import adapter_add_version
from easel.jobs.feedback import feedback_give
from easel.jobs.models import Job
from easel.jobs.spec import Spec
from easel.serving.aliases import alias_set
from easel.serving.experiments import ArmPlan, experiment_start
from easel.storage import S3Store, store
from easel.webhooks.endpoints import endpoint_create
from tenants.block_lists import block_list_add
from tenants.models import BlockListEntry, Tenant
from tests.conftest import NOW, Customer
from tests.easel.catalog.conftest import weights  # noqa: F401 - a fixture

IN_BOTH_STORES = pytest.mark.parametrize("any_store", ["folder", "bucket"], indirect=True)


def secret_of(customer: Customer) -> str:
    """What a tenant wrote everywhere; in no place once it is erased."""
    return f"xyzzy{customer.tenant.id.hex[:8]}"


@pytest.fixture(scope="session")
def s3():
    """A server that speaks S3."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def any_store(request, tmp_path, monkeypatch, settings_of):
    """What holds the files, for all of the platform: a folder unless the test asks for others."""
    url = (tmp_path / "storage").as_uri()
    if getattr(request, "param", "folder") == "bucket":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        bucket, endpoint = f"pictures-{uuid.uuid4().hex}", request.getfixturevalue("s3")
        S3Store(bucket, prefix="", endpoint=endpoint, region="us-east-1")._client.create_bucket(Bucket=bucket)
        url = f"s3://{bucket}/easel?endpoint={endpoint}&region=us-east-1"
    settings_of(storage_url=url)
    store.cache_clear()
    yield
    store.cache_clear()


@pytest.fixture
def furnish(version, second, weights, submit, end) -> Callable[[Customer], list[Job]]:  # noqa: F811 - the fixture
    """Gives a tenant jobs of several ends, images, an adapter, a webhook, an experiment, a block list, records."""

    def make(customer: Customer) -> list[Job]:
        tenant, secret = customer.tenant, secret_of(customer)
        Tenant.objects.filter(pk=tenant.pk).update(name=f"{secret} Inc")
        adapter_add_version(
            project=customer.project,
            name=f"{secret}-style",
            data=save(weights()),
            base=version,
            bytes_max=2**20,
            rank_max=64,
            now=NOW,
        )
        url = f"https://{secret}.example/hook"
        endpoint_create(tenant=tenant, url=url, events=(), endpoint_id=uuid.uuid4(), now=NOW)
        asked = {"prompt": f"a {secret}", "user": secret, "metadata": {secret: secret}}
        jobs = [
            end(submit(customer, adapters=[f"{secret}-style"], seed=7, **asked)),
            end(submit(customer, **asked), outcome="failed", error_message=secret),
        ]
        _store_images(jobs)
        jobs.append(submit(customer, adapters=[f"{secret}-style"], seed=7, **asked))  # answered from the cache
        experiment_start(
            tenant=tenant,
            name=f"{secret}-test",
            model_name=version.model.name,
            arms=[ArmPlan(name=f"{secret}-{arm}", weight=50, version=number) for arm, number in (("a", 1), ("b", 2))],
            now=NOW,
        )
        for number in range(6):
            job = end(submit(customer, **{**asked, "user": f"{secret}-{number % 3}"}))
            feedback_give(job=job, score=number / 8, comment=secret, now=NOW)  # sums exactly, in any order
            jobs.append(job)
        _store_images(jobs[3:])
        block_list_add(tenant=tenant, kind=BlockListEntry.Kind.PHRASE, pattern=secret, reason=secret, now=NOW)
        terms = {"defaults": {}, "ignored": (), "is_lenient": False}
        alias_set(name=secret, model=version.model, tenant=tenant, **terms, now=NOW)
        idempotent(tenant=tenant, endpoint="jobs", key=secret, body={}, now=NOW, make=uuid.uuid4)
        audit_record(actor="test", action="tenant.create", subject=tenant.slug, tenant=tenant, now=NOW)
        _make_batch(customer, version, secret)
        customer.key.name = secret
        customer.key.save(update_fields=["name"])
        return jobs

    return make


def _make_batch(customer: Customer, version, secret: str) -> None:
    """One that has expired: its file, its metadata and its line's name are the tenant's words."""
    body = {"model": version.model.name, "prompt": secret}
    line = {"custom_id": secret, "method": "POST", "url": "/v1/images/generations", "body": body}
    content = json.dumps(line).encode()
    file = file_add(
        tenant=customer.tenant,
        content=io.BytesIO(content),
        size_bytes=len(content),
        filename=f"{secret}.jsonl",
        now=NOW,
    )
    batch, lines = batch_prepare(
        api_key=customer.key,
        input_file=file,
        endpoint=line["url"],
        hours=1,
        metadata={secret: secret},
        read_body=lambda given: Request(Spec(**given), "url"),
        config=settings.EASEL,
        now=NOW,
    )
    with transaction.atomic():
        batch_write(batch, lines, now=NOW)
    batches_advance(now=NOW + timedelta(hours=1))


def _store_images(jobs: list[Job]) -> None:
    for job in jobs:
        for output in job.outputs.all():
            store().put(output.storage_key, io.BytesIO(f"{job.id}".encode()), "image/png")
