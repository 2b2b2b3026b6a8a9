"""What requests may hold. Unknown fields and wrong types are refused by name, never dropped or converted."""

import math
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from billing.money import AMOUNT_MICROS_MAX
from easel.api.errors import UnsupportedParameter
from easel.jobs.spec import SEED_MAX, RequestedAdapter, Spec
from easel.reporting.costs import GROUPS_MAX
from easel.serving.experiments import ArmPlan
from easel.serving.tiers import Quality
from easel.webhooks.models import WebhookDelivery


class Text(serializers.CharField):
    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("should be a string")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("should be a whole number")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("should be a number")
        try:
            number = float(data)
        except OverflowError:  # of a whole number of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise serializers.ValidationError("should be a finite number")
        return number


class Strict(serializers.Serializer[Any]):
    """Refuses fields that it doesn't know, naming the first."""

    @classmethod
    def read(cls, data: Any) -> dict[str, Any]:
        """The fields of a body, once valid; what isn't given has its default. Raises `ValidationError`.

        One reader serves all requests: making one copies every field, which takes longer than reading a body.
        """
        fields: dict[str, Any] = _reader(cls).run_validation(data)
        return fields

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(self.fields))):
            names = ", ".join(sorted(self.fields))
            raise serializers.ValidationError(
                {unknown[0]: [ErrorDetail(f"is not known here; known are {names}", "unknown_field")]}
            )
        return super().to_internal_value(data)


@cache
def _reader(form: type[Strict]) -> Strict:
    return form()


class AdapterUseInput(Strict):
    name = Text(max_length=40)
    scale = Number(default=1.0, min_value=-4, max_value=4)


