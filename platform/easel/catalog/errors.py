"""Refusals about models, versions, adapters and pools."""

from core.errors import DomainError, NotFound


class ModelNotFound(DomainError, code="model_not_found", http_status=404):
    """There is no such model: `GET /v1/models` lists the models that serve requests."""


class AdapterNotFound(NotFound, code="adapter_not_found"):
    """There is no such adapter: `GET /v1/adapters` lists yours."""


class AdapterRetired(DomainError, code="adapter_retired", http_status=409):
    """This adapter is retired: use another, or upload a new version."""


class AdapterNameInvalid(DomainError, code="adapter_name_invalid"):
    """An adapter's name must have 1 to 40 lower-case letters, digits and inner hyphens."""


class AdapterTooLarge(DomainError, code="adapter_too_large", http_status=413):
    """The adapter file exceeds the size limit."""


class AdapterInUse(DomainError, code="adapter_in_use", http_status=409):
    """A running experiment uses this adapter: stop the experiment first."""


class VersionNotFound(NotFound, code="version_not_found"):
    """The model has no such version."""


class VersionIncompatible(DomainError, code="version_incompatible"):
    """All versions of a model must fit the same adapters: register this checkpoint under another model name."""


class VersionInUse(DomainError, code="version_in_use", http_status=409):
    """Routes or experiments still send requests to this version: route them elsewhere first."""


class PoolExists(DomainError, code="pool_exists", http_status=409):
    """A pool of this name, or for this purpose, exists already."""


class PoolNameInvalid(DomainError, code="pool_name_invalid"):
    """A pool's name must be a DNS label that doesn't begin with `t-`."""


class PoolHoldsOther(DomainError, code="pool_holds_other", http_status=409):
    """The pool's workers hold other weights, or weights at another precision."""


class PoolNotFound(NotFound, code="pool_not_found"):
    """There is no such pool."""


class NamespaceUnsafe(DomainError, code="namespace_unsafe"):
    """The pool's namespace contains a character that is a wildcard in a Redis pattern: rename the pool."""
