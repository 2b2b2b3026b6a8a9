"""A tenant's webhooks: the addresses that are notified of events, and the deliveries to them."""

import uuid
from datetime import datetime
from typing import Annotated, Any, NotRequired
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from core import clock
from easel.api.declaration import LEFT_OUT, Flag, Input, OneOf, PageQuery, Text, operation
from easel.api.endpoint import endpoint
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.rows import Listed, listed, row_json
from easel.api.submission import IDEMPOTENCY_ERRORS, REPLAYED, make_once
from easel.webhooks import endpoints, outbox, queries
from easel.webhooks.delivery import message_id
from easel.webhooks.errors import (
    DeliveryNotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookEventUnknown,
    WebhookNotFound,
    WebhookUrlInvalid,
)
from easel.webhooks.models import Event, WebhookDelivery, WebhookEndpoint
from tenants.models import Scope

EventName = Annotated[Text, Field(max_length=40)]

CHANGE_ERRORS = (WebhookUrlInvalid, WebhookEventUnknown)
TEST_ERRORS = (WebhookNotFound, WebhookDisabled)


class WebhookInput(Input):
    url: Text = Field(max_length=2000, description="An https address to POST to.")
    events: list[EventName] = Field(default_factory=list, max_length=20)


class WebhookChangeInput(Input):
    url: Text = Field(default=LEFT_OUT, max_length=2000)
    events: list[EventName] = Field(default=LEFT_OUT, max_length=20)
    enabled: Flag = LEFT_OUT


class DeliveriesQuery(PageQuery):
    status: Annotated[str, OneOf(WebhookDelivery.State.values)] = LEFT_OUT


class WebhookAnswer(TypedDict):
    id: str
    object: str
    url: str
    events: list[Annotated[str, OneOf(Event.values)]]
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


class WebhookWithSecret(WebhookAnswer):
    """Only the answer that creates a secret contains it: a request repeated by its Idempotency-Key does not get it."""

    secret: NotRequired[str]


class DeliveryAttempt(TypedDict):
    at: datetime
    status: int | None
    outcome: str
    seconds: float
    response: str


class DeliveryAnswer(TypedDict):
    id: str
    object: str
    message_id: str
    event: Annotated[str, OneOf(Event.values)]
    status: Annotated[str, OneOf(WebhookDelivery.State.values)]
    created_at: datetime
    next_attempt_at: datetime | None
    data: dict[str, Any]
    attempts: list[DeliveryAttempt]


def webhook_json(endpoint: WebhookEndpoint, secret: str | None = None) -> WebhookWithSecret:
    enabled, reason = endpoint.disabled_at is None, endpoint.disabled_reason or None
    shown: Any = row_json(WebhookAnswer, endpoint, object="webhook", enabled=enabled, disabled_reason=reason)
    answer: WebhookWithSecret = shown if secret is None else shown | {"secret": secret}
    return answer


def delivery_json(delivery: WebhookDelivery) -> DeliveryAnswer:
    return row_json(
        DeliveryAnswer,
        delivery,
        object="webhook_delivery",
        message_id=message_id(delivery.message),
        event=delivery.message.event,
        status=delivery.state,
        next_attempt_at=delivery.next_at if delivery.state == WebhookDelivery.State.PENDING else None,
        data=delivery.message.data,
        attempts=[
            row_json(DeliveryAttempt, one, at=one.sent_at, seconds=round(one.seconds, 3))
            for one in delivery.tries.all()
        ],
    )


def _endpoint(request: HttpRequest, webhook_id: UUID) -> WebhookEndpoint:
    return queries.endpoint_get(tenant=caller(request).tenant, endpoint_id=webhook_id)


