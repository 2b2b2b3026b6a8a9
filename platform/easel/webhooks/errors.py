from core.errors import DomainError, NotFound


class WebhookNotFound(NotFound):
    """There is no such webhook."""

    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    """This webhook has no such delivery."""

    code = "webhook_delivery_not_found"


class WebhookUrlInvalid(DomainError):
    """The URL can't be used for a webhook; the message says why."""

    code = "webhook_url_invalid"


class WebhookEventUnknown(DomainError):
    """There is no event of this name."""

    code = "webhook_event_unknown"


class TooManyWebhooks(DomainError):
    """This tenant has the maximum number of webhooks: delete one."""

    code, http_status = "webhook_limit_reached", 409


class WebhookDisabled(DomainError):
    """This webhook is disabled: enable it first (PATCH with `"enabled": true`)."""

    code, http_status = "webhook_disabled", 409
