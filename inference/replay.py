"""`easel replay`: run a mixed batch from a trace file, step by step, and see who was in each step and what it cost.

A trace is JSON: {"requests": [...]}, in which each request has `prompt`, `width`, `height`, `steps`, `seed`, and may
have `tenant`, `join_step` (the step before which it arrives, 0 the first), `cancel_step` (before which it is canceled),
and `adapters`: [{"name": "outline" or "mosaic", or the path of a canonical file, "scale": 1.0}]. Without a file, a
mixed batch that comes with the demo model is run.
"""

import argparse
import hashlib
import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from PIL import Image, ImageDraw

from inference.adapters import AdapterTable, AdapterTargets, load_adapter
from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.demo_model.bundled import bundled_adapter
from inference.engine import Engine, Step
from inference.errors import GenerationError
from inference.model import LoadedModel, Room, load_model
from inference.rows import ImageRequest, Row
from inference.scheduler import Scheduler

EXAMPLE = CHECKPOINT_DIR.parent / "traces" / "mixed.json"


class TraceError(ValueError):
    """The trace can't be run; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace."""

    request: ImageRequest
    join_step: int = 0
    cancel_step: int | None = None


def _arrival(fields: dict[str, Any], targets: AdapterTargets) -> Arrival:
    fields = dict(fields)
    steps = {name: int(fields.pop(name)) for name in ("join_step", "cancel_step") if name in fields}
    used = fields.pop("adapters", [])
    adapters = tuple((_adapter(str(one["name"]), targets), float(one.get("scale", 1.0))) for one in used)
    return Arrival(ImageRequest(**fields, adapters=adapters), **steps)


def _adapter(name: str, targets: AdapterTargets) -> AdapterTable:
    if (ADAPTERS_DIR / f"{name}.safetensors").exists():
        return bundled_adapter(name, targets)
    path = Path(name)
    return load_adapter(path, targets, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def read_trace(path: Path, targets: AdapterTargets) -> list[Arrival]:
    """The requests of a trace file. Raises `TraceError`."""
    try:
        requests = json.loads(path.read_text())["requests"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path} is no trace: {type(error).__name__}: {error}") from error
    if not isinstance(requests, list) or not requests:
        raise TraceError(f"{path}: `requests` is a list of at least one request")
    arrivals = []
    for i, fields in enumerate(requests):
        try:
            arrivals.append(_arrival(fields, targets))
        except (KeyError, TypeError, ValueError, OSError, GenerationError) as error:
            raise TraceError(f"{path}, request {i}: {type(error).__name__}: {error}") from error
    return arrivals


def run(model: LoadedModel, arrivals: list[Arrival]) -> tuple[list[Row], list[Step], Engine]:
    """Every request joined, and canceled, at its step. Raises what is wrong with a request."""
    engine = Engine(model, clock=time.monotonic, scheduler=Scheduler(tokens_max=model.tokens_max), step_seconds_max=1)
    rows: dict[int, Row] = {}
    steps: list[Step] = []
    number = 0
    while len(rows) < len(arrivals) or not all(row.done for row in rows.values()):
        for i, arrival in enumerate(arrivals):
            if i not in rows and arrival.join_step <= number:
                rows[i] = engine.submit(arrival.request)
            if i in rows and arrival.cancel_step == number:
                rows[i].cancel()
        step = engine.step()
        if step is not None and step.rows:
            steps.append(step)
        number += 1
    return [rows[i] for i in range(len(arrivals))], steps, engine


def describe(rows: list[Row], steps: list[Step], engine: Engine) -> str:
    """A line for each step and each image, and how the time was shared out."""
    number = {row: i for i, row in enumerate(rows)}
    lines = [f"{'step':>4}{'rows':>5}{'tokens':>7}{'adapters':>9}{'merged':>7}{'seconds':>9}  images"]
    for i, step in enumerate(steps):
        who = " ".join(str(number[row]) for row in sorted(step.rows, key=number.__getitem__))
        counts = f"{len(step.rows):5}{step.tokens:7}{step.adapters:9}{step.merged:7}{step.seconds:9.3f}"
        lines.append(f"{i:4}{counts}  {who}")
    lines.append(f"\n{'image':>5} {'tenant':10}{'size':>9}{'steps':>6}{'adapters':>9}{'GPU s':>8}{'share':>7}  outcome")
    attributed = sum(row.gpu_seconds for row in rows)
    for row, i in number.items():
        size = "x".join(map(str, row.size))
        share = f"{row.gpu_seconds / attributed:7.1%}"
        outcome = getattr(row.future.exception(), "code", None) or "succeeded"
        used = f"{row.steps_done:6}{len(row.adapters):9}{row.gpu_seconds:8.3f}{share}"
        lines.append(f"{i:5} {row.tenant or '-':10}{size:>9}{used}  {outcome}")
    busy = engine.meter.busy_seconds
    lines.append(f"\nbusy {busy:.6f} s, charged {attributed:.6f} s, drift {1 - attributed / busy:.1e}")
    return "\n".join(lines)


def contact_sheet(pictures: list[Image.Image]) -> Image.Image:
    side = max(max(picture.size) for picture in pictures)
    sheet = Image.new("RGB", (side * len(pictures), side + 20), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i * side, 20))
        ImageDraw.Draw(sheet).text((i * side + 4, 4), str(i), fill="black")
    return sheet


def largest_difference(model: LoadedModel, rows: list[Row]) -> int:
    """Of 255, between each picture and the same request drawn alone."""
    worst = 0
    for row in rows:
        if row.future.exception() is None:
            ((alone,), _, _) = run(model, [Arrival(row.request)])
            pair = (np.asarray(picture.result(), dtype=np.int16) for picture in (row, alone))
            worst = max(worst, int(np.abs(np.subtract(*pair)).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="easel replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", nargs="?", type=Path, default=EXAMPLE, help="a trace file")
    parser.add_argument("--model", default=str(CHECKPOINT_DIR), help="a folder or a hub id (default: the demo model)")
    parser.add_argument("--check", action="store_true", help="draw each request alone too, and compare")
    parser.add_argument("-o", "--output", type=Path, default=Path("replay"), help="the folder for the pictures")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        model = load_model(asked.model, name="replay", room=Room(rank_max=32))
        model.warm_up()
        rows, steps, engine = run(model, read_trace(asked.trace, model.targets))
    except (TraceError, GenerationError, OSError, TypeError) as error:
        print(f"easel replay: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    print(describe(rows, steps, engine))  # noqa: T201
    drawn = {i: row.result() for i, row in enumerate(rows) if row.future.exception() is None}
    asked.output.mkdir(parents=True, exist_ok=True)
    for i, picture in drawn.items():
        picture.save(asked.output / f"{i}.png")
    if drawn:
        contact_sheet(list(drawn.values())).save(asked.output / "all.png")
    print(f"pictures: {asked.output}/")  # noqa: T201
    if asked.check:
        print(f"largest difference to each drawn alone: {largest_difference(model, rows)} of 255")  # noqa: T201


if __name__ == "__main__":
    main()
