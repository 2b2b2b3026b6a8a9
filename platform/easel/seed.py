"""Seeds an installation with a shared pool, the configured model and a price book."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import structlog
from django.conf import settings

from billing.models import Meter
from billing.pricing.price_books import RateTerms, price_book_seed
from easel.catalog.models import Model, Pool
from easel.catalog.versions import VersionLimits, model_make_default
from easel.serving.aliases import alias_set
from easel.serving.errors import RolloutRunning
from easel.serving.models import Alias
from easel.serving.routing import routes_set
from easel.serving.versions import version_register

log = structlog.get_logger()
SHARED_POOL = "shared"
SHARED_NAMESPACE = "easel-shared"
DEMO_MODEL = "z-image-demo"

# DEMO_LIMITS are for the demo model on a CPU; LIMITS are for Z-Image-Turbo on one GPU, as its authors describe it. The
# bounds of GPU seconds are several times what was measured, because a hold must cover a busy machine. A charge is for
# measured seconds.
DEMO_LIMITS = VersionLimits(
    side_min=128,
    side_max=512,
    size_default="256x256",
    fast_image_units_max=Decimal("0.25"),
    steps_default=8,
    steps_max=50,
    gpu_seconds_bound=Decimal(4),
)
LIMITS = VersionLimits(
    side_min=256,
    side_max=2048,
    size_default="1024x1024",
    fast_image_units_max=Decimal(1),
    steps_default=8,
    steps_max=50,
    gpu_seconds_bound=Decimal("0.5"),
)
# In USD: a GPU hour at 4.50, a CPU hour at 0.36, 512x512 pixels at 0.002, a GB stored for 30 days at 0.0259.
PRICES = (
    RateTerms(meter=Meter.GPU_SECOND, unit_price=Decimal("0.00125")),
    RateTerms(meter=Meter.GPU_SECOND, gpu_class="cpu", unit_price=Decimal("0.0001")),
    RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal("0.002")),
    RateTerms(meter=Meter.REQUEST, unit_price=Decimal("0.0005")),
    RateTerms(meter=Meter.CACHE_HIT, unit_price=Decimal(0)),
    RateTerms(meter=Meter.STORAGE_GB_SECOND, unit_price=Decimal("0.00000001")),
)
BATCH_DISCOUNT = Decimal("0.5")


# For clients whose model name is fixed. OpenAI's dall-e models answer with URLs unless they are asked for base64; the
# fields are those that such clients send by default and no model here obeys.
ALIASES = {"gpt-image-1": "", "gpt-image-1-mini": "", "dall-e-2": "url", "dall-e-3": "url"}
ALIASES_IGNORE = ("background", "moderation", "style")
# The hub id of weights that only a model with these weights may stand for: the demo model has others.
HUB_ID = "Tongyi-MAI/Z-Image-Turbo"


def seed() -> None:
    """Create what is missing; change nothing that an operator has created."""
    now = datetime.now(UTC)
    pool, _ = Pool.objects.get_or_create(
        slug=SHARED_POOL,
        defaults={"namespace": SHARED_NAMESPACE, "gpu_class": settings.EASEL.gpu_class, "created_at": now},
    )
    # A price book of version 1 had no price for storage.
    price_book_seed(currency="USD", version=2, rates=PRICES, batch_discount=BATCH_DISCOUNT, effective_at=now, now=now)
    checkpoint = settings.EASEL.model
    if not checkpoint:
        log.warning("no_model_registered", reason="EASEL_MODEL is not set, and the demo model is not installed")
        return
    is_demo = Path(checkpoint).parts[-2:] == ("demo_model", "checkpoint")
    name, limits = (DEMO_MODEL, DEMO_LIMITS) if is_demo else (Path(checkpoint).name.lower(), LIMITS)
    version = version_register(model_name=name, checkpoint=checkpoint, pool=pool, limits=limits, now=now)
    if version.created_at == now:  # EASEL_MODEL names another checkpoint than before
        _seed_aliases(version.model, now=now)
        with suppress(RolloutRunning):
            routes_set(model=version.model, weights={version.number: 100})
    if is_demo:
        # A second version for rollouts and experiments: half the steps, so half the time and cost.
        limits = replace(DEMO_LIMITS, steps_default=4)
        version_register(model_name=name, checkpoint=checkpoint, pool=pool, limits=limits, now=now)
    model_make_default(version.model)


def _seed_aliases(model: Model, *, now: datetime) -> None:
    """Set the aliases that are missing. It is done once for a checkpoint, so that a removed alias stays removed."""
    names = ALIASES if model.name != Path(HUB_ID).name.lower() else {**ALIASES, HUB_ID: ""}
    taken = Alias.objects.filter(tenant=None).values_list("name", flat=True)
    taken_by_models = Model.objects.values_list("name", flat=True)
    for name in names.keys() - set(taken) - set(taken_by_models):
        alias_set(
            name=name,
            model=model,
            tenant=None,
            defaults={"response_format": names[name]},
            ignored=ALIASES_IGNORE,
            is_lenient=False,
            now=now,
        )
