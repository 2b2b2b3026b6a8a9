"""`easel quality`: measure how far pictures drift when a model's weights are quantised.

The same prompts, seeds and sizes are generated at every precision. PSNR is in dB; SSIM is Wang et al. 2004 on luminance
with their window (Gaussian, 11 px, sigma 1.5) and constants. The demo model's pictures are also scored: the share of
shapes and colours that match the prompt.
"""

import argparse
import json
import logging
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.demo_model.captions import caption_plain
from inference.demo_model.evaluate import held_out_scenes, score
from inference.demo_model.scenes import Scene
from inference.engine import Engine
from inference.errors import GenerationError
from inference.model import AdapterLimits, LoadedModel, load_model
from inference.precision import Precision
from inference.rows import ImageRequest
from inference.scheduler import Scheduler
from inference.tools.lora_file import lora_file

_LINE_PX = 24  # height of a line of text on the sheet


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one precision from full precision, averaged over pictures; `psnr` only over those that differ."""

    precision: Precision
    adapter: str
    weight_bytes: int
    seconds: float
    psnr: float | None
    ssim: float
    score: float | None


def psnr(image: Image.Image, reference: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.square(_pixels(image) - _pixels(reference)).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(image: Image.Image, reference: Image.Image) -> float:
    """Structural similarity of the luminance, -1 to 1."""
    x, y = (torch.from_numpy(_pixels(picture.convert("L"))).double()[None, None] for picture in (image, reference))
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(values, window)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def _pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, dtype=np.float64)


def compare(
    ref: str, requests: list[ImageRequest], scenes: list[Scene]
) -> tuple[list[Drift], dict[str, list[Image.Image]]]:
    """Return the drift of every precision and the pictures by label; the demo model's also with one of its adapters.

    The demo model's pictures are scored against `scenes`, which is empty for custom prompts.
    """
    drifts: list[Drift] = []
    pictures: dict[str, list[Image.Image]] = {}
    for precision in get_args(Precision):
        limits = AdapterLimits(adapter_slots=1, rank_max=32, merged_bytes=0)
        model = load_model(ref, name="quality", precision=precision, limits=limits)
        for adapter in ("", "outline") if ref == str(CHECKPOINT_DIR) else ("",):
            label, reference = (f"{name} {adapter}".strip() for name in (precision, "none"))
            print(f"generating {len(requests)} pictures: {label}", file=sys.stderr, flush=True)  # noqa: T201
            file = ADAPTERS_DIR / f"{adapter}.safetensors"
            adapters = ((lora_file(file, model.targets), 1.0),) if adapter else ()
            images, seconds = _generate(model, [replace(request, adapters=adapters) for request in requests])
            pictures[label] = images
            pairs = list(zip(images, pictures[reference], strict=True))
            finite = [ratio for ratio in (psnr(*pair) for pair in pairs) if ratio < math.inf]
            scores = [score(*pair) for pair in zip(scenes, images, strict=True)] if scenes and not adapter else []
            drifts.append(
                Drift(
                    precision=precision,
                    adapter=adapter,
                    weight_bytes=model.weight_bytes,
                    seconds=seconds,
                    psnr=sum(finite) / len(finite) if finite else None,
                    ssim=sum(ssim(*pair) for pair in pairs) / len(pairs),
                    score=sum(one.shape + one.colour for one in scores) / 2 / len(scores) if scores else None,
                )
            )
    return drifts, pictures


def _generate(model: LoadedModel, requests: list[ImageRequest]) -> tuple[list[Image.Image], float]:
    engine = Engine(model, clock=time.monotonic, scheduler=Scheduler(tokens_max=model.tokens_max), step_seconds_max=1)
    rows = [engine.submit(request) for request in requests]
    started = time.monotonic()
    while engine.step() is not None:
        pass
    return [row.result() for row in rows], time.monotonic() - started


def side_by_side(pictures: dict[str, list[Image.Image]], prompts: list[str]) -> Image.Image:
    """Make a sheet with a row for each prompt, below its text, and a labelled column for each way to generate it."""
    width, height = next(iter(pictures.values()))[0].size
    pitch = height + _LINE_PX
    sheet = Image.new("RGB", (width * len(pictures), _LINE_PX + pitch * len(prompts)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        # Pillow's default font has no Chinese.
        pen.text((6, _LINE_PX + row * pitch + 6), prompt.encode("ascii", "replace").decode(), fill="black")
    for column, (label, images) in enumerate(pictures.items()):
        pen.text((column * width + 6, 6), label, fill="black")
        for row, image in enumerate(images):
            sheet.paste(image, (column * width, 2 * _LINE_PX + row * pitch))
    return sheet


def table(drifts: list[Drift]) -> str:
    lines = [f"{'precision':10}{'adapter':10}{'MB':>8}{'seconds':>9}{'PSNR dB':>9}{'SSIM':>8}{'score':>8}"]
    for drift in drifts:
        ratio = "equal" if drift.psnr is None else f"{drift.psnr:.1f}"
        score = "" if drift.score is None else f"{drift.score:.3f}"
        numbers = f"{drift.weight_bytes / 1e6:8.1f}{drift.seconds:9.2f}{ratio:>9}{drift.ssim:8.4f}{score:>8}"
        lines.append(f"{drift.precision:10}{drift.adapter or '-':10}{numbers}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="easel quality", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default=str(CHECKPOINT_DIR), help="a folder or a hub id (default: the demo model)")
    parser.add_argument("--prompt", action="append", help="a prompt, may be repeated (default: held-out scenes)")
    parser.add_argument("--count", type=int, default=4, help="number of pictures without --prompt (default: 4)")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels (default: 256)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture; each further seed is one more")
    parser.add_argument("-o", "--output", type=Path, default=Path("quality.png"), help="file of the sheet")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    args = parser.parse_args()
    if args.count < 1 or args.steps < 1:
        parser.error("--count and --steps must be at least 1")
    if not args.prompt and args.model != str(CHECKPOINT_DIR):
        parser.error("--prompt is required: only the demo model has scenes of its own")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    scenes = [] if args.prompt else held_out_scenes(args.count, pair=False)
    prompts = args.prompt or [caption_plain(scene) for scene in scenes]
    requests = [
        ImageRequest(prompt=prompt, width=args.size, height=args.size, steps=args.steps, seed=args.seed + i)
        for i, prompt in enumerate(prompts)
    ]
    try:
        drifts, pictures = compare(args.model, requests, scenes)
    except (GenerationError, OSError, TypeError) as error:
        sys.exit(f"easel quality: {error}")
    side_by_side(pictures, prompts).save(args.output)
    print(json.dumps([asdict(drift) for drift in drifts]) if args.json else table(drifts))  # noqa: T201
    print(f"pictures side by side: {args.output}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
