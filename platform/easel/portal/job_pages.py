"""Jobs: search, and the whole history of one, from request to money."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.contrib.filters.admin import RangeDateFilter

from billing.models import Charge, Entry, UsageRecord
from billing.usage.queries import job_costs
from core.text import text_storable
from easel.actions import jobs, statements
from easel.jobs.models import Attempt, Job, State
from easel.jobs.outputs import PORTAL_LINKS
from easel.jobs.queue_place import queue_place
from easel.jobs.timeline import Moment, job_timeline
from easel.jobs.waits import WaitReason
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register


@register(Job)
class JobPage(Page):
    empty = "A job appears here for each request that a tenant sends: make a tenant and a key, then run easel generate."
    list_display = (
        "short_id", "tenant", "shown_model", "pool", "shown_state", "shown_prompt", "images", "duration", "cost",
        "created_at",
    )  # fmt: skip
    list_filter = (TenantFilter, "state", ("created_at", RangeDateFilter), "model_version__model", "pool")
    search_fields = ("id", "request_id")
    search_help_text = "A job's id or a request id, whole"
    list_select_related = ("tenant", "model_version__model", "pool", "project")
    row_actions = (jobs.cancel, statements.correct_usage)
    fieldsets = (
        ("Request", {"fields": (
            "tenant", "project_slug", "shown_model", "pool", "quality", "tier", "shown_prompt_whole", "shown_size",
            "shown_adapters", "shown_arm", "user", "shown_metadata", "shown_warnings",
        )}),
        ("State", {"fields": (
            "shown_state", "request_id", "shown_key", "error_code", "error_message", "deleted_at", "cost",
        )}),
    )  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        """Find a job by its whole id or its whole request id: a search for a part of one would read the whole table."""
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(id=UUID(search_term)), False
        except ValueError:
            return queryset.filter(request_id=text_storable(search_term[:64])), False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the costs of a page's jobs in two queries."""
        changelist = super().get_changelist_instance(request)
        costs = job_costs([job.id for job in changelist.result_list])
        for job in changelist.result_list:
            job.portal_cost = costs.get(job.id)
        return changelist

    short_id = column("job", lambda job: cells.code(str(job.id)[:13] + "…"))
    shown_key = column("API key", lambda job: cells.link(job.api_key))
    project_slug = column("project", lambda job: job.project.slug)
    shown_model = column("model", lambda job: job.model_version.label)
    shown_prompt = column("prompt", lambda job: job.prompt if len(job.prompt) <= 60 else job.prompt[:60] + "…")
    shown_prompt_whole = column("prompt", lambda job: format_html('<span class="portal-prompt">{}</span>', job.prompt))
    images = column("images", lambda job: f"{job.n} × {job.width}x{job.height}")
    shown_size = column(
        "images",
        lambda job: (
            f"{job.n} of {job.width}x{job.height} pixels, {job.steps} steps, seed {job.seed}, {job.output_format}"
        ),
    )

    @admin.display(description="adapters")
    def shown_adapters(self, job: Job) -> str:
        used = job.adapters.select_related("adapter_version__adapter")
        named = (f"{one.adapter_version.adapter.name}@{one.adapter_version.number} × {one.scale:g}" for one in used)
        return ", ".join(named) or cells.NOTHING

    @admin.display(description="experiment")
    def shown_arm(self, job: Job) -> str:
        arm = job.arm
        return cells.link(arm.experiment, f"{arm.experiment.name}, arm {arm.name}") if arm else cells.NOTHING

    shown_warnings = column(
        "ignored fields", lambda job: "; ".join(one["message"] for one in job.warnings) or cells.NOTHING
    )
    shown_metadata = column("metadata", lambda job: cells.pairs(job.metadata))
    duration = column(
        "seconds",
        lambda job: cells.seconds((job.finished_at - job.created_at).total_seconds() if job.finished_at else None),
    )

    @admin.display(description="cost")
    def cost(self, job: Any) -> str:
        found = job.portal_cost if hasattr(job, "portal_cost") else job_costs([job.id]).get(job.id)
        return cells.money(found.cost_micros, job.tenant.currency) if found else cells.NOTHING

    def sections(self, row: Job) -> Iterable[Section]:
        attempts = list(row.attempts.all())
        outputs = [output for output in row.outputs.all() if output.deleted_at is None]
        yield Section(
            "Images", (), [], "No images: there are none before a job succeeds, or they were deleted.",
            images=[PORTAL_LINKS.url(output.storage_key) for output in outputs],
        )  # fmt: skip
        yield from _place(row)
        yield Section("Timeline", ("At", "After", "Took", "Event"), _timeline(row, attempts), "")
        yield Section.of(
            "Attempts",
            attempts,
            {
                "Attempt": lambda attempt: attempt.number,
                "Worker": lambda attempt: attempt.worker or cells.NOTHING,
                "State": lambda attempt: cells.state(attempt.state),
                "Dispatched": lambda attempt: cells.when(attempt.dispatched_at),
                "Started": lambda attempt: cells.when(attempt.started_at),
                "Finished": lambda attempt: cells.when(attempt.finished_at),
                "GPU seconds": lambda attempt: cells.number(f"{attempt.gpu_seconds:.6f}"),
                "Steps": lambda attempt: f"{attempt.steps_done} of {row.steps * row.n}",
                "Error": lambda attempt: (
                    f"{attempt.error_code}: {attempt.error_message}" if attempt.error_code else cells.NOTHING
                ),
            },
            "Not dispatched to a worker yet: it waits for room in its pool.",
        )
        yield from _money(row)


