"""What a request would cost, before it is made."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from core import clock
from easel.api import money_schemas
from easel.api.openapi import answers
from easel.api.rate_limit import take
from easel.api.rendering import money_json
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.serializers import ImagesInput
from easel.jobs.admission import Limits
from easel.jobs.quote import Quote, QuoteLine, job_quote
from tenants.models import Scope


class ImagesQuote(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="images_quotes", request=ImagesInput, responses=answers(money_schemas.QUOTE))
    def post(self, request: HttpRequest) -> HttpResponse:
        """What the same body would cost as a generation, line by line; nothing is made, held or written.

        What would keep it from being admitted now, a full queue or a spent budget, is its `refusal`, beside the price.
        """
        take(request, caller(request), now=clock.now())
        spec = ImagesInput.spec(ImagesInput.read(body_of(request)))
        limits = Limits.of(settings.EASEL)
        return answer_json(quote_json(job_quote(api_key=caller(request), spec=spec, limits=limits, now=clock.now())))


def quote_json(quote: Quote) -> dict[str, Any]:
    """Amounts by `money_json`; quantities and prices as texts, exactly."""
    plan, currency, refusal = quote.plan, quote.plan.prices.currency, quote.refusal
    return {
        "object": "quote",
        "model": plan.version.model.name,
        "model_version": plan.version.number,
        "size": f"{plan.drawn.width}x{plan.drawn.height}",
        "steps": plan.drawn.steps,
        "n": plan.drawn.n,
        "tier": plan.tier,
        "cached": plan.source is not None,
        "lines": [_line_json(line, currency) for line in quote.lines],
        "expected": money_json(quote.expected_micros, currency),
        "most": money_json(quote.max_micros, currency),
        "available": money_json(quote.available_micros, currency),
        "admitted": refusal is None,
        "refusal": {"code": refusal.code, "message": str(refusal)} if refusal else None,
    }


def _line_json(line: QuoteLine, currency: str) -> dict[str, Any]:
    expected = line.expected
    return {
        "meter": expected.quantity.meter,
        "quantity": _plain(expected.quantity.amount),
        "quantity_most": _plain(line.most.amount),
        "price_book": expected.tariff.book,
        "mode": expected.tariff.mode,
        "used_before": _plain(expected.used_before),
        "parts": [{"quantity": _plain(part.amount), "unit_price": _plain(part.unit_price)} for part in expected.parts],
        "contract": str(expected.contract_id) if expected.contract_id else None,
        "discount": _plain(expected.discount),
        "amount": money_json(expected.amount_micros, currency),
        "list_amount": money_json(expected.list_micros, currency),
        "most": money_json(line.max_micros, currency),
    }


def _plain(number: Any) -> str:
    return f"{number.normalize():f}"
