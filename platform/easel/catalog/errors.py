from core.errors import DomainError, NotFound


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


class AdapterInUse(DomainError):
    """A running experiment uses this adapter: stop the experiment first."""

    code, http_status = "adapter_in_use", 409


class VersionNotFound(NotFound):
    """The model has no such version."""

    code = "version_not_found"


class VersionIncompatible(DomainError):
    """A model's versions take the same adapters: give a checkpoint of another shape a model name of its own."""

    code = "version_incompatible"


class VersionInUse(DomainError):
    """Requests still go to this version: route them elsewhere first."""

    code, http_status = "version_in_use", 409


class PoolExists(DomainError):
    """There is such a pool already."""

    code, http_status = "pool_exists", 409


class PoolNameInvalid(DomainError):
    """A pool's name is part of a namespace: it has to be a DNS label."""

    code = "pool_name_invalid"


class PoolHoldsOther(DomainError):
    """The pool's workers hold weights at another precision."""

    code, http_status = "pool_holds_other", 409


class PoolNotFound(NotFound):
    """There is no such pool."""

    code = "pool_not_found"


class NamespaceUnsafe(DomainError):
    """The pool's namespace holds a character that a Redis pattern would take for another: rename the pool."""

    code = "namespace_unsafe"
