"""The life of a job: what was asked, the attempts at it, and the images it made.

The database holds the state machine too (migrations `0002` and `0007`): a transition that is not in `TRANSITIONS`, or
any change of a finished job's state, is refused whoever asks for it.
"""

import uuid
from functools import cache

from django.db import connection, models
from django.db.models import Q
from psycopg.types.json import Jsonb

from core.pipeline import PipelinedQuery, Query
from easel.catalog.models import (
    AdapterVersion,
    ModelVersion,
    Pool,
    PoolTier,
)
from easel.serving.models import Arm
from tenants.models import ApiKey, Project, Tenant


class State(models.TextChoices):
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED)
TRANSITIONS = {
    # Straight to `succeeded` when it is answered from the cache.
    State.QUEUED: {State.DISPATCHED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
    # A report that overtakes the beat of its start finishes a job that still is `dispatched`.
    State.DISPATCHED: {State.RUNNING, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
    State.RUNNING: {State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
}


class Job(models.Model):
    """One request for `n` images of a prompt; seeds are `seed`, `seed + 1`, …, one an image."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="jobs")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="jobs")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="jobs")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="jobs")
    arm = models.ForeignKey(Arm, on_delete=models.PROTECT, null=True, related_name="jobs")
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    quality = models.CharField(max_length=8, default="auto", db_default="auto", help_text="As it was asked for.")
    tier = models.CharField(
        max_length=4,
        choices=PoolTier,
        default=PoolTier.HD,
        db_default=PoolTier.HD,
        help_text="Of the pool, or of the request.",
    )
    prompt = models.TextField()
    n = models.PositiveSmallIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    steps = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    output_format = models.CharField(max_length=4)
    output_compression = models.PositiveSmallIntegerField()
    partial_images = models.PositiveSmallIntegerField(default=0, help_text="Previews of each image on its way.")
    user = models.CharField(max_length=200, blank=True)
    metadata = models.JSONField(default=dict)
    priority = models.SmallIntegerField(default=0, help_text="Among its tenant's own: the highest goes first.")
    quarantined = models.BooleanField(default=False, help_text="Workers stopped with it: runs with no other such.")
    request_id = models.CharField(max_length=64)
    result_key = models.CharField(max_length=64, blank=True, help_text="What its images are a function of, hashed.")
    cached_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="When it expires, drawn in part or not.")
    cancel_requested_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)
    images_deleted_at = models.DateTimeField(null=True, help_text="When its images were deleted, if it had any.")
    deleted_at = models.DateTimeField(null=True, help_text="When its words were deleted; what it did and cost stays.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(deleted_at=None)
                | Q(
                    finished_at__isnull=False,
                    images_deleted_at__isnull=False,
                    prompt="",
                    metadata={},
                    request_id="",
                    result_key="",
                    error_message="",
                ),
                name="job_deleted_has_no_words",
            ),
            models.CheckConstraint(condition=Q(state__in=State.values), name="job_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | (~Q(state__in=FINAL) & Q(finished_at__isnull=True)),
                name="job_finished_at_iff_final",
            ),
            models.CheckConstraint(condition=~Q(state=State.FAILED) | ~Q(error_code=""), name="job_failure_has_a_code"),
            models.CheckConstraint(condition=Q(n__gte=1, n__lte=10), name="job_n_in_range"),
            models.CheckConstraint(condition=Q(seed__gte=0), name="job_seed_not_negative"),
        ]
        indexes = [
            # The dispatcher's queue: small, since it holds waiting jobs alone.
            models.Index(
                fields=["pool", "tenant", "-priority", "created_at", "id"],
                condition=Q(state=State.QUEUED),
                name="job_queue",
            ),
            models.Index(fields=["pool", "state"], condition=~Q(state__in=FINAL), name="job_unfinished"),
            models.Index(fields=["tenant", "api_key"], condition=Q(finished_at__isnull=True), name="job_in_hand"),
            models.Index(fields=["tenant", "-created_at", "-id"], name="job_by_tenant"),
            models.Index(fields=["arm"], condition=Q(arm__isnull=False), name="job_by_arm"),
            models.Index(fields=["model_version", "finished_at"], name="job_by_version"),
            # The portal's list and its search.
            models.Index(fields=["-created_at", "-id"], name="job_by_time"),
            models.Index(fields=["request_id"], name="job_by_request"),
            # What ages out next, of images and of words.
            models.Index(
                fields=["tenant", "finished_at"],
                condition=Q(finished_at__isnull=False, images_deleted_at=None),
                name="job_images_retained",
            ),
            models.Index(
                fields=["tenant", "finished_at"],
                condition=Q(finished_at__isnull=False, deleted_at=None),
                name="job_words_retained",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def tenant_slug(self) -> str:
        return self.tenant.slug

    @property
    def work(self) -> int:
        """Estimated work in pixel-steps, which fair dispatch counts."""
        return self.width * self.height * self.steps * self.n


class DailyJobs(models.Model):
    """A sum of jobs that ended on one day and are alike, for reports. Rows are only added, so several may be alike.

    A job is in it once its day is sealed with the charges' (`billing.models.CostDay`), by the same lock; one that ends
    on a sealed day adds itself (`0014`). None of it changes after a job's end, deletion of its words included.
    """

    day = models.DateField(help_text="On which they ended, in UTC.")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    pool = models.CharField(max_length=40)
    model = models.CharField(max_length=100)
    model_version = models.CharField(max_length=200)
    quality = models.CharField(max_length=8)
    tier = models.CharField(max_length=4, choices=PoolTier)
    resolution = models.CharField(max_length=20)
    state = models.CharField(max_length=10, choices=State)
    seconds = models.DecimalField(
        max_digits=15,
        decimal_places=3,
        help_text="From the request to the end, the nearest of ten steps in each power of ten: it is for percentiles.",
    )
    jobs = models.PositiveIntegerField(help_text="How many it sums.")
    images = models.PositiveIntegerField(help_text="How many they asked for together.")

    class Meta:
        indexes = [
            models.Index(fields=["day"], name="daily_jobs_by_day"),
            models.Index(fields=["tenant", "day"], name="daily_jobs_by_tenant"),
        ]


@cache
def _job_insert() -> tuple[str, list[str]]:
    """The statement, whose parameters are named as the attributes are, and their names."""
    names = [field.attname for field in Job._meta.concrete_fields]
    columns, values = ", ".join(f'"{name}"' for name in names), ", ".join(f"%({name})s" for name in names)
    return f"INSERT INTO {Job._meta.db_table} ({columns}) VALUES ({values})", names  # noqa: S608 - of names alone


def job_insert(job: Job) -> PipelinedQuery[None]:
    """Writes a new job."""
    sql, names = _job_insert()
    yield Query(sql, {name: getattr(job, name) for name in names} | {"metadata": Jsonb(job.metadata)})
    job._state.adding, job._state.db = False, connection.alias


class JobAdapter(models.Model):
    """An adapter version that a job uses, with its scale, in the order asked for."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="adapters")
    position = models.PositiveSmallIntegerField()
    adapter_version = models.ForeignKey(AdapterVersion, on_delete=models.PROTECT, related_name="+")
    scale = models.FloatField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["job", "position"], name="job_adapter_position_unique"),
            models.UniqueConstraint(fields=["job", "adapter_version"], name="job_adapter_once"),
        ]


class CachedResult(models.Model):
    """A job whose images answer a request for the same; the oldest use makes room when the cache is full."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=64)
    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="cached_result")
    size_bytes = models.BigIntegerField()
    used_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "key"], name="cached_result_once_per_tenant")]
        indexes = [models.Index(fields=["used_at"], name="cached_result_by_use")]


class Attempt(models.Model):
    """A job handed to a pool under a lease; `token` is what a report must carry to be applied."""

    class State(models.TextChoices):
        LIVE = "live", "leased, or running and beating"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"
        EXPIRED = "expired", "given up when the job's time was up"
        LOST = "lost", "the lease ran out"

    token = models.UUIDField(primary_key=True, default=uuid.uuid4)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.LIVE)
    worker = models.CharField(max_length=100, blank=True)
    gpu_class = models.CharField(max_length=40, blank=True)
    estimated_seconds = models.FloatField(default=0, help_text="GPU seconds that its tenant was charged in the queue.")
    dispatched_at = models.DateTimeField()
    lease_expires_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    steps_done = models.PositiveIntegerField(default=0)
    previews = models.JSONField(default=list, help_text="Those stored, as [index of the image, number].")
    swept_at = models.DateTimeField(null=True, help_text="When what it stored and no image is was deleted.")
    gpu_seconds = models.DecimalField(max_digits=20, decimal_places=9, default=0)
    prompt_tokens = models.PositiveIntegerField(default=0)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="attempt_number_unique"),
            models.UniqueConstraint(fields=["job"], condition=Q(state="live"), name="attempt_one_live"),
            models.UniqueConstraint(fields=["job"], condition=Q(state="succeeded"), name="attempt_one_success"),
            models.CheckConstraint(
                condition=Q(state="live", finished_at__isnull=True) | (~Q(state="live") & Q(finished_at__isnull=False)),
                name="attempt_finished_at_iff_not_live",
            ),
        ]
        indexes = [
            models.Index(fields=["lease_expires_at"], condition=Q(state="live"), name="attempt_leases"),
            models.Index(fields=["dispatched_at"], condition=Q(swept_at=None), name="attempt_to_sweep"),
        ]


class Output(models.Model):
    """An image of a succeeded job, as it was stored."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="outputs")
    index = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    storage_key = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64)
    size_bytes = models.BigIntegerField()
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [models.UniqueConstraint(fields=["job", "index"], name="output_index_unique")]


class Feedback(models.Model):
    """What a tenant's user thought of a job's images: given once, from 0 (bad) to 1 (good)."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="feedback")
    score = models.FloatField()
    comment = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(score__gte=0, score__lte=1), name="feedback_score_in_range")]


class FairShare(models.Model):
    """What a tenant was served by a pool, as virtual time: GPU seconds divided by the tenant's weight.

    The two sums fade: of the latest attempts of this tenant, what they took and what they did (in pixel-steps).
    """

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    virtual_time = models.FloatField(default=0)
    waiting = models.BooleanField(default=False, help_text="Had jobs in the queue at the last turn.")
    measured_seconds = models.FloatField(default=0)
    measured_work = models.FloatField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "tenant"], name="fair_share_unique")]
