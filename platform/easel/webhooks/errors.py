"""Refusals about tenants' webhook endpoints."""

from core.errors import DomainError, NotFound


class WebhookNotFound(NotFound, code="webhook_not_found"):
    """There is no such webhook.

    Take the id from `GET /v1/webhooks`.
    """


class DeliveryNotFound(NotFound, code="webhook_delivery_not_found"):
    """This webhook has no such delivery.

    Take the id from `GET /v1/webhooks/{id}/deliveries`.
    """


class WebhookUrlInvalid(DomainError, code="webhook_url_invalid"):
    """The URL can't be used for a webhook; the message says why.

    Register an https address that the platform can reach from the internet.
    """


class WebhookEventUnknown(DomainError, code="webhook_event_unknown"):
    """There is no event of this name.

    Name events that the API's document lists, or none for all.
    """


class TooManyWebhooks(DomainError, code="webhook_limit_reached", http_status=409):
    """This tenant has the maximum number of webhooks: delete one.

    Delete a webhook that you don't need.
    """


class WebhookDisabled(DomainError, code="webhook_disabled", http_status=409):
    """This webhook is disabled: enable it first (PATCH with `"enabled": true`).

    Enable the webhook: PATCH it with `"enabled": true`.
    """
