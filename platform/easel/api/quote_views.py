"""What a request would cost, before it is made."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core import clock
from easel.api import money_schemas
from easel.api.authentication import caller
from easel.api.openapi import answers
from easel.api.rate_limit import RequestsPerMinute
from easel.api.rendering import money_json
from easel.api.serializers import ImagesInput
from easel.jobs.quote import Quote, QuoteLine, job_quote
from easel.jobs.spec import Limits
from tenants.models import Scope


class ImagesQuote(APIView):
    scope = Scope.GENERATE
    throttle_classes = [RequestsPerMinute]

    @extend_schema(operation_id="images_quotes", request=ImagesInput, responses=answers(money_schemas.QUOTE))
    def post(self, request: Request) -> Response:
        """What the same body would cost as a generation, line by line; nothing is made, held or written.

        What would keep it from being admitted now, a full queue or a spent budget, is its `refusal`, beside the price.
        """
        spec = ImagesInput.spec(ImagesInput.read(request.data))
        limits = Limits.of(settings.EASEL)
        return Response(quote_json(job_quote(api_key=caller(request), spec=spec, limits=limits, now=clock.now())))


def quote_json(quote: Quote) -> dict[str, Any]:
    """Amounts by `money_json`; quantities and prices as texts, exactly."""
    plan, currency, refusal = quote.plan, quote.plan.prices.currency, quote.refusal
    return {
        "object": "quote",
        "model": plan.version.model.name,
        "model_version": plan.version.number,
        "size": f"{plan.image_spec.width}x{plan.image_spec.height}",
        "steps": plan.image_spec.steps,
        "n": plan.image_spec.n,
        "tier": plan.tier,
        "cached": plan.cached_from is not None,
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
        "quantity_most": _plain(line.quantity_max.amount),
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
