"""What a worker measured of its attempt, and when that was by the control plane's clock."""

from datetime import timedelta

import pytest

from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Attempt
from easel.jobs.phases import phase_instants, phases_read
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput, report_from_json, report_to_json
from tests.conftest import NOW, worker_beat

REACHED = {"adapters": 0.5, "prepared": 1.0, "first_step": 1.5, "steps": 4.0, "stored": 5.0}


def after(seconds):
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def attempt(alice, pool, submit):
    submit(alice)
    (released,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    return released


def beat(attempt, pool, now, steps_done=0, **fields):
    progress = AttemptProgress(attempt_token=str(attempt.token), steps_done=steps_done, steps_total=8, **fields)
    lifecycle.beat(pool=pool, report=worker_beat(attempts=(progress,)), now=now, lease_seconds=15)


def finish(attempt, pool, now, **fields):
    report = AttemptFinished(
        attempt_token=str(attempt.token),
        worker="w1",
        gpu_class="cpu",
        outcome="succeeded",
        gpu_seconds=1.0,
        outputs=(StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),),
        **fields,
    )
    lifecycle.finish(pool=pool, report=report_from_json(report_to_json(report)), now=now, attempts_max=3)


def instants(attempt):
    return phase_instants(Attempt.objects.get(pk=attempt.pk))


def test_the_phases_of_a_running_attempt_are_known_from_its_beats(attempt, pool):
    beat(attempt, pool, after(2))
    beat(attempt, pool, after(3), phases={"adapters": 0.5, "prepared": 1.0})
    assert instants(attempt) == {"began": after(2), "adapters": after(2.5), "prepared": after(3)}


def test_an_old_beat_takes_no_phase_back(attempt, pool):
    beat(attempt, pool, after(3), steps_done=2, phases={"prepared": 1.0, "first_step": 1.5})
    beat(attempt, pool, after(3), steps_done=1, phases={"prepared": 1.0})
    assert set(instants(attempt)) == {"began", "prepared", "first_step"}


def test_an_older_worker_that_measures_no_phases_only_began(attempt, pool):
    beat(attempt, pool, after(1))
    finish(attempt, pool, after(6))
    assert instants(attempt) == {"began": after(1)}


def test_an_end_that_was_reported_late_moves_no_phase(attempt, pool):
    """The beat came at once; Redis was away when the attempt ended, and its end came 30 seconds late."""
    beat(attempt, pool, after(1))
    finish(attempt, pool, after(36), phases=REACHED)
    assert instants(attempt)["stored"] == after(6)


def test_a_begin_that_was_reported_late_moves_no_phase(attempt, pool):
    """Redis was away when the attempt began, and the first beat came after four of its five seconds."""
    beat(attempt, pool, after(5))
    finish(attempt, pool, after(6), phases=REACHED)
    assert instants(attempt)["began"] == after(1)
    assert instants(attempt)["first_step"] == after(2.5)


def test_an_attempt_that_nobody_began_has_no_instants(attempt):
    assert instants(attempt) == {}


@pytest.mark.parametrize(
    ("reported", "read"),
    [
        ({"prepared": 1, "first_step": 1.5}, {"prepared": 1.0, "first_step": 1.5}),
        ({"prepared": "soon", "first_step": 1.5}, {"first_step": 1.5}),
        ({"prepared": float("nan"), "steps": float("inf"), "stored": -1, "adapters": True}, None),
        ({"dreamed": 1.0}, None),
        ({}, None),
        ([1, 2], None),
        (None, None),
        ({"prepared": 10**400}, None),
    ],
)
def test_what_no_worker_can_have_measured_is_left_out(reported, read):
    assert phases_read(reported) == read
