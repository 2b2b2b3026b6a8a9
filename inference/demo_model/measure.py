"""Recognition of a picture's contents from its pixels, by colours, regions and outlines, without a network.

`describe` finds the background and the things on it; `style_measures` distinguishes the styles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from inference.demo_model.scenes import COLOURS, SHAPES, TILE_PX, Thing, shape_mask, shape_points

Mask = NDArray[np.bool_]

_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_AREA_MIN = 0.006  # of the canvas; smaller regions are specks
_PURITY_MIN = 0.7  # share of a thing's inner pixels that must agree on its colour
# The largest mean distance of the contour from the template's, as a share of the box's side. A share of the area would
# be three times as strict for a star, which is mostly contour, as for a square.
_DEVIATION_MAX = 0.04
_SQUARENESS_MIN = 0.75  # shortest over longest side of the bounding box


@dataclass(frozen=True, slots=True)
class Found:
    """A thing found in a picture; a colour or shape that is ambiguous is "unclear"."""

    colour: str
    shape: str
    x: float  # centre of its bounding box, as a share of the width
    y: float
    fill: float  # share of the shape's inside that has the thing's own colour

    @property
    def thing(self) -> Thing:
        """The colour and shape, without the position."""
        return Thing(self.colour, self.shape)


@dataclass(frozen=True, slots=True)
class Description:
    """The background's colour and the things on it, the largest first."""

    background: str
    found: tuple[Found, ...]


def describe(image: Image.Image) -> Description:
    """Find the background and the things of a picture of any size."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    classes = _nearest_colour(_without_lines(pixels))
    edge = max(2, min(classes.shape) // 40)
    sides = (classes[:edge], classes[-edge:], classes[:, :edge], classes[:, -edge:])
    border = np.concatenate([side.ravel() for side in sides])
    background = int(np.bincount(border, minlength=len(_NAMES)).argmax())
    labels, _ = ndimage.label(classes != background)
    found = [
        _recognise(labels[box] == label, box, classes, background)
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if (labels[box] == label).sum() >= _AREA_MIN * labels.size
    ]
    found.sort(key=lambda one: -one[0])
    return Description(_NAMES[background], tuple(one for _, one in found))


def style_measures(image: Image.Image) -> dict[str, float]:
    """Measure the style of a picture.

    `fill` is 1 for solid things and below a half for closed outlines. `cover` is the share of the canvas that is not
    background, which shows broken outlines too. `tiles` is the difference between neighbouring tiles in grey levels.
    """
    described = describe(image)
    fills = [one.fill for one in described.found]
    classes = _nearest_colour(np.asarray(image.convert("RGB"), dtype=np.float32))
    return {
        "fill": float(np.mean(fills)) if fills else 0.0,
        "cover": float((classes != _NAMES.index(described.background)).mean()),
        "tiles": _tile_contrast(image),
    }


def _nearest_colour(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    distances = ((pixels[:, :, None] - _PALETTE) ** 2).sum(axis=-1)
    nearest: NDArray[np.intp] = distances.argmin(axis=-1)
    return nearest


def _without_lines(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove grout: on the mosaic's grid, replace each pixel with the tile's nearest inner pixel."""
    if _grid_contrast(pixels) < 8.0:
        return pixels
    height, width = pixels.shape[:2]
    tiles, places = np.divmod(np.arange(max(height, width)), TILE_PX)
    inner = tiles * TILE_PX + np.clip(places, 2, TILE_PX - 3)
    clean: NDArray[np.float32] = pixels[np.minimum(inner[:height], height - 1)][:, np.minimum(inner[:width], width - 1)]
    return clean


def _recognise(window: Mask, box: tuple[slice, ...], classes: NDArray[np.intp], background: int) -> tuple[int, Found]:
    """Return the area and the contents of a region, which is `window` inside its bounding box."""
    window_classes = classes[box]
    solid = ndimage.binary_fill_holes(window)
    # Without the outermost pixels, whose colour is mixed with that of their neighbours.
    inner = ndimage.binary_erosion(window, iterations=max(1, min(window.shape) // 60))
    inner = inner if inner.sum() > 20 else window
    counts = np.bincount(window_classes[inner], minlength=len(_NAMES))
    colour = int(counts.argmax())
    pure = counts[colour] >= _PURITY_MIN * counts.sum() and colour != background
    shape = max(SHAPES, key=lambda name: _overlap(solid, name))
    squareness = min(window.shape) / max(window.shape)
    clear = _deviation(solid, shape) <= _DEVIATION_MAX and squareness >= _SQUARENESS_MIN
    return int(solid.sum()), Found(
        colour=_NAMES[colour] if pure else "unclear",
        shape=shape if clear else "unclear",
        x=(box[1].start + box[1].stop) / 2 / classes.shape[1],
        y=(box[0].start + box[0].stop) / 2 / classes.shape[0],
        fill=float((solid & (window_classes == colour)).sum() / solid.sum()),
    )


def _template(solid: Mask, shape: str) -> Mask:
    """Paint the shape into the same bounding box."""
    return np.asarray(shape_mask(shape, width=solid.shape[1], height=solid.shape[0])) > 127


def _overlap(solid: Mask, shape: str) -> float:
    """Return the intersection over union with the template."""
    template = _template(solid, shape)
    return float((solid & template).sum() / (solid | template).sum())


def _deviation(solid: Mask, shape: str) -> float:
    """Return the area that differs from the template, per length of its contour and side of its box."""
    corners = np.array(shape_points(shape))
    perimeter = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).sum()
    side = float(np.sqrt(solid.size))
    return float((solid ^ _template(solid, shape)).sum() / (perimeter * side) / side)


def _tile_contrast(image: Image.Image) -> float:
    """Return the median difference of neighbouring tiles in grey levels; unlike grout, it survives the autoencoder."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    rows, columns = image.height // TILE_PX, image.width // TILE_PX
    tiles = pixels[: rows * TILE_PX, : columns * TILE_PX].reshape(rows, TILE_PX, columns, TILE_PX, 3)
    inside = tiles[:, 4:-4, :, 4:-4].mean(axis=(1, 3))
    steps = [np.abs(np.diff(inside, axis=axis)).mean(axis=-1).ravel() for axis in (0, 1)]
    return float(np.median(np.concatenate(steps)))


def _grid_contrast(pixels: NDArray[np.float32]) -> float:
    """Return the median step across the lines of the tile grid minus that inside the tiles, in grey levels."""
    steps = []
    for axis in (0, 1):
        # From the middle of a tile's first half to the two pixels at the border before it.
        borders = np.arange(TILE_PX, pixels.shape[axis] - TILE_PX + 1, TILE_PX)
        line, inside, deeper = (pixels.take(borders + depth, axis=axis) for depth in (0, 5, 9))
        across, within = (np.median(np.abs(inside - other).mean(axis=-1)) for other in (line, deeper))
        steps.append(float(across) - float(within))
    return min(steps)
