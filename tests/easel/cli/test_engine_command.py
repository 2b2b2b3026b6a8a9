"""`easel quality` and `easel replay` are programs of the engine: the command line starts them as they are asked for."""

import runpy
import subprocess
import sys

import pytest
from click.testing import CliRunner

from easel.cli import engine as engine_command


def in_this_process(argv: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    """Runs a program as `python -m` does, without the eight seconds of CPU that another interpreter takes for torch."""
    interpreter, option, module, *arguments = argv
    assert (interpreter, option) == (sys.executable, "-m")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [module, *arguments])
        patch.delitem(sys.modules, module, raising=False)
        runpy.run_module(module, run_name="__main__")
    return subprocess.CompletedProcess(argv, end.value.code or 0)


@pytest.mark.parametrize(("command", "option"), [("quality", "--prompt"), ("replay", "--check")])
def test_help_is_the_programs_own(monkeypatch, command, option):
    monkeypatch.setattr(engine_command.subprocess, "run", in_this_process)
    answer = CliRunner().invoke(getattr(engine_command, command), ["--help"])
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert f"usage: easel {command}" in answer.stdout
    assert option in answer.stdout


def test_a_bad_trace_is_refused_with_exit_status_2(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text('{"requests": [{"prompt": "a red circle"}]}')
    argv = [sys.executable, "-m", "easel.cli.main", "replay", str(path)]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr == f"easel replay: {path}, request 0: lacks width, height, steps, seed (trace_invalid)\n"
