"""Errors of a single image, each a type with a machine code."""


class GenerationError(Exception):
    """An image cannot be generated. The message may reach the tenant: it holds no prompt, URL or path.

    `code` is stable. `retryable` is true if another attempt, possibly on another worker, could succeed.
    """

    code = "internal_error"
    retryable = True

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


class PromptTooLong(GenerationError):
    """The prompt has more tokens than the model reads; it is refused, not truncated."""

    code, retryable = "prompt_too_long", False


class SizeUnsupported(GenerationError):
    """The width or height is not a multiple of the model's token size, or exceeds its positions."""

    code, retryable = "size_unsupported", False


class AdapterRejected(GenerationError):
    """An adapter's file does not fit this model; `code` names the first check that failed."""

    code, retryable = "adapter_rejected", False


class TransferError(GenerationError):
    """The storage was unavailable until the retries ended, or refused a signed URL."""

    code, retryable = "storage_unavailable", True


class WrongModel(GenerationError):
    """The task names a model version that this worker does not hold."""

    code, retryable = "model_not_loaded", True


class OutOfMemory(GenerationError):
    """The device's memory is too small for this work, even alone."""

    code, retryable = "out_of_memory", True


class ImageNotFinite(GenerationError):
    """The image's values are infinite or NaN, as an adapter at a very large scale makes them."""

    code, retryable = "image_not_finite", False


class WorkerStopped(GenerationError):
    """The worker stopped before the image was finished."""

    code, retryable = "worker_stopped", True


class Canceled(GenerationError):
    """The image was canceled. This is not a failure."""

    code, retryable = "canceled", False


class DeadlinePassed(GenerationError):
    """The image's deadline passed before it was finished. This is not a failure."""

    code, retryable = "deadline_passed", False
