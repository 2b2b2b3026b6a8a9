"""The supervisor with real processes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from easel_local.process import Backoff, ProcessSpec
from easel_local.supervisor import Supervisor
from tests.processes import is_alive

FAST = Backoff(first_seconds=0.01, max_seconds=0.05, reset_after_seconds=60)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


def spec(name: str, code: str) -> ProcessSpec:
    return ProcessSpec(name=name, argv=[sys.executable, "-I", "-S", "-c", code], env={"PATH": os.environ["PATH"]})


def until(condition: Callable[[], object], what: str, timeout_seconds: float = 20) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


@pytest.fixture
def out():
    return io.BytesIO()


@pytest.fixture
def supervise(out):
    running: list[Supervisor] = []

    def start(*specs: ProcessSpec, grace_seconds: float = 10) -> Supervisor:
        supervisor = Supervisor(specs, out=out, backoff=FAST, grace_seconds=grace_seconds)
        supervisor.start()
        running.append(supervisor)
        return supervisor

    yield start
    for supervisor in running:
        supervisor.stop()


def test_a_process_that_dies_is_started_again_and_the_log_says_so(supervise, out):
    supervisor = supervise(spec("api", SLEEPER))
    until(lambda: b"up" in out.getvalue(), "the first start")
    first_pid = supervisor.pids()["api"]

    os.kill(first_pid, signal.SIGKILL)

    until(lambda: out.getvalue().count(b"up\n") == 2, "the second start")
    assert supervisor.pids()["api"] != first_pid
    events = [json.loads(line) for line in out.getvalue().splitlines() if line.startswith(b"{")]
    assert [(event["event"], event["process"], event["exit_code"]) for event in events] == [
        ("process died", "api", -signal.SIGKILL)
    ]


def test_the_pause_doubles_up_to_its_maximum(supervise, out):
    supervisor = supervise(spec("api", "raise SystemExit(3)"))
    until(lambda: supervisor.deaths()["api"] >= 5, "five deaths")
    supervisor.stop()
    pauses = [json.loads(line)["restart_in_seconds"] for line in out.getvalue().splitlines()]
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]


def test_a_program_that_does_not_exist_is_reported_and_tried_again(supervise, out):
    supervisor = supervise(ProcessSpec(name="api", argv=["/nowhere/at-all"], env={}))
    until(lambda: supervisor.deaths()["api"] >= 2, "two tries")
    assert b"/nowhere/at-all" in out.getvalue()


def test_stopping_ends_every_process_and_what_it_started(supervise, out):
    child = f"{sys.executable!r}, '-I', '-S', '-c', 'import time; time.sleep(600)'"
    code = f"import subprocess, time; print(subprocess.Popen([{child}]).pid, flush=True); time.sleep(600)"
    supervisor = supervise(spec("api", SLEEPER), spec("worker", code))
    until(lambda: out.getvalue().count(b"\n") == 2, "both up")
    pids = [*supervisor.pids().values(), *(int(line) for line in out.getvalue().split() if line.isdigit())]
    assert len(pids) == 3

    supervisor.stop()

    until(lambda: not any(map(is_alive, pids)), "the end of all three")
    assert supervisor.pids() == {}


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(supervise, out):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
    supervisor = supervise(spec("worker", code), grace_seconds=0.2)
    until(lambda: b"up" in out.getvalue(), "the start")
    pid = supervisor.pids()["worker"]
    supervisor.stop()
    assert not is_alive(pid)
    assert b"process killed" in out.getvalue()


def test_a_process_may_use_the_grace_to_finish(supervise, out):
    # The signal may come while "up" is still being written, and `print` can't be called within `print`.
    code = (
        "import os, signal, time\n"
        "def finish(*_): os.write(1, b'finished\\n'); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, finish); os.write(1, b'up\\n'); time.sleep(600)"
    )
    supervisor = supervise(spec("worker", code))
    until(lambda: b"up" in out.getvalue(), "the start")
    supervisor.stop()
    assert out.getvalue() == b"up\nfinished\n"


def test_lines_are_untouched_where_the_output_is_no_terminal(supervise, out):
    supervise(spec("api", "print('{\"a\": 1}'); print('no end of line', end='', flush=True); " + SLEEPER))
    until(lambda: out.getvalue().endswith(b"\n") and out.getvalue().count(b"\n") == 2, "two lines")
    assert out.getvalue() == b'{"a": 1}\nno end of lineup\n'


def test_on_a_terminal_each_line_begins_with_its_process_name():
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    supervisor = Supervisor([spec("api", SLEEPER), spec("worker", SLEEPER)], out=terminal)
    supervisor.start()
    until(lambda: terminal.getvalue().count(b"\n") == 2, "two lines")
    supervisor.stop()
    assert {line.split(b"m", 1)[1] for line in terminal.getvalue().splitlines()} == {
        b"api       \x1b[0m up",
        b"worker    \x1b[0m up",
    }


PROGRAM = f"""
import os, sys, threading
from easel_local.process import ProcessSpec
from easel_local.supervisor import Supervisor, signals_call
env = {{"PATH": os.environ["PATH"]}}
stubborn = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('asked to stop', flush=True));"
code = (stubborn if "stubborn" in sys.argv else "") + {SLEEPER!r}.replace("'up'", "__import__('os').getpid()")
argv = [sys.executable, "-I", "-S", "-c", code]
specs = [ProcessSpec(name=name, argv=argv, env=env) for name in ("api", "worker")]
supervisor, stop = Supervisor(specs, grace_seconds=60), threading.Event()
with signals_call(stop.set):
    supervisor.start()
    stop.wait()
    supervisor.stop()
"""


@pytest.fixture
def program():
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        popen = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE)
        started.append(popen)
        assert popen.stdout is not None
        return popen, [int(popen.stdout.readline()) for _ in range(2)]

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_whole_tree_and_the_exit_code_is_zero(program, number):
    popen, pids = program()
    popen.send_signal(number)
    assert popen.wait(20) == 0
    assert not any(map(is_alive, pids))


def test_a_second_ctrl_c_ends_the_grace_period(program):
    popen, pids = program("stubborn")
    popen.send_signal(signal.SIGINT)
    assert popen.stdout.readline() == b"asked to stop\n"  # so the grace period has begun
    popen.send_signal(signal.SIGINT)
    assert popen.wait(20) == 0
    assert not any(map(is_alive, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_supervisor_leaves_no_process(program):
    popen, pids = program()
    popen.kill()
    until(lambda: not any(map(is_alive, pids)), "the end of the children")
