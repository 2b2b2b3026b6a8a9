"""Every test runs against a real PostgreSQL and Redis, started once per process in a folder of its own.

Nothing is rolled back or truncated (the ledger refuses it): each test makes its own tenants, so that tests don't
meet, and after the last one the ledger of the whole database must balance.
"""

import atexit
import gc
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import django
import pytest
from django.db import connections, transaction

import tests.profiles  # noqa: F401 - registers them
from easel_local.embedded import servers
from tests.template import migrated_home

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PEPPER = "only for tests"
# Files and folders of tests that take more than ten seconds, the longest first.
LONGEST = (
    "/end_to_end/",
    "/tests/clients/",
    "/attacks/",
    "/test_bench_engine.py",
    "/test_demo_model.py",
    "/test_packed.py",
    "/chaos/",
    "/test_worker_process.py",
    "/test_job_machine.py",
    "/test_manifests.py",
    "/test_outages.py",
    "/test_embedded.py",
    "/test_money_machine.py",
    "/test_bench_gateway.py",
)

# Folders whose tests share one running stack: a process of its own takes half a minute to start another. Attacks have a
# stack of their own.
RUNNING_STACK = ("tests/end_to_end/", "tests/clients/")
ATTACKED_STACK = "tests/attacks/"

# Torch takes a thread per core otherwise, and two test processes make its threads wait for each other, at full speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Modules and collected tests are hundreds of thousands of objects that stay: a search for garbage begins after them.
gc.disable()
_servers = ExitStack()


def start_servers() -> None:
    """On import, since the test modules import Django's models, which need its settings."""
    stack = _servers
    atexit.register(stack.close)
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easel-tests-", ignore_cleanup_errors=True)))
    migrated_home(home)
    endpoints = stack.enter_context(servers(home, {}))
    os.environ.update(
        EASEL_HOME=str(home),
        EASEL_SECRET_KEY=PEPPER,
        DATABASE_URL=endpoints.database_url,
        REDIS_URL=endpoints.redis_url,
        DJANGO_SETTINGS_MODULE="easel.settings",
    )
    django.setup()
    from core.schema import schema_migrate

    schema_migrate(provider_name="Easel")  # roles belong to the server and not to the copied cluster
    stack.callback(connections.close_all)


def pytest_unconfigure() -> None:
    """A process of pytest-xdist leaves without what is registered with `atexit`."""
    _servers.close()


# The process that shares tests out between others (`pytest -n`) runs none.
if "PYTEST_XDIST_WORKER" in os.environ or not any(word.startswith(("-n", "--numprocesses")) for word in sys.argv):
    start_servers()
else:
    unused = {"EASEL_SECRET_KEY": PEPPER, "DATABASE_URL": "postgresql:///unused", "REDIS_URL": "redis://unused"}
    os.environ.update(unused, DJANGO_SETTINGS_MODULE="easel.settings")
    django.setup()

