"""A second start on a home whose stack is running."""

import fcntl

import pytest

from easel_local.embedded import ServersUnavailable
from easel_local.stack import StackUnavailable, free_port, running_stack


@pytest.fixture
def claimed_home(tmp_path, monkeypatch):
    """A home that another process has claimed, with that process's log and state file."""
    home = tmp_path / "var"
    (home / "run").mkdir(parents=True)
    (home / "log").mkdir()
    (home / "log" / "stack.log").write_text("started\n")
    (home / "run" / "stack.json").write_text('{"url": "http://127.0.0.1:8000"}')
    monkeypatch.setenv("EASEL_HOME", str(home))
    with (home / "run" / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home


def no_servers(**_):
    raise ServersUnavailable("the test needs none")


def contents(home):
    return {path: path.read_text() for path in sorted(home.rglob("*")) if path.is_file()}


def test_a_second_stack_is_refused_and_changes_no_file_of_the_home(claimed_home):
    before = contents(claimed_home)
    with (
        pytest.raises(StackUnavailable, match=r"already running on .* at http://127\.0\.0\.1:8000"),
        running_stack(port=free_port(), log=claimed_home / "log" / "stack.log"),
    ):
        pass
    assert contents(claimed_home) == before


def test_a_new_start_renames_the_log_of_the_run_before(tmp_path, monkeypatch):
    monkeypatch.setenv("EASEL_HOME", str(tmp_path))
    monkeypatch.setattr("easel_local.stack.environment", no_servers)
    log = tmp_path / "stack.log"
    log.write_text("the run before\n")
    with pytest.raises(ServersUnavailable), running_stack(port=free_port(), log=log):
        pass
    assert (tmp_path / "stack.log.1").read_text() == "the run before\n"
    assert log.read_text() == ""
