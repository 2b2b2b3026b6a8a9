"""The fields of a generation: OpenAI's, ours, and other names that image APIs have for the same things."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from core.text import is_line, text_unstorable_at
from easel.api.declaration import LEFT_OUT, AnyText, Flag, Input, Number, OneOf, Text
from easel.api.errors import InvalidField, MissingParameter, UnsupportedParameter
from easel.api.leniency import Leniency
from easel.jobs.sizes import sides_of
from easel.jobs.spec import SEED_MAX, FieldWarning, RequestedAdapter, Spec
from easel.serving.aliases import aliases_of
from easel.serving.tiers import Quality
from tenants.models import ApiKey

# What a request and its `Spec` have in the same form.
_SPEC_FIELDS = {field.name for field in fields(Spec)} - {"adapters", "user", "partial_images", "metadata", "warnings"}
_SEED_RANDOM = -1  # as other APIs spell it
_STEPS = ("steps", "num_inference_steps", "step")  # all names of the steps, the first is ours


class AdapterInput(Input):
    part_of: ClassVar[str] = "adapters"

    name: Text = Field(max_length=40)
    scale: Number = Field(default=1.0, ge=-4, le=4)


def _distinct(adapters: list[AdapterInput]) -> list[AdapterInput]:
    names = [adapter.name for adapter in adapters]
    if len(set(names)) < len(names):
        raise PydanticCustomError("repeated", "must name each adapter once")
    return adapters


def _pairs(metadata: Any) -> Any:
    if not isinstance(metadata, dict):
        return metadata
    metadata = {key: value for key, value in metadata.items() if value is not None}
    for key, value in metadata.items():
        if not isinstance(value, str) or len(value) > 512 or text_unstorable_at(value):
            message = f"metadata.{key} must be a string of at most 512 characters, none of them NUL"
            raise InvalidField(message, param=f"metadata.{key}")
    if len(metadata) > 16 or any(not key or not is_line(key, chars_max=64) for key in metadata):
        raise PydanticCustomError("pairs", "must have at most 16 pairs, with keys of 1 to 64 printable characters")
    return metadata


Metadata = Annotated[dict[str, Annotated[str, Field(max_length=512)]], BeforeValidator(_pairs)]


class Unsupported(NamedTuple):
    """A field that the model can't obey. `is_same` is true of the values that ask for what it does anyway."""

    is_same: Callable[[Any], bool]
    why: str