def _place(job: Job) -> Iterable[Section]:
    place = queue_place(job, now=datetime.now(UTC))
    if place is None:
        return
    position = place["position"]
    shown = (
        ("at least " if not place["position_is_exact"] else "") + str(position) if position else cells.NOTHING,
        cells.NOTHING if place["ahead_in_your_account"] is None else place["ahead_in_your_account"],
        WaitReason(place["waits_for"]).label if place["waits_for"] else cells.NOTHING,
        cells.seconds(place["eta_seconds"]),
    )
    headers = ("Position in the pool", "Of the same tenant ahead", "Waits now because", "Estimated until its end")
    yield Section("Queue", headers, [shown], "")


def _timeline(job: Job, attempts: list[Attempt]) -> list[tuple[Any, ...]]:
    """Return the timeline's rows: the time, the seconds since the request, and how long it took.

    A wait took its own seconds. Anything else took the time since what was before it and was no wait.
    """
    found = job_timeline(job, attempts, lease_seconds=settings.EASEL.lease_seconds, now=datetime.now(UTC))
    rows: list[tuple[Any, ...]] = []
    last_at = job.created_at
    for moment in found:
        took = moment.seconds
        if took is None:
            took, last_at = (moment.happened_at - last_at).total_seconds(), moment.happened_at
        after = (moment.happened_at - job.created_at).total_seconds()
        rows.append((cells.when(moment.happened_at), cells.seconds(after), cells.seconds(took), _words(moment, job)))
    return rows


def _words(moment: Moment, job: Job) -> str:
    if moment.reason:
        return f"waited: {WaitReason(moment.reason).label}"
    text = moment.event.replace("_", " ")
    if moment.attempt is None and moment.event in State.values:
        text = f"job {text}"
    elif moment.attempt is not None:
        what = text.removeprefix("attempt ")
        text = f"attempt {moment.attempt} {what}" + (f" to {job.pool.slug}" if moment.event == "dispatched" else "")
    by = f" by {moment.worker}" if moment.event == "began" and moment.worker else ""
    return text + by + (f": {moment.code}" if moment.code else "")


def _money(job: Job) -> Iterable[Section]:
    yield Section.of(
        "Usage",
        UsageRecord.objects.filter(job_id=job.id).order_by("meter"),
        {
            "Meter": lambda record: record.get_meter_display(),
            "Quantity": lambda record: cells.quantity(record.quantity),
            "Measured": lambda record: cells.when(record.occurred_at),
        },
        "Nothing is metered before a job succeeds, and never for one that fails.",
    )
    charges = list(
        Charge.objects.filter(usage_record__job_id=job.id)
        .select_related("usage_record", "rate__price_book")
        .order_by("kind", "usage_record__meter")
    )
    rows: list[tuple[Any, ...]] = [
        (
            charge.usage_record.get_meter_display(),
            charge.get_kind_display(),
            cells.quantity(charge.usage_record.quantity),
            cells.quantity(charge.rate.unit_price, charge.currency),
            cells.link(charge.rate.price_book),
            cells.money(charge.amount_micros, charge.currency),
        )
        for charge in charges
    ]
    if charges:
        total = sum(charge.amount_micros for charge in charges)
        rows.append(("Sum", "", "", "", "", cells.money(total, job.tenant.currency)))
    yield Section(
        "Charges", ("Meter", "Kind", "Quantity", "Price of one", "Price book", "Amount"), rows, "Nothing charged."
    )
    entries = Entry.objects.filter(transaction__reference=job.id).select_related("transaction", "account")
    yield Section.of(
        "Ledger",
        entries.order_by("transaction__created_at", "transaction__kind", "id"),
        {
            "At": lambda entry: cells.when(entry.transaction.created_at),
            "Transaction": lambda entry: cells.link(entry.transaction),
            "Kind": lambda entry: entry.transaction.kind,
            "Account": lambda entry: entry.account.kind,
            "Amount": lambda entry: cells.money(entry.amount_micros, entry.account.currency),
        },
        "No money moved.",
    )
