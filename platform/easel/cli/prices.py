"""`easel price` and `easel contract`: what things cost, for everybody and for one tenant."""

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows
from easel.cli.usage import Exact, Instant

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


@click.group()
def price() -> None:
    """What things cost."""


@price.command("list")
@click.option("--tenant", "tenant_name", help="What this tenant pays: its contract's prices first, then the list's.")
@click.option("--currency", default="USD", show_default=True, help="Of the list; a tenant has its own.")
@click.option("--at", type=Instant(), help="An instant; by default now.")
@as_json_option
def price_list(tenant_name: str | None, currency: str, now: datetime | None, as_json: bool) -> None:
    """List the prices in force."""
    with django_ready():
        from billing.models import PriceBook
        from billing.pricing.contracts import contract_at
        from billing.pricing.price_books import RateTerms, list_at, rates_of
        from easel.cli.tenants import tenant_named

        now = now or datetime.now(UTC)
        books: list[PriceBook | None] = []
        if tenant_name:
            tenant = tenant_named(tenant_name)
            contract = contract_at(tenant=tenant, now=now)
            currency, books = tenant.currency, [contract.price_book if contract else None]
        books.append(list_at(currency=currency, now=now))
        rows = [
            {
                "price_book": str(book),
                **{name: getattr(rate, name) for name in ("meter", "model", "gpu_class", "tier")},
                "price": RateTerms.of(rate).said,
                "currency": book.currency,
            }
            for book in books
            if book is not None
            for rate in rates_of(book)
        ]
    print_rows(rows, as_json)


@price.command("publish")
@click.argument("file", type=_FILE)
@click.option("--tenant", "tenant_name", help="Prices of this tenant's own, in force by a contract that names them.")
def price_publish(file: Path, tenant_name: str | None) -> None:
    """Publish the next price book from a YAML or JSON FILE (- is standard input); what was accepted keeps its prices.

    \b
    currency: USD
    effective_at: 2027-01-01T00:00:00Z   (now, if left out)
    rates:
      - {meter: request, price: 0.0005}
      - {meter: gpu_second, gpu_class: h200, price: 0.00125}
      - {meter: image_unit, model: z-image-turbo, mode: graduated, price: 0,
         tiers: [{above: 1000, price: 0.002}]}
    """
    with committed() as act:
        from easel.cli.tenants import tenant_named

        book = _published(act, _text(file), tenant_named(tenant_name) if tenant_name else None)
    click.echo(f"{book} is published, in force from {book.effective_at.isoformat()}")


