"""Price books and contracts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms

from core import clock
from core.errors import DomainError
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action, tenant_of
from easel.actions.subjects import PRICE_LIST, TENANT

_RATES_HELP = "As `easel price publish` reads them: - {meter: image_unit, model: z-image, price: 0.003}"


class PricesForm(ActionForm):
    """Begins with the rates of the newest book, and has room for more."""

    effective_at = fields.instant(
        "Later than the newest book's. What was accepted before is charged by the prices of its time.",
        label="In force from (UTC)",
    )
    bills_stopped_work = fields.flag(
        "A job that is canceled or expires while it runs pays for the steps that it took.", label="Charge stopped work"
    )
    batch_discount = fields.number(
        "Of the work of batches, in addition to a contract's discount. A file takes a share: 0.5 is half off.",
        label="Batch discount in percent", min_value=0, max_value=100, decimal_places=0,
    )  # fmt: skip
    version = forms.IntegerField(widget=forms.HiddenInput)

    def prepare(self) -> None:
        from billing.pricing.price_books import rates_of

        self.fields["version"].initial = self.row.version + 1
        self.fields["bills_stopped_work"].initial = self.row.bills_stopped_work
        self.fields["batch_discount"].initial = f"{self.row.batch_discount * 100:f}".partition(".")[0]
        each = f"{self.row.currency} for one"
        for rate in rates_of(self.row):
            parts = (part for part in (rate.model, rate.gpu_class, rate.tier) if part)
            name = ", ".join([rate.get_meter_display(), *parts])
            self.fields[f"rate_{rate.pk}"] = _price(label=name, help_text=each, initial=rate.unit_price)
            for tier in rate.tiers.all():
                self.fields[f"tier_{tier.pk}"] = _price(
                    label=f"{name}, above {tier.above.normalize():f} a month",
                    help_text=f"{each}, {rate.get_mode_display()}",
                    initial=tier.unit_price,
                )
        self.fields["more"] = fields.optional_text(_RATES_HELP, label="More prices", widget=forms.Textarea)

    def clean_more(self) -> Any:
        return _rates(self.cleaned_data["more"])

    def clean(self) -> dict[str, Any]:
        from billing.pricing.price_books import RateTerms, rates_of

        given = super().clean() or {}
        if self.errors:
            return given
        rates = [
            replace(
                RateTerms.of(rate),
                unit_price=given[f"rate_{rate.pk}"],
                tiers=tuple((tier.above, given[f"tier_{tier.pk}"]) for tier in rate.tiers.all()),
            )
            for rate in rates_of(self.row)
        ]
        terms = {name: given[name] for name in ("effective_at", "version", "bills_stopped_work")}
        terms["batch_discount"] = given["batch_discount"] / 100
        return {**terms, "rates": [*rates, *given["more"]]}


class PriceFileForm(ActionForm):
    """The whole book as a YAML or JSON file."""

    prices = fields.FileText(label="FILE", help_text="A YAML or JSON file; - is standard input.")

    def clean(self) -> dict[str, Any]:
        from billing.pricing.price_files import price_file_read

        file = price_file_read((super().clean() or {}).get("prices", ""))
        terms = ("rates", "currency", "effective_at", "bills_stopped_work", "batch_discount")
        return {name: getattr(file, name) for name in terms}


class ContractForm(ActionForm):
    discount = fields.number(
        "A command takes a share instead: 0.1 takes a tenth off.",
        label="Discount in percent", initial=0, min_value=0, max_value=100, decimal_places=4,
    )  # fmt: skip
    minimum = fields.number(
        "In the tenant's currency: what a month's charges fall short of it is charged with its statement.",
        label="Minimum of a month",
        initial=0,
        min_value=0,
        decimal_places=6,
    )
    starts_at = fields.instant("The first instant; empty: now.", label="From (UTC)", required=False)
    ends_at = fields.instant(
        "The instant after the last; empty: until it is ended.", label="Until (UTC)", required=False
    )
    prices = fields.FileText(
        required=False, label="The tenant's own prices", widget=forms.Textarea, help_text=_RATES_HELP
    )

    def clean_prices(self) -> Any:
        return _rates(self.cleaned_data["prices"])


class ContractEndForm(ActionForm):
    ends_at = fields.instant("By default now.", label="At (UTC)", required=False)


def _price(*, label: str, help_text: str, initial: Decimal) -> forms.DecimalField:
    from billing.pricing.price_books import PRICE_MAX

    limits = {"max_digits": 30, "decimal_places": 15, "min_value": 0, "max_value": PRICE_MAX - 1}
    return fields.number(help_text, label=label, initial=f"{initial.normalize():f}", **limits)


def _rates(text: str) -> Any:
    """Return the rates of a list, or of a whole price file. Raises `ValidationError`."""
    from billing.pricing.price_files import price_file_read, rates_read

    try:
        if not text.strip():
            return ()
        return price_file_read(text).rates if "rates:" in text else rates_read(text)
    except DomainError as error:
        raise forms.ValidationError(str(error)) from error


def _is_newest_of_list(book: Any) -> bool:
    later = type(book).objects.filter(tenant=None, currency=book.currency, version__gt=book.version)
    return book.tenant_id is None and not later.exists()


@action(
    "price_book.publish",
    command="price publish",
    label="Publish new prices",
    permission="billing.add_pricebook",
    subject=PRICE_LIST,
    form=PricesForm,
    command_form=PriceFileForm,
    applies=_is_newest_of_list,
    arguments=("prices",),
)
def publish(
    row: Any, actor: str, now: datetime, *, rates: Any, effective_at: datetime | None, currency: str = "", **terms: Any
) -> Done:
    """Publish the next price book. A published book never changes, and what was accepted before is charged by the
    prices of its time.
    """
    # `row` is the newest book of a list, a tenant that gets prices of its own, or None for the list of a currency.
    from billing.pricing.price_books import price_book_publish

    tenant = tenant_of(row)
    if effective_at == now.replace(second=0, microsecond=0):  # a form knows whole minutes: this minute is now
        effective_at = now
    currency = currency or row.currency
    book = price_book_publish(
        currency=currency, tenant=tenant, rates=rates, effective_at=effective_at, now=now, **terms
    )
    return Done(
        f"{book} is published, in force from {book.effective_at.isoformat()}",
        subject=book,
        details=_book_details(book, rates),
        show=book,
    )


def _book_details(book: Any, rates: Sequence[Any]) -> dict[str, Any]:
    from billing.money import plain
    from billing.pricing.price_books import rates_details

    details = {
        "effective_at": book.effective_at.isoformat(),
        "bills_stopped_work": book.bills_stopped_work,
        "batch_discount": plain(book.batch_discount),
    }
    return {**details, **rates_details(rates)}


def _percent(given: dict[str, Any]) -> dict[str, Any]:
    """Turn the command's share into the form's percent; the form refuses what is not a number."""
    try:
        return {**given, "discount": str(Decimal(given["discount"]) * 100)} if "discount" in given else given
    except ArithmeticError:
        return given


@action(
    "contract.make",
    label="New contract",
    permission="billing.add_contract",
    subject=TENANT,
    form=ContractForm,
    options={"starts_at": "--from", "ends_at": "--until"},
    from_command=_percent,
)
def make_contract(
    tenant: Any, actor: str, now: datetime, *, discount: Decimal, minimum: Decimal, prices: Any, **period: Any
) -> Done:
    """Agree with a tenant on a discount, a month's minimum, prices of its own. Terms never change."""
    from billing.pricing.contracts import contract_details, contract_make, minimum_of
    from billing.pricing.price_books import price_book_publish
    from core.audit import audit_record

    book = None
    if prices:
        book = price_book_publish(currency=tenant.currency, tenant=tenant, rates=prices, now=now)
        # The tenant's own prices are a second change, which leaves the same record as `easel price publish --tenant`.
        details = _book_details(book, prices)
        audit_record(actor=actor, action=publish.name, subject=str(book), tenant=tenant, details=details, now=now)
    made = contract_make(
        tenant=tenant, discount=discount / 100, minimum_micros=minimum_of(minimum), price_book=book, now=now, **period
    )
    return Done(f"{tenant.slug} has a contract from {made.starts_at.isoformat()}", details=contract_details(made))


def _has_contract(tenant: Any) -> bool:
    from billing.pricing.contracts import contract_at

    return contract_at(tenant=tenant, now=clock.now()) is not None


@action(
    "contract.end",
    label="End contract",
    permission="billing.add_contract",
    subject=TENANT,
    form=ContractEndForm,
    applies=_has_contract,
    options={"ends_at": "--at"},
    is_dangerous=True,
)
def end_contract(tenant: Any, actor: str, now: datetime, *, ends_at: datetime | None) -> Done:
    """End a tenant's last contract, sooner than was agreed."""
    from billing.pricing.contracts import contract_details, contract_end

    ended = contract_end(tenant=tenant, ends_at=ends_at, now=now)
    assert ended.ends_at is not None
    return Done(f"{tenant.slug}'s contract ends {ended.ends_at.isoformat()}", details=contract_details(ended))
