"""The content of a request, the limits of every tenant, and the checks that need nothing but the request."""

from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from core.text import text_unusable_at
from easel.catalog.models import ModelVersion
from easel.jobs.errors import DeadlineInvalid, PromptInvalid, StepsInvalid
from easel.serving.tiers import Quality, steps_of
from tenants.models import Quota
from tenants.quotas import limit_exceeded

SEED_MAX = 2**53 - 1  # the largest integer that every JSON parser reads exactly


class FieldWarning(TypedDict):
    """A field of a request that was ignored, with the code that it would have been refused with."""

    param: str
    code: str
    message: str


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
    warnings: tuple[FieldWarning, ...] = ()


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
