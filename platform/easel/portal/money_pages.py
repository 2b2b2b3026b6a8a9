"""The ledger, which is append-only: only transactions change balances."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import BigIntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateFilter

from billing.models import Entry, LedgerAccount, Transaction
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Page, Section
from easel.portal.site import portal

MOVEMENTS = 50


@admin.register(LedgerAccount, site=portal)
class AccountPage(Page):
    list_display = ("shown_name", "tenant", "kind", "balance")
    list_filter = (TenantFilter, "kind", "currency")
    search_fields = ("tenant__slug",)
    list_select_related = ("tenant",)
    ordering = ("tenant__slug", "kind", "currency")
    fields = ("tenant", "kind", "currency", "balance")
    readonly_fields = ("balance",)

    @admin.display(description="account")
    def shown_name(self, account: LedgerAccount) -> str:
        return str(account)

    @admin.display(ordering="balance_micros")
    def balance(self, account: LedgerAccount) -> str:
        return cells.money(account.balance_micros, account.currency)

    def sections(self, row: LedgerAccount) -> Iterable[Section]:
        entries = row.entries.select_related("transaction").order_by("-transaction__created_at", "-id")
        yield Section(
            f"Latest entries (up to {MOVEMENTS})",
            ("At", "Transaction", "Kind", "Description", "Amount"),
            [
                (
                    cells.when(entry.transaction.created_at),
                    cells.link(entry.transaction),
                    entry.transaction.kind,
                    entry.transaction.description or cells.NOTHING,
                    cells.money(entry.amount_micros, row.currency),
                )
                for entry in entries[:MOVEMENTS]
            ],
            "This account has no entries.",
        )


@admin.register(Transaction, site=portal)
class TransactionPage(Page):
    list_display = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")
    list_filter = (TenantFilter, "kind", ("created_at", RangeDateFilter))
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")
    readonly_fields = ("moved", "shown_reference")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transaction]:
        into = Entry.objects.filter(transaction=OuterRef("pk"), amount_micros__gt=0).order_by().values("transaction")
        transactions: QuerySet[Transaction] = super().get_queryset(request)
        return transactions.annotate(
            moved_micros=Coalesce(
                Subquery(into.annotate(sum=Sum("amount_micros")).values("sum")), 0, output_field=BigIntegerField()
            )
        )

    @admin.display(description="moved")
    def moved(self, transaction: Any) -> str:
        return cells.money(transaction.moved_micros, transaction.currency)

    @admin.display(description="reference")
    def shown_reference(self, transaction: Transaction) -> str:
        return cells.code(transaction.reference)

    def sections(self, row: Transaction) -> Iterable[Section]:
        yield Section(
            "Entries, which sum to zero",
            ("Account", "Amount"),
            [
                (cells.link(entry.account, entry.account.kind), cells.money(entry.amount_micros, row.currency))
                for entry in row.entries.select_related("account").order_by("id")
            ],
            "No entries: a free request.",
        )
        yield Section(
            "Charges",
            ("Meter", "Job", "Amount"),
            [
                (
                    charge.usage_record.get_meter_display(),
                    cells.code(charge.usage_record.job_id or "storage"),
                    cells.money(charge.amount_micros, charge.currency),
                )
                for charge in row.charges.select_related("usage_record").order_by("usage_record__meter")[:MOVEMENTS]
            ],
            "No charges: only usage is charged.",
        )