class Webhooks(Resource):
    scope = Scope.WEBHOOKS

    @operation(
        "webhooks_create",
        WebhookWithSecret,
        request=WebhookInput,
        status=201,
        errors=(*CHANGE_ERRORS, TooManyWebhooks, *IDEMPOTENCY_ERRORS),
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Create a webhook. Only this answer has its secret. Without `events` it is notified of all."""
        tenant, body, now = caller(request).tenant, body_of(request), clock.now()
        fields = WebhookInput.read(body)
        secret: str | None = None

        def make() -> UUID:
            nonlocal secret
            endpoint, secret = endpoints.endpoint_create(
                tenant=tenant, endpoint_id=uuid.uuid4(), now=now, url=fields.url, events=fields.events
            )
            return endpoint.id

        outcome = make_once(request, body, "webhooks", now=now, make=make)
        shown = webhook_json(_endpoint(request, outcome.resource_id), secret)
        return answer_json(shown, status=201, headers=REPLAYED if outcome.replayed else None)

    @operation("webhooks_list", Listed[WebhookAnswer], query=PageQuery, errors=(WebhookNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List your webhooks, the latest first."""
        query = PageQuery.read(request.GET.dict())
        found, more = queries.endpoints_page(tenant=caller(request).tenant, **query.page())
        return answer_json(listed([webhook_json(one) for one in found], has_more=more))


class WebhookDetail(Resource):
    scope = Scope.WEBHOOKS

    @operation("webhooks_get", WebhookAnswer, errors=(WebhookNotFound,))
    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Show a webhook, and if it is enabled."""
        return answer_json(webhook_json(_endpoint(request, webhook_id)))

    @operation("webhooks_change", WebhookAnswer, request=WebhookChangeInput, errors=(*CHANGE_ERRORS, WebhookNotFound))
    def patch(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Change the URL, the events or `enabled`. Deliveries that waited are sent when it is enabled again."""
        fields = WebhookChangeInput.read(body_of(request))
        endpoint = _endpoint(request, webhook_id)
        return answer_json(webhook_json(endpoints.endpoint_change(endpoint, changes=fields.given(), now=clock.now())))

    @operation("webhooks_delete", status=204, errors=(WebhookNotFound,))
    def delete(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        """Delete a webhook with its deliveries."""
        endpoints.endpoint_delete(_endpoint(request, webhook_id))
        return answer_json(status=204)


@endpoint("post", "webhooks_rotate", WebhookWithSecret, errors=(WebhookNotFound,), scope=Scope.WEBHOOKS)
def webhook_rotate(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    """Issue a new secret, which only this answer has. For a day the old one signs beside it."""
    return answer_json(webhook_json(*endpoints.secret_rotate(_endpoint(request, webhook_id), now=clock.now())))


@endpoint("post", "webhooks_test", DeliveryAnswer, status=202, errors=TEST_ERRORS, scope=Scope.WEBHOOKS)
def webhook_test(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    """Send `webhook.test`; the delivery records the result."""
    sent = outbox.webhook_test(_endpoint(request, webhook_id), now=clock.now())
    return answer_json(delivery_json(sent), status=202)


@endpoint(
    "get",
    "webhooks_deliveries",
    Listed[DeliveryAnswer],
    query=DeliveriesQuery,
    errors=(WebhookNotFound, DeliveryNotFound),
    scope=Scope.WEBHOOKS,
)
def webhook_deliveries(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    """List deliveries, the latest first, with every attempt."""
    query = DeliveriesQuery.read(request.GET.dict())
    endpoint, state = _endpoint(request, webhook_id), query.status
    found, more = queries.deliveries_page(endpoint=endpoint, state=state, **query.page())
    return answer_json(listed([delivery_json(one) for one in found], has_more=more))


@endpoint(
    "post",
    "webhooks_replay",
    DeliveryAnswer,
    status=202,
    errors=(*TEST_ERRORS, DeliveryNotFound),
    scope=Scope.WEBHOOKS,
)
def webhook_replay(request: HttpRequest, webhook_id: UUID, delivery_id: UUID) -> HttpResponse:
    """Send a delivery once more, under the same `webhook-id`."""
    endpoint = _endpoint(request, webhook_id)
    outbox.delivery_replay(queries.delivery_get(endpoint=endpoint, delivery_id=delivery_id), now=clock.now())
    replayed = queries.delivery_get(endpoint=endpoint, delivery_id=delivery_id)
    return answer_json(delivery_json(replayed), status=202)
