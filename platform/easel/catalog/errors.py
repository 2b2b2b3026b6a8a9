"""Refusals about models, versions, adapters and pools."""

from core.errors import DomainError, NotFound


class ModelNotFound(DomainError, code="model_not_found", http_status=404):
    """There is no such model: `GET /v1/models` lists the models that serve requests.

    Take a name from `GET /v1/models`, or leave `model` out for the default.
    """


class AdapterNotFound(NotFound, code="adapter_not_found"):
    """There is no such adapter: `GET /v1/adapters` lists yours.

    Take the name from `GET /v1/adapters`.
    """


class AdapterRetired(DomainError, code="adapter_retired", http_status=409):
    """This adapter is retired: use another, or upload a new version.

    Name another adapter, or upload a file under this name again.
    """


class AdapterNameInvalid(DomainError, code="adapter_name_invalid"):
    """An adapter's name must have 1 to 40 lower-case letters, digits and inner hyphens.

    Choose a name of 1 to 40 lower-case letters, digits and inner hyphens.
    """


class AdapterTooLarge(DomainError, code="adapter_too_large", http_status=413):
    """The adapter file exceeds the size limit.

    Upload a smaller file, for example one of a lower rank.
    """


class AdapterInUse(DomainError, code="adapter_in_use", http_status=409):
    """A running experiment uses this adapter: stop the experiment first.

    Stop the experiment that uses the adapter, then retire it.
    """


class VersionNotFound(NotFound, code="version_not_found"):
    """The model has no such version.

    Take the number from `GET /v1/models`.
    """


class VersionIncompatible(DomainError, code="version_incompatible"):
    """All versions of a model must fit the same adapters: register this checkpoint under another model name.

    Register the checkpoint under another model name.
    """


class VersionInUse(DomainError, code="version_in_use", http_status=409):
    """Routes or experiments still send requests to this version: route them elsewhere first.

    Route the requests elsewhere and stop the experiments, then retire the version.
    """


class PoolExists(DomainError, code="pool_exists", http_status=409):
    """A pool of this name, or for this purpose, exists already.

    Choose another name, or use the pool that exists.
    """


class PoolNameInvalid(DomainError, code="pool_name_invalid"):
    """A pool's name must be a DNS label that doesn't begin with `t-`.

    Choose a DNS label that doesn't begin with `t-`.
    """


class PoolHoldsOther(DomainError, code="pool_holds_other", http_status=409):
    """The pool's workers hold other weights, or weights at another precision.

    Use a pool of its own for these weights.
    """


class PoolNotFound(NotFound, code="pool_not_found"):
    """There is no such pool.

    List the pools with `easel pool list`.
    """


class NamespaceUnsafe(DomainError, code="namespace_unsafe"):
    """The pool's namespace contains a character that is a wildcard in a Redis pattern: rename the pool.

    Rename the pool, so that its namespace has letters, digits and hyphens only.
    """


class AdapterRefused(DomainError):
    """The adapter file can't be used; the code and the message say why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="file")


class AdapterIsPickle(AdapterRefused, code="adapter_is_pickle"):
    """The file is a pickled checkpoint, which can run code.

    Save the adapter as safetensors.
    """


class AdapterFileInvalid(AdapterRefused, code="adapter_file_invalid"):
    """The file is not a whole safetensors file.

    Upload the file again, or save it anew.
    """


class AdapterKindUnsupported(AdapterRefused, code="adapter_kind_unsupported"):
    """The adapter is not a plain LoRA.

    Train or convert it as LoRA; DoRA, LoKr, LoHa and the like are not supported.
    """


class AdapterBaseWrong(AdapterRefused, code="adapter_wrong_base"):
    """The adapter was trained on another base model.

    Name the model that it was trained on, or upload an adapter of this one.
    """


class AdapterKeysUnknown(AdapterRefused, code="adapter_keys_not_understood"):
    """The file has weights that can't be assigned to the model.

    Convert the file to the format of diffusers or PEFT, in F16, BF16 or F32.
    """


class AdapterIncomplete(AdapterRefused, code="adapter_incomplete"):
    """The file lacks weights that a LoRA has.

    Upload a file in which each module has both of its matrices.
    """


class AdapterShapeWrong(AdapterRefused, code="adapter_wrong_shape"):
    """A weight's shape doesn't fit the model.

    Upload an adapter that was trained on this very model.
    """


class AdapterRankTooLarge(AdapterRefused, code="adapter_rank_too_large"):
    """The adapter's rank is over the limit.

    Train or resize the adapter to the rank that the message names.
    """


class AdapterNotFinite(AdapterRefused, code="adapter_not_finite"):
    """The adapter has weights that are not finite numbers.

    Take a checkpoint of the training from before it diverged.
    """
