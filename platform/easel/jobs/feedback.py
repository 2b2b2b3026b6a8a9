"""What users thought of a job's images."""

from datetime import datetime

from django.db import IntegrityError, transaction

from easel.jobs.errors import FeedbackExists, JobDeleted, JobNotSucceeded
from easel.jobs.models import Feedback, Job, State


def feedback_give(*, job: Job, score: float, comment: str, now: datetime) -> Feedback:
    """Records a score from 0 (bad) to 1 (good), once: the same again changes nothing.

    Raises `JobNotSucceeded`, `JobDeleted`, and `FeedbackExists` for another score than the one given before.
    """
    if job.state != State.SUCCEEDED:
        raise JobNotSucceeded(f"the job is {job.state}: there are no images to judge")
    try:
        with transaction.atomic():
            if Job.objects.select_for_update(of=("self",)).get(pk=job.pk).deleted_at is not None:
                raise JobDeleted("the job was deleted: it takes no more feedback")
            return Feedback.objects.create(job=job, score=score, comment=comment, created_at=now)
    except IntegrityError:
        given = Feedback.objects.get(job=job)
        if (given.score, given.comment) != (score, comment):
            raise FeedbackExists(f"this job has a score of {given.score} already") from None
        return given