from billing.ledger.holds import hold_take  # noqa: E402
from billing.ledger.postings import credit_grant  # noqa: E402
from billing.money import to_micros  # noqa: E402
from billing.pricing.price_books import price_book_seed  # noqa: E402
from core.pipeline import run_query  # noqa: E402
from easel.catalog.models import ModelVersion, Pool  # noqa: E402
from easel.jobs.lifecycle import beat  # noqa: E402
from easel.observability.audit import accounts_match_entries, ledger_balances  # noqa: E402
from easel.seed import DEMO_LIMITS, PRICES  # noqa: E402
from easel.serving.versions import version_register  # noqa: E402
from inference.contract import WorkerBeat  # noqa: E402
from tenants.accounts import tenant_create  # noqa: E402
from tenants.keys import key_issue  # noqa: E402
from tenants.models import ApiKey, Project, Tenant  # noqa: E402
from tests.copies import pool_copy, tenant_copy, version_copy  # noqa: E402
from tests.live import LiveEasel, live_easel  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Processes share the tests out by file, whose fixtures are made once; those of a running stack stay together.

    The longest come first, so that no process is left with one of them at the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(RUNNING_STACK):
                return "a running stack"
            return "an attacked stack" if file.startswith(ATTACKED_STACK) else file

    config.option.loadscopereorder = False  # by the number of tests, which says little
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; the others stay in the order of their files."""
    places = {item.path: item.path.as_posix() for item in items}
    order = {
        path: next((place for place, name in enumerate(LONGEST) if name in posix), len(LONGEST))
        for path, posix in places.items()
    }
    items.sort(key=lambda item: order[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def the_books_balance_after_the_whole_suite() -> Iterator[None]:
    yield

    broken = [*ledger_balances(NOW), *accounts_match_entries(NOW)]
    assert not broken, "\n".join(broken)


@pytest.fixture(scope="session")
def easel() -> Iterator[LiveEasel]:
    """One stack for all tests that leave it whole."""
    with live_easel() as live:
        yield live


@transaction.atomic
def take_hold(**terms: Any) -> bool:
    """`hold_take` on a round trip and in a transaction of its own."""
    return run_query(hold_take(**terms))


@dataclass
class Customer:
    """A tenant with a key and some credit."""

    tenant: Tenant
    project: Project
    key: ApiKey
    secret: str


@pytest.fixture
def customer() -> Callable[..., Customer]:
    """Makes tenants: `customer(credit="10")`."""

    def make(
        *, name: str = "t", credit: str = "10", scopes: tuple[str, ...] | None = None, currency: str = "USD"
    ) -> Customer:
        slug = f"{name}-{uuid.uuid4().hex[:12]}"
        if currency == "USD":
            tenant, project = tenant_copy(*original(credit), slug=slug)
        else:  # what is summed by currency finds no tenant beside those of the test
            tenant, project = new_tenant(slug, credit, currency)
        given = {} if scopes is None else {"scopes": scopes}
        key, secret = key_issue(project=project, pepper=PEPPER, now=NOW, **given)
        return Customer(tenant, project, key, secret)

    return make


@cache
def original(credit: str) -> tuple[Tenant, Project]:
    """A tenant that no test changes, to be copied."""
    return new_tenant(f"original-{uuid.uuid4().hex[:12]}", credit, "USD")


def new_tenant(slug: str, credit: str, currency: str) -> tuple[Tenant, Project]:
    tenant, project = tenant_create(slug=slug, currency=currency, now=NOW)
    if Decimal(credit):
        credit_grant(tenant=tenant, amount_micros=to_micros(Decimal(credit)), reference=uuid.uuid4(), now=NOW)
    return tenant, project


@pytest.fixture
def alice(customer: Callable[..., Customer]) -> Customer:
    return customer(name="alice")


@pytest.fixture
def bob(customer: Callable[..., Customer]) -> Customer:
    return customer(name="bob")


TRANSFORMER = {
    "_class_name": "ZImageTransformer2DModel",
    "dim": 64,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "in_channels": 8,
    "cap_feat_dim": 48,
    "all_patch_size": [2],
    "all_f_patch_size": [1],
}


@pytest.fixture(scope="session")
def prices() -> None:
    """The price book in force in tests."""

    price_book_seed(currency="USD", version=1, rates=PRICES, effective_at=NOW - timedelta(days=365), now=NOW)


def worker_beat(**fields: Any) -> WorkerBeat:
    """What the worker of a test's pool reports of itself."""
    given = {
        "worker": "w1",
        "gpu_class": "cpu",
        "concurrency": 4,
        "model_version": "m",
        "started_at": NOW.timestamp(),
        "busy_seconds": 0.0,
        "attributed_seconds": 0.0,
        "load_seconds": 0.0,
    }
    return WorkerBeat(**(given | fields))


@pytest.fixture
def pool() -> Pool:
    """A pool of this test alone, with a live worker that runs 4 jobs at a time."""

    slug = f"pool-{uuid.uuid4().hex[:12]}"
    return pool_copy(original_pool(), slug=slug, namespace=f"easel-{slug}")


@cache
def original_pool() -> Pool:
    """A pool that no test changes, to be copied."""
    made = Pool.objects.create(slug="original", namespace="easel-original", gpu_class="cpu", created_at=NOW)
    beat(pool=made, report=worker_beat(concurrency=4), now=NOW, lease_seconds=15)
    return made


@pytest.fixture
def version(pool: Pool, prices: None, tmp_path: Path) -> ModelVersion:
    """A model of this test alone, served by `pool`, and priced."""

    name = f"model-{uuid.uuid4().hex[:12]}"
    return version_copy(original_version(), name=name, pool=pool, checkpoint=written_checkpoint(tmp_path))


@cache
def original_version() -> ModelVersion:
    """A model that no test changes, to be copied."""
    with TemporaryDirectory() as folder:
        checkpoint = written_checkpoint(Path(folder))
        terms = {"checkpoint": checkpoint, "pool": original_pool(), "limits": DEMO_LIMITS, "now": NOW}
        return version_register(model_name="original", **terms)


def written_checkpoint(folder: Path) -> str:
    """Write what the platform reads of a checkpoint."""
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(TRANSFORMER))
    return str(folder)
