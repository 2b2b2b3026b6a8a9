"""Files of batches, batches, and their lines."""

import uuid

from django.db import models
from django.db.models import F, Q

from easel.catalog.models import Pool
from easel.jobs.models import Job
from tenants.models import ApiKey, Tenant


class File(models.Model):
    """A tenant's file: the uploaded input of batches, or the output of one, which is written when it is read."""

    class Purpose(models.TextChoices):
        BATCH = "batch", "the input of batches"
        BATCH_OUTPUT = "batch_output", "the results of a batch, or its errors"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="files")
    purpose = models.CharField(max_length=12, choices=Purpose)
    filename = models.CharField(max_length=255)
    size_bytes = models.BigIntegerField(default=0, help_text="0 for an output: it is written when it is read.")
    storage_key = models.CharField(max_length=300, blank=True, help_text="Of an input's content in the object store.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(purpose="batch_output", storage_key="")
                | Q(purpose="batch", deleted_at__isnull=True) & ~Q(storage_key="")
                | Q(purpose="batch", deleted_at__isnull=False, storage_key=""),
                name="file_input_is_stored",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-created_at", "-id"], name="file_by_tenant"),
            models.Index(fields=["expires_at"], condition=Q(deleted_at=None), name="file_expiring"),
        ]

    def __str__(self) -> str:
        return f"file-{self.id.hex}"


class Batch(models.Model):
    """The image requests of one file, to be worked off by `expires_at`."""

    class Status(models.TextChoices):
        FAILED = "failed", "its file has faults; nothing was begun"
        IN_PROGRESS = "in_progress", "its lines become jobs, as far as pools are idle"
        COMPLETED = "completed", "every line has ended"
        EXPIRED = "expired", "lines were left when its time was over"
        CANCELLING = "cancelling", "jobs that workers have begun are going on"
        CANCELLED = "cancelled", "the lines that nobody had begun were canceled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="batches")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+")
    input_file = models.ForeignKey(File, on_delete=models.PROTECT, related_name="+")
    output_file = models.OneToOneField(File, on_delete=models.PROTECT, null=True, related_name="output_of")
    error_file = models.OneToOneField(File, on_delete=models.PROTECT, null=True, related_name="errors_of")
    endpoint = models.CharField(max_length=40)
    window_hours = models.PositiveSmallIntegerField()
    metadata = models.JSONField(default=dict)
    status = models.CharField(max_length=12, choices=Status)
    faults = models.JSONField(default=list, help_text="Of a file that was refused: code, message, param, line.")
    lines_total = models.PositiveIntegerField(default=0)
    lines_completed = models.PositiveIntegerField(default=0)
    lines_failed = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    cancelling_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    waiting_for = models.JSONField(null=True, help_text="What refused its next line for now: code and message.")
    waiting_since = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True, help_text="When its next line is tried again.")
    output_seconds = models.PositiveIntegerField(null=True, help_text="After which its outputs expire; null: 30 days.")

    class Meta:
        verbose_name_plural = "batches"
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["in_progress", "cancelling"], ended_at__isnull=True)
                | Q(status__in=["failed", "completed", "expired", "cancelled"], ended_at__isnull=False),
                name="batch_ended_at_iff_final",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["cancelling", "cancelled"]) | Q(cancelling_at__isnull=False),
                name="batch_cancelling_at_if_canceled",
            ),
            models.CheckConstraint(
                condition=Q(lines_completed__lte=F("lines_total") - F("lines_failed")), name="batch_counts_add_up"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-created_at", "-id"], name="batch_by_tenant"),
            models.Index(fields=["-created_at", "-id"], name="batch_by_time"),
            models.Index(fields=["created_at"], condition=Q(ended_at=None), name="batch_unfinished"),
        ]

    def __str__(self) -> str:
        return f"batch_{self.id.hex}"


class Line(models.Model):
    """One request of a batch. Its job has the same id, so that a line can't have two."""

    class State(models.TextChoices):
        WAITING = "waiting", "nothing is held for it yet"
        BEGUN = "begun", "its job is queued or running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="lines")
    number = models.PositiveIntegerField(help_text="In the file, from 1.")
    custom_id = models.CharField(max_length=512)
    request = models.JSONField(default=dict, help_text="What is to be generated; empty once the line has begun.")
    response_format = models.CharField(max_length=8)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+", help_text="Expected to serve it.")
    state = models.CharField(max_length=9, choices=State, default=State.WAITING)
    job = models.OneToOneField(Job, on_delete=models.PROTECT, null=True, related_name="+")
    error = models.JSONField(null=True, help_text="Why there was no job, or none that came to an end in time.")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["batch", "number"], name="batch_line_number_unique"),
            models.UniqueConstraint(fields=["batch", "custom_id"], name="batch_line_custom_id_unique"),
            models.CheckConstraint(condition=Q(job=None) | Q(job=F("id")), name="batch_line_job_is_its_own"),
            models.CheckConstraint(
                condition=Q(state="waiting", job=None, finished_at=None, error=None)
                | Q(state="begun", job__isnull=False, finished_at=None, error=None)
                | Q(state="succeeded", job__isnull=False, finished_at__isnull=False, error=None)
                | Q(state="failed", finished_at__isnull=False) & (Q(job__isnull=False) | Q(error__isnull=False)),
                name="batch_line_state_known",
            ),
            models.CheckConstraint(condition=Q(state="waiting") | Q(request={}), name="batch_line_ended_has_no_words"),
        ]
        indexes = [
            models.Index(fields=["pool", "batch", "number"], condition=Q(state="waiting"), name="batch_line_waiting"),
            models.Index(fields=["batch"], condition=Q(state="begun"), name="batch_line_begun"),
        ]
