"""Refusals that a client sees, each with its machine code."""

from core.errors import DomainError, NotFound


class JobNotFound(NotFound, code="job_not_found"):
    """No such job.

    Take the id from `GET /v1/jobs`.
    """


class ProjectNotFound(NotFound, code="project_not_found"):
    """No such project.

    Name a project of your account, or leave `project` out for the key's.
    """


class PromptInvalid(DomainError, code="prompt_invalid"):
    """The prompt is invalid.

    Correct the prompt as the message says.
    """


class SizeInvalid(DomainError, code="size_invalid"):
    """The size is invalid.

    Send the nearest allowed size, which the message names. `GET /v1/models` has the model's limits; both sides are
    multiples of 16.
    """


class StepsInvalid(DomainError, code="steps_invalid"):
    """The number of steps is invalid.

    Send a number of steps that the model takes: `GET /v1/models` has its limits.
    """


class DeadlineInvalid(DomainError, code="deadline_invalid"):
    """The job's deadline is invalid.

    Send an `expires_in_seconds` within the limits that the message names.
    """


class ImagesDeleted(DomainError, code="images_deleted", http_status=410):
    """The images of this job were deleted: send the request with a new Idempotency-Key to generate new ones.

    Generate the images again: send the request with a new Idempotency-Key.
    """


class JobUnfinished(DomainError, code="job_unfinished", http_status=409):
    """An unfinished job can't be deleted: cancel it first.

    Cancel the job (`POST /v1/jobs/{id}/cancel`) or wait until it has ended.
    """


class JobDeleted(DomainError, code="job_deleted", http_status=410):
    """The job was deleted.

    Nothing is to be done: the job's prompt and images are deleted and don't come back.
    """


class JobNotSucceeded(DomainError, code="job_not_succeeded", http_status=409):
    """Only a job that succeeded takes feedback.

    Send feedback on a job whose status is `succeeded`.
    """


class FeedbackExists(DomainError, code="feedback_exists", http_status=409):
    """The job has feedback already.

    Nothing is to be done: a job takes feedback once.
    """


class PromptBlocked(DomainError, code="moderation_blocked", type="image_generation_user_error"):
    """The prompt violates the content policy: change it and try again. Nothing was charged.

    Change the prompt. The same prompt is refused again.
    """


class JobFailed(DomainError, type="server_error", http_status=500):
    """The job ended without an image; nothing was charged.

    Its subclasses are the codes that workers and the lifecycle give. `easel.jobs` can't import a worker's classes.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, code: str, message: str) -> "JobFailed":
        """Return the declared failure of this code, or a plain one: a worker may be of another version."""
        kinds = {kind.code: kind for kind in cls.__subclasses__()}
        return kinds.get(code, cls)(code, message)


class PromptTooLong(JobFailed, code="prompt_too_long", type="invalid_request_error", http_status=400):
    """The prompt has more tokens than the model reads.

    Shorten the prompt. Easel cuts nothing off.
    """


class ImageNotFinite(JobFailed, code="image_not_finite"):
    """The image has values that are infinite or not numbers.

    Lower the scale of the adapters; a very large one does this.
    """


class OutOfMemory(JobFailed, code="out_of_memory"):
    """The device's memory is too small for this image.

    Send a smaller size or fewer adapters. If it should fit, tell the operator.
    """


class JobQuarantined(JobFailed, code="job_quarantined"):
    """Every worker that ran the job stopped reporting, so it may be the cause.

    Change the request before you send it again, and tell the operator the job's id.
    """


class WorkerLost(JobFailed, code="worker_lost"):
    """The last worker that ran the job stopped reporting.

    Send the request again with a new Idempotency-Key.
    """


class WorkerStopped(JobFailed, code="worker_stopped"):
    """The last worker that ran the job stopped before the image was finished.

    Send the request again with a new Idempotency-Key.
    """


class StorageUnavailable(JobFailed, code="storage_unavailable"):
    """The image could not be stored, or an adapter not be fetched, within all retries.

    Send the request again later, with a new Idempotency-Key.
    """


class StorageRefused(JobFailed, code="storage_refused"):
    """The storage refused a signed URL of the platform's.

    Tell the operator the job's id.
    """


class ModelNotLoaded(JobFailed, code="model_not_loaded"):
    """The worker holds another version of the model.

    Send the request again; tell the operator if it goes on.
    """


class TaskMalformed(JobFailed, code="task_malformed"):
    """The worker could not read the task.

    Tell the operator the job's id: control plane and worker may be of different versions.
    """


class SizeUnsupported(JobFailed, code="size_unsupported"):
    """The worker's model can't generate this size.

    Send another size, and tell the operator the job's id.
    """


class WeightsRejected(JobFailed, code="adapter_rejected"):
    """The worker rejected the stored adapter.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsHashBad(JobFailed, code="adapter_hash_bad"):
    """The stored adapter's name is not its hash.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsUnreadable(JobFailed, code="adapter_unreadable"):
    """The stored adapter is not a safetensors file.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsEmpty(JobFailed, code="adapter_empty"):
    """The stored adapter has no weights.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsKeyUnknown(JobFailed, code="adapter_key_unknown"):
    """The stored adapter has a weight that is not a tensor of its format.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsMissing(JobFailed, code="adapter_weight_missing"):
    """The stored adapter lacks a weight.

    Upload the adapter again, and tell the operator the job's id.
    """


