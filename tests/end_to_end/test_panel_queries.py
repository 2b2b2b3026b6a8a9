"""Every query of every dashboard brings data: a real Prometheus scrapes a running Easel that has drawn, and a login for
reports asks its PostgreSQL. What Grafana puts in for its macros and variables is put in here. Grafana itself isn't run.
"""

import json
import math
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo
from safetensors.numpy import load_file, save_file

from easel_client import Easel
from easel_local.postgres import Postgres
from easel_local.stack import free_port
from inference.demo_model import ADAPTERS_DIR
from tests.live import LiveEasel
from tests.receiver import receiving
from tests.tools import tool

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARDS = [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))]
TARGETS = [
    pytest.param(target, panel["title"], board, id=f"{board['uid']}: {panel['title']} {target['refId']}")
    for board in BOARDS
    for panel in board["panels"]
    for target in panel["targets"]
]
PROMETHEUS_TARGETS = [param for param in TARGETS if "expr" in param.values[0]]
SQL_TARGETS = [param for param in TARGETS if "rawSql" in param.values[0]]
VARIABLES = [
    pytest.param(variable, id=f"{board['uid']}: {variable['name']}")
    for board in BOARDS
    for variable in board["templating"]["list"]
]
# A window of several scrapes, as Grafana would choose it for this interval.
MACROS = {"$__rate_interval": "30s"}
ANSWER_SECONDS = 60
# Panels that may show 0 on a healthy system. All others must show a value above 0.
MAY_BE_ZERO = {
    "Attribution drift",
    "Attribution drift, by worker",
    "Error rate",
    "Errors, last 5 minutes",
    "Images in the engines",
    "Images in the engines, by state",
    "Jobs waiting",
    "Jobs waiting by pool",
    "Ledger out of balance",
    "Longest wait",
    "Longest wait by pool",
    "Lost attempts",
    "Running jobs by pool",
    "Wasted GPU time",
    "Wasted GPU time, rate",
}

# What a first day doesn't have yet. Storage is charged when a day is over: bytes of some days ago, at a price of then.
# And a GPU has a cost once an operator has set it.
SOME_DAYS_AGO = """
from datetime import UTC, datetime, timedelta
from easel.cli.django_ready import django_ready
with django_ready():
    from billing.models import StoredObject
    from billing.pricing.price_books import price_book_seed
    from billing.usage.storage import objects_stored, storage_day_meter, storage_days_due
    from easel.seed import PRICES
    from easel.catalog.models import Pool, WorkerDay
    from tenants.models import Project
    Pool.objects.update(gpu_hour_cost=2)
    WorkerDay.objects.update(cost=1)
    now = datetime.now(UTC)
    then = now - timedelta(days=3)
    price_book_seed(currency="USD", version=0, rates=PRICES, effective_at=then - timedelta(days=1), now=now)
    project = Project.objects.order_by("created_at").first()
    objects_stored(project=project, kind=StoredObject.Kind.OUTPUT, sizes={"stored/some-days": 10**12}, now=then)
    for day in storage_days_due(now=now):
        storage_day_meter(day=day, now=now)
"""


@dataclass(frozen=True)
class Sources:
    """The two data sources, after some jobs."""

    prometheus: str
    postgresql: psycopg.Connection

    def samples(self, expr: str) -> list[float]:
        """All samples of the last minute, of all series."""
        now = time.time()
        asked = {"query": expr, "start": now - 60, "end": now, "step": 1}
        answer = httpx.get(f"{self.prometheus}/api/v1/query_range", params=asked, timeout=30).json()
        assert answer["status"] == "success", answer
        return [float(value) for series in answer["data"]["result"] for _, value in series["values"]]

    def rows(self, text: str) -> list[tuple]:
        return self.postgresql.execute(text).fetchall()


