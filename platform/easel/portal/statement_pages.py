"""Statements: what a tenant was charged in a month, and what is behind each of their lines."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html_join

from billing.invoices.documents import period_of, title_of
from billing.invoices.lines import charges_of_line, projects_of
from billing.invoices.queries import charges_page
from billing.invoices.statements import statement_draft, statement_final
from billing.models import Statement, StatementLine
from easel.api.statements import document
from easel.jobs.models import Job
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Act, Done, Operator, Page, Section
from easel.portal.site import portal

CHARGES = 200


def _final(statement: Statement, operator: Operator) -> Done:
    made = statement_final(statement, now=operator.now)
    operator.record("statement.final", str(made.pk), tenant=made.tenant, details={"number": made.number})
    return Done(f"{title_of(made)} is final.")


def _draft(statement: Statement, operator: Operator) -> Done:
    statement_draft(statement.tenant, now=operator.now)
    operator.record("statement.draft", str(statement.pk), tenant=statement.tenant)
    return Done("ImageSpec up anew, with what was written since.")


def _is_draft(statement: Statement) -> bool:
    return statement.state == Statement.State.DRAFT


@admin.register(Statement, site=portal)
class StatementPage(Page):
    list_display = ("shown_title", "tenant", "shown_state", "shown_period", "shown_total", "finalised_at")
    list_filter = (TenantFilter, "state", "kind")
    list_select_related = ("tenant",)
    ordering = ("-period_start", "-made_at", "-id")
    fields = (
        "shown_title",
        "tenant",
        "shown_state",
        "shown_corrects",
        "shown_period",
        "time_zone",
        "shown_subtotal",
        "shown_tax",
        "shown_total",
        "shown_documents",
        "made_at",
        "finalised_at",
    )
    readonly_fields = fields
    acts = (
        Act(
            name="draft",
            label="Draw up anew",
            permission="billing.add_transaction",
            perform=_draft,
            applies=_is_draft,
            explain="With what was written since.",
        ),
        Act(
            name="final",
            label="Make final",
            permission="billing.add_transaction",
            perform=_final,
            applies=_is_draft,
            explain="It is taxed and numbered, and never changes again: a mistake is told by a credit note.",
        ),
    )

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.document_view)
        documents = [
            path(f"<uuid:statement_id>/document.{form}", view, {"form": form}, name=f"billing_statement_{form}")
            for form in ("html", "pdf", "csv")
        ]
        return [*documents, *super().get_urls()]

    def document_view(self, request: HttpRequest, statement_id: UUID, form: str) -> HttpResponse:
        found = self.get_object(request, str(statement_id))
        if found is None or not self.has_view_permission(request, found):
            raise Http404
        return document(found, form, comma=request.GET.get("decimal") == "comma")

    @admin.display(description="document")
    def shown_title(self, statement: Statement) -> str:
        return title_of(statement)

    @admin.display(description="state")
    def shown_state(self, statement: Statement) -> str:
        return cells.state(statement.state)

    @admin.display(description="corrects")
    def shown_corrects(self, statement: Statement) -> str:
        return cells.link(statement.corrects) if statement.corrects else cells.NOTHING

    @admin.display(description="period", ordering="period_start")
    def shown_period(self, statement: Statement) -> str:
        return period_of(statement)

    @admin.display(description="sum")
    def shown_subtotal(self, statement: Statement) -> str:
        return cells.money(statement.subtotal_micros, statement.currency)

    @admin.display(description="tax")
    def shown_tax(self, statement: Statement) -> str:
        return cells.money(statement.tax_micros, statement.currency)

    @admin.display(description="total", ordering="total_micros")
    def shown_total(self, statement: Statement) -> str:
        return cells.money(statement.total_micros, statement.currency)

    @admin.display(description="documents")
    def shown_documents(self, statement: Statement) -> str:
        named = (("html", "page"), ("pdf", "PDF"), ("csv", "CSV"), ("csv?decimal=comma", "CSV with commas"))
        links = [(f"../document.{form}", name) for form, name in named]
        return format_html_join(" · ", '<a class="portal-link" href="{}">{}</a>', links)

    def sections(self, row: Statement) -> Iterable[Section]:
        lines = list(row.lines.select_related("rate"))
        projects = projects_of(lines)
        yield Section(
            "Lines",
            ("Project", "What", "Model", "Quantity", "Charges", "Amount"),
            [
                (
                    projects[line.project_id].slug if line.project_id else "account",
                    cells.link(line, line.description) if line.charges else line.description,
                    line.model or cells.NOTHING,
                    cells.number(cells.NOTHING if line.quantity is None else f"{line.quantity.normalize():f}"),
                    cells.number(line.charges),
                    cells.money(line.amount_micros, row.currency),
                )
                for line in lines
            ],
            "Nothing was charged in this month.",
        )
        yield Section(
            "Credit notes",
            ("Document", "Total", "Made"),
            [
                (
                    cells.link(note, title_of(note)),
                    cells.money(note.total_micros, note.currency),
                    cells.when(note.made_at),
                )
                for note in row.credit_notes.order_by("number")
            ],
            "None: nothing of it was corrected.",
        )


@admin.register(StatementLine, site=portal)
class StatementLinePage(Page):
    """Reached from its statement: the charges that a line sums, each with its job."""

    list_display = ("description", "statement", "shown_amount")
    list_select_related = ("statement",)
    ordering = ("-pk",)
    fields = ("shown_statement", "description", "shown_project", "model", "shown_quantity", "charges", "shown_amount")
    readonly_fields = fields

    @admin.display(description="statement")
    def shown_statement(self, line: StatementLine) -> str:
        return cells.link(line.statement, title_of(line.statement))

    @admin.display(description="project")
    def shown_project(self, line: StatementLine) -> str:
        return line.project.slug if line.project else "account"

    @admin.display(description="quantity")
    def shown_quantity(self, line: StatementLine) -> str:
        return cells.NOTHING if line.quantity is None else f"{line.quantity.normalize():f}"

    @admin.display(description="amount")
    def shown_amount(self, line: StatementLine) -> str:
        return cells.money(line.amount_micros, line.statement.currency)

    def sections(self, row: StatementLine) -> Iterable[Section]:
        found, more = charges_page(charges_of_line(row), limit=CHARGES, after=None) if row.charges else ([], False)
        jobs = Job.objects.in_bulk([charge.usage_record.job_id for charge in found if charge.usage_record.job_id])
        yield Section(
            f"Charges (the first {CHARGES} of {row.charges}; the API has all)" if more else "Charges",
            ("Used", "Job", "Quantity", "Price of one", "Price book", "Amount"),
            [
                (
                    cells.when(charge.usage_record.occurred_at),
                    cells.link(jobs.get(charge.usage_record.job_id)) if charge.usage_record.job_id else cells.NOTHING,
                    cells.number(f"{charge.usage_record.quantity.normalize():f}"),
                    cells.number(f"{charge.rate.unit_price.normalize():f} {charge.currency}"),
                    cells.link(charge.rate.price_book),
                    cells.money(charge.amount_micros, charge.currency),
                )
                for charge in found
            ],
            "An adjustment: it sums no charges.",
        )
