"""Refusals that a client sees, each with its machine code."""

from core.errors import DomainError, NotFound


class JobNotFound(NotFound, code="job_not_found"):
    """No such job."""


class ProjectNotFound(NotFound, code="project_not_found"):
    """No such project."""


class PromptInvalid(DomainError, code="prompt_invalid"):
    """The prompt is invalid."""


class SizeInvalid(DomainError, code="size_invalid"):
    """The size is invalid."""


class StepsInvalid(DomainError, code="steps_invalid"):
    """The number of steps is invalid."""


class DeadlineInvalid(DomainError, code="deadline_invalid"):
    """The job's deadline is invalid."""


class ImagesDeleted(DomainError, code="images_deleted", http_status=410):
    """The images of this job were deleted: send the request with a new Idempotency-Key to generate new ones."""


class JobUnfinished(DomainError, code="job_unfinished", http_status=409):
    """An unfinished job can't be deleted: cancel it first."""


class JobDeleted(DomainError, code="job_deleted", http_status=410):
    """The job was deleted."""


class JobFailed(DomainError, type="server_error", http_status=500):
    """The job ended without an image; nothing was charged."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class JobNotSucceeded(DomainError, code="job_not_succeeded", http_status=409):
    """Only a job that succeeded takes feedback."""


class FeedbackExists(DomainError, code="feedback_exists", http_status=409):
    """The job has feedback already."""


class PromptBlocked(DomainError, code="moderation_blocked", type="image_generation_user_error"):
    """The prompt violates the content policy: change it and try again. Nothing was charged."""
