"""A tenant's webhooks: where it is told what happens, and how that went."""

import uuid
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from core import clock
from core.idempotency import idempotent
from easel.api import schemas
from easel.api.openapi import answers
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.serializers import DeliveriesQuery, PageQuery, WebhookChangeInput, WebhookInput
from easel.webhooks import endpoints, outbox, queries
from easel.webhooks.delivery import message_id
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint
from tenants.models import Scope


def webhook_json(endpoint: WebhookEndpoint, secret: str | None = None) -> dict[str, Any]:
    return {
        "id": str(endpoint.id),
        "object": "webhook",
        "url": endpoint.url,
        "events": endpoint.events,
        "enabled": endpoint.disabled_at is None,
        "disabled_reason": endpoint.disabled_reason or None,
        "disabled_at": endpoint.disabled_at,
        "delivered_at": endpoint.delivered_at,
        "created_at": endpoint.created_at,
        # Known when it is made, and never again.
        **({} if secret is None else {"secret": secret}),
    }


def delivery_json(delivery: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": str(delivery.id),
        "object": "webhook_delivery",
        "message_id": message_id(delivery.message),
        "event": delivery.message.event,
        "status": delivery.state,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.next_at if delivery.state == WebhookDelivery.State.PENDING else None,
        "data": delivery.message.data,
        "attempts": [
            {
                "at": one.sent_at,
                "status": one.status,
                "outcome": one.outcome,
                "seconds": round(one.seconds, 3),
                "response": one.response,
            }
            for one in delivery.tries.all()
        ],
    }


def _endpoint(request: HttpRequest, webhook_id: UUID) -> WebhookEndpoint:
    return queries.endpoint_get(tenant=caller(request).tenant, endpoint_id=webhook_id)


class Webhooks(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(
        operation_id="webhooks_create", request=WebhookInput, responses=answers(schemas.WEBHOOK_MADE, status=201)
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Makes a webhook; its secret is in this answer alone. Without `events` it is told of all."""
        fields = WebhookInput(data=body_of(request))
        fields.is_valid(raise_exception=True)
        secret: str | None = None

        def make() -> UUID:
            nonlocal secret
            endpoint, secret = endpoints.endpoint_create(
                tenant=caller(request).tenant, endpoint_id=uuid.uuid4(), now=clock.now(), **fields.validated_data
            )
            return endpoint.id

        key = request.headers.get("Idempotency-Key")
        outcome = idempotent(
            tenant=caller(request).tenant,
            endpoint="webhooks",
            key=key,
            body=body_of(request),
            now=clock.now(),
            make=make,
        )
        headers = {"Idempotent-Replayed": "true"} if outcome.replayed else {}
        return answer_json(webhook_json(_endpoint(request, outcome.resource_id), secret), status=201, headers=headers)

    @extend_schema(operation_id="webhooks_list", parameters=[PageQuery], responses=answers(schemas.WEBHOOKS))
    def get(self, request: HttpRequest) -> HttpResponse:
        query = PageQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        found, more = queries.endpoints_page(tenant=caller(request).tenant, **query.page())
        return answer_json({"object": "list", "data": [webhook_json(one) for one in found], "has_more": more})


class WebhookDetail(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(operation_id="webhooks_get", responses=answers(schemas.WEBHOOK))
    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        return answer_json(webhook_json(_endpoint(request, webhook_id)))

    @extend_schema(operation_id="webhooks_change", request=WebhookChangeInput, responses=answers(schemas.WEBHOOK))
    def patch(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Sets the URL, the events, or `enabled`; what waited meanwhile is sent when it is enabled again."""
        fields = WebhookChangeInput(data=body_of(request))
        fields.is_valid(raise_exception=True)
        endpoint = _endpoint(request, webhook_id)
        return answer_json(
            webhook_json(endpoints.endpoint_change(endpoint, changes=fields.validated_data, now=clock.now()))
        )

    @extend_schema(operation_id="webhooks_delete", responses={204: None})
    def delete(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        endpoints.endpoint_delete(_endpoint(request, webhook_id))
        return answer_json(status=204)


class WebhookRotate(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(operation_id="webhooks_rotate", request=None, responses=answers(schemas.WEBHOOK_MADE))
    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Gives it a new secret, in this answer alone; for a day the one before signs beside it."""
        return answer_json(webhook_json(*endpoints.secret_rotate(_endpoint(request, webhook_id), now=clock.now())))


class WebhookTest(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(operation_id="webhooks_test", request=None, responses=answers(schemas.DELIVERY, status=202))
    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Sends `webhook.test`; the delivery tells what came of it."""
        return answer_json(
            delivery_json(outbox.webhook_test(_endpoint(request, webhook_id), now=clock.now())), status=202
        )


class WebhookDeliveries(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(
        operation_id="webhooks_deliveries", parameters=[DeliveriesQuery], responses=answers(schemas.DELIVERIES)
    )
    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """What was sent to it, the latest first, with every attempt."""
        query = DeliveriesQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        endpoint, state = _endpoint(request, webhook_id), query.validated_data.get("status")
        found, more = queries.deliveries_page(endpoint=endpoint, state=state, **query.page())
        return answer_json({"object": "list", "data": [delivery_json(one) for one in found], "has_more": more})


class WebhookReplay(Resource):
    scope = Scope.WEBHOOKS

    @extend_schema(operation_id="webhooks_replay", request=None, responses=answers(schemas.DELIVERY, status=202))
    def post(self, request: HttpRequest, webhook_id: UUID, delivery_id: UUID) -> HttpResponse:
        """Sends it once more, under the same `webhook-id`."""
        found = queries.delivery_get(endpoint=_endpoint(request, webhook_id), delivery_id=delivery_id)
        outbox.delivery_replay(found, now=clock.now())
        return answer_json(
            delivery_json(queries.delivery_get(endpoint=found.endpoint, delivery_id=delivery_id)), status=202
        )
