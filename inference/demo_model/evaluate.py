"""Generate pictures for prompts that training never saw, and measure from their pixels the share that is right.

`python -m inference.demo_model.evaluate --checkpoint DIR --size 256 --count 60 [--adapter FILE]`
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline
from PIL import Image

from inference.demo_model import CHECKPOINT_DIR
from inference.demo_model.captions import caption_sample
from inference.demo_model.measure import Description, Found, describe, style_measures
from inference.demo_model.models import load_pipeline
from inference.demo_model.scenes import Scene, scene_sample, single_scenes

STEPS = 8
_BATCH_ROWS = 4


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one picture; shape and colour are shares of the things in the prompt."""

    shape: float
    colour: float
    background: bool
    count: bool
    relation: bool | None  # None where the prompt names one thing

    @property
    def things(self) -> bool:
        """True if every thing of the prompt is there, in its shape and colour."""
        return self.shape == self.colour == 1.0

    @property
    def right(self) -> bool:
        """True if the picture shows the things, on the background and in the places of the prompt, and nothing else."""
        return self.things and self.background and self.count and self.relation is not False


def score(scene: Scene, image: Image.Image) -> Score:
    """Score a picture of any size against the scene of its prompt."""
    seen = describe(image)
    shape, colour, relation = max(_matches(scene, seen), key=lambda m: (m[0] + m[1], m[2]))
    return Score(
        shape=shape,
        colour=colour,
        background=seen.background == scene.background,
        count=len(seen.found) == len(scene.things),
        relation=None if scene.relation is None else relation,
    )


def _matches(scene: Scene, seen: Description) -> list[tuple[float, float, bool]]:
    """Score every way to pair the things of the scene with the largest ones found: shape, colour, relation."""
    count = len(scene.things)
    largest: list[Found | None] = list(seen.found[:count])
    largest += [None] * (count - len(largest))
    matches = []
    for found in permutations(largest):
        pairs = [(a, b) for a, b in zip(scene.things, found, strict=True) if b is not None]
        shape = sum(thing.shape == one.shape for thing, one in pairs) / count
        colour = sum(thing.colour == one.colour for thing, one in pairs) / count
        matches.append((shape, colour, _placed(scene.relation, found)))
    return matches


def _placed(relation: str | None, found: Sequence[Found | None]) -> bool:
    if relation is None or found[0] is None or found[1] is None:
        return False
    right, down = found[0].x - found[1].x, found[0].y - found[1].y
    return {"left": right < -0.1, "right": right > 0.1, "above": down < -0.1, "below": down > 0.1}[relation]


@dataclass(slots=True)
class Report:
    """The scores of many pictures, and the seconds per picture."""

    scores: list[Score]
    styles: list[dict[str, float]]
    seconds_per_image: float

    def of(self, rows: Sequence[int]) -> "Report":
        """Return a report on some of the pictures, by index."""
        return Report([self.scores[i] for i in rows], [self.styles[i] for i in rows], self.seconds_per_image)

    def shares(self) -> dict[str, float]:
        """Return the mean of each score, 0..1; a relation counts only in prompts that name one."""
        table: dict[str, float] = {}
        for name in (*(one.name for one in fields(Score)), "things", "right"):
            known = [value for one in self.scores if (value := getattr(one, name)) is not None]
            if known:
                table[name] = float(np.mean(known))
        for name in self.styles[0] if self.styles else ():
            table[name] = float(np.mean([style[name] for style in self.styles]))
        return table


def generate_images(
    pipeline: ZImagePipeline, prompts: list[str], *, width: int, height: int, seed: int = 0
) -> list[Image.Image]:
    """Generate a picture for each prompt, with eight steps and no guidance; picture i has seed `seed` + i."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), _BATCH_ROWS):
        rows = range(start, min(start + _BATCH_ROWS, len(prompts)))
        images += pipeline(
            prompt=[prompts[row] for row in rows],
            width=width,
            height=height,
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            generator=[torch.Generator("cpu").manual_seed(seed + row) for row in rows],
        ).images
    return images


def evaluate(
    pipeline: ZImagePipeline, scenes: list[Scene], prompts: list[str], *, width: int, height: int
) -> tuple[Report, list[Image.Image]]:
    """Generate pictures for the prompts and score each against its scene."""
    started = time.monotonic()
    images = generate_images(pipeline, prompts, width=width, height=height)
    seconds = (time.monotonic() - started) / len(prompts)
    scores = [score(scene, image) for scene, image in zip(scenes, images, strict=True)]
    return Report(scores, [style_measures(image) for image in images], seconds), images


def held_out_scenes(count: int, *, pair: bool, seed: int = 7) -> list[Scene]:
    """Return different scenes of combinations that training never shows; with one thing there are only some dozens."""
    rng = np.random.default_rng(seed)
    if not pair:
        singles = [scene for scene in single_scenes() if scene.is_held_out()]
        return [singles[i] for i in rng.permutation(len(singles))[:count]]
    scenes: dict[str, Scene] = {}
    while len(scenes) < count:
        scene = scene_sample(rng, pair=True, held_out=True)
        scenes[scene.key()] = scene
    return list(scenes.values())


def groups(scenes: list[Scene], prompts: list[str]) -> dict[str, list[int]]:
    """Return the rows of an evaluation, by the groups that are reported separately."""
    rows = range(len(scenes))
    return {
        "all": list(rows),
        "one thing": [i for i in rows if scenes[i].relation is None],
        "two things": [i for i in rows if scenes[i].relation is not None],
        "English": [i for i in rows if prompts[i].isascii()],
        "Chinese": [i for i in rows if not prompts[i].isascii()],
    }


def prompts_for(scenes: list[Scene]) -> list[str]:
    """Make a prompt for each scene, two in five of them Chinese."""
    rng = np.random.default_rng(11)
    return [caption_sample(scene, rng, noise=False) for scene in scenes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_DIR)
    parser.add_argument("--size", default="256", help="256 for a square, or WIDTHxHEIGHT")
    parser.add_argument("--count", type=int, default=60, help="half with one thing (46 at most), then two")
    parser.add_argument("--adapter", type=Path, help="a LoRA file to load")
    options = parser.parse_args()
    # Kernels this small gain little from more threads and are twenty times slower beside another busy program.
    torch.set_num_threads(1)
    width, height = (int(side) for side in f"{options.size}x{options.size}".split("x")[:2])
    pipeline = load_pipeline(options.checkpoint)
    if options.adapter:
        pipeline.load_lora_weights(str(options.adapter.parent), weight_name=options.adapter.name)
    singles = held_out_scenes(options.count // 2, pair=False)
    scenes = [*singles, *held_out_scenes(options.count - len(singles), pair=True)]
    prompts = prompts_for(scenes)
    report, _ = evaluate(pipeline, scenes, prompts, width=width, height=height)
    for name, rows in groups(scenes, prompts).items():
        shares = "  ".join(f"{name} {value:.3f}" for name, value in report.of(rows).shares().items())
        print(f"{name:<10} {len(rows):3}  {shares}")
    print(f"{report.seconds_per_image:.2f} s per {width}x{height} image")
    for scene, prompt, one in zip(scenes, prompts, report.scores, strict=True):
        if not one.right:
            print(f"wrong: {prompt!r} ({scene.key()}, {scene.relation}): {one}")


if __name__ == "__main__":
    main()
