"""The content of a request, the limits of every tenant, and the checks that need nothing but the request."""

import re
from dataclasses import dataclass, field
from typing import Any

from core.text import text_unusable_at
from easel.catalog.models import ModelVersion
from easel.jobs.errors import DeadlineInvalid, PromptInvalid, SizeInvalid, StepsInvalid
from easel.serving.tiers import Quality, steps_of
from tenants.models import Quota
from tenants.quotas import limit_exceeded

SIZE_MULTIPLE = 16  # a latent pixel covers 8x8 pixels, and a token covers 2x2 latent pixels
ASPECT_MAX = 3
SEED_MAX = 2**53 - 1  # the largest integer that every JSON parser reads exactly
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedAdapter:
    """A LoRA adapter as a request names it."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A request for images. `None` and "auto" stand for the default of the model version."""

    prompt: str
    model: str | None = None
    n: int = 1
    size: str = "auto"
    quality: str = Quality.AUTO
    steps: int | None = None
    seed: int | None = None
    adapters: tuple[RequestedAdapter, ...] = ()
    output_format: str = "png"
    output_compression: int = 100
    project: str | None = None
    user: str = ""
    cache: bool = True
    partial_images: int = 0
    priority: int = 0
    expires_in_seconds: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """The part of a job that determines its images, together with its model version and adapters."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    n: int
    output_format: str
    output_compression: int


def prompt_validate(prompt: str, *, chars_max: int) -> None:
    """Raise `PromptInvalid` for a prompt that is blank, too long, or has characters that no model can read."""
    if not prompt.strip():
        raise PromptInvalid("the prompt is empty: describe the image", param="prompt")
    if len(prompt) > chars_max:
        raise PromptInvalid(f"the prompt has {len(prompt)} characters; the limit is {chars_max}", param="prompt")
    if found := text_unusable_at(prompt):
        raise PromptInvalid(
            f"the prompt contains the unusable character {found.code_point} at position {found.position}",
            param="prompt",
        )


def size_parse(size: str, *, version: ModelVersion, quotas: list[Quota]) -> tuple[int, int]:
    """Return width and height in pixels. Raise `SizeInvalid`, which says what is allowed."""
    found = _SIZE.fullmatch(version.size_default if size == "auto" else size)
    if not found:
        raise SizeInvalid(f'size must be "auto" or WIDTHxHEIGHT, for example {version.size_default}', param="size")
    width, height = int(found[1]), int(found[2])
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        raise SizeInvalid(f"width and height must be multiples of {SIZE_MULTIPLE}", param="size")
    if min(width, height) < version.side_min or max(width, height) > version.side_max:
        raise SizeInvalid(
            f"the sides of an image of {version.model.name} must be {version.side_min} to {version.side_max} pixels",
            param="size",
        )
    if max(width, height) > ASPECT_MAX * min(width, height):
        raise SizeInvalid(f"the longer side must be at most {ASPECT_MAX} times the shorter", param="size")
    if bound := limit_exceeded(quotas, "pixels_max", amount=width * height):
        raise SizeInvalid(
            f"{width}x{height} is {width * height} pixels, which exceeds {bound.owner} of {bound.value}", param="size"
        )
    return width, height


def steps_choose(spec: Spec, *, version: ModelVersion, quotas: list[Quota]) -> int:
    """Return the denoising steps: those requested, or those of the requested quality. Raise `StepsInvalid`."""
    steps = steps_of(version, quality=spec.quality) if spec.steps is None else spec.steps
    if not 1 <= steps <= version.steps_max:
        raise StepsInvalid(f"steps must be 1 to {version.steps_max} for {version.model.name}", param="steps")
    if bound := limit_exceeded(quotas, "steps_max", amount=steps):
        raise StepsInvalid(f"{steps} steps exceed {bound.owner} of {bound.value}", param="steps")
    return steps


def ttl_seconds_choose(spec: Spec, *, seconds_max: int) -> int:
    """Return the seconds from a job's admission until it expires. Raise `DeadlineInvalid`."""
    ttl_seconds = seconds_max if spec.expires_in_seconds is None else spec.expires_in_seconds
    if not 1 <= ttl_seconds <= seconds_max:
        raise DeadlineInvalid(f"expires_in_seconds must be between 1 and {seconds_max}", param="expires_in_seconds")
    return ttl_seconds
