"""What answers about use, limits and money look like. The tests hold the API's real answers against it."""

from billing.models import CreditGrant, Statement
from easel.api.openapi import DAY, MONEY, NUMBER, TEXT, TIME, WHOLE, Schema, list_of, object_of, or_null
from easel.catalog.models import PoolTier
from tenants.quotas import LIMITS

QUOTE = object_of(
    object=TEXT,
    model=TEXT,
    model_version=WHOLE,
    size=TEXT,
    steps=WHOLE,
    n=WHOLE,
    tier={"type": "string", "enum": PoolTier.values},
    cached={"type": "boolean"},
    lines={
        "type": "array",
        "items": object_of(
            meter=TEXT,
            quantity=TEXT,
            quantity_most=TEXT,
            price_book=TEXT,
            mode=TEXT,
            used_before=TEXT,
            parts={"type": "array", "items": object_of(quantity=TEXT, unit_price=TEXT)},
            contract=or_null(TEXT),
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
    refusal=or_null(object_of(code=TEXT, message=TEXT)),
)
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
USAGE = list_of(USAGE_ROW, start=DAY, end=DAY, total=MONEY)
COSTS = list_of(
    object_of(
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
OUTLOOK = object_of(
    object=TEXT,
    month=DAY,
    so_far=MONEY,
    expected=or_null(MONEY),
    low=or_null(MONEY),
    high=or_null(MONEY),
    confidence=NUMBER,
    anomalies={"type": "array", "items": object_of(day=DAY, cost=MONEY, usual=MONEY, score=NUMBER)},
)
QUOTA = list_of(
    object_of(
        limit={"type": "string", "enum": list(LIMITS)},
        of={"type": "string", "enum": ["account", "api_key"]},
        value=NUMBER,
        used=or_null(NUMBER),
        remaining=or_null(NUMBER),
        resets_at=or_null(TIME),
    ),
    retention=object_of(output_days=WHOLE, job_days=WHOLE),
)
_STATEMENT: Schema = {
    "id": TEXT,
    "object": {"type": "string", "enum": Statement.Kind.values},
    "title": TEXT,
    "number": or_null(WHOLE),
    "status": {"type": "string", "enum": Statement.State.values},
    "corrects": or_null(TEXT),
    "period_start": TIME,
    "period_end": TIME,
    "time_zone": TEXT,
    "billed_to": object_of(name=TEXT, address=TEXT, tax_id=TEXT),
    "subtotal": MONEY,
    "tax_name": TEXT,
    "tax_rate": TEXT,
    "tax": MONEY,
    "total": MONEY,
    "finalised_at": or_null(TIME),
    "documents": object_of(html=TEXT, pdf=TEXT, csv=TEXT),
}
STATEMENTS = list_of(object_of(**_STATEMENT), has_more={"type": "boolean"})
STATEMENT = object_of(
    **_STATEMENT,
    lines={
        "type": "array",
        "items": object_of(
            position=WHOLE,
            project=or_null(TEXT),
            labels={"type": "object", "additionalProperties": TEXT},
            meter=or_null(TEXT),
            model=or_null(TEXT),
            kind=TEXT,
            description=TEXT,
            quantity=or_null(TEXT),
            charges=WHOLE,
            amount=MONEY,
        ),
    },
)
STATEMENT_CHARGES = list_of(
    object_of(
        id=TEXT,
        kind=TEXT,
        charged_at=TIME,
        used_at=TIME,
        quantity=TEXT,
        price=object_of(unit_price=TEXT, mode=TEXT, price_book=TEXT, used_before=TEXT, discount=TEXT),
        amount=MONEY,
        corrects=or_null(TEXT),
        reason=or_null(TEXT),
        job_id=or_null(TEXT),
        attempts={
            "type": "array",
            "items": object_of(
                number=WHOLE,
                status=TEXT,
                worker=TEXT,
                gpu_class=TEXT,
                started_at=or_null(TIME),
                finished_at=or_null(TIME),
                steps_done=WHOLE,
                gpu_seconds=NUMBER,
                device_share=or_null(NUMBER),
            ),
        },
    ),
    has_more={"type": "boolean"},
)
BALANCE = object_of(
    object=TEXT,
    **dict.fromkeys(("available", "credit", "held", "owed", "credit_limit"), MONEY),
    grants={
        "type": "array",
        "items": object_of(
            id=TEXT,
            category={"type": "string", "enum": CreditGrant.Category.values},
            priority=WHOLE,
            amount=MONEY,
            remaining=MONEY,
            created_at=TIME,
            expires_at=or_null(TIME),
        ),
    },
)
BUDGET = object_of(
    id=TEXT,
    object=TEXT,
    project=or_null(TEXT),
    api_key=or_null(TEXT),
    amount=MONEY,
    hard_stop={"type": "boolean"},
    spent=MONEY,
    held=MONEY,
    remaining=MONEY,
    thresholds_reached={"type": "array", "items": WHOLE},
    resets_at=TIME,
)
BUDGETS = list_of(BUDGET)
