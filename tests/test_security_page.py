"""Every threat of `docs/security.md` has a wall and tests that exist, and every attack of the tests is on the page."""

import ast
import re
from pathlib import Path

import pytest

from easel.api import connection, intake, server
from easel.catalog import redis_users, workers
from easel.config import Config
from easel.jobs import reports
from easel.processes import pool_streams, redis_guard
from easel.reporting import sessions
from tenants.models import IMAGE_URL_MINUTES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
THREAT = re.compile(r"[STRIDE](, [STRIDE])*: .+")
TEST = re.compile(r"`(tests/[a-z_0-9/]+\.py)::(test_[a-z_0-9]+)`")


def rows() -> list[list[str]]:
    """The cells of each row of the tables, without the heads."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("Threat", "---")]


def names_of_tests(file: Path) -> set[str]:
    found = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_threat_has_its_kind_a_wall_and_a_test():
    assert not [cells for cells in rows() if len(cells) != 3 or not THREAT.fullmatch(cells[0])]
    assert not [cells[0] for cells in rows() if not cells[1] or not TEST.search(cells[2])]


def test_every_test_that_the_page_names_is_there():
    assert not [name for file, name in TEST.findall(PAGE) if name not in names_of_tests(ROOT / file)]


def test_every_attack_is_on_the_page():
    named = set(TEST.findall(PAGE))
    files = (ROOT / "tests/attacks").glob("test_*.py")
    attacks = {(str(file.relative_to(ROOT)), name) for file in files for name in names_of_tests(file)}
    assert not attacks - named


@pytest.mark.parametrize(
    "promise",
    [
        f"is given the {len(redis_users.WORKER_COMMANDS)} that a worker sends",
        f"A report has at most {reports.REPORT_BYTES_MAX >> 10} KiB and {reports.ATTEMPTS_MAX} attempts.",
        f"at most {pool_streams.ENTRIES_MAX + 1} reports of a turn, one of a stream of more than "
        f"{pool_streams.STREAM_BYTES_MAX >> 20} MB",
        f"keep a stream to {pool_streams.STREAM_ENTRIES_MAX:,} entries",
        f"a pool of more than {redis_guard.POOL_BYTES_MAX >> 20} MiB",
        f"a pool of more than {redis_guard.POOL_CONNECTIONS_MAX} ",
        f"A dedicated pool has {workers.NAMES_MAX} workers at a time and {workers.NAMES_OF_A_DAY_MAX} names on a day",
        f"A head has {connection.Connection.HEAD_SECONDS:.0f} s, a body {intake.SECONDS:.0f} s",
        f"{intake.SILENT_SECONDS:.0f} s for its next byte; an idle connection is closed after {server.IDLE_SECONDS} s",
        f"less than 48 KiB in {connection.Connection.STALLED_SECONDS:.0f} s",
        f"at most {connection.Connection.HEAD_BYTES_MAX >> 10} KiB and {connection.Connection.HEADERS_MAX} headers",
        f"A URL is valid for {IMAGE_URL_MINUTES} minutes",
        f"a query after {sessions.QUERY_SECONDS_MAX} s and an idle transaction after {sessions.IDLE_SECONDS_MAX} s",
    ],
)
def test_the_page_names_the_limits_that_the_code_has(promise):
    assert promise in PAGE


def test_the_page_names_the_limits_of_connections_that_are_set_by_default():
    found = Config.from_env({"EASEL_SECRET_KEY": "x", "DATABASE_URL": "x", "REDIS_URL": "x"})
    promise = f"A process has {found.connections_max} connections and closes idle ones for new ones; an address has "
    assert f"{promise}{found.connections_per_address_max}" in PAGE
