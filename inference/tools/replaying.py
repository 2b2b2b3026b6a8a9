"""Runs the requests of a trace through an engine, and reports the images and the cost of each step."""

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from PIL import Image, ImageDraw

from inference.adapters import AdapterTable, AdapterTargets
from inference.calibration import warm_up
from inference.demo_model import ADAPTERS_DIR
from inference.engine import Engine, Step
from inference.errors import GenerationError
from inference.model import LoadedModel, load_model
from inference.rows import ImageRequest, Row
from inference.scheduler import Scheduler
from inference.tools.lora_file import lora_file
from inference.tools.trace import REQUIRED, TraceError, place_of, read_requests

_SIDE_PX, _COLUMNS = 256, 3  # of the contact sheet


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, its `place` in the trace, and the numbers of the steps before which it joins and is canceled."""

    request: ImageRequest
    join_step: int = 0
    cancel_step: int | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay: a row for each arrival, the steps by number, and the device's busy seconds."""

    rows: list[Row]
    steps: dict[int, Step]
    busy_seconds: float


def read_trace(path: Path, targets: AdapterTargets) -> list[Arrival]:
    """Read the requests of a trace file. Raises `TraceError`."""
    arrivals = []
    for number, fields in enumerate(read_requests(path)):
        place = place_of(path, number)
        adapters = [
            _adapter(adapter, f"{place}, adapter {index}", path.parent, targets)
            for index, adapter in enumerate(fields.get("adapters", []))
        ]
        wanted = {name: fields[name] for name in (*REQUIRED, "tenant") if name in fields}
        request = ImageRequest(**wanted, adapters=tuple(adapters))
        arrivals.append(Arrival(request, fields.get("join_step", 0), fields.get("cancel_step"), place))
    return arrivals


def _adapter(fields: Any, place: str, folder: Path, targets: AdapterTargets) -> tuple[AdapterTable, float]:
    name, scale = fields["name"], float(fields.get("scale", 1.0))
    try:
        bundled = {path.stem: path for path in ADAPTERS_DIR.glob("*.safetensors")}
        return lora_file(bundled.get(name, folder / name), targets), scale
    except OSError as error:
        raise TraceError(place, str(error), "adapter_unreadable") from error
    except GenerationError as error:
        raise TraceError(place, str(error), error.code) from error


def run(model: LoadedModel, arrivals: Sequence[Arrival], *, on_step: Callable[[Step], None] = lambda _: None) -> Replay:
    """Run all requests to their end and call `on_step` after each step.

    Raises `TraceError` for a bad request; other failures stay with their row. The time of a step has no limit, so that
    its rows do not depend on the speed of the device.
    """
    scheduler: Scheduler[Row] = Scheduler(tokens_max=model.tokens_max)
    engine = Engine(model, clock=time.monotonic, scheduler=scheduler, step_seconds_max=math.inf)
    rows: dict[int, Row] = {}
    steps: dict[int, Step] = {}
    number = 0
    while True:
        for i, arrival in enumerate(arrivals):
            if i not in rows and arrival.join_step <= number:
                rows[i] = _submit(engine, arrival)
            if i in rows and arrival.cancel_step is not None and arrival.cancel_step <= number:
                rows[i].cancel()
        step = engine.step()
        if step and step.rows:
            steps[number] = step
            number += 1
            on_step(step)
        elif step is None:
            if len(rows) == len(arrivals):
                break
            # No image is in flight: skip to the next arrival.
            number = min(arrival.join_step for i, arrival in enumerate(arrivals) if i not in rows)
    return Replay([rows[i] for i in range(len(arrivals))], steps, engine.meter.busy_seconds)


def _submit(engine: Engine, arrival: Arrival) -> Row:
    try:
        return engine.submit(arrival.request)
    except GenerationError as error:
        raise TraceError(arrival.place, str(error), error.code) from error


