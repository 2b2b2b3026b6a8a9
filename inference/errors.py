"""What can go wrong with one image, as types with a machine code."""


class GenerationError(Exception):
    """An image can't be made. The message may reach the tenant: no prompt, no URL, no path in it.

    `code` is stable; `retryable` says whether another attempt, maybe on another worker, could succeed.
    """

    code = "internal_error"
    retryable = True

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


class PromptTooLong(GenerationError):
    """The prompt has more tokens than the model reads; it is refused rather than cut."""

    code, retryable = "prompt_too_long", False


class SizeUnsupported(GenerationError):
    """The width or height is no multiple of the model's token size, or beyond its positions."""

    code, retryable = "size_unsupported", False


class AdapterRejected(GenerationError):
    """An adapter's file doesn't fit this model; `code` names the first check that failed."""

    code, retryable = "adapter_rejected", False


class TransferError(GenerationError):
    """The storage was away for longer than our patience, or refused a signed URL."""

    code, retryable = "storage_unavailable", True


class WrongModel(GenerationError):
    """The task names a model version that this worker doesn't hold."""

    code, retryable = "model_not_loaded", True


class OutOfMemory(GenerationError):
    """The device's memory doesn't hold this work, alone."""

    code, retryable = "out_of_memory", True


class ImageNotFinite(GenerationError):
    """The image's numbers grew beyond all bounds, as an adapter at a very large scale makes them."""

    code, retryable = "image_not_finite", False


class WorkerStopped(GenerationError):
    """The worker ended before the image did."""

    code, retryable = "worker_stopped", True


class Canceled(GenerationError):
    """The image was canceled; no failure."""

    code, retryable = "canceled", False


class DeadlinePassed(GenerationError):
    """The image was wanted until a moment that has passed; no failure."""

    code, retryable = "deadline_passed", False