class JobInput(Strict):
    """The fields of a generation, OpenAI's and ours."""

    prompt = Text(allow_blank=True, help_text="What to draw.")
    model = Text(required=False, max_length=100)
    n = Whole(default=1, min_value=1, max_value=10)
    size = Text(default="auto", help_text='"auto" or WIDTHxHEIGHT, both multiples of 16.')
    quality = serializers.ChoiceField(
        Quality.values,
        default=Quality.AUTO,
        error_messages={"invalid_choice": f"is one of {', '.join(Quality.values)}"},
        help_text="`low` takes half of the steps and the fast tier, `high` and above the hd tier; others go by size.",
    )
    steps = Whole(required=False, help_text="Denoising steps.")
    seed = Whole(
        required=False,
        min_value=0,
        max_value=SEED_MAX - 10,
        help_text="The same seed, prompt, size, steps, model version and adapters give the same image.",
    )
    cache = serializers.BooleanField(
        default=True,
        help_text="Whether a request that fixes its seed may be answered by what was drawn for the same before.",
    )
    adapters = AdapterUseInput(many=True, required=False, max_length=4)  # type: ignore[call-arg]  # of the list
    priority = Whole(
        default=0, min_value=-10, max_value=10, help_text="Among your own jobs that wait: the highest goes first."
    )
    expires_in_seconds = Whole(
        required=False, min_value=1, help_text="ImageSpec within this time or not at all, and then not charged."
    )
    output_format = serializers.ChoiceField(["png", "jpeg", "webp"], default="png")
    output_compression = Whole(default=100, min_value=0, max_value=100)
    project = Text(required=False, max_length=40)
    user = Text(required=False, max_length=200, allow_blank=True, help_text="Your end user.")
    safety_identifier = Text(
        required=False, max_length=200, allow_blank=True, help_text="OpenAI's later name for `user`."
    )
    metadata = serializers.DictField(child=Text(max_length=512, allow_blank=True), required=False)

    def validate_adapters(self, adapters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [adapter["name"] for adapter in adapters]
        if len(set(names)) < len(names):
            raise serializers.ValidationError("names an adapter twice")
        return adapters

    def validate_metadata(self, metadata: dict[str, str]) -> dict[str, str]:
        if len(metadata) > 16 or any(not 0 < len(key) <= 64 or not key.isprintable() for key in metadata):
            raise serializers.ValidationError("holds at most 16 pairs, with keys of 1 to 64 printable characters")
        return metadata

    @staticmethod
    def spec(given: Mapping[str, Any]) -> Spec:
        """The request as admission takes it, of the fields that were read."""
        fields = dict(given)
        fields["user"] = fields.pop("safety_identifier", "") or fields.get("user", "")
        fields["adapters"] = tuple(RequestedAdapter(**use) for use in fields.get("adapters", ()))
        return Spec(**{name: value for name, value in fields.items() if name in Spec.__dataclass_fields__})


class ImagesInput(JobInput):
    """`POST /v1/images/generations` of OpenAI, as of the gpt-image models."""

    response_format = serializers.ChoiceField(["b64_json", "url"], default="b64_json")
    background = Text(default="auto")
    moderation = Text(default="auto")
    style = Text(default=None, allow_null=True)  # type: ignore[assignment]  # a serializer has a `style` of its own
    stream = serializers.BooleanField(default=False, allow_null=True)
    cancel_on_disconnect = serializers.BooleanField(
        default=False, help_text="Whether the job is canceled when you go away before it has ended."
    )
    partial_images = Whole(
        default=0,
        allow_null=True,
        min_value=0,
        max_value=3,
        help_text="With `stream`: pictures of each image on its way.",
    )

    # Fields of OpenAI's with one value that says what we do; another value is refused rather than ignored.
    ONLY = {
        "background": ("auto", "opaque"),
        "moderation": ("auto",),
        "style": (None,),
    }

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        for name, supported in self.ONLY.items():
            if fields[name] not in supported:
                only = f"can only be {supported[0]!r} for now" if supported[0] is not None else "is not supported"
                raise UnsupportedParameter(f"{name} {only}", param=name)
        fields["partial_images"] = fields["partial_images"] or 0
        if fields["partial_images"] and not fields["stream"]:
            raise UnsupportedParameter("partial_images come with `stream: true` alone", param="partial_images")
        return fields


class FeedbackInput(Strict):
    score = Number(min_value=0, max_value=1, help_text="From 0 (bad) to 1 (good).")
    comment = Text(default="", allow_blank=True, max_length=500)


class ArmInput(Strict):
    name = Text(max_length=40)
    weight = Whole(help_text="Percent of the callers; the arms' weights sum to 100.")
    version = Whole(required=False, min_value=1, help_text="A version of the model; by default as the model routes.")
    adapters = AdapterUseInput(many=True, required=False, max_length=4)  # type: ignore[call-arg]  # of the list
    steps = Whole(required=False)


class ExperimentInput(Strict):
    name = Text(max_length=40)
    model = Text(required=False, max_length=100)
    arms = ArmInput(many=True)

    def arm_plans(self) -> list[ArmPlan]:
        """The arms as the registry takes them, once valid."""
        return [
            ArmPlan(
                name=arm["name"],
                weight=arm["weight"],
                version=arm.get("version"),
                adapters=tuple((use["name"], use["scale"]) for use in arm.get("adapters", ())),
                steps=arm.get("steps"),
            )
            for arm in self.validated_data["arms"]
        ]


class AdapterUploadInput(Strict):
    name = serializers.CharField(max_length=40, help_text="Lower-case letters, digits and inner hyphens.")
    file = serializers.FileField(help_text="LoRA weights as safetensors.", allow_empty_file=True)
    model = serializers.CharField(required=False, help_text="The base it was trained on.")


class UsageQuery(Strict):
    group_by = serializers.CharField(
        default="project", help_text="Comma-separated: project, model, adapter, tier, day."
    )
    start = serializers.DateField(required=False, help_text="First day (UTC), by default the month's first.")
    end = serializers.DateField(required=False, help_text="Last day (UTC), by default today.")


class SpanQuery(Strict):
    start = serializers.DateField(
        required=False, help_text="First day (UTC), by default the first of the last one's month."
    )
    end = serializers.DateField(required=False, help_text="Last day (UTC), by default today.")

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "start" in fields and "end" in fields and fields["end"] < fields["start"]:
            raise serializers.ValidationError({"end": f"is before start, {fields['start']}"})
        return fields

    def days(self, today: date) -> dict[str, date]:
        end = self.validated_data.get("end") or max(today, self.validated_data.get("start", today))
        return {"start": self.validated_data.get("start", end.replace(day=1)), "end": end}


class CostsQuery(SpanQuery):
    group_by = serializers.CharField(
        default="project",
        help_text="Comma-separated, at most four: day, project, model, version, adapter, quality, tier, resolution,"
        " key, meter, label:NAME.",
    )
    sort = serializers.ChoiceField(("group", "amount"), default="group", help_text="amount: the highest first.")

    def validate_group_by(self, value: str) -> list[str]:
        groups = list(dict.fromkeys(value.split(",")))
        if len(groups) > GROUPS_MAX:
            raise serializers.ValidationError(f"names more than {GROUPS_MAX}")
        return groups


class FocusExportQuery(SpanQuery):
    format = serializers.ChoiceField(("csv", "parquet"), default="csv")
    invoice = serializers.IntegerField(
        required=False, min_value=1, help_text="All that the statement or credit note of this number has, and no days."
    )

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "invoice" in fields and ("start" in fields or "end" in fields):
            raise serializers.ValidationError({"invoice": "has its own period: leave start and end out"})
        return super().validate(fields)


class CostsExportQuery(SpanQuery):
    decimal = serializers.ChoiceField(("point", "comma"), default="point", help_text="How decimals are written.")


class BudgetInput(Strict):
    """Of a project or a key if one is named, else of the account."""

    project = Text(required=False, max_length=40)
    api_key = Text(required=False, max_length=16, help_text="Between `easel_sk_` and the next underscore.")
    amount_micros = Whole(min_value=0, max_value=AMOUNT_MICROS_MAX, help_text="1000000 are 1 of your currency.")
    currency = Text(required=False, max_length=3, help_text="Your account's; said, it is checked.")
    hard_stop = serializers.BooleanField(default=False, help_text="Refuse what would go over it.")


class PageQuery(Strict):
    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    after = serializers.UUIDField(required=False, help_text="The id that the page begins after.")

    def page(self) -> dict[str, Any]:
        return {"limit": self.validated_data["limit"], "after": self.validated_data.get("after")}


class DeliveriesQuery(PageQuery):
    status = serializers.ChoiceField(WebhookDelivery.State.values, required=False)


class RolloutsQuery(PageQuery):
    model = Text(required=False, max_length=64)


class WebhookInput(Strict):
    url = Text(max_length=2000, help_text="Where to POST, https.")
    events = serializers.ListField(child=Text(max_length=40), default=list, max_length=20)


class WebhookChangeInput(Strict):
    url = Text(max_length=2000, required=False)
    events = serializers.ListField(child=Text(max_length=40), required=False, max_length=20)
    enabled = serializers.BooleanField(required=False)


class DocumentQuery(Strict):
    decimal = serializers.ChoiceField(("point", "comma"), default="point", help_text="How CSV writes decimals.")


class ListQuery(PageQuery):
    status = serializers.CharField(required=False)