def describe(replay: Replay) -> str:
    """Format a line for each step and each image, and the attribution of the device's time."""
    numbers = {row: number for number, row in enumerate(replay.rows)}
    lines = [f"{'step':>4}{'rows':>5}{'tokens':>7}{'adapters':>9}{'merged':>7}{'seconds':>9}  images"]
    for number, step in replay.steps.items():
        members = " ".join(map(str, sorted(numbers[row] for row in step.rows)))
        counts = f"{len(step.rows):5}{step.tokens:7}{step.adapters:9}{step.merged:7}{step.seconds:9.3f}"
        lines.append(f"{number:4}{counts}  {members}")
    lines.append(f"\n{'image':>5} {'tenant':10}{'size':>9}{'steps':>6}{'adapters':>9}{'GPU s':>8}{'share':>7}  outcome")
    charged = sum(row.gpu_seconds for row in replay.rows)
    busy = replay.busy_seconds
    for row, number in numbers.items():
        size, share = "x".join(map(str, row.size)), row.gpu_seconds / busy if busy else 0.0
        figures = f"{row.steps_done:6}{len(row.adapters):9}{row.gpu_seconds:8.3f}{share:7.1%}"
        error = row.future.exception()
        outcome = getattr(error, "code", type(error).__name__) if error else "succeeded"
        lines.append(f"{number:5} {row.tenant or '-':10}{size:>9}{figures}  {outcome}")
    drift = 1 - charged / busy if busy else 0.0
    lines.append(f"\nbusy {busy:.6f} s, charged {charged:.6f} s, drift {drift:.1e}")
    return "\n".join(lines)


def contact_sheet(pictures: Mapping[int, Image.Image]) -> Image.Image:
    """Make a sheet of the pictures in their proportions, each under its number."""
    columns, line = min(_COLUMNS, len(pictures)), _SIDE_PX + 24
    sheet = Image.new("RGB", (columns * (_SIDE_PX + 8), -(-len(pictures) // columns) * line), "white")
    for place, (number, picture) in enumerate(pictures.items()):
        x, y = place % columns * (_SIDE_PX + 8), place // columns * line
        small = picture.copy()
        small.thumbnail((_SIDE_PX, _SIDE_PX))
        ImageDraw.Draw(sheet).text((x + 4, y + 4), f"{number}: {picture.width}x{picture.height}", fill="black")
        sheet.paste(small, (x + 4, y + 20))
    return sheet


def preview_sheet(previews: Mapping[int, Sequence[Image.Image]]) -> Image.Image:
    """Make a sheet with a line for each picture: its preview after each of its steps."""
    sheet = Image.new("RGB", (40 + max(map(len, previews.values())) * 68, len(previews) * 68), "white")
    for line, (number, pictures) in enumerate(sorted(previews.items())):
        ImageDraw.Draw(sheet).text((4, line * 68 + 28), str(number), fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(picture.resize((64, 64)), (40 + column * 68, line * 68 + 2))
    return sheet


def largest_difference(model: LoadedModel, replay: Replay) -> int:
    """Return the largest difference, of 255, between a picture and the same request generated alone."""
    largest = 0
    for row in replay.rows:
        if row.future.exception() is None:
            (single,) = run(model, [Arrival(row.request)]).rows
            left, right = (np.asarray(picture.result(), dtype=np.int16) for picture in (row, single))
            largest = max(largest, int(np.abs(left - right).max()))
    return largest


def replay_trace(args: argparse.Namespace) -> None:
    """Replay `args.trace` as `easel replay` is asked to; exits with status 2 for what cannot be run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        model = load_model(args.model, name="replay")
        arrivals = read_trace(args.trace, model.targets)
        warm_up(model)
        previews: dict[Row, list[Image.Image]] = {}

        def on_step(step: Step) -> None:
            for row in step.rows:
                if row.velocity is not None:
                    previews.setdefault(row, []).append(model.preview(row.denoised))

        replay = run(model, arrivals, on_step=on_step)
    except (TraceError, GenerationError, OSError, TypeError) as error:
        print(f"easel replay: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    print(describe(replay))  # noqa: T201
    pictures = {number: row.result() for number, row in enumerate(replay.rows) if not row.future.exception()}
    args.output.mkdir(parents=True, exist_ok=True)
    for number, picture in pictures.items():
        picture.save(args.output / f"{number}.png")
    if pictures:
        contact_sheet(pictures).save(args.output / "all.png")
    numbers = {row: number for number, row in enumerate(replay.rows)}
    preview_sheet({numbers[row]: images for row, images in previews.items()}).save(args.output / "previews.png")
    print(f"pictures: {args.output}/")  # noqa: T201
    if args.check:
        print(f"largest difference to each generated alone: {largest_difference(model, replay)} of 255")  # noqa: T201
