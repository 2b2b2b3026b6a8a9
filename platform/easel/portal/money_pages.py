"""The ledger, which is append-only: only transactions change balances."""

from collections.abc import Iterable

from django.db.models import BigIntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateFilter

from billing.models import Entry, LedgerAccount, Transaction
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register

MOVEMENTS = 50


@register(LedgerAccount)
class AccountPage(Page):
    empty = "The accounts of the ledger appear here once a tenant has been made: easel tenant create."
    list_display = ("shown_name", "tenant", "kind", "balance")
    list_filter = (TenantFilter, "kind", "currency")
    search_fields = ("tenant__slug",)
    list_select_related = ("tenant",)
    ordering = ("tenant__slug", "kind", "currency")
    fields = ("tenant", "kind", "currency", "balance")

    shown_name = column("account", lambda account: str(account))
    balance = column(
        "Balance", lambda account: cells.money(account.balance_micros, account.currency), ordering="balance_micros"
    )

    def sections(self, row: LedgerAccount) -> Iterable[Section]:
        entries = row.entries.select_related("transaction").order_by("-transaction__created_at", "-id")
        yield Section.of(
            f"Latest entries (up to {MOVEMENTS})",
            entries[:MOVEMENTS],
            {
                "At": lambda entry: cells.when(entry.transaction.created_at),
                "Transaction": lambda entry: cells.link(entry.transaction),
                "Kind": lambda entry: entry.transaction.kind,
                "Description": lambda entry: entry.transaction.description or cells.NOTHING,
                "Amount": lambda entry: cells.money(entry.amount_micros, row.currency),
            },
            "This account has no entries.",
        )


@register(Transaction)
class TransactionPage(Page):
    empty = "Each movement of money appears here, beginning with the first credit: easel tenant grant."
    list_display = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")
    list_filter = (TenantFilter, "kind", ("created_at", RangeDateFilter))
    list_select_related = ("tenant",)
    fields = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transaction]:
        into = Entry.objects.filter(transaction=OuterRef("pk"), amount_micros__gt=0).order_by().values("transaction")
        transactions: QuerySet[Transaction] = super().get_queryset(request)
        return transactions.annotate(
            moved_micros=Coalesce(
                Subquery(into.annotate(sum=Sum("amount_micros")).values("sum")), 0, output_field=BigIntegerField()
            )
        )

    moved = column("moved", lambda transaction: cells.money(transaction.moved_micros, transaction.currency))
    shown_reference = column("reference", lambda transaction: cells.code(transaction.reference))

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
        yield Section.of(
            "Charges",
            row.charges.select_related("usage_record").order_by("usage_record__meter")[:MOVEMENTS],
            {
                "Meter": lambda charge: charge.usage_record.get_meter_display(),
                "Job": lambda charge: cells.code(charge.usage_record.job_id or "storage"),
                "Amount": lambda charge: cells.money(charge.amount_micros, charge.currency),
            },
            "No charges: only usage is charged.",
        )
