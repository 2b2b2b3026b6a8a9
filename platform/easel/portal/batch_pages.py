"""Batches of tenants: how far they are, and the faults of those that were refused."""

from collections.abc import Iterable

from easel.actions import jobs
from easel.batches.models import Batch
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register

FAULTS = 50


@register(Batch)
class BatchPage(Page):
    empty = (
        "A tenant's batches appear here: it uploads a file of requests and makes a batch of it, by /v1/files "
        "and /v1/batches."
    )
    list_display = ("shown_name", "tenant", "shown_state", "shown_done", "created_at", "expires_at", "ended_at")
    list_filter = (TenantFilter, "status")
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = (
        "shown_name",
        "tenant",
        "shown_key",
        "shown_state",
        "shown_done",
        "shown_waiting",
        "shown_metadata",
        "created_at",
        "expires_at",
        "cancelling_at",
        "ended_at",
    )
    row_actions = (jobs.cancel_batch,)

    shown_name = column("batch", lambda batch: cells.code(batch))
    shown_key = column("API key", lambda batch: cells.link(batch.api_key))
    shown_state = column("state", lambda batch: cells.state(batch.status))
    shown_done = column(
        "lines", lambda batch: f"{batch.lines_completed} done, {batch.lines_failed} failed, of {batch.lines_total}"
    )
    shown_waiting = column(
        "waits for", lambda batch: batch.waiting_for["message"] if batch.waiting_for else cells.NOTHING
    )
    shown_metadata = column("metadata", lambda batch: cells.pairs(batch.metadata) or cells.NOTHING)

    def sections(self, row: Batch) -> Iterable[Section]:
        yield Section.of(
            f"Faults of its file (up to {FAULTS})",
            row.faults[:FAULTS],
            {
                "Line": lambda fault: fault["line"] or cells.NOTHING,
                "Code": lambda fault: fault["code"],
                "Fault": lambda fault: fault["message"],
            },
            "None were found.",
        )
