"""Errors of a single image, each a type with a machine code."""


class GenerationError(Exception):
    """An image cannot be generated. The message may reach the tenant: it holds no prompt, URL or path.

    `code` is stable. `retryable` is true if another attempt, possibly on another worker, could succeed.
    """

    code = "internal_error"
    retryable = True

    def __init_subclass__(cls, *, code: str, retryable: bool) -> None:
        cls.code, cls.retryable = code, retryable

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


class PromptTooLong(GenerationError, code="prompt_too_long", retryable=False):
    """The prompt has more tokens than the model reads; it is refused, not truncated."""


class SizeUnsupported(GenerationError, code="size_unsupported", retryable=False):
    """The width or height is not a multiple of the model's token size, or exceeds its positions."""


class AdapterRejected(GenerationError, code="adapter_rejected", retryable=False):
    """An adapter's file does not fit this model; `code` names the first check that failed."""


class TransferError(GenerationError, code="storage_unavailable", retryable=True):
    """The storage was unavailable until the retries ended, or refused a signed URL."""


class WrongModel(GenerationError, code="model_not_loaded", retryable=True):
    """The task names a model version that this worker does not hold."""


class OutOfMemory(GenerationError, code="out_of_memory", retryable=True):
    """The device's memory is too small for this work, even alone."""


class ImageNotFinite(GenerationError, code="image_not_finite", retryable=False):
    """The image's values are infinite or NaN, as an adapter at a very large scale makes them."""


class WorkerStopped(GenerationError, code="worker_stopped", retryable=True):
    """The worker stopped before the image was finished."""


class Canceled(GenerationError, code="canceled", retryable=False):
    """The image was canceled. This is not a failure."""


class DeadlinePassed(GenerationError, code="deadline_passed", retryable=False):
    """The image's deadline passed before it was finished. This is not a failure."""
