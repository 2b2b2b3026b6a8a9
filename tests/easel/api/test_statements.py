import uuid
from datetime import UTC, datetime, timedelta

import pytest

from billing.invoices.statements import statement_draft, statement_final
from billing.ledger.accounts import balances_by_kind
from tests.easel.api.conftest import call, end_job

pytestmark = pytest.mark.usefixtures("one_day")
# Jobs are made by the clock: their month is over by then.
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def alice(alice):
    """A customer since the month before, so that few statements without use come before that of her job."""
    alice.tenant.created_at = datetime.now(UTC) - timedelta(days=31)
    alice.tenant.save(update_fields=["created_at"])
    return alice


@pytest.fixture
def used(alice, create):
    """Alice, after a job."""
    end_job(create(alice)["id"])
    return alice


@pytest.fixture
def statement(used):
    """A draft of the month in which she generated images; those before are final."""
    while not (found := statement_draft(used.tenant, now=LATER)).total_micros:
        statement_final(found, now=datetime.now(UTC))
    return found


def test_this_month_is_shown_as_it_goes(alice, version, create):
    before = call("GET", "/v1/statements/current", alice).json()
    end_job(create(alice)["id"])
    # The months since the tenant was made are made first.
    while (found := statement_draft(alice.tenant, now=LATER)).total_micros == 0:
        statement_final(found, now=datetime.now(UTC))
    found.delete()
    after = call("GET", "/v1/statements/current", alice).json()
    assert (before["total"]["amount_micros"], before["lines"]) == (0, [])
    assert after["total"]["amount_micros"] == balances_by_kind(alice.tenant)["revenue"] > 0
    assert (after["status"], after["number"]) == ("draft", None)
    assert not {"id", "documents"} & after.keys()  # it is not stored, so nothing else finds it


def test_a_line_leads_down_to_the_attempts_of_its_jobs(used, statement):
    whole = call("GET", f"/v1/statements/{statement.id}", used).json()
    line = next(line for line in whole["lines"] if line["meter"] == "gpu_second")
    path = f"/v1/statements/{statement.id}/lines/{line['position']}/charges"
    [charge] = call("GET", path, used).json()["data"]
    assert charge["amount"] == line["amount"]
    assert (charge["quantity"], charge["price"]["unit_price"]) == ("1.5", "0.0001")
    assert charge["price"]["price_book"].startswith("USD version")
    [attempt] = charge["attempts"]
    assert (attempt["worker"], attempt["gpu_seconds"]) == ("w1", 1.5)


def test_statements_are_listed_page_by_page(used, statement):
    first = call("GET", "/v1/statements?limit=1", used).json()
    assert (first["data"][0]["id"], first["has_more"]) == (str(statement.id), True)
    rest = call("GET", f"/v1/statements?after={statement.id}", used).json()
    assert str(statement.id) not in {one["id"] for one in rest["data"]}


@pytest.mark.parametrize(
    ("form", "content_type", "begins"),
    [
        ("html", "text/html", b"<!doctype html>"),
        ("pdf", "application/pdf", b"%PDF-"),
        ("csv", "text/csv", b"statement,"),
    ],
)
def test_a_statement_can_be_had_as_a_document(used, statement, form, content_type, begins):
    answer = call("GET", f"/v1/statements/{statement.id}/{form}", used)
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.content.startswith(begins)


def test_a_spreadsheet_of_another_country_gets_its_commas(used, statement):
    answer = call("GET", f"/v1/statements/{statement.id}/csv?decimal=comma", used)
    assert answer.text.startswith("statement;")
    assert call("GET", f"/v1/statements/{statement.id}/csv?decimal=dot", used).status_code == 400


@pytest.mark.parametrize("rest", ["", "/pdf", "/lines/1/charges"])
def test_another_tenants_statement_is_not_found(bob, statement, rest):
    answer = call("GET", f"/v1/statements/{statement.id}{rest}", bob)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "statement_not_found")


@pytest.mark.parametrize("rest", ["/lines/99/charges", f"?after={uuid.UUID(int=7)}"])
def test_what_is_not_there_is_not_found(used, statement, rest):
    path = f"/v1/statements/{statement.id}{rest}" if rest.startswith("/") else f"/v1/statements{rest}"
    assert call("GET", path, used).status_code == 404


def test_reading_statements_takes_the_scope_of_usage(customer):
    carol = customer(scopes=("generate",))
    assert call("GET", "/v1/statements", carol).json()["error"]["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    "path",
    ["/v1/statements", "/v1/statements/{statement_id}", "/v1/statements/{statement_id}/lines/{position}/charges"],
)
def test_real_answers_are_as_described(used, statement, path):
    answer = call("GET", path.format(statement_id=statement.id, position=1), used)
    assert answer.status_code == 200  # `call` compares answers with the OpenAPI document
