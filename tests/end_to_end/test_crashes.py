"""What survives when processes die."""

import os
import signal

from easel_client import Easel
from tests.live import LiveEasel, all_costs
from tests.processes import is_alive

LONG = {"prompt": "a green square on a white background", "size": "256x256", "steps": 50, "n": 4}


def kill(easel: LiveEasel, name: str) -> None:
    os.kill(easel.status()["processes"][name], signal.SIGKILL)


def last(client: Easel, job: dict) -> dict:
    *_, ended = client.jobs.follow(job)
    return ended


def running(client: Easel) -> dict:
    """A job in the middle of its steps."""
    return next(job for job in client.jobs.follow(client.jobs.create(**LONG)) if job["progress"]["steps_done"] > 0)


def test_a_job_whose_worker_and_redis_are_killed_succeeds_and_is_charged_once(easel, alice):
    job = running(alice)
    kill(easel, "worker-shared")
    kill(easel, "redis")
    ended = last(alice, job)
    costs = all_costs(alice, group_by="project")
    assert (ended["status"], ended["attempts"] > 1) == ("succeeded", True)
    assert costs["data"][0]["requests"] == 1
    assert costs["total"]["amount_micros"] == ended["usage"]["cost_details"]["amount_micros"]


def test_a_job_outlives_the_death_of_the_whole_control_plane(easel, alice):
    job = running(alice)
    for name in ("api", "dispatcher", "completion", "scheduler"):
        kill(easel, name)
    easel.wait_for(lambda: easel.status()["up"])
    assert last(alice, job)["status"] == "succeeded"


def test_stopping_ends_every_process_and_leaves_no_lock(easel):
    processes = easel.json("status")["processes"]
    assert easel.stop() == 0
    assert not any(is_alive(pid) for pid in processes.values())
    easel.start("--no-worker")
    assert easel.stop() == 0
