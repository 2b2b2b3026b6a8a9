"""Tenants, pools and queues of a given length, for the benchmarks."""

import json
import tempfile
import uuid
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from django.conf import settings
from django.db import connection

from billing.ledger.postings import credit_grant
from billing.models import PriceBook
from billing.money import to_micros
from billing.pricing.price_books import price_book_seed
from easel.catalog.models import ModelVersion, Pool
from easel.jobs.admission import job_submit
from easel.jobs.spec import Spec
from easel.seed import DEMO_LIMITS, PRICES
from easel.serving.versions import version_register
from tenants.accounts import tenant_create
from tenants.keys import key_issue
from tests.conftest import NOW, PEPPER, TRANSFORMER, Customer

LIMITS = replace(settings.EASEL, prompt_chars_max=1000, job_ttl_seconds=10**8, queued_jobs_max=10_000)

# Copies of each tenant's first job, a millisecond apart; every other column is the same.
_CLONE = """
INSERT INTO jobs_job ({names})
SELECT {values} FROM jobs_job AS job CROSS JOIN generate_series(1, %(copies)s) AS copy
WHERE job.pool_id = %(pool)s AND job.state = 'queued'
"""


def customers(count: int, *, credit: str = "1000000") -> list[Customer]:
    made = []
    for _ in range(count):
        tenant, project = tenant_create(slug=f"bench-{uuid.uuid4().hex[:12]}", now=NOW)
        key, secret = key_issue(project=project, pepper=PEPPER, now=NOW)
        credit_grant(tenant=tenant, amount_micros=to_micros(Decimal(credit)), reference=uuid.uuid4(), now=NOW)
        made.append(Customer(tenant, project, key, secret))
    return made


def served_model() -> ModelVersion:
    """A priced version in a pool of its own."""
    if not PriceBook.objects.filter(currency="USD").exists():
        price_book_seed(currency="USD", version=1, rates=PRICES, effective_at=NOW - timedelta(days=365), now=NOW)
    slug = f"pool-{uuid.uuid4().hex[:12]}"
    pool = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="cpu", created_at=NOW)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "transformer").mkdir()
        (Path(folder) / "transformer" / "config.json").write_text(json.dumps(TRANSFORMER))
        return version_register(
            model_name=f"model-{uuid.uuid4().hex[:12]}", checkpoint=folder, pool=pool, limits=DEMO_LIMITS, now=NOW
        )


def submit(customer: Customer, version: ModelVersion) -> uuid.UUID:
    spec = Spec(prompt="a red circle", model=version.model.name, size="256x256", steps=8)
    job_id = uuid.uuid4()
    job_submit(api_key=customer.key, spec=spec, config=LIMITS, job_id=job_id, request_id="bench", now=NOW)
    return job_id


def queue(owners: list[Customer], version: ModelVersion, jobs: int) -> None:
    """Queue `jobs` jobs, as many for each owner: the first is admitted, the others are its copies without holds."""
    for owner in owners:
        submit(owner, version)
    copies = jobs // len(owners) - 1
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs_job' "
            "AND column_name NOT IN ('id', 'created_at')"
        )
        names = ", ".join(f'"{name}"' for (name,) in cursor.fetchall())
        sql = _CLONE.format(
            names=f"{names}, id, created_at",
            values=f"{names}, gen_random_uuid(), job.created_at + copy * interval '1 millisecond'",
        )
        cursor.execute(sql, {"copies": copies, "pool": version.pool_id})
        cursor.execute("ANALYZE jobs_job")
