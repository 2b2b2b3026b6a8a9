"""What did a department cost in a month, for which models, why, and was all of it charged?

Asked in the portal, the API, SQL and the FOCUS file, which have one answer to the micro-unit.
"""

import json
from collections import defaultdict
from datetime import date
from decimal import Decimal

from billing.invoices.lines import charges_of
from billing.money import format_micros
from easel.actions.roles import operator_create
from easel.reporting import exports
from easel.reporting.exports import Span
from tests.easel.api.conftest import call
from tests.easel.portal.conftest import PASSWORD, Browser
from tests.easel.reporting.conftest import read_csv, select

MARCH = Span(start=date(2026, 3, 1), end=date(2026, 3, 31))


def by_sql(slug, department):
    rows = [
        row for row in select("costs", tenant=slug, department=department) if MARCH.start <= row["day"] <= MARCH.end
    ]
    found = defaultdict(int)
    for row in rows:
        found[row["model"]] += row["amount_micros"]
    return dict(found)


def by_focus(slug, department):
    found = defaultdict(int)
    span = Span(start=MARCH.start, end=MARCH.end, tenant=slug)
    for row in read_csv(exports.focus(span, form="csv")):
        if row["ChargeCategory"] == "Usage" and json.loads(row["Tags"]).get("department") == department:
            found[row["x_Model"]] += int(Decimal(row["BilledCost"]) * 10**6)
    return dict(found)


def by_api(customer, department):
    path = "/v1/costs?start=2026-03-01&end=2026-03-31&group_by=label:department,model"
    answer = call("GET", path, customer).json()
    rows = [row for row in answer["data"] if row["group"]["label:department"] == department]
    return {row["group"]["model"]: row["cost"]["amount_micros"] for row in rows}


def test_the_portal_the_api_sql_and_focus_agree_to_the_micro_unit(year):
    slug, department = year.customer.tenant.slug, f"design-{year.customer.tenant.slug}"
    found = by_sql(slug, department)
    assert set(found) == {"z-image", ""}  # storage is of no model
    assert by_focus(slug, department) == found
    assert by_api(year.customer, department) == found
    operator_create(name=f"ann-{slug}", role="finance", password=PASSWORD)
    browser = Browser()
    browser.sign_in(f"ann-{slug}")
    page = browser.get(f"/admin/costs/?month=2026-03&label=department&value={department}").text
    for amount in (sum(found.values()), found["z-image"]):
        assert format_micros(amount, "USD") in page


def test_what_is_on_statements_and_what_is_not_make_up_the_whole(year):
    """All that was used in March, of which the last two hours are April's in Berlin; and each part leads to charges."""
    rows = [
        row for row in select("focus", BillingAccountId=year.customer.tenant.slug) if row["ChargeCategory"] == "Usage"
    ]
    march = [row for row in rows if row["ChargePeriodStart"].date().month == 3]
    cost_by_document = {
        number: sum(r["BilledCost"] for r in march if r["InvoiceId"] == number)
        for number in {r["InvoiceId"] for r in march}
    }
    assert set(cost_by_document) == {str(year.statement.number), str(year.credit_note.number), None}
    charged = sum(
        row["amount_micros"] for row in select("charges", tenant=year.customer.tenant.slug) if row["day"].month == 3
    )
    assert sum(cost_by_document.values()) * 10**6 == charged
    of_statement = sum(charge.amount_micros for charge in charges_of(year.statement))
    assert cost_by_document[str(year.statement.number)] * 10**6 == of_statement