def _among(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


# The engine generates with guidance 0 (`inference/model.py`). What that is depends on the name: `guidance_scale` is
# diffusers' for this family of models, where 0 is no guidance and 1 already is some; the two others weigh the prompt
# against its negative, where 1 is the prompt alone. `true_cfg_scale` is off up to 1.
_NO_GUIDANCE = "the model generates without guidance"
UNSUPPORTED: dict[str, Unsupported] = {
    "background": Unsupported(_among("auto", "opaque"), "images are opaque: leave it out, or ask for opaque"),
    "moderation": Unsupported(_among("auto"), "every prompt is checked in the same way: leave it out, or send auto"),
    "style": Unsupported(
        _among(None, ""), "the model has no styles: leave it out, and describe the style in the prompt"
    ),
    "negative_prompt": Unsupported(lambda text: not text.strip(), f"{_NO_GUIDANCE}: leave it out"),
    "guidance_scale": Unsupported(_among(None, 0), f"{_NO_GUIDANCE}: leave it out, or send 0"),
    "true_cfg_scale": Unsupported(_among(None, 0, 1), f"{_NO_GUIDANCE}: leave it out, or send 1"),
    "cfg_scale": Unsupported(_among(None, 1), f"{_NO_GUIDANCE}: leave it out, or send 1"),
}


class JobInput(Input):
    """The fields of a generation: OpenAI's, ours, and those of other image APIs."""

    other_names: ClassVar[Mapping[str, str]] = dict.fromkeys(_STEPS, "steps")

    prompt: AnyText = Field(description="The text that the image is generated from.")
    model: Text = Field(default=LEFT_OUT, max_length=100)
    n: int = Field(default=1, ge=1, le=10)
    size: Text = Field(default="auto", description='"auto" or WIDTHxHEIGHT, both multiples of 16.')
    quality: Annotated[str, OneOf(Quality.values)] = Field(
        default="auto",
        description="`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others"
        " the size decides.",
    )
    steps: int = Field(default=LEFT_OUT, description="Denoising steps.")
    seed: int = Field(
        default=LEFT_OUT,
        ge=_SEED_RANDOM,
        le=SEED_MAX - 10,
        description="The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random.",
    )
    cache: Flag = Field(
        default=True,
        description="True if a request with a seed may be answered with images that were generated for the same one.",
    )
    adapters: Annotated[list[AdapterInput], AfterValidator(_distinct)] = Field(default=LEFT_OUT, max_length=4)
    priority: int = Field(
        default=0, ge=-10, le=10, description="Order among your own waiting jobs: the highest goes first."
    )
    expires_in_seconds: int = Field(
        default=LEFT_OUT, ge=1, description="Time to generate in. A job that expires is not charged."
    )
    output_format: Annotated[str, OneOf(("png", "jpeg", "jpg", "webp"))] = Field(
        default="png", description="jpg is jpeg."
    )
    output_compression: int = Field(default=100, ge=0, le=100)
    project: Text = Field(default=LEFT_OUT, max_length=40)
    user: AnyText = Field(default="", max_length=200, description="Your end user.")
    safety_identifier: AnyText = Field(default="", max_length=200, description="OpenAI's later name for `user`.")
    metadata: Metadata = LEFT_OUT
    # Names that other APIs have for the same things.
    num_inference_steps: int = Field(default=LEFT_OUT, description="Another name of `steps`.")
    step: int = Field(default=LEFT_OUT, description="Another name of `steps`.")
    width: int = Field(default=LEFT_OUT, ge=1, le=99999, description="With `height`, another form of `size`.")
    height: int = Field(default=LEFT_OUT, ge=1, le=99999, description="With `width`, another form of `size`.")
    # Taken where they ask for what the model does anyway.
    background: AnyText = Field(default="auto", description="`auto` or `opaque`.")
    moderation: AnyText = Field(default="auto", description="`auto`.")
    style: AnyText = Field(default=LEFT_OUT, description="Not supported: describe the style in the prompt.")
    negative_prompt: AnyText = Field(default="", description="Not supported, unless it is blank.")
    guidance_scale: Number = Field(default=LEFT_OUT, description="0: the model generates without guidance.")
    true_cfg_scale: Number = Field(default=LEFT_OUT, description="0 or 1: the model generates without guidance.")
    cfg_scale: Number = Field(default=LEFT_OUT, description="1: the model generates without guidance.")

    _warnings: list[FieldWarning] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _resolved(self, info: ValidationInfo) -> Self:
        """Bring other names to ours, and refuse or ignore what the model can't do."""
        leniency = info.context or Leniency()
        self._warnings = leniency.warnings
        self.steps = _same_value(self, _STEPS)
        self.size = _size(self)
        if self.seed == _SEED_RANDOM:
            self.seed = LEFT_OUT
        if self.output_format == "jpg":
            self.output_format = "jpeg"
        for name, unsupported in UNSUPPORTED.items():
            if not unsupported.is_same(getattr(self, name)):
                refuse(name, unsupported.why, leniency=leniency)
        return self

    @classmethod
    def of(cls, body: Any, *, key: ApiKey) -> Self:
        """Read the body of a request that came with this key. If its model is an alias, that has defaults.

        Raises `InvalidField`, `UnsupportedParameter`.
        """
        name = body.get("model") if isinstance(body, dict) else None
        alias = aliases_of(key.tenant).get(name) if isinstance(name, str) else None
        if alias is None:
            return cls.read(body, leniency=Leniency(key.is_lenient))
        given = {name: value for name, value in body.items() if value is not None}
        defaults = {name: value for name, value in alias.defaults.items() if name in cls.model_fields}
        if "width" in given or "height" in given:
            defaults.pop("size", None)
        leniency = Leniency(key.is_lenient or alias.is_lenient, fields=alias.ignored)
        return cls.read({**defaults, **given}, leniency=leniency)

    def spec(self, *, partial_images: int = 0) -> Spec:
        """Return the request as admission takes it."""
        same: dict[str, Any] = {name: getattr(self, name) for name in _SPEC_FIELDS}
        return Spec(
            **same,
            adapters=tuple(RequestedAdapter(name=one.name, scale=one.scale) for one in self.adapters or ()),
            user=self.safety_identifier or self.user,
            partial_images=partial_images,
            metadata=self.metadata or {},
            warnings=tuple(self._warnings),
        )


def refuse(name: str, why: str, *, leniency: Leniency) -> None:
    """Raise `UnsupportedParameter` for a field, or add a warning where the field is ignored."""
    if not leniency.ignores(name):
        raise UnsupportedParameter(f"{name} can't be obeyed, since {why}", param=name)
    leniency.warn(name, code=UnsupportedParameter.code, why=why)


def _same_value(given: JobInput, names: Sequence[str]) -> Any:
    """Return the value of a thing with several names. Raises `InvalidField` where two of them have different values."""
    found = {name: value for name in names if (value := getattr(given, name)) is not None}
    for name, value in found.items():
        first, expected = next(iter(found.items()))
        if value != expected:
            message = f"{name} is {value}, but {first}, another name of it, is {expected}: send one of them"
            raise InvalidField(message, param=name)
    return next(iter(found.values()), None)


def _size(given: JobInput) -> str:
    """Return `size`, or what `width` and `height` say. Raises `InvalidField`."""
    if given.width is None and given.height is None:
        return given.size
    for name, other in (("width", "height"), ("height", "width")):
        if getattr(given, name) is None:
            raise MissingParameter(f"{name} is required beside {other}: send both, or size", param=name)
    if given.size != "auto" and sides_of(given.size) != (given.width, given.height):
        message = f"width {given.width} and height {given.height} are not the size {given.size}: send one of the two"
        raise InvalidField(message, param="width")
    return f"{given.width}x{given.height}"
