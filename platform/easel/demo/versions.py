"""The demo's second half: a canary under its guardrail, and an experiment scored by comparing pictures with colours."""

import io
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from easel.catalog.models import ModelVersion
from easel.seed import DEMO_MODEL
from easel.serving.models import Rollout
from easel.serving.rollouts import RolloutPlan, rollout_start
from easel_client import Easel
from easel_client.client import Job

# The colours as the demo model paints them.
_COLOURS = {
    "red": (220, 40, 45),
    "green": (50, 165, 75),
    "blue": (40, 80, 205),
    "yellow": (250, 222, 60),
    "purple": (130, 55, 175),
    "pink": (250, 150, 195),
}
_WHITE = (245, 245, 245)
_CALLERS = 24
_SIZE = "128x128"
_VERDICT_SECONDS = 60


def canary(console: Console, client: Easel) -> None:
    """Roll out version 2 of the demo model and show the guardrail's verdict on real traffic."""
    running = Rollout.objects.filter(model__name=DEMO_MODEL, state=Rollout.State.RUNNING).first()
    if running is None:
        candidate = ModelVersion.objects.filter(model__name=DEMO_MODEL, route=None, retired_at=None).first()
        if candidate is None:
            console.print("    every version of the model serves it already")
            return
        # The canary stops at half of the callers: an operator promotes it, in the portal or by `easel rollout`.
        plan = RolloutPlan(stages=(50, 100), stage_seconds=86_400, jobs_min=5, error_rate_max=0.2, p95_ratio_max=3)
        running = rollout_start(candidate=candidate, plan=plan, now=datetime.now(UTC))
    _generate_all(client)
    verdict, share = _verdict(running.pk), running.stages[running.stage]
    console.print(f"    {running.candidate.label} serves {share} % of the callers; the guardrail says: {verdict}")


def experiment(console: Console, client: Easel) -> None:
    """Compare eight steps with one. A visitor's score is the likeness of its picture to the colour in its prompt."""
    name = f"steps-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for row in client.experiments.list()["data"]:
        if row["status"] == "running":
            client.experiments.stop(row["name"])
    arms: Any = [{"name": arm, "weight": 50, "steps": steps} for arm, steps in (("eight", 8), ("one", 1))]
    client.experiments.start(name=name, arms=arms)
    for number, job in enumerate(_generate_all(client)):
        image = client.fetch(job["images"][0]["url"])
        client.jobs.feedback(job["id"], score=likeness(image, _colour(number)))
    _print_report(console, client.experiments.get(name))


def _generate_all(client: Easel) -> list[Job]:
    """Generate a picture for each caller at once and return the jobs. Raises `ClickException` for one that fails."""

    def generate(number: int) -> Job:
        prompt = f"a {_colour(number)} circle on a white background"
        job = client.jobs.create(size=_SIZE, seed=7, cache=False, prompt=prompt, user=f"visitor-{number}")
        *_, job = client.jobs.follow(job)
        if job["status"] != "succeeded":
            raise click.ClickException(f"{prompt!r} {job['status']}: {job['error']}")
        return job

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(generate, range(_CALLERS)))


def likeness(image: bytes, colour: str) -> float:
    """Return the likeness of a picture to a disc of `colour` on white, from 0 to 1, by its middle and its corners."""
    picture = Image.open(io.BytesIO(image)).convert("RGB").resize((8, 8), Image.Resampling.BOX)
    pixels = np.asarray(picture, dtype=int)
    off = np.abs(pixels[3, 3] - _COLOURS[colour]).sum() + np.abs(pixels[::7, ::7] - _WHITE).sum()
    return round(1 - int(off) / (5 * 3 * 255), 4)


def _colour(number: int) -> str:
    return list(_COLOURS)[number % len(_COLOURS)]


def _verdict(rollout_id: Any) -> str:
    """Return the guardrail's verdict once it has seen enough jobs, or its last one when the time is up."""
    deadline = time.monotonic() + _VERDICT_SECONDS
    while True:
        verdict = Rollout.objects.values_list("verdict", flat=True).get(pk=rollout_id)
        if "jobs failed" in verdict or time.monotonic() > deadline:
            return verdict
        time.sleep(0.5)


def _print_report(console: Console, found: Mapping[str, Any]) -> None:
    table = Table("arm", "jobs", "score", "95 % interval", "p", "cost per job", title=f"Experiment {found['name']}")
    for arm in found["report"]:
        score = arm["score"]
        table.add_row(
            arm["arm"],
            str(arm["jobs"]),
            _number(score["mean"], 3),
            f"{_number(score['low'], 3)} to {_number(score['high'], 3)}",
            _number(score["p_value"], 4),
            f"{_number((arm['job_cost_micros']['mean'] or 0) / 1e6, 6)} USD",
        )
    console.print()
    console.print(table)


def _number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"
