"""FOCUS 1.2: every row follows the rules of its columns, and sums equal those of statements and of the ledger."""

import io
import json
import re
import uuid
from collections import defaultdict
from datetime import datetime
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import Statement
from easel.reporting import exports
from easel.reporting.exports import Span
from tests.easel.reporting.conftest import DAYS, PERIOD, read_csv, select

TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
# By the specification, with what each may be; an empty field is null.
MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
]
CONDITIONAL = [
    "BillingAccountType",
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "InvoiceId",
    "ListUnitPrice",
    "PricingCategory",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
]
NULLABLE = {"ChargeClass", "PricingQuantity", "PricingUnit", *CONDITIONAL} - {"BillingAccountType", "ChargeFrequency"}
NUMBERS = [
    "BilledCost",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingQuantity",
    "ConsumedQuantity",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "x_Discount",
]
CHOICES = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning", "Storage"},
    "ServiceSubcategory": {"Generative AI", "Object Storage"},
}
MICRO = Decimal("0.000001")


@pytest.fixture
def span(year):
    return Span(start=DAYS[0], end=DAYS[1], tenant=year.customer.tenant.slug)


@pytest.fixture
def rows(span):
    return read_csv(exports.focus(span, form="csv"))


def cost(row, name="BilledCost"):
    return Decimal(row[name])


def test_the_month_has_every_kind_of_row(rows):
    kinds = {(row["ChargeCategory"], row["x_ChargeKind"], row["ChargeClass"]) for row in rows}
    assert kinds == {
        ("Usage", "usage", ""),
        ("Usage", "correction", ""),
        ("Usage", "correction", "Correction"),
        ("Adjustment", "credit", ""),
        ("Adjustment", "minimum", ""),
        ("Tax", "tax", ""),
        ("Tax", "tax", "Correction"),
    }


def test_the_columns_are_those_of_the_specification_and_our_own_begin_with_x(rows):
    columns = set(rows[0])
    assert set(MANDATORY) <= columns
    assert {name for name in columns if not name.startswith("x_")} == {*MANDATORY, *CONDITIONAL}


def test_every_field_is_of_its_type(rows):
    for row in rows:
        for name in (*MANDATORY, "ChargeFrequency", "BillingAccountType"):
            assert row[name] or name in NULLABLE, (name, row)
        for name in NUMBERS:
            assert not row[name] or Decimal(row[name]).is_finite()
            assert "e" not in row[name].lower()
        for name, choices in CHOICES.items():
            assert row[name] in choices, (name, row)
        assert re.fullmatch("[A-Z]{3}", row["BillingCurrency"])
        for name in ("SkuPriceDetails", "Tags"):
            assert not row[name] or all(isinstance(value, str) for value in json.loads(row[name]).values())


def test_times_are_utc_and_ends_exclusive(rows):
    for row in rows:
        for name in ("BillingPeriod", "ChargePeriod"):
            assert TIME.fullmatch(row[f"{name}Start"])
            assert TIME.fullmatch(row[f"{name}End"])
            assert row[f"{name}Start"] < row[f"{name}End"]


def test_the_billing_period_is_the_statements_not_the_day(rows, year):
    periods = {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows if row["InvoiceId"]}
    assert periods == {tuple(f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in PERIOD)}
    open_ = {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows if not row["InvoiceId"]}
    assert open_ == {("2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z")}


def test_usage_has_quantities_and_prices_that_make_its_cost(rows):
    for row in rows:
        if row["ChargeCategory"] != "Usage":
            none = ("PricingQuantity", "PricingUnit", "ContractedUnitPrice", "SkuId")
            assert not any(row[name] for name in none)
            continue
        assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (row["PricingQuantity"], row["PricingUnit"])
        if row["ChargeClass"] == "Correction":
            continue
        rounding = MICRO * int(row["x_Charges"]) / 2 + abs(cost(row, "PricingQuantity")) * Decimal("1e-15")
        for price, of in (("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")):
            assert abs(cost(row, price) * cost(row, "PricingQuantity") - cost(row, of)) <= rounding, row
        assert row["SkuPriceId"]
        assert row["SkuMeter"]


