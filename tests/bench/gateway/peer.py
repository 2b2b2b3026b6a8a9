"""The peer: LiteLLM's proxy, in an environment of its own under `var/peer`, measured beside Easel in the same run.

Both get the same request body from the same load generator, on as many connections. The peer passes it on to
`null_backend`, whose CPU time is not counted; Easel admits the job and answers. CPU time is that of all processes of a
system and of its PostgreSQL. Easel answers when a job and its hold are durable; the peer answers before its spend is.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg

from easel_local.embedded import servers
from easel_local.postgres import psql_binary
from easel_local.stack import free_port
from tests.bench.gateway.submissions import Load, Server, load, postgres_of, request, running, serving
from tests.bench.report import Report, say

REQUIREMENTS = ("litellm[proxy]==1.106.12", "prisma==0.11.0")
NPM_PACKAGES = ("@prisma/client@5.17.0", "@prisma/adapter-pg@5.17.0", "pg@8.12.0", "graphql@16.9.0")
HOME = Path(__file__).parents[3] / "var" / "peer"
DATABASE = HOME / "database"
STAND_IN = HOME / "query_engine.mjs"
MODEL = "image"
MASTER_KEY = "sk-bench"
WORKERS = 2
CONNECTIONS = 64
_START_SECONDS = 300  # the imports alone take 35 s of a core
_ENV = {
    # Easel's servers are not for the peer.
    **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")},
    "PATH": f"{HOME / 'venv/bin'}:{os.environ['PATH']}",
    "PRISMA_HOME_DIR": str(HOME),
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "PROXY_DB_LOOKUP_DEADLINE_SECONDS": "60",  # on a busy machine the first look-ups exceed its 10 s: it answers 503
}


class DatabaseUnavailable(Exception):
    """The peer cannot have its database here; the message says why."""


def install() -> None:
    """Install the peer by pip, once for each version."""
    installed, wanted = HOME / "installed", "\n".join(REQUIREMENTS)
    if installed.exists() and installed.read_text() == wanted:
        return
    say(f"  installing {wanted} into {HOME}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", HOME / "venv"], check=True)
    subprocess.run([HOME / "venv/bin/pip", "install", "--quiet", *REQUIREMENTS], check=True)
    installed.write_text(wanted)


def against_peer(report: Report, ours: Sequence[bytes], *, rounds: int, seconds: float) -> None:
    """CPU time per request of the peer, with and without its database, over Easel's; all PostgreSQL is counted.

    The systems take turns of `seconds`, which must be longer than the 15 s in which the peer collects spend rows
    before it writes them. The peer takes 11 ms of CPU time a second even when idle, which a turn of few requests on a
    busy machine divides by few: record figures on a quiet one.
    """
    install()
    with ExitStack() as stack:
        systems = {"easel": (stack.enter_context(serving("easel")), ours)}
        backend = stack.enter_context(null_backend())
        systems["peer"] = stack.enter_context(proxy(backend)), [_request(MASTER_KEY)]
        try:
            with_database = stack.enter_context(proxy_with_database(backend))
            systems["peer_with_database"] = with_database, [_request(key) for key in keys(with_database, teams=20)]
            if with_database.not_counted:
                report.note(
                    "peer_with_database: without the CPU time of its query engine, whose native build is missing."
                )
        except DatabaseUnavailable as error:
            report.note(f"peer_with_database not measured: {error}")
        found: dict[str, list[Load]] = {name: [] for name in systems}
        for turn in range(rounds + 1):
            for name, (server, requests) in systems.items():
                measured = load(server, requests, connections=CONNECTIONS, seconds=seconds)
                # The first turn warms up: in it the peer's requests take nearly twice the CPU time.
                if turn:
                    found[name].append(measured)
                    say(f"  {CONNECTIONS} connections, {name}: {measured}")
        if "peer_with_database" in systems:
            require_spend_rows()
    for name, loads in found.items():
        report.add(f"{name}_cpu_ms_{CONNECTIONS}", statistics.median(one.total_cpu_ms for one in loads))
    for name in list(found)[1:]:
        ratios = [
            peer.total_cpu_ms / easel.total_cpu_ms for peer, easel in zip(found[name], found["easel"], strict=True)
        ]
        target = 6 if name == "peer_with_database" else None
        report.add(f"requests_per_cpu_second_vs_{name}", statistics.median(ratios), target_min=target, of=ratios)


def _request(key: str) -> bytes:
    return request("/v1/images/generations", model=MODEL, secret=key)


def require_spend_rows() -> None:
    """Raise unless the peer wrote spend rows, without which it was not measured with its database."""
    with (
        servers(DATABASE, {"REDIS_URL": "redis://unused"}) as endpoints,
        psycopg.connect(endpoints.database_url) as connection,
    ):
        (rows,) = connection.execute('SELECT count(*) FROM "LiteLLM_SpendLogs"').fetchone() or (0,)
    say(f"  the peer wrote {rows} spend rows")
    if not rows:
        raise RuntimeError("the peer wrote no spend rows")


@contextmanager
def null_backend() -> Iterator[int]:
    """The port of the image model."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "tests.bench.gateway.null_backend:application")
    options = ("--lifespan", "off", "--no-access-log", "--log-level", "error", "--port", str(port))
    with running([*command, *options], port=port, env=os.environ):
        yield port


