import fcntl

from click.testing import CliRunner

from easel.demo.command import demo


def test_a_second_demo_leaves_the_running_stacks_files_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EASEL_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "log").mkdir()
    log = tmp_path / "log" / "stack.log"
    log.write_text("started\n")
    with (tmp_path / "run" / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the running stack holds it
        refused = CliRunner().invoke(demo, ["--once"])
    assert refused.exit_code == 1
    assert "already running" in refused.output
    assert log.read_text() == "started\n"
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"stack.log", "stack.lock"}
