"""The price of a generation before it is made."""

from typing import Annotated

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from billing.money import Money
from core import clock
from easel.api.declaration import Flag, OneOf
from easel.api.endpoint import endpoint
from easel.api.images import ImagesInput
from easel.api.jobs import JobError
from easel.api.rate_limit import RateLimited, take
from easel.api.resource import answer_json, body_of, caller
from easel.api.submission import ADMIT_ERRORS
from easel.catalog.models import PoolTier
from easel.jobs.quote import job_quote
from easel.jobs.quote_json import quote_json
from easel.jobs.spec import FieldWarning
from tenants.models import Scope

QUOTE_ERRORS = (RateLimited, *ADMIT_ERRORS)


class PricePart(TypedDict):
    quantity: str
    unit_price: str


class QuoteLineAnswer(TypedDict):
    meter: str
    quantity: str
    quantity_most: str
    price_book: str
    mode: str
    used_before: str
    parts: list[PricePart]
    contract: str | None
    discount: str
    amount: Money
    list_amount: Money
    most: Money


class QuoteAnswer(TypedDict):
    """Quantities and prices are texts, so that they are exact."""

    object: str
    model: str
    model_version: int
    size: str
    steps: int
    n: int
    tier: Annotated[str, OneOf(PoolTier.values)]
    cached: bool
    batch: bool
    lines: list[QuoteLineAnswer]
    expected: Money
    most: Money
    available: Money
    warnings: list[FieldWarning]
    admitted: bool
    refusal: JobError | None


class QuoteInput(ImagesInput):
    """The body of a generation, and whether it would be a line of a batch."""

    batch: Flag = Field(default=False, description="True for the price of a line of a batch.")


@endpoint("post", "images_quotes", QuoteAnswer, request=QuoteInput, errors=QUOTE_ERRORS, scope=Scope.GENERATE)
def images_quote(request: HttpRequest) -> HttpResponse:
    """Price the same body as a generation, line by line; nothing is made, held or written.

    What would refuse its admission now, a full queue or a spent budget, is its `refusal`, beside the price.
    """
    take(request, caller(request), now=clock.now())
    asked = QuoteInput.of(body_of(request), key=caller(request))
    quote = job_quote(
        api_key=caller(request), spec=asked.spec(), in_batch=asked.batch, config=settings.EASEL, now=clock.now()
    )
    return answer_json(quote_json(quote))
