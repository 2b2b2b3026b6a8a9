"""`easel price` and `easel contract`: what things cost, for everybody and for one tenant."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from easel.actions import prices
from easel.cli.action_commands import group_of
from easel.cli.django_ready import django_ready
from easel.cli.instants import InstantParam
from easel.cli.tables import Rows, list_command, print_rows

_PRICE_FILE = """

\b
currency: USD
effective_at: 2027-01-01T00:00:00Z   (now, if left out)
batch_discount: 0.5                  (of the work of batches; 0, if left out)
rates:
  - {meter: request, price: 0.0005}
  - {meter: gpu_second, gpu_class: h200, price: 0.00125}
  - {meter: image_unit, model: z-image-turbo, mode: graduated, price: 0,
     tiers: [{above: 1000, price: 0.002}]}"""


price = group_of("price")
price.commands["publish"].help = f"{prices.publish.explain}{_PRICE_FILE}"
contract = group_of("contract")


@list_command(price)
@click.option("--tenant", "tenant_name", help="The prices of this tenant: its contract's first, then the list's.")
@click.option("--currency", default="USD", show_default=True, help="Of the list; with --tenant it is the tenant's.")
@click.option("--at", "instant", type=InstantParam(), help="An instant; by default now.")
def price_list(tenant_name: str | None, currency: str, instant: datetime | None) -> Rows:
    """List the prices in force."""
    from billing.models import PriceBook
    from billing.pricing.contracts import contract_at
    from billing.pricing.price_books import RateTerms, list_at, rates_of
    from easel.actions.subjects import tenant_named

    now = instant or datetime.now(UTC)
    books: list[PriceBook | None] = []
    if tenant_name:
        tenant = tenant_named(tenant_name)
        contract = contract_at(tenant=tenant, now=now)
        currency, books = tenant.currency, [contract.price_book if contract else None]
    books.append(list_at(currency=currency, now=now))
    return [
        {
            "price_book": str(book),
            **{name: getattr(rate, name) for name in ("meter", "model", "gpu_class", "tier")},
            "price": RateTerms.of(rate).price_text,
            "currency": book.currency,
        }
        for book in books
        if book is not None
        for rate in rates_of(book)
    ]


@price.command("quote")
@click.option("--tenant", "tenant_name", required=True, help="The tenant that would ask.")
@click.option("--model", help="By default the default model.")
@click.option("--size", default="auto", show_default=True)
@click.option("--n", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--quality", default="auto", show_default=True)
@click.option("--steps", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API answers.")
def price_quote(tenant_name: str, as_json: bool, **asked: Any) -> None:
    """Quote a request, and say if it would be admitted.

    Every line of the price is printed. Nothing is written.
    """
    with django_ready():
        from django.conf import settings

        from easel.actions.subjects import KeyNotFound, tenant_named
        from easel.jobs.quote import job_quote
        from easel.jobs.quote_json import quote_json
        from easel.jobs.spec import Spec

        key = tenant_named(tenant_name).api_keys.filter(revoked_at=None).order_by("created_at").first()
        if key is None:
            raise KeyNotFound(f"{tenant_name} has no live key: `easel key create {tenant_name}` makes one")
        spec = Spec(prompt="a quote", **asked)
        quote = quote_json(job_quote(api_key=key, spec=spec, config=settings.EASEL, now=datetime.now(UTC)))
    if as_json:
        click.echo(json.dumps(quote))
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
        for line in quote["lines"]
    ]
    print_rows(rows, as_json=False)
    for name in ("expected", "most", "available"):
        click.echo(f"{name:<10}{quote[name]['amount']} {quote[name]['currency']}")
    refusal = quote["refusal"]
    click.echo("It would be admitted." if refusal is None else f"Refused now: {refusal['message']} ({refusal['code']})")


@list_command(contract, of_tenant=True)
def contract_list(tenant: Any) -> Rows:
    """List a tenant's contracts, the latest first."""
    from billing.pricing.contracts import contract_details

    return [contract_details(made) for made in tenant.contracts.order_by("-starts_at")]
