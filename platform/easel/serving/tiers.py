"""Maps a request's quality to a tier of pools and to a default number of steps.

The names are those of OpenAI's `quality`; `standard` and `hd` are its older names of `medium` and `high`. A tier is a
property of pools, a quality one of requests. A tier's pool holds weights, so a version that differs only in its
defaults needs no pool of its own; a dedicated pool takes both tiers.
"""

from collections.abc import Mapping
from decimal import Decimal

from django.db.models import TextChoices

from easel.catalog.models import ModelVersion, PoolTier


class Quality(TextChoices):
    """Values of a request's `quality`."""

    AUTO = "auto"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"
    STANDARD = "standard"
    HD = "hd"


# The tier of each quality that names one. For the others the size decides.
TIERS_NAMED: Mapping[str, PoolTier] = {
    Quality.LOW: PoolTier.FAST,
    **dict.fromkeys((Quality.HIGH, Quality.XHIGH, Quality.MAX, Quality.HD), PoolTier.HD),
}


def tier_of(version: ModelVersion, *, quality: str, image_units: Decimal) -> PoolTier:
    """Return the tier of a request whose images have `image_units` each."""
    by_size = PoolTier.FAST if image_units <= version.fast_image_units_max else PoolTier.HD
    return TIERS_NAMED.get(quality, by_size)


def steps_of(version: ModelVersion, *, quality: str) -> int:
    """Return the default steps of a request: the version's, or half of them for low quality."""
    return max(1, version.steps_default // 2) if quality == Quality.LOW else version.steps_default
