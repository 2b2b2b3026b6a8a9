"""What a request would cost, before it is made."""

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
from easel.api.serializers import ImagesInput
from easel.jobs.quote import job_quote
from easel.jobs.quote_json import quote_json
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
