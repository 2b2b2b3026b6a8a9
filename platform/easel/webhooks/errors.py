"""Refusals about tenants' webhook endpoints."""

from core.errors import DomainError, NotFound


class WebhookNotFound(NotFound, code="webhook_not_found"):
    """There is no such webhook."""


class DeliveryNotFound(NotFound, code="webhook_delivery_not_found"):
    """This webhook has no such delivery."""


class WebhookUrlInvalid(DomainError, code="webhook_url_invalid"):
    """The URL can't be used for a webhook; the message says why."""


class WebhookEventUnknown(DomainError, code="webhook_event_unknown"):
    """There is no event of this name."""


class TooManyWebhooks(DomainError, code="webhook_limit_reached", http_status=409):
    """This tenant has the maximum number of webhooks: delete one."""


class WebhookDisabled(DomainError, code="webhook_disabled", http_status=409):
    """This webhook is disabled: enable it first (PATCH with `"enabled": true`)."""