@contextmanager
def proxy(backend: int, *, log: str = "proxy.log", env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The peer without a database: one master key, no budgets, no spend rows."""
    model = {
        "model_name": MODEL,
        "litellm_params": {"model": "openai/null", "api_base": f"http://127.0.0.1:{backend}/v1", "api_key": "none"},
        "model_info": {"mode": "image_generation", "input_cost_per_image": 0.02},
    }
    config = HOME / "config.yaml"
    config.write_text(json.dumps({"model_list": [model], "general_settings": {"master_key": MASTER_KEY}}))
    port = free_port()
    command = [
        *(str(HOME / "venv/bin/litellm"), "--config", str(config), "--num_workers", str(WORKERS)),
        # A worker that imports for longer than this on a busy machine is killed and started again, for ever.
        *("--timeout_worker_healthcheck", str(_START_SECONDS)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with running(
        command, port=port, env={**_ENV, **(env or {})}, log=HOME / log, start_seconds=_START_SECONDS
    ) as process:
        yield Server(port, process, None)


@contextmanager
def proxy_with_database(backend: int) -> Iterator[Server]:
    """The peer with a PostgreSQL of its own, as empty as after an installation."""
    engine = generate_client()
    shutil.rmtree(DATABASE, ignore_errors=True)
    with servers(DATABASE, {"REDIS_URL": "redis://unused"}) as endpoints:
        create_tables(endpoints.database_url)
        env = {
            **engine,
            "DATABASE_URL": endpoints.database_url.replace("@/", "@localhost/"),  # Prisma demands a host
            "DISABLE_SCHEMA_UPDATE": "True",
        }
        with proxy(backend, log="proxy_with_database.log", env=env) as server:
            yield replace(server, postgres=postgres_of(DATABASE), not_counted=STAND_IN.name if engine else "")


def generate_client() -> Mapping[str, str]:
    """Generate the peer's database client; returns the environment of a query engine that stands in, or nothing.

    The native engine is a download, which a closed network refuses; then its WebAssembly build from npm stands in. That
    one takes more CPU time than the native one's 1.3 to 1.6 ms a request. It is not counted, which favours the peer.
    """
    schema = _package("litellm_proxy_extras") / "schema.prisma"
    command = [HOME / "venv/bin/prisma", "generate", "--schema"]
    try:
        _run([*command, schema], env=_ENV)
        return {}
    except DatabaseUnavailable as error:
        say(f"  no native query engine: {error}")
    # Beside the packages that it imports.
    shutil.copy(Path(__file__).with_name(STAND_IN.name), STAND_IN)
    STAND_IN.chmod(0o755)
    _run(["npm", "install", "--prefix", HOME, "--ignore-scripts", "--no-audit", "--no-fund", *NPM_PACKAGES], env=_ENV)
    adapted = HOME / "schema.prisma"
    adapted.write_text(re.sub(r"binaryTargets *=.*", 'previewFeatures = ["driverAdapters"]', schema.read_text()))
    engine = {f"PRISMA_{name}_ENGINE_BINARY": str(STAND_IN) for name in ("QUERY", "SCHEMA")}
    _run([*command, adapted], env={**_ENV, **engine})
    return engine


def create_tables(database_url: str) -> None:
    """Apply the peer's migrations, as its own schema engine would."""
    migrations = sorted((_package("litellm_proxy_extras") / "migrations").glob("*/migration.sql"))
    files = [option for path in migrations for option in ("-f", path)]
    _run([psql_binary(), "-q", "-v", "ON_ERROR_STOP=1", database_url, *files], env=_ENV)


def keys(server: Server, *, teams: int) -> list[str]:
    """A virtual key of each of `teams` teams, with budgets that are never used up."""
    made = []
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", headers={"Authorization": f"Bearer {MASTER_KEY}"}, timeout=60
    ) as client:
        for number in range(teams):
            budget = {"max_budget": 1_000_000, "budget_duration": "30d"}
            team = client.post("/team/new", json={"team_alias": f"team-{number}", **budget}).raise_for_status()
            key = {"team_id": team.json()["team_id"], "models": [MODEL], **budget}
            made.append(client.post("/key/generate", json=key).raise_for_status().json()["key"])
    return made


def _package(name: str) -> Path:
    return next((HOME / "venv/lib").glob(f"python*/site-packages/{name}"))


def _run(command: Sequence[Any], *, env: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(command, env=env, cwd=HOME, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DatabaseUnavailable(f"{command[0]} is not installed") from error
    if done.returncode:
        raise DatabaseUnavailable((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
