"""Sizes of images: what a request may ask for, and the nearest allowed size to one that it may not."""

import math
import re

from easel.catalog.models import ModelVersion
from easel.jobs.errors import SizeInvalid
from tenants.models import Quota
from tenants.quotas import limit_exceeded

SIZE_MULTIPLE = 16  # a latent pixel covers 8x8 pixels, and a token covers 2x2 latent pixels
ASPECT_MAX = 3
_SIZE = re.compile(r"([1-9][0-9]{0,4})[xX×*]([1-9][0-9]{0,4})")


def sides_of(size: str) -> tuple[int, int] | None:
    """Return width and height of a text such as `512x256`, `512X256`, `512×256` or `512*256`; None for another."""
    found = _SIZE.fullmatch(size)
    return (int(found[1]), int(found[2])) if found else None


def size_parse(size: str, *, version: ModelVersion, quotas: list[Quota]) -> tuple[int, int]:
    """Return width and height in pixels. Raise `SizeInvalid`, which says why, and the nearest size that is allowed."""
    sides = sides_of(version.size_default if size == "auto" else size)
    if sides is None:
        raise SizeInvalid(f'size must be "auto" or WIDTHxHEIGHT, for example {version.size_default}', param="size")
    if reason := _fault(*sides, version=version, quotas=quotas):
        pixels_max = min((quota.pixels_max for quota in quotas if quota.pixels_max is not None), default=None)
        nearest = size_nearest(*sides, side_min=version.side_min, side_max=version.side_max, pixels_max=pixels_max)
        advice = f"; the nearest allowed size is {nearest[0]}x{nearest[1]}" if nearest else ""
        raise SizeInvalid(reason + advice, param="size")
    return sides


def _fault(width: int, height: int, *, version: ModelVersion, quotas: list[Quota]) -> str | None:
    """Return why a size is not allowed; None if it is."""
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        return f"width and height must be multiples of {SIZE_MULTIPLE}"
    if min(width, height) < version.side_min or max(width, height) > version.side_max:
        return f"the sides of an image of {version.model.name} must be {version.side_min} to {version.side_max} pixels"
    if max(width, height) > ASPECT_MAX * min(width, height):
        return f"the longer side must be at most {ASPECT_MAX} times the shorter"
    if bound := limit_exceeded(quotas, "pixels_max", amount=width * height):
        return f"{width}x{height} is {width * height} pixels, which exceeds {bound.owner} of {bound.value}"
    return None


def size_nearest(
    width: int, height: int, *, side_min: int, side_max: int, pixels_max: int | None
) -> tuple[int, int] | None:
    """Return the allowed size that is nearest to `size_wanted`; of two as near the larger, of two as large the wider.

    Returns None if the limits allow no size at all.
    """
    wanted = size_wanted(width, height, side_min=side_min, side_max=side_max, pixels_max=pixels_max)
    smallest = _multiple_above(side_min)
    found: list[tuple[float, int, int]] = []
    for side in range(smallest, side_max + 1, SIZE_MULTIPLE):
        lowest = max(smallest, _multiple_above(side / ASPECT_MAX))
        highest = min(side_max, ASPECT_MAX * side, pixels_max // side if pixels_max is not None else side_max)
        highest -= highest % SIZE_MULTIPLE
        if lowest <= highest:
            # Of one width, the nearest height is the nearest of the multiples, moved into the limits.
            other = min(max(math.floor(wanted[1] / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE, lowest), highest)
            distance = (side - wanted[0]) ** 2 + (other - wanted[1]) ** 2
            found.append((distance, -side * other, -side))
    if not found:
        return None
    _, area, side = min(found)
    return -side, area // side


def size_wanted(
    width: int, height: int, *, side_min: int, side_max: int, pixels_max: int | None
) -> tuple[float, float]:
    """Return the size of the same shape that the limits of sides and pixels allow, before it is rounded to multiples.

    A shape that is too long is shortened. Where the limits contradict each other the upper ones decide.
    """
    width, height = min(width, ASPECT_MAX * height), min(height, ASPECT_MAX * width)
    scale = max(1.0, side_min / min(width, height))
    scale = min(scale, side_max / max(width, height))
    if pixels_max is not None:
        scale = min(scale, math.sqrt(pixels_max / (width * height)))
    return width * scale, height * scale


def _multiple_above(pixels: float) -> int:
    return math.ceil(pixels / SIZE_MULTIPLE) * SIZE_MULTIPLE
