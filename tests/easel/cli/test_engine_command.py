"""`easel quality` and `easel replay` are programs of the engine: the command line starts them as they are asked for."""

import subprocess
import sys

import pytest


def easel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "easel.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("command", "option"), [("quality", "--prompt"), ("replay", "--check")])
def test_help_is_the_programs_own(command, option):
    answer = easel(command, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"usage: easel {command}" in answer.stdout
    assert option in answer.stdout


def test_a_bad_trace_is_refused_with_exit_status_2(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text('{"requests": [{"prompt": "a red circle"}]}')
    answer = easel("replay", str(path))
    assert answer.returncode == 2
    assert answer.stderr == f"easel replay: {path}, request 0: lacks width, height, steps, seed (trace_invalid)\n"
