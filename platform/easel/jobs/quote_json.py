"""A quote as JSON, for the API and for the command line."""

from typing import Any

from billing.money import money_json, plain
from easel.jobs.quote import Quote, QuoteLine


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
        "batch": plan.in_batch,
        "lines": [_line_json(line, currency) for line in quote.lines],
        "expected": money_json(quote.expected_micros, currency),
        "most": money_json(quote.max_micros, currency),
        "available": money_json(quote.available_micros, currency),
        "warnings": list(plan.spec.warnings),
        "admitted": refusal is None,
        "refusal": {"code": refusal.code, "message": str(refusal)} if refusal else None,
    }


def _line_json(line: QuoteLine, currency: str) -> dict[str, Any]:
    expected = line.expected
    return {
        "meter": expected.quantity.meter,
        "quantity": plain(expected.quantity.amount),
        "quantity_most": plain(line.quantity_max.amount),
        "price_book": expected.tariff.book,
        "mode": expected.tariff.mode,
        "used_before": plain(expected.used_before),
        "parts": [{"quantity": plain(part.amount), "unit_price": plain(part.unit_price)} for part in expected.parts],
        "contract": str(expected.contract_id) if expected.contract_id else None,
        "discount": plain(expected.discount),
        "amount": money_json(expected.amount_micros, currency),
        "list_amount": money_json(expected.list_micros, currency),
        "most": money_json(line.max_micros, currency),
    }
