from core.errors import DomainError, NotFound


class WebhookNotFound(NotFound):
    """No such webhook."""

    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    """No such delivery of this webhook."""

    code = "webhook_delivery_not_found"


class WebhookUrlInvalid(DomainError):
    """The URL can't be called."""

    code = "webhook_url_invalid"


class WebhookEventUnknown(DomainError):
    """There is no such event."""

    code = "webhook_event_unknown"


class TooManyWebhooks(DomainError):
    """This account has as many webhooks as it may: delete one."""

    code, http_status = "webhook_limit_reached", 409


class WebhookDisabled(DomainError):
    """This webhook is disabled: enable it first (PATCH with `"enabled": true`)."""

    code, http_status = "webhook_disabled", 409