def test_costs_by_list_contract_and_bill_differ_where_they_should(rows):
    [capped] = [row for row in rows if row["ContractedCost"] != row["BilledCost"] and row["ChargeCategory"] == "Usage"]
    assert (capped["x_Meter"], capped["PricingQuantity"]) == ("gpu_second", "1000")
    assert cost(capped) < cost(capped, "ContractedCost") < cost(capped, "ListCost")
    assert all(row["EffectiveCost"] == row["BilledCost"] for row in rows)
    assert any(row["ListUnitPrice"] != row["ContractedUnitPrice"] for row in rows if row["x_Meter"] == "request")


def test_an_invoices_rows_sum_to_its_total(rows, year):
    sums = defaultdict(Decimal)
    for row in rows:
        sums[row["InvoiceId"]] += cost(row)
    assert sums.pop("") > 0
    documents = Statement.objects.filter(tenant=year.customer.tenant, state="final")
    assert sums == {str(one.number): Decimal(one.total_micros) / 10**6 for one in documents}
    assert len(sums) == 2


def test_an_invoice_is_exported_whole(year):
    any_days = Span(start=DAYS[0], end=DAYS[0], tenant=year.customer.tenant.slug)
    found = read_csv(exports.focus(any_days, form="csv", invoice=year.statement.number))
    assert sum(map(cost, found)) * 10**6 == year.statement.total_micros
    assert {row["InvoiceId"] for row in found} == {str(year.statement.number)}


def test_all_of_it_is_what_the_ledger_has(rows, year):
    books = balances_by_kind(year.customer.tenant)
    assert sum(map(cost, rows)) * 10**6 == books["revenue"] + books["adjustments"] + books["tax"]


def test_tags_are_the_labels_of_the_time(rows):
    tags = {row["Tags"] for row in rows if row["SubAccountName"] == "design" and row["x_Meter"] == "request"}
    assert {json.loads(one)["department"].split("-")[0] for one in tags} == {"design", "sales"}


def test_parquet_has_the_same_rows_with_types(span, rows):
    table = pq.read_table(io.BytesIO(b"".join(exports.focus(span, form="parquet"))))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["BilledCost"], kinds["ChargePeriodEnd"]) == ("decimal128(38, 15)", "timestamp[us, tz=UTC]")
    assert kinds["Tags"] == "string"

    def written(value):
        if isinstance(value, datetime):
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        return f"{value.normalize() + 0:f}" if isinstance(value, Decimal) else str(value or "")

    read = [{name: written(value) for name, value in row.items()} for row in table.to_pylist()]
    assert sorted(map(str, read)) == sorted(map(str, rows))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_empty_range_is_a_file_with_a_header(form, year):
    nothing = Span(start=DAYS[0], end=DAYS[0], tenant=f"nobody-{uuid.uuid4()}")
    content = b"".join(exports.focus(nothing, form=form))
    if form == "csv":
        assert content.decode().startswith("BilledCost,BillingAccountId,")
    else:
        assert pq.read_table(io.BytesIO(content)).num_rows == 0


def test_exports_above_the_limit_are_refused(span):
    running = [exports.focus(span, form="csv") for _ in range(exports.RUNNING_MAX)]
    for one in running:
        next(one)
    with pytest.raises(exports.ExportsBusy):
        next(exports.focus(span, form="csv"))
    running.pop().close()
    assert next(exports.focus(span, form="csv"))


def test_the_view_has_the_same_rows(rows, year):
    found = select("focus", BillingAccountId=year.customer.tenant.slug)
    assert sum(row["BilledCost"] for row in found) == sum(map(cost, rows))
