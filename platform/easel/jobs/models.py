"""Jobs: requests for images, the attempts to generate them, and the images.

The database enforces the state machine too: a trigger (`sql/lifecycle.sql`) refuses every transition that is not in
`TRANSITIONS`, so a final state is final.
"""

import uuid
from functools import cache

from django.db import connection, models
from django.db.models import Q
from psycopg.types.json import Jsonb

from core.pipeline import PipelinedQuery, Query
from easel.catalog.models import AdapterVersion, ModelVersion, Pool, PoolTier
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
    # A job that is answered from the result cache goes straight to `succeeded`.
    State.QUEUED: {State.DISPATCHED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
    # The report of an attempt's end may overtake the beat of its start, and then finds the job `dispatched`.
    State.DISPATCHED: {State.RUNNING, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
    State.RUNNING: {State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED},
}


class Job(models.Model):
    """A request for `n` images of a prompt, with seeds `seed`, `seed + 1`, …. All have one hold, charge and state."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="jobs")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="jobs")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="jobs")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="jobs")
    arm = models.ForeignKey(Arm, on_delete=models.PROTECT, null=True, related_name="jobs")
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    quality = models.CharField(max_length=8, default="auto", db_default="auto", help_text="As requested.")
    tier = models.CharField(
        max_length=4,
        choices=PoolTier,
        default=PoolTier.HD,
        db_default=PoolTier.HD,
        help_text="The tier of the pool; if that has none, of the request.",
    )
    prompt = models.TextField()
    n = models.PositiveSmallIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    steps = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    output_format = models.CharField(max_length=4)
    output_compression = models.PositiveSmallIntegerField()
    partial_images = models.PositiveSmallIntegerField(default=0, help_text="Previews per image.")
    user = models.CharField(max_length=200, blank=True)
    metadata = models.JSONField(default=dict)
    warnings = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),
        help_text="Ignored fields of the request, as `[{param, code, message}]`.",
    )
    priority = models.SmallIntegerField(default=0, help_text="Among the tenant's own jobs, the highest runs first.")
    in_batch = models.BooleanField(
        default=False,
        db_default=False,
        help_text="A line of a batch: it is dispatched only while no other job waits in its pool.",
    )
    quarantined = models.BooleanField(
        default=False, help_text="Workers died while they ran it: no other such job runs beside it."
    )
    request_id = models.CharField(max_length=64)
    result_key = models.CharField(max_length=64, blank=True, help_text="Hash of everything that determines its images.")
    cached_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="When it ends if it has not succeeded.")
    abandoned_at = models.DateTimeField(
        null=True, help_text="When the client that waited for it disconnected, until one waits again."
    )
    cancel_requested_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)
    images_deleted_at = models.DateTimeField(null=True, help_text="When its images were deleted.")
    deleted_at = models.DateTimeField(null=True, help_text="When its texts were deleted.")

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
            # The dispatcher's queue. It is small, because only queued jobs are in it.
            models.Index(
                fields=["pool", "tenant", "-priority", "created_at", "id"],
                condition=Q(state=State.QUEUED),
                name="job_queue",
            ),
            models.Index(
                fields=["pool", "tenant"], condition=Q(state=State.QUEUED, in_batch=True), name="job_batch_queue"
            ),
            models.Index(fields=["pool", "state"], condition=~Q(state__in=FINAL), name="job_unfinished"),
            models.Index(fields=["tenant", "api_key"], condition=Q(finished_at__isnull=True), name="job_in_hand"),
            models.Index(fields=["tenant", "-created_at", "-id"], name="job_by_tenant"),
            # What is canceled once no client has come back for it.
            models.Index(
                fields=["abandoned_at"],
                condition=Q(abandoned_at__isnull=False, finished_at=None, cancel_requested_at=None),
                name="job_abandoned",
            ),
            models.Index(fields=["arm"], condition=Q(arm__isnull=False), name="job_by_arm"),
            models.Index(fields=["model_version", "finished_at"], name="job_by_version"),
            # The portal's list and its search.
            models.Index(fields=["-created_at", "-id"], name="job_by_time"),
            models.Index(fields=["request_id"], name="job_by_request"),
            # What retention deletes next: images, and texts.
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
        """The work in pixel-steps, from which the dispatcher estimates GPU seconds."""
        return self.width * self.height * self.steps * self.n


class DailyJobs(models.Model):
    """The number of jobs that ended on a day and agree in all other columns, for reports.

    Rows are only added, so several may agree. The jobs of a day are added up when the day is sealed
    (`billing.models.CostDay`), under the same lock as its charges. A job that ends on a sealed day adds a row of its
    own (`sql/daily_jobs.sql`). Nothing of this changes after a job's end, not even by its deletion.
    """

    day = models.DateField(help_text="The day (UTC) on which the jobs ended.")
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
        help_text="From the request to the end, rounded to ten steps per power of ten: enough for percentiles.",
    )
    jobs = models.PositiveIntegerField(help_text="The number of jobs.")
    images = models.PositiveIntegerField(help_text="The number of images that they requested.")

    class Meta:
        indexes = [
            models.Index(fields=["day"], name="daily_jobs_by_day"),
            models.Index(fields=["tenant", "day"], name="daily_jobs_by_tenant"),
        ]


@cache
def _job_insert() -> tuple[str, list[str]]:
    """Return the INSERT of a job, with its parameters named as the attributes, and these names."""
    names = [field.attname for field in Job._meta.concrete_fields]
    columns, values = ", ".join(f'"{name}"' for name in names), ", ".join(f"%({name})s" for name in names)
    return f"INSERT INTO {Job._meta.db_table} ({columns}) VALUES ({values})", names  # noqa: S608 - of nothing but names


def job_insert(job: Job) -> PipelinedQuery[None]:
    """Write a new job, on a round trip shared with other queries."""
    sql, names = _job_insert()
    documents = {name: Jsonb(getattr(job, name)) for name in ("metadata", "warnings")}
    yield Query(sql, {name: getattr(job, name) for name in names} | documents)
    job._state.adding, job._state.db = False, connection.alias


class ClientCall(models.Model):
    """A call of a client that numbers its retries, and the job that answers it. Deleted soon after the job's end."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, primary_key=True, related_name="client_call")
    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.CharField(max_length=100)
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of the request's parsed body.")
    retry_count = models.PositiveSmallIntegerField(
        help_text="The number of the request that waits for the job, or that waited last; 0 is the first."
    )
    requested_at = models.DateTimeField(help_text="When that request arrived.")

    class Meta:
        indexes = [models.Index(fields=["api_key", "endpoint", "fingerprint"], name="client_call_by_request")]


class JobAdapter(models.Model):
    """An adapter version that a job uses, with its scale, in the order of the request."""

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
    """A job whose images answer requests for the same images; the least recently used is evicted first."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=64)
    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="cached_result")
    size_bytes = models.BigIntegerField()
    used_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "key"], name="cached_result_once_per_tenant")]
        indexes = [models.Index(fields=["used_at"], name="cached_result_by_use")]


class Attempt(models.Model):
    """A job that was leased to a pool. A report must carry its `token` to be applied."""

    class State(models.TextChoices):
        LIVE = "live", "leased, or running and beating"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"
        EXPIRED = "expired", "stopped when the job expired"
        LOST = "lost", "the lease expired"

    token = models.UUIDField(primary_key=True, default=uuid.uuid4)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.LIVE)
    worker = models.CharField(max_length=100, blank=True)
    gpu_class = models.CharField(max_length=40, blank=True)
    estimated_seconds = models.FloatField(default=0, help_text="GPU seconds added to the virtual time of its tenant.")
    dispatched_at = models.DateTimeField()
    lease_expires_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    steps_done = models.PositiveIntegerField(default=0)
    phases = models.JSONField(null=True, help_text="Seconds from its beginning to each phase, as the worker measured.")
    capped_since = models.DateTimeField(
        null=True, help_text="Since when its tenant had run as many jobs as it may, when it was dispatched."
    )
    previews = models.JSONField(default=list, help_text="Stored previews, as [index of the image, number].")
    swept_at = models.DateTimeField(null=True, help_text="When its files that are no job's image were deleted.")
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
            models.Index(fields=["dispatched_at"], name="attempt_by_time"),  # for the timeline of a job that waited
            models.Index(fields=["finished_at"], name="attempt_by_end"),  # for those that ran beside another
        ]


class Output(models.Model):
    """A stored image of a succeeded job."""

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
    """A score of a job's images by a tenant's user, from 0 (bad) to 1 (good). A job has at most one."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="feedback")
    score = models.FloatField()
    comment = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(score__gte=0, score__lte=1), name="feedback_score_in_range")]


class Share(models.Model):
    """The virtual time of a tenant in a pool: the GPU seconds that the pool gave it, divided by its weight.

    The two sums decay with each attempt: GPU seconds and work (pixel-steps) of the tenant's latest attempts.
    """

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    virtual_time = models.FloatField(default=0)
    waiting = models.BooleanField(default=False, help_text="Had queued jobs at the last turn.")
    measured_seconds = models.FloatField(default=0)
    measured_work = models.FloatField(default=0)
    capped_since = models.DateTimeField(
        null=True, help_text="Since when the tenant runs as many jobs as it may while others of it wait."
    )

    class Meta:
        abstract = True


class FairShare(Share):
    """The share of a tenant's jobs that are not of batches."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "tenant"], name="fair_share_unique")]


class BatchShare(Share):
    """The share of a tenant's batches, apart: what a batch took from an idle pool delays nobody's turn."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "tenant"], name="batch_share_unique")]


def shares_of(job: Job) -> type[BatchShare] | type[FairShare]:
    """Return the table with the shares of a job's class: of batches, or of all others."""
    return BatchShare if job.in_batch else FairShare
