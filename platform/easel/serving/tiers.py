"""What a request's quality means: the tier of pools that draws it, and its steps where it names none.

The names are those of OpenAI's `quality`; `standard` and `hd` are its older ones for `medium` and `high`.
"""

from decimal import Decimal

from django.db.models import TextChoices

from easel.catalog.models import ModelVersion, PoolTier


class Quality(TextChoices):
    AUTO = "auto"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"
    STANDARD = "standard"
    HD = "hd"


_HIGH = (Quality.HIGH, Quality.XHIGH, Quality.MAX, Quality.HD)


def tier_named(quality: str) -> PoolTier | None:
    """The tier that a quality names; None for those that leave it to the size."""
    if quality in _HIGH:
        return PoolTier.HD
    return PoolTier.FAST if quality == Quality.LOW else None


def tier_of(version: ModelVersion, *, quality: str, image_units: Decimal) -> PoolTier:
    """The tier of a request whose images are of `image_units` each."""
    by_size = PoolTier.FAST if image_units <= version.fast_image_units_max else PoolTier.HD
    return tier_named(quality) or by_size


def steps_of(version: ModelVersion, *, quality: str) -> int:
    """The steps of a request that names none: of low quality half of the version's own."""
    return max(1, version.steps_default // 2) if quality == Quality.LOW else version.steps_default
