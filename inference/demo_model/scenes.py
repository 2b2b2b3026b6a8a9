"""The training data of the demo model: scenes of coloured shapes, and the pictures painted of them.

`paint` places a scene's shapes on a canvas, with smooth edges; `captions.py` describes the same scene in words. This
module needs numpy and PIL only.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

T = TypeVar("T")
Box = tuple[float, float, float]  # x and y of the centre, and the side, in pixels

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 45),
    "orange": (245, 140, 30),
    "yellow": (250, 222, 60),
    "green": (50, 165, 75),
    "cyan": (70, 205, 215),
    "blue": (40, 80, 205),
    "purple": (130, 55, 175),
    "pink": (250, 150, 195),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star")
RELATIONS = ("left", "right", "above", "below")
STYLES = ("plain", "outline", "mosaic")

TILE_PX = 16  # pitch of the mosaic: one transformer token (VAE factor 8 x patch 2) per tile
HELD_OUT_PERCENT = 10
_SMOOTH = 4  # edges are painted this many times finer, then averaged


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing, or two; `relation` is the direction in which the first lies, seen from the second."""

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None

    def key(self) -> str:
        """Return the combination of things and background that decides the held-out split, whatever its layout."""
        things = "+".join(f"{thing.colour} {thing.shape}" for thing in sorted(self.things))
        return f"{things} on {self.background}"

    def is_held_out(self) -> bool:
        """Return True if training never shows this combination."""
        digest = hashlib.sha256(self.key().encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def single_scenes() -> Iterator[Scene]:
    """Yield every scene with one thing."""
    for colour, shape, background in product(COLOURS, SHAPES, COLOURS):
        if colour != background:
            yield Scene((Thing(colour, shape),), background)


def default_background(things: tuple[Thing, ...]) -> str:
    """Return the background of a caption that names none: white, unless one of the things is white."""
    taken = {thing.colour for thing in things}
    return next(name for name in ("white", "black", "blue") if name not in taken)


def scene_sample(rng: np.random.Generator, *, pair: bool, held_out: bool = False) -> Scene:
    """Sample a scene from one side of the held-out split."""
    while True:
        background = pick(rng, tuple(COLOURS))
        colours = [name for name in COLOURS if name != background]
        things = tuple(Thing(pick(rng, colours), pick(rng, SHAPES)) for _ in range(2 if pair else 1))
        if rng.random() < 0.1:
            background = default_background(things)
        if pair and things[0] == things[1]:
            continue
        scene = Scene(things, background, pick(rng, RELATIONS) if pair else None)
        if scene.is_held_out() == held_out:
            return scene


def shape_points(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a shape whose bounding box is the unit square, with y pointing down."""
    if shape == "circle":
        turns = [2 * math.pi * i / 96 for i in range(96)]
        return [(0.5 + 0.5 * math.cos(a), 0.5 + 0.5 * math.sin(a)) for a in turns]
    if shape == "square":
        return [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    if shape == "triangle":
        return [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]
    if shape == "star":
        polar = [(0.23 if i % 2 else 0.5, -math.pi / 2 + math.pi * i / 5) for i in range(10)]
        tips = [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in polar]
        corners = np.array(tips) - np.min(tips, axis=0)
        return [(x, y) for x, y in (corners / corners.max(axis=0)).tolist()]
    raise ValueError(f"unknown shape {shape!r}")


def shape_mask(shape: str, *, width: int, height: int, outline_px: float = 0.0) -> Image.Image:
    """Paint the coverage (mode L) of a shape that fills a `width` x `height` box, or of its contour alone."""
    size = (width * _SMOOTH, height * _SMOOTH)
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    points = [(x * (size[0] - 1), y * (size[1] - 1)) for x, y in shape_points(shape)]
    pen.polygon(points, fill=255)
    if outline_px:
        # The hole is the set of points further than the line's width from every edge. Painting the
        # thick edges in black and keeping what they cover leaves the contour inside the shape.
        edges = Image.new("L", size, 0)
        line = ImageDraw.Draw(edges)
        thick = max(2, round(2 * outline_px * _SMOOTH))
        line.line([*points, points[0], points[1]], fill=255, width=thick, joint="curve")
        mask = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(edges)))
    return mask.reduce(_SMOOTH)


def layout_sample(scene: Scene, *, width: int, height: int, rng: np.random.Generator) -> list[Box]:
    """Sample the square boxes of a scene's things on a canvas of `width` x `height` pixels."""
    side: float
    if scene.relation is None:
        side = min(width, height)
        jitter = 0.02 * side
        size = side * rng.uniform(0.56, 0.64)
        return [(width / 2 + rng.uniform(-jitter, jitter), height / 2 + rng.uniform(-jitter, jitter), size)]
    sideways = scene.relation in ("left", "right")
    cell_w, cell_h = (width / 2, height) if sideways else (width, height / 2)
    side = min(cell_w, cell_h, 0.6 * max(cell_w, cell_h))
    boxes = []
    for index in range(2):
        x, y = (cell_w * (index + 0.5), cell_h / 2) if sideways else (cell_w / 2, cell_h * (index + 0.5))
        jitter = 0.025 * side
        x, y = x + rng.uniform(-jitter, jitter), y + rng.uniform(-jitter, jitter)
        boxes.append((x, y, side * rng.uniform(0.72, 0.80)))
    return boxes[::-1] if scene.relation in ("right", "below") else boxes


def paint(scene: Scene, *, width: int, height: int, rng: np.random.Generator, style: str = "plain") -> Image.Image:
    """Paint a scene on a canvas of `width` x `height` pixels (RGB)."""
    canvas = Image.new("RGB", (width, height), COLOURS[scene.background])
    outline_px = 0.045 * min(width, height) if style == "outline" else 0.0
    boxes = layout_sample(scene, width=width, height=height, rng=rng)
    for thing, (x, y, side) in zip(scene.things, boxes, strict=True):
        size = round(side)
        # Two things are smaller than one on the same canvas, so their lines are thinner.
        line_px = outline_px * (0.8 if len(boxes) > 1 else 1.0)
        mask = shape_mask(thing.shape, width=size, height=size, outline_px=line_px)
        corner = (round(x - size / 2), round(y - size / 2))
        canvas.paste(COLOURS[thing.colour], corner, mask)
    return mosaic(canvas, rng=rng) if style == "mosaic" else canvas


def mosaic(image: Image.Image, *, rng: np.random.Generator) -> Image.Image:
    """Lay a picture in square tiles with grout between them, each tile a little lighter or darker."""
    pixels = np.asarray(image, dtype=np.float32)
    rows, columns = -(-image.height // TILE_PX), -(-image.width // TILE_PX)
    shade = rng.uniform(-22, 22, size=(rows, columns, 1)).astype(np.float32)
    shade = shade.repeat(TILE_PX, axis=0).repeat(TILE_PX, axis=1)[: image.height, : image.width]
    grout_rows = np.isin(np.arange(image.height) % TILE_PX, (0, TILE_PX - 1))
    grout_columns = np.isin(np.arange(image.width) % TILE_PX, (0, TILE_PX - 1))
    grout = (grout_rows[:, None] | grout_columns[None, :])[..., None]
    # Grout is close to mid grey, so that it shows on black and on white.
    pixels = np.where(grout, 0.45 * pixels + 0.55 * 128.0, pixels + shade)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
