"""What a liveness probe looks at, for the processes that serve no port."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.template import migrated_home

EASEL = [sys.executable, "-m", "easel.cli.main"]


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """That of an installation of its own, migrated."""
    # Not tmp_path: the user that PostgreSQL runs as under root may not enter it.
    with tempfile.TemporaryDirectory(prefix="easel-alive-") as folder:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        found = {**inherited, "EASEL_HOME": f"{folder}/var", "EASEL_ALIVE_FILE": f"{folder}/alive"}
        migrated_home(Path(found["EASEL_HOME"]))
        yield found


def until(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("service", ["dispatcher", "completion", "scheduler"])
def test_each_turn_of_its_loop_leaves_a_sign_of_life(env, service):
    alive = Path(env["EASEL_ALIVE_FILE"])
    alive.unlink(missing_ok=True)
    with subprocess.Popen([*EASEL, service], env=env, stdout=subprocess.DEVNULL) as process:
        until(alive.exists, process)
        alive.unlink()
        until(alive.exists, process)
        process.terminate()
        assert process.wait(60) == 0