@price.command("quote")
@click.option("--tenant", "tenant_name", required=True, help="Who would ask.")
@click.option("--model", help="By default the default model.")
@click.option("--size", default="auto", show_default=True)
@click.option("--n", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--quality", default="auto", show_default=True)
@click.option("--steps", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API answers.")
def price_quote(tenant_name: str, as_json: bool, **asked: Any) -> None:
    """Say what a request would cost, line by line, and whether it would be admitted; nothing is written."""
    with django_ready():
        from django.conf import settings

        from easel.api.images import quote_json
        from easel.cli.tenants import KeyNotFound, tenant_named
        from easel.jobs.admission import Limits, Spec
        from easel.jobs.quote import job_quote

        key = tenant_named(tenant_name).api_keys.filter(revoked_at=None).order_by("created_at").first()
        if key is None:
            raise KeyNotFound(f"{tenant_name} has no live key: `easel key create {tenant_name}` makes one")
        limits = Limits.of(settings.EASEL)
        spec = Spec(prompt="a quote", **asked)
        said = quote_json(job_quote(api_key=key, spec=spec, limits=limits, now=datetime.now(UTC)))
    if as_json:
        click.echo(json.dumps(said))
        return
    rows = [
        {
            "meter": line["meter"],
            "quantity": line["quantity"],
            "at": " + ".join(f"{part['quantity']} x {part['unit_price']}" for part in line["parts"]),
            "price_book": line["price_book"],
            "discount": line["discount"],
            "amount": line["amount"]["amount"],
            "at most": line["most"]["amount"],
        }
        for line in said["lines"]
    ]
    print_rows(rows, as_json=False)
    for name in ("expected", "most", "available"):
        click.echo(f"{name:<10}{said[name]['amount']} {said[name]['currency']}")
    refusal = said["refusal"]
    click.echo("It would be admitted." if refusal is None else f"Refused now: {refusal['message']} ({refusal['code']})")


@click.group()
def contract() -> None:
    """What is agreed with tenants for a time."""


@contract.command("make")
@click.argument("name", metavar="TENANT")
@click.option("--discount", type=Exact(), default="0", help="A share: 0.1 takes a tenth off.")
@click.option("--minimum", type=Exact(), default="0", help="A month's charges are at least this.")
@click.option("--prices", type=_FILE, help="A file as of `easel price publish`: the tenant's own prices.")
@click.option("--from", "starts_at", type=Instant(), help="By default now.")
@click.option("--until", "ends_at", type=Instant(), help="Exclusive; by default until it is ended.")
def contract_make(
    name: str,
    discount: Decimal,
    minimum: Decimal,
    prices: Path | None,
    starts_at: datetime | None,
    ends_at: datetime | None,
) -> None:
    """Agree with a tenant on a discount, a month's minimum, prices of its own. Terms never change."""
    with committed() as act:
        from billing.pricing import contracts
        from easel.cli.tenants import tenant_named

        tenant = tenant_named(name)
        made = contracts.contract_make(
            tenant=tenant,
            discount=discount,
            minimum_micros=contracts.minimum_of(minimum),
            price_book=_published(act, _text(prices), tenant) if prices else None,
            starts_at=starts_at,
            ends_at=ends_at,
            now=act.now,
        )
        act.record("contract.make", name, tenant=tenant, details=contracts.terms_said(made))
    click.echo(f"{name} has a contract from {made.starts_at.isoformat()}")


@contract.command("list")
@click.argument("name", metavar="TENANT")
@as_json_option
def contract_list(name: str, as_json: bool) -> None:
    """List a tenant's contracts, the latest first."""
    with django_ready():
        from billing.pricing.contracts import terms_said
        from easel.cli.tenants import tenant_named

        rows = [terms_said(made) for made in tenant_named(name).contracts.order_by("-starts_at")]
    print_rows(rows, as_json)


@contract.command("end")
@click.argument("name", metavar="TENANT")
@click.option("--at", "ends_at", type=Instant(), help="By default now.")
def contract_end(name: str, ends_at: datetime | None) -> None:
    """End a tenant's last contract, sooner than was agreed."""
    with committed() as act:
        from billing.pricing import contracts
        from easel.cli.tenants import tenant_named

        tenant = tenant_named(name)
        ended = contracts.contract_end(tenant=tenant, ends_at=ends_at, now=act.now)
        act.record("contract.end", name, tenant=tenant, details=contracts.terms_said(ended))
        assert ended.ends_at is not None
    click.echo(f"{name}'s contract ends {ended.ends_at.isoformat()}")


def _text(file: Path) -> str:
    from billing.pricing.price_books import PricesInvalid

    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise PricesInvalid("the file is not UTF-8") from error


def _published(act: Any, text: str, tenant: Any) -> Any:
    from billing.pricing.price_books import price_book_publish, prices_said
    from billing.pricing.price_files import price_file_read

    file = price_file_read(text)
    book = price_book_publish(
        currency=file.currency,
        tenant=tenant,
        rates=file.rates,
        effective_at=file.effective_at,
        bills_stopped_work=file.bills_stopped_work,
        now=act.now,
    )
    details = {"effective_at": book.effective_at.isoformat(), **prices_said(file.rates)}
    act.record("price_book.publish", str(book), tenant=tenant, details=details)
    return book
