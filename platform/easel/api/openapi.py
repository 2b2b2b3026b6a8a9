"""What answers look like, for `/v1/openapi.json`. The tests hold the API's real answers against it."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse

from billing.models import CreditGrant, Statement
from easel.generation.models import State
from easel.registry.models import Experiment, Rollout, Tier
from easel.registry.tiers import Quality
from easel.webhooks.models import Event, WebhookDelivery
from tenants.quotas import LIMITS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TIME: Schema = {"type": "string", "format": "date-time"}
DAY: Schema = {"type": "string", "format": "date"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list_of(item: Schema, **more: Schema) -> Schema:
    return _object(object=TEXT, data={"type": "array", "items": item}, **more)


def _or_null(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


MONEY = _object(amount=TEXT, amount_micros=WHOLE, currency=TEXT)
USAGE_OF_JOB = _object(
    input_tokens=WHOLE,
    input_tokens_details=_object(text_tokens=WHOLE, image_tokens=WHOLE),
    output_tokens=WHOLE,
    total_tokens=WHOLE,
    cached={"type": "boolean"},
    image_units=NUMBER,
    gpu_seconds=NUMBER,
    cost=MONEY,
)
JOB = _object(
    id=TEXT,
    object=TEXT,
    status={"type": "string", "enum": State.values},
    created_at=TIME,
    expires_at=TIME,
    finished_at=_or_null(TIME),
    deleted_at=_or_null(TIME),
    cached_from=_or_null(TEXT),
    model=TEXT,
    model_version=WHOLE,
    prompt=_or_null(TEXT),
    n=WHOLE,
    size=TEXT,
    quality={"type": "string", "enum": Quality.values},
    tier={"type": "string", "enum": Tier.values},
    steps=WHOLE,
    seed=WHOLE,
    adapters={"type": "array", "items": _object(name=TEXT, version=WHOLE, scale=NUMBER)},
    experiment=_or_null(_object(name=TEXT, arm=TEXT)),
    project=TEXT,
    metadata={"type": "object", "additionalProperties": TEXT},
    attempts=WHOLE,
    progress=_object(steps_done=WHOLE, steps_total=WHOLE),
    images={"type": "array", "items": _object(url=TEXT, seed=WHOLE, size_bytes=WHOLE)},
    usage=_or_null(USAGE_OF_JOB),
    error=_or_null(_object(code=TEXT, message=TEXT)),
    urls=_object(get=TEXT, events=TEXT, cancel=TEXT, feedback=TEXT),
)
JOBS = _list_of(JOB, has_more={"type": "boolean"})
IMAGES = _object(
    created=WHOLE,
    data={
        "type": "array",
        "items": {"type": "object", "properties": {"b64_json": TEXT, "url": TEXT}, "additionalProperties": False},
    },
    background=TEXT,
    output_format=TEXT,
    quality=TEXT,
    size=TEXT,
    tier={"type": "string", "enum": Tier.values},
    usage=USAGE_OF_JOB,
    job_id=TEXT,
    seed=WHOLE,
)
QUOTE = _object(
    object=TEXT,
    model=TEXT,
    model_version=WHOLE,
    size=TEXT,
    steps=WHOLE,
    n=WHOLE,
    tier={"type": "string", "enum": Tier.values},
    cached={"type": "boolean"},
    lines={
        "type": "array",
        "items": _object(
            meter=TEXT,
            quantity=TEXT,
            quantity_most=TEXT,
            price_book=TEXT,
            mode=TEXT,
            used_before=TEXT,
            parts={"type": "array", "items": _object(quantity=TEXT, unit_price=TEXT)},
            contract=_or_null(TEXT),
            discount=TEXT,
            amount=MONEY,
            list_amount=MONEY,
            most=MONEY,
        ),
    },
    expected=MONEY,
    most=MONEY,
    available=MONEY,
    admitted={"type": "boolean"},
    refusal=_or_null(_object(code=TEXT, message=TEXT)),
)
ADAPTER = _object(
    id=TEXT,
    object=TEXT,
    name=TEXT,
    model=TEXT,
    status={"type": "string", "enum": ["ready", "retired"]},
    created_at=TIME,
    versions={
        "type": "array",
        "items": _object(version=WHOLE, sha256=TEXT, size_bytes=WHOLE, rank=WHOLE, modules=WHOLE, created_at=TIME),
    },
)
ADAPTERS = _list_of(ADAPTER)
MODEL = _object(
    id=TEXT,
    object=TEXT,
    created=WHOLE,
    owned_by=TEXT,
    version=WHOLE,
    default={"type": "boolean"},
    size_default=TEXT,
    side_min=WHOLE,
    side_max=WHOLE,
    steps_default=WHOLE,
    steps_max=WHOLE,
    qualities={
        "type": "array",
        "items": _object(quality=TEXT, tier=_or_null(TEXT), steps=WHOLE),
    },
    fast_image_units_max=NUMBER,
)
MODELS = _list_of(MODEL)
USAGE_ROW = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("project", "model", "adapter", "tier", "day"), TEXT),
        "requests": WHOLE,
        "image_units": NUMBER,
        "gpu_seconds": NUMBER,
        "storage_gb_seconds": NUMBER,
        "cost": MONEY,
    },
    "required": ["requests", "image_units", "gpu_seconds", "storage_gb_seconds", "cost"],
    "additionalProperties": False,
}
USAGE = _list_of(USAGE_ROW, start=DAY, end=DAY, total=MONEY)
COSTS = _list_of(
    _object(
        group={"type": "object", "additionalProperties": TEXT},
        charges=WHOLE,
        requests=NUMBER,
        image_units=NUMBER,
        gpu_seconds=NUMBER,
        storage_gb_seconds=NUMBER,
        cost=MONEY,
        list_cost=MONEY,
    ),
    start=DAY,
    end=DAY,
    total=MONEY,
)
OUTLOOK = _object(
    object=TEXT,
    month=DAY,
    so_far=MONEY,
    expected=_or_null(MONEY),
    low=_or_null(MONEY),
    high=_or_null(MONEY),
    confidence=NUMBER,
    anomalies={"type": "array", "items": _object(day=DAY, cost=MONEY, usual=MONEY, score=NUMBER)},
)
QUOTA = _list_of(
    _object(
        limit={"type": "string", "enum": list(LIMITS)},
        of={"type": "string", "enum": ["account", "api_key"]},
        value=NUMBER,
        used=_or_null(NUMBER),
        remaining=_or_null(NUMBER),
        resets_at=_or_null(TIME),
    ),
    retention=_object(output_days=WHOLE, job_days=WHOLE),
)
_STATEMENT: Schema = {
    "id": TEXT,
    "object": {"type": "string", "enum": Statement.Kind.values},
    "title": TEXT,
    "number": _or_null(WHOLE),
    "status": {"type": "string", "enum": Statement.State.values},
    "corrects": _or_null(TEXT),
    "period_start": TIME,
    "period_end": TIME,
    "time_zone": TEXT,
    "billed_to": _object(name=TEXT, address=TEXT, tax_id=TEXT),
    "subtotal": MONEY,
    "tax_name": TEXT,
    "tax_rate": TEXT,
    "tax": MONEY,
    "total": MONEY,
    "finalised_at": _or_null(TIME),
    "documents": _object(html=TEXT, pdf=TEXT, csv=TEXT),
}
STATEMENTS = _list_of(_object(**_STATEMENT), has_more={"type": "boolean"})
STATEMENT = _object(
    **_STATEMENT,
    lines={
        "type": "array",
        "items": _object(
            position=WHOLE,
            project=_or_null(TEXT),
            labels={"type": "object", "additionalProperties": TEXT},
            meter=_or_null(TEXT),
            model=_or_null(TEXT),
            kind=TEXT,
            description=TEXT,
            quantity=_or_null(TEXT),
            charges=WHOLE,
            amount=MONEY,
        ),
    },
)
STATEMENT_CHARGES = _list_of(
    _object(
        id=TEXT,
        kind=TEXT,
        charged_at=TIME,
        used_at=TIME,
        quantity=TEXT,
        price=_object(unit_price=TEXT, mode=TEXT, price_book=TEXT, used_before=TEXT, discount=TEXT),
        amount=MONEY,
        corrects=_or_null(TEXT),
        reason=_or_null(TEXT),
        job_id=_or_null(TEXT),
        attempts={
            "type": "array",
            "items": _object(
                number=WHOLE,
                status=TEXT,
                worker=TEXT,
                gpu_class=TEXT,
                started_at=_or_null(TIME),
                finished_at=_or_null(TIME),
                steps_done=WHOLE,
                gpu_seconds=NUMBER,
                device_share=_or_null(NUMBER),
            ),
        },
    ),
    has_more={"type": "boolean"},
)
BALANCE = _object(
    object=TEXT,
    **dict.fromkeys(("available", "credit", "held", "owed", "credit_limit"), MONEY),
    grants={
        "type": "array",
        "items": _object(
            id=TEXT,
            category={"type": "string", "enum": CreditGrant.Category.values},
            priority=WHOLE,
            amount=MONEY,
            remaining=MONEY,
            created_at=TIME,
            expires_at=_or_null(TIME),
        ),
    },
)
BUDGET = _object(
    id=TEXT,
    object=TEXT,
    project=_or_null(TEXT),
    api_key=_or_null(TEXT),
    amount=MONEY,
    hard_stop={"type": "boolean"},
    spent=MONEY,
    held=MONEY,
    remaining=MONEY,
    thresholds_reached={"type": "array", "items": WHOLE},
    resets_at=TIME,
)
BUDGETS = _list_of(BUDGET)
_WEBHOOK: Schema = {
    "id": TEXT,
    "object": TEXT,
    "url": TEXT,
    "events": {"type": "array", "items": {"type": "string", "enum": Event.values}},
    "enabled": {"type": "boolean"},
    "disabled_reason": _or_null(TEXT),
    "disabled_at": _or_null(TIME),
    "delivered_at": _or_null(TIME),
    "created_at": TIME,
}
WEBHOOK = _object(**_WEBHOOK)
# A request that is repeated by its Idempotency-Key is answered without the secret.
WEBHOOK_MADE = {**WEBHOOK, "properties": {**_WEBHOOK, "secret": TEXT}}
WEBHOOKS = _list_of(WEBHOOK, has_more={"type": "boolean"})
DELIVERY = _object(
    id=TEXT,
    object=TEXT,
    message_id=TEXT,
    event={"type": "string", "enum": Event.values},
    status={"type": "string", "enum": WebhookDelivery.State.values},
    created_at=TIME,
    next_attempt_at=_or_null(TIME),
    data={"type": "object", "additionalProperties": True},
    attempts={
        "type": "array",
        "items": _object(at=TIME, status=_or_null(WHOLE), outcome=TEXT, seconds=NUMBER, response=TEXT),
    },
)
DELIVERIES = _list_of(DELIVERY, has_more={"type": "boolean"})
FEEDBACK = _object(object=TEXT, job_id=TEXT, score=NUMBER, comment=TEXT, created_at=TIME)
ROLLOUT = _object(
    id=TEXT,
    object=TEXT,
    model=TEXT,
    stable_version=WHOLE,
    candidate_version=WHOLE,
    status={"type": "string", "enum": Rollout.State.values},
    stages={"type": "array", "items": WHOLE},
    candidate_percent=WHOLE,
    verdict=TEXT,
    started_at=TIME,
    ended_at=_or_null(TIME),
)
ROLLOUTS = _list_of(ROLLOUT)
EXPERIMENT = _object(
    id=TEXT,
    object=TEXT,
    name=TEXT,
    model=TEXT,
    status={"type": "string", "enum": Experiment.State.values},
    started_at=TIME,
    stopped_at=_or_null(TIME),
    arms={
        "type": "array",
        "items": _object(
            name=TEXT,
            weight=WHOLE,
            version=_or_null(WHOLE),
            adapters={"type": "array", "items": _object(name=TEXT, scale=NUMBER)},
            steps=_or_null(WHOLE),
        ),
    },
)
EXPERIMENTS = _list_of(EXPERIMENT)
COMPARISON = _object(callers=WHOLE, **dict.fromkeys(("mean", "low", "high", "difference", "p_value"), _or_null(NUMBER)))
EXPERIMENT_REPORT = _object(
    **EXPERIMENT["properties"],
    report={
        "type": "array",
        "items": _object(
            arm=TEXT,
            jobs=WHOLE,
            succeeded=WHOLE,
            failed=WHOLE,
            feedback=WHOLE,
            cost=MONEY,
            seconds_p50=_or_null(NUMBER),
            seconds_p95=_or_null(NUMBER),
            score=COMPARISON,
            error_rate=COMPARISON,
            seconds=COMPARISON,
            job_cost_micros=COMPARISON,
        ),
    },
)
ERROR = _object(error=_object(message=TEXT, type=TEXT, param=_or_null(TEXT), code=TEXT))


def events(description: str) -> dict[Any, OpenApiResponse]:
    """The response of a call that answers with server-sent events."""
    return {(200, "text/event-stream"): OpenApiResponse(TEXT, description=description)}


def answers(schema: Schema, *, status: int = 200) -> dict[Any, OpenApiResponse]:
    """The responses of a call: what it gives, and the error body that every call shares."""
    return {
        status: OpenApiResponse(schema, description=""),
        "default": OpenApiResponse(ERROR, description="A refusal; `code` is stable."),
    }


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    target_class = "easel.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> Schema:
        return {"type": "http", "scheme": "bearer", "description": "An API key, `easel_sk_…`."}
