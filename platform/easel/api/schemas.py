"""What answers about work look like. The tests hold the API's real answers against it."""

from easel.api.openapi import MONEY, NUMBER, TEXT, TIME, WHOLE, Schema, list_of, object_of, or_null
from easel.catalog.models import PoolTier
from easel.jobs.models import State
from easel.serving.models import Experiment, Rollout
from easel.serving.tiers import Quality
from easel.webhooks.models import Event, WebhookDelivery

USAGE_OF_JOB = object_of(
    input_tokens=WHOLE,
    input_tokens_details=object_of(text_tokens=WHOLE, image_tokens=WHOLE),
    output_tokens=WHOLE,
    total_tokens=WHOLE,
    cached={"type": "boolean"},
    image_units=NUMBER,
    gpu_seconds=NUMBER,
    cost=MONEY,
)
JOB = object_of(
    id=TEXT,
    object=TEXT,
    status={"type": "string", "enum": State.values},
    created_at=TIME,
    expires_at=TIME,
    finished_at=or_null(TIME),
    deleted_at=or_null(TIME),
    cached_from=or_null(TEXT),
    model=TEXT,
    model_version=WHOLE,
    prompt=or_null(TEXT),
    n=WHOLE,
    size=TEXT,
    quality={"type": "string", "enum": Quality.values},
    tier={"type": "string", "enum": PoolTier.values},
    steps=WHOLE,
    seed=WHOLE,
    adapters={"type": "array", "items": object_of(name=TEXT, version=WHOLE, scale=NUMBER)},
    experiment=or_null(object_of(name=TEXT, arm=TEXT)),
    project=TEXT,
    metadata={"type": "object", "additionalProperties": TEXT},
    attempts=WHOLE,
    progress=object_of(steps_done=WHOLE, steps_total=WHOLE),
    images={"type": "array", "items": object_of(url=TEXT, seed=WHOLE, size_bytes=WHOLE)},
    usage=or_null(USAGE_OF_JOB),
    error=or_null(object_of(code=TEXT, message=TEXT)),
    urls=object_of(get=TEXT, events=TEXT, cancel=TEXT, feedback=TEXT),
)
JOBS = list_of(JOB, has_more={"type": "boolean"})
IMAGES = object_of(
    created=WHOLE,
    data={
        "type": "array",
        "items": {"type": "object", "properties": {"b64_json": TEXT, "url": TEXT}, "additionalProperties": False},
    },
    background=TEXT,
    output_format=TEXT,
    quality=TEXT,
    size=TEXT,
    tier={"type": "string", "enum": PoolTier.values},
    usage=USAGE_OF_JOB,
    job_id=TEXT,
    seed=WHOLE,
)
ADAPTER = object_of(
    id=TEXT,
    object=TEXT,
    name=TEXT,
    model=TEXT,
    status={"type": "string", "enum": ["ready", "retired"]},
    created_at=TIME,
    versions={
        "type": "array",
        "items": object_of(version=WHOLE, sha256=TEXT, size_bytes=WHOLE, rank=WHOLE, modules=WHOLE, created_at=TIME),
    },
)
ADAPTERS = list_of(ADAPTER)
MODEL = object_of(
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
        "items": object_of(quality=TEXT, tier=or_null(TEXT), steps=WHOLE),
    },
    fast_image_units_max=NUMBER,
)
MODELS = list_of(MODEL)
_WEBHOOK: Schema = {
    "id": TEXT,
    "object": TEXT,
    "url": TEXT,
    "events": {"type": "array", "items": {"type": "string", "enum": Event.values}},
    "enabled": {"type": "boolean"},
    "disabled_reason": or_null(TEXT),
    "disabled_at": or_null(TIME),
    "delivered_at": or_null(TIME),
    "created_at": TIME,
}
WEBHOOK = object_of(**_WEBHOOK)
# A request that is repeated by its Idempotency-Key is answered without the secret.
WEBHOOK_MADE = {**WEBHOOK, "properties": {**_WEBHOOK, "secret": TEXT}}
WEBHOOKS = list_of(WEBHOOK, has_more={"type": "boolean"})
DELIVERY = object_of(
    id=TEXT,
    object=TEXT,
    message_id=TEXT,
    event={"type": "string", "enum": Event.values},
    status={"type": "string", "enum": WebhookDelivery.State.values},
    created_at=TIME,
    next_attempt_at=or_null(TIME),
    data={"type": "object", "additionalProperties": True},
    attempts={
        "type": "array",
        "items": object_of(now=TIME, status=or_null(WHOLE), outcome=TEXT, seconds=NUMBER, response=TEXT),
    },
)
DELIVERIES = list_of(DELIVERY, has_more={"type": "boolean"})
FEEDBACK = object_of(object=TEXT, job_id=TEXT, score=NUMBER, comment=TEXT, created_at=TIME)
ROLLOUT = object_of(
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
    ended_at=or_null(TIME),
)
ROLLOUTS = list_of(ROLLOUT, has_more={"type": "boolean"})
EXPERIMENT = object_of(
    id=TEXT,
    object=TEXT,
    name=TEXT,
    model=TEXT,
    status={"type": "string", "enum": Experiment.State.values},
    started_at=TIME,
    stopped_at=or_null(TIME),
    arms={
        "type": "array",
        "items": object_of(
            name=TEXT,
            weight=WHOLE,
            version=or_null(WHOLE),
            adapters={"type": "array", "items": object_of(name=TEXT, scale=NUMBER)},
            steps=or_null(WHOLE),
        ),
    },
)
EXPERIMENTS = list_of(EXPERIMENT)
COMPARISON = object_of(
    callers=WHOLE, **dict.fromkeys(("mean", "low", "high", "difference", "p_value"), or_null(NUMBER))
)
EXPERIMENT_REPORT = object_of(
    **EXPERIMENT["properties"],
    report={
        "type": "array",
        "items": object_of(
            arm=TEXT,
            jobs=WHOLE,
            succeeded=WHOLE,
            failed=WHOLE,
            feedback=WHOLE,
            cost=MONEY,
            seconds_p50=or_null(NUMBER),
            seconds_p95=or_null(NUMBER),
            score=COMPARISON,
            error_rate=COMPARISON,
            seconds=COMPARISON,
            job_cost_micros=COMPARISON,
        ),
    },
)
