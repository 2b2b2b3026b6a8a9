"""Refusals that a client sees, each with its machine code."""

from core.errors import DomainError, NotFound


class JobNotFound(NotFound):
    """No such job."""

    code = "job_not_found"


class ProjectNotFound(NotFound):
    """No such project."""

    code = "project_not_found"


class PromptInvalid(DomainError):
    """The prompt is invalid."""

    code = "prompt_invalid"


class SizeInvalid(DomainError):
    """The size is invalid."""

    code = "size_invalid"


class StepsInvalid(DomainError):
    """The number of steps is invalid."""

    code = "steps_invalid"


class DeadlineInvalid(DomainError):
    """The job's deadline is invalid."""

    code = "deadline_invalid"


class ImagesDeleted(DomainError):
    """The images of this job were deleted: send the request with a new Idempotency-Key to generate new ones."""

    code, http_status = "images_deleted", 410


class JobUnfinished(DomainError):
    """An unfinished job can't be deleted: cancel it first."""

    code, http_status = "job_unfinished", 409


class JobDeleted(DomainError):
    """The job was deleted."""

    code, http_status = "job_deleted", 410


class JobFailed(DomainError):
    """The job ended without an image; nothing was charged."""

    type, http_status = "server_error", 500

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class JobNotSucceeded(DomainError):
    """Only a job that succeeded takes feedback."""

    code, http_status = "job_not_succeeded", 409


class FeedbackExists(DomainError):
    """The job has feedback already."""

    code, http_status = "feedback_exists", 409


class PromptBlocked(DomainError):
    """The prompt violates the content policy: change it and try again. Nothing was charged."""

    code, type = "moderation_blocked", "image_generation_user_error"
