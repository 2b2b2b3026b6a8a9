from tenants.errors import DomainError, NotFound


class ModelNotFound(DomainError):
    """No such model: `GET /v1/models` lists what can be called."""

    code, http_status = "model_not_found", 404


class AdapterNotFound(NotFound):
    """No such adapter: `GET /v1/adapters` lists yours."""

    code = "adapter_not_found"


class AdapterRetired(DomainError):
    """This adapter is retired: use another, or upload a new version of it."""

    code, http_status = "adapter_retired", 409


class AdapterNameInvalid(DomainError):
    """An adapter's name is 1 to 40 lower-case letters, digits and inner hyphens."""

    code = "adapter_name_invalid"


class AdapterTooLarge(DomainError):
    """The adapter file is over the size limit."""

    code, http_status = "adapter_too_large", 413