class WeightsModuleUnknown(JobFailed, code="adapter_module_unknown"):
    """The stored adapter changes a layer that the model doesn't have.

    Upload an adapter of this model.
    """


class WeightsShapeWrong(JobFailed, code="adapter_shape"):
    """A weight of the stored adapter doesn't fit the model.

    Upload an adapter of this model.
    """


class WeightsRankUnsupported(JobFailed, code="adapter_rank_unsupported"):
    """The stored adapter's rank is above what the worker accepts.

    Upload an adapter of a lower rank.
    """


class WeightsNotFinite(JobFailed, code="adapter_weight_not_finite"):
    """The stored adapter has weights that are not finite numbers.

    Upload a sound adapter.
    """


class TooManyAdapters(JobFailed, code="too_many_adapters"):
    """The request names more adapters than the worker applies at once.

    Name fewer adapters.
    """


class AdapterScaleBad(JobFailed, code="adapter_scale_bad"):
    """An adapter's scale is not a finite number.

    Send a finite scale.
    """


class ImageRefused(JobFailed, code="image_refused"):
    """The dedicated pool's worker reported an image that it had not stored, or one of another format or size.

    Look at the pool's workers: they must be Easel's, and reach its storage.
    """


class ReportFalse(JobFailed, code="worker_report_false"):
    """The dedicated pool's worker reported an end that can't be: a cancellation or a deadline that there was not.

    Look at the pool's workers: they must be Easel's.
    """


class JobExpired(JobFailed, code="job_expired", http_status=503):
    """The job expired before its images were generated.

    Send the request again with a later deadline (`expires_in_seconds`).
    """


class JobCanceled(JobFailed, code="job_canceled", http_status=409):
    """The job was canceled.

    Send the request again with a new Idempotency-Key if you want its images.
    """


class ImageBlocked(JobFailed, code="image_moderation_blocked", type="image_generation_user_error", http_status=400):
    """An image violates the content policy, so the job has no images. Nothing was charged.

    Change the prompt, or the seed. Nothing was charged.
    """


class ImageUnjudged(JobFailed, code="image_moderation_unavailable", http_status=503):
    """The content policy could not judge the images, so they are not delivered. Nothing was charged.

    Send the request again in a moment. If it goes on, tell the operator.
    """


# What a worker may say of a failure; the other codes are given by the control plane.
_GIVEN = {JobQuarantined, WorkerLost, ReportFalse, JobExpired, JobCanceled}
ERROR_CODES_OF_WORKERS = {kind.code for kind in JobFailed.__subclasses__() if kind not in _GIVEN}
