"""Statements: what a tenant was charged in a month, and what is behind each of their lines."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html_join

from billing.invoices.documents import period_of, title_of
from billing.invoices.files import FORMS, statement_file
from billing.invoices.lines import charges_of_line, projects_of
from billing.invoices.queries import charges_page
from billing.models import Statement, StatementLine
from easel.actions import statements
from easel.jobs.models import Job
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register

CHARGES = 200


@register(Statement)
class StatementPage(Page):
    empty = (
        "Statements appear here once a tenant's month is over. An operator drafts one on the page of the tenant, or by "
        "easel statement draft."
    )
    list_display = ("shown_title", "tenant", "shown_state", "shown_period", "shown_total", "finalised_at")
    list_filter = (TenantFilter, "state", "kind")
    list_select_related = ("tenant",)
    ordering = ("-period_start", "-made_at", "-id")
    fields = (
        "shown_title", "tenant", "shown_state", "shown_corrects", "shown_period", "time_zone", "shown_subtotal",
        "shown_tax", "shown_total", "shown_documents", "made_at", "finalised_at",
    )  # fmt: skip
    row_actions = (statements.draft, statements.final)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.document_view)
        documents = [
            path(f"<uuid:statement_id>/document.{form}", view, {"form": form}, name=f"billing_statement_{form}")
            for form in FORMS
        ]
        return [*documents, *super().get_urls()]

    def document_view(self, request: HttpRequest, statement_id: UUID, form: str) -> HttpResponse:
        found = self.get_object(request, str(statement_id))
        if found is None or not self.has_view_permission(request, found):
            raise Http404
        file = statement_file(found, form, comma=request.GET.get("decimal") == "comma")
        headers = {"Content-Disposition": file.disposition}
        return HttpResponse(file.content, content_type=file.media_type, headers=headers)

    shown_title = column("document", lambda statement: title_of(statement))
    shown_corrects = column("corrects", lambda statement: cells.link(statement.corrects))
    shown_period = column("period", lambda statement: period_of(statement), ordering="period_start")
    shown_subtotal = column("sum", lambda statement: cells.money(statement.subtotal_micros, statement.currency))
    shown_tax = column("tax", lambda statement: cells.money(statement.tax_micros, statement.currency))
    shown_total = column(
        "total", lambda statement: cells.money(statement.total_micros, statement.currency), ordering="total_micros"
    )

    @admin.display(description="documents")
    def shown_documents(self, statement: Statement) -> str:
        named = (("html", "page"), ("pdf", "PDF"), ("csv", "CSV"), ("csv?decimal=comma", "CSV with commas"))
        links = [(f"../document.{form}", name) for form, name in named]
        return format_html_join(" · ", '<a class="portal-link" href="{}">{}</a>', links)

    def sections(self, row: Statement) -> Iterable[Section]:
        lines = list(row.lines.select_related("rate"))
        projects = projects_of(lines)
        yield Section.of(
            "Lines",
            lines,
            {
                "Project": lambda line: projects[line.project_id].slug if line.project_id else "account",
                "What": lambda line: cells.link(line, line.description) if line.charges else line.description,
                "Model": lambda line: line.model or cells.NOTHING,
                "Quantity": lambda line: cells.quantity(line.quantity),
                "Charges": lambda line: cells.number(line.charges),
                "Amount": lambda line: cells.money(line.amount_micros, row.currency),
            },
            "Nothing was charged in this month.",
        )
        yield Section.of(
            "Credit notes",
            row.credit_notes.order_by("number"),
            {
                "Document": lambda note: cells.link(note, title_of(note)),
                "Total": lambda note: cells.money(note.total_micros, note.currency),
                "Made": lambda note: cells.when(note.made_at),
            },
            "None: nothing of it was corrected.",
        )


@register(StatementLine)
class StatementLinePage(Page):
    """Reached from its statement: the charges that a line sums, each with its job."""

    empty = "The lines of statements appear here once one was drafted: easel statement draft."
    list_display = ("description", "statement", "shown_amount")
    list_select_related = ("statement",)
    ordering = ("-pk",)
    fields = ("shown_statement", "description", "shown_project", "model", "shown_quantity", "charges", "shown_amount")

    shown_statement = column("statement", lambda line: cells.link(line.statement, title_of(line.statement)))
    shown_project = column("project", lambda line: line.project.slug if line.project else "account")
    shown_quantity = column(
        "quantity", lambda line: cells.NOTHING if line.quantity is None else f"{line.quantity.normalize():f}"
    )
    shown_amount = column("amount", lambda line: cells.money(line.amount_micros, line.statement.currency))

    def sections(self, row: StatementLine) -> Iterable[Section]:
        found, more = charges_page(charges_of_line(row), limit=CHARGES, after=None) if row.charges else ([], False)
        jobs = Job.objects.in_bulk([charge.usage_record.job_id for charge in found if charge.usage_record.job_id])
        yield Section.of(
            f"Charges (the first {CHARGES} of {row.charges}; the API has all)" if more else "Charges",
            found,
            {
                "Used": lambda charge: cells.when(charge.usage_record.occurred_at),
                "Job": lambda charge: cells.link(jobs.get(charge.usage_record.job_id)),
                "Quantity": lambda charge: cells.quantity(charge.usage_record.quantity),
                "Price of one": lambda charge: cells.quantity(charge.rate.unit_price, charge.currency),
                "Price book": lambda charge: cells.link(charge.rate.price_book),
                "Amount": lambda charge: cells.money(charge.amount_micros, charge.currency),
            },
            "An adjustment: it sums no charges.",
        )
