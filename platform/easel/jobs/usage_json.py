"""The usage and the cost of a job as JSON, for the API and for webhooks."""

from typing_extensions import TypedDict

from billing.money import Money, cost_number, from_micros, money_json, plain
from billing.usage.queries import JobCost
from easel.jobs.models import Job

TOKEN_PIXELS = 16 * 16


class TokenDetails(TypedDict):
    text_tokens: int
    image_tokens: int


class CostLineAnswer(TypedDict):
    """The charges of one meter. `kind` is `usage`, `waiver` (what is not charged) or `correction`."""

    meter: str
    kind: str
    quantity: str
    amount: str
    amount_micros: int


class CostDetails(Money):
    lines: list[CostLineAnswer]


class JobUsage(TypedDict):
    """OpenAI's token counts (an image token is 16x16 pixels), and what was measured and charged.

    `cost` is a number in the account's currency, since gateways and SDKs read one; `cost_details` names the currency.
    """

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int
    cached: bool
    image_units: float
    gpu_seconds: float
    cost: float
    cost_details: CostDetails


def usage_json(job: Job, cost: JobCost) -> JobUsage:
    generated = job.cached_from or job
    succeeded = max(generated.attempts.all(), key=lambda attempt: attempt.number)
    output_tokens = job.n * job.width * job.height // TOKEN_PIXELS
    return {
        "input_tokens": succeeded.prompt_tokens,
        "input_tokens_details": {"text_tokens": succeeded.prompt_tokens, "image_tokens": 0},
        "output_tokens": output_tokens,
        "total_tokens": succeeded.prompt_tokens + output_tokens,
        "cached": job.cached_from is not None,
        "image_units": float(cost.image_units),
        "gpu_seconds": float(cost.gpu_seconds),
        "cost": cost_number(cost.cost_micros),
        "cost_details": _details_json(cost, job.tenant.currency),
    }


def _details_json(cost: JobCost, currency: str) -> CostDetails:
    return {
        **money_json(cost.cost_micros, currency),
        "lines": [
            {
                "meter": line.meter,
                "kind": line.kind,
                "quantity": plain(line.quantity),
                "amount": f"{from_micros(line.amount_micros):.6f}",
                "amount_micros": line.amount_micros,
            }
            for line in cost.lines
        ],
    }