@pytest.fixture(scope="module")
def sources(easel: LiveEasel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    targets = {"easel-api": easel.port, "easel-worker": worker_port(easel)}
    url, process = start_prometheus(tmp_path_factory.mktemp("prometheus"), targets)
    try:
        scraped = 'sum(up{job=~"easel-.*"})'
        easel.wait_for(lambda: prometheus_value(url, scraped) == len(targets))
        client = easel.tenant()
        with receiving() as receiver:
            add_webhook(client, receiver.url)
            # Twice, with a scrape between: a counter that appears has not grown yet.
            for _ in range(2):
                client.adapters.upload(name="pale", file=new_adapter(tmp_path_factory.mktemp("adapter")))
                receiver.arrived.clear()
                draw_something(client)
                assert receiver.arrived.wait(ANSWER_SECONDS)
                done_at = time.time()
                easel.wait_for(lambda: (prometheus_value(url, "min(timestamp(up))") or 0) > done_at)  # noqa: B023
        easel.run(SOME_DAYS_AGO)
        login = easel.json("reporting-login", "panels")
        address = make_conninfo(Postgres(easel.home).url, user=login["user"], password=login["password"])
        with psycopg.connect(address, autocommit=True) as connection:
            yield Sources(url, connection)
    finally:
        process.terminate()
        process.wait()


def worker_port(easel: LiveEasel) -> int:
    """Where the shared pool's worker serves its metrics."""
    port: int = json.loads((easel.home / "run/stack.json").read_text())["worker_metrics_ports"]["worker-shared"]
    return port


def start_prometheus(folder: Path, targets: dict[str, int]) -> tuple[str, subprocess.Popen[bytes]]:
    """With the example configuration, on these ports and in a hurry."""
    binary = tool("prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        [static] = job["static_configs"]
        static["targets"] = [f"127.0.0.1:{targets[job['job_name']]}"]
    shutil.copytree(DEPLOY / "prometheus/rules", folder / "rules")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    options = ("--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *options], cwd=folder, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
    return f"http://127.0.0.1:{port}", process


def prometheus_value(url: str, expr: str) -> float | None:
    """The one value of a query now; None while there is none, or nobody answers yet."""
    try:
        result = httpx.get(f"{url}/api/v1/query", params={"query": expr}).json()["data"]["result"]
    except (httpx.HTTPError, ValueError):
        return None
    return float(result[0]["value"][1]) if result else None


def new_adapter(folder: Path) -> Path:
    """One that no worker has in its memory: the outlines, somewhat weaker."""
    strength = random.uniform(0.5, 1)
    weights = load_file(ADAPTERS_DIR / "outline.safetensors")
    file = folder / "pale.safetensors"
    save_file({name: (weight * strength).astype(weight.dtype) for name, weight in weights.items()}, file)
    return file


def add_webhook(client: Easel, url: str) -> None:
    headers = {"Authorization": f"Bearer {client.api_key}"}
    httpx.post(f"{client.url}/v1/webhooks", json={"url": url}, headers=headers).raise_for_status()


def draw_something(client: Easel) -> None:
    """Two images, one with an adapter."""
    jobs = [
        client.jobs.create(prompt="a red circle", size="128x128", steps=4, adapters=adapters)
        for adapters in ([], [{"name": "pale", "scale": 1.0}])
    ]
    for job in jobs:
        *_, ended = client.jobs.follow(job)
        assert ended["status"] == "succeeded", ended


@pytest.fixture(scope="module")
def values(sources: Sources) -> dict[str, list[str]]:
    """What each variable may be: the answers of its own query."""
    return {
        variable["name"]: [row[0] for row in sources.rows(variable["query"])]
        for board in BOARDS
        for variable in board["templating"]["list"]
    }


def put_in(text: str, board: dict, values: dict[str, list[str]]) -> str:
    """SQL as Grafana sends it: macros for the last 30 days, all values of a variable, or the first of a single one."""
    now = datetime.now(UTC)
    begin, end = (
        f"'{instant:%Y-%m-%dT%H:%M:%SZ}'" for instant in (now - timedelta(days=30), now + timedelta(seconds=1))
    )
    text = re.sub(r"\$__timeFilter\(([a-z_]+)\)", rf"\1 BETWEEN {begin} AND {end}", text)
    for variable in board["templating"]["list"]:
        chosen = values[variable["name"]][: None if variable["multi"] else 1]
        text = text.replace(f"${{{variable['name']}:sqlstring}}", ",".join(f"'{value}'" for value in chosen))
    assert "$" not in text, text
    return text


def shows(value: object, title: str) -> bool:
    """Whether a value is one to look at."""
    if isinstance(value, int | float | Decimal):
        return math.isfinite(value) and (value != 0 or title in MAY_BE_ZERO)
    return False


@pytest.mark.parametrize(("target", "title", "board"), PROMETHEUS_TARGETS)
def test_a_panel_of_prometheus_has_data(easel, sources, target, title, board):
    expr = target["expr"]
    for macro, its in MACROS.items():
        expr = expr.replace(macro, its)
    assert "$" not in expr
    # Until the next scrape, at the longest: a quotient is not a number before its divisor has grown.
    easel.wait_for(lambda: any(shows(value, title) for value in sources.samples(expr)), seconds=ANSWER_SECONDS)


@pytest.mark.parametrize(("target", "title", "board"), SQL_TARGETS)
def test_a_panel_of_postgresql_has_data(sources, values, target, title, board):
    rows = sources.rows(put_in(target["rawSql"], board, values))
    assert any(shows(value, title) for row in rows for value in row)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_has_something_to_choose(sources, variable):
    assert sources.rows(variable["query"])


def test_storage_that_was_charged_is_shown(sources):
    [(micros,)] = sources.rows("SELECT sum(amount_micros) FROM reporting.charges WHERE meter = 'storage_gb_second'")
    assert micros > 0


def test_every_rule_can_be_evaluated_and_no_alert_fires(easel, sources):
    def rules():
        answer = httpx.get(f"{sources.prometheus}/api/v1/rules").json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    easel.wait_for(lambda: {rule["health"] for rule in rules()} == {"ok"})
    assert [rule["name"] for rule in rules() if rule.get("state") == "firing"] == []


@pytest.mark.parametrize("process", ["api", "worker"])
def test_the_metrics_have_no_fault(easel, process):
    port = {"api": easel.port, "worker": worker_port(easel)}[process]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    ours = "".join(line for line in text.splitlines(keepends=True) if "easel_" in line)
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=ours, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
