"""The unit in which images are limited, billed and assigned to a tier: their resolution weight."""

from decimal import Decimal

PIXELS_PER_UNIT = 512**2


def image_units(*, width: int, height: int, n: int) -> Decimal:
    """Return the weight of `n` images: 512x512 pixels are 1 image unit, 1024x1024 pixels are 4."""
    return Decimal(width * height * n) / PIXELS_PER_UNIT
