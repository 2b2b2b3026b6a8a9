from core.errors import DomainError, NotFound


class ModelNotFound(DomainError):
    """There is no such model: `GET /v1/models` lists the models that serve requests."""

    code, http_status = "model_not_found", 404


class AdapterNotFound(NotFound):
    """There is no such adapter: `GET /v1/adapters` lists yours."""

    code = "adapter_not_found"


class AdapterRetired(DomainError):
    """This adapter is retired: use another, or upload a new version."""

    code, http_status = "adapter_retired", 409


class AdapterNameInvalid(DomainError):
    """An adapter's name must have 1 to 40 lower-case letters, digits and inner hyphens."""

    code = "adapter_name_invalid"


class AdapterTooLarge(DomainError):
    """The adapter file exceeds the size limit."""

    code, http_status = "adapter_too_large", 413


class AdapterInUse(DomainError):
    """A running experiment uses this adapter: stop the experiment first."""

    code, http_status = "adapter_in_use", 409


class VersionNotFound(NotFound):
    """The model has no such version."""

    code = "version_not_found"


class VersionIncompatible(DomainError):
    """All versions of a model must fit the same adapters: register this checkpoint under another model name."""

    code = "version_incompatible"


class VersionInUse(DomainError):
    """Routes or experiments still send requests to this version: route them elsewhere first."""

    code, http_status = "version_in_use", 409


class PoolExists(DomainError):
    """A pool of this name, or for this purpose, exists already."""

    code, http_status = "pool_exists", 409


class PoolNameInvalid(DomainError):
    """A pool's name must be a DNS label that doesn't begin with `t-`."""

    code = "pool_name_invalid"


class PoolHoldsOther(DomainError):
    """The pool's workers hold other weights, or weights at another precision."""

    code, http_status = "pool_holds_other", 409


class PoolNotFound(NotFound):
    """There is no such pool."""

    code = "pool_not_found"


class NamespaceUnsafe(DomainError):
    """The pool's namespace contains a character that is a wildcard in a Redis pattern: rename the pool."""

    code = "namespace_unsafe"
