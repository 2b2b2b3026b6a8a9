"""Records the feedback of tenants' users on the images of a job."""

from datetime import datetime

from django.db import IntegrityError, transaction

from easel.jobs.errors import FeedbackExists, JobDeleted, JobNotSucceeded
from easel.jobs.models import Feedback, Job, State


def feedback_give(*, job: Job, score: float, comment: str, now: datetime) -> Feedback:
    """Record a score from 0 (bad) to 1 (good). Idempotent: the same feedback again changes nothing.

    Raises `JobNotSucceeded`, `JobDeleted`, and `FeedbackExists` if the job has other feedback already.
    """
    if job.state != State.SUCCEEDED:
        raise JobNotSucceeded(f"the job is {job.state}: there are no images to rate")
    try:
        with transaction.atomic():
            if Job.objects.select_for_update(of=("self",)).get(pk=job.pk).deleted_at is not None:
                raise JobDeleted("the job was deleted: it takes no more feedback")
            return Feedback.objects.create(job=job, score=score, comment=comment, created_at=now)
    except IntegrityError:
        existing = Feedback.objects.get(job=job)
        if (existing.score, existing.comment) != (score, comment):
            raise FeedbackExists(f"this job has feedback already, with a score of {existing.score}") from None
        return existing
