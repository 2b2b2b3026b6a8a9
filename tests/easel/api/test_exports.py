import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

from billing.invoices.statements import statement_draft, statement_final
from billing.ledger.accounts import balances_by_kind
from easel.cli.main import cli
from tests.easel.api.conftest import call, end_job

pytestmark = pytest.mark.usefixtures("one_day")


@pytest.fixture
def used(alice, create):
    """Alice, after a job."""
    alice.project.labels = {"department": '=design\\"'}
    alice.project.save()
    end_job(create(alice)["id"])
    return alice


def revenue(customer):
    return Decimal(balances_by_kind(customer.tenant)["revenue"]) / 10**6


def test_a_tenant_has_its_own_focus_file(used):
    answer = call("GET", "/v1/exports/focus", used)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="focus-{used.tenant.slug}-')
    assert {row["BillingAccountId"] for row in rows} == {used.tenant.slug}
    assert sum(Decimal(row["BilledCost"]) for row in rows) == revenue(used)


def test_focus_comes_as_parquet_too(used):
    answer = call("GET", "/v1/exports/focus?format=parquet", used)
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert sum(pq.read_table(io.BytesIO(answer.content))["BilledCost"].to_pylist()) == revenue(used)


def test_a_spreadsheet_gets_commas_and_no_formulas(used):
    text = call("GET", "/v1/exports/costs?decimal=comma", used).text
    rows = list(csv.DictReader(io.StringIO(text), delimiter=";"))
    assert sum(Decimal(row["amount"].replace(",", ".")) for row in rows) == revenue(used)
    assert {row["department"] for row in rows} == {"'=design\\\""}


def test_usage_comes_as_cloudevents_that_are_the_same_each_time(used):
    answer = call("GET", "/v1/exports/events", used)
    events = [
        from_structured_event(HTTPMessage(headers={"content-type": "application/cloudevents+json"}, body=line.encode()))
        for line in answer.text.splitlines()
    ]
    assert {event.get_type() for event in events} == {
        "easel.usage.gpu_second",
        "easel.usage.image_unit",
        "easel.usage.request",
    }
    assert {event.get_subject() for event in events} == {used.tenant.slug}
    assert all(isinstance(event.get_time(), datetime) for event in events)
    data = [json.loads(line)["data"] for line in answer.text.splitlines()]
    assert sum(Decimal(one["cost"]) for one in data) == revenue(used)
    assert call("GET", "/v1/exports/events", used).text == answer.text


@pytest.mark.parametrize("what", ["focus", "costs", "events"])
def test_another_tenant_is_in_no_export(used, bob, what):
    assert used.tenant.slug not in call("GET", f"/v1/exports/{what}", bob).text


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("focus?start=2026-10-02&end=2026-10-01", "end"),
        ("focus?start=yesterday", "start"),
        ("focus?format=xlsx", "format"),
        ("focus?invoice=1&start=2026-10-01", "invoice"),
        ("costs?decimal=dot", "decimal"),
        ("events?limit=5", "limit"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(alice, query, param):
    answer = call("GET", f"/v1/exports/{query}", alice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_invoice_that_is_not_there_is_no_empty_file(alice, bob, tmp_path):
    """Which would say that nothing was charged."""
    april = datetime(2026, 4, 1, 3, tzinfo=UTC)
    bobs = statement_final(statement_draft(bob.tenant, now=april), now=april).number
    assert call("GET", f"/v1/exports/focus?invoice={bobs}", bob).status_code == 200
    for number in (bobs, 10**30):
        answer = call("GET", f"/v1/exports/focus?invoice={number}", alice)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "statement_not_found")
    file = tmp_path / "f.csv"
    done = CliRunner().invoke(cli, ["export", "focus", "--invoice", "999999", "-o", str(file)])
    assert (done.exception.code, file.exists()) == ("statement_not_found", False)


def test_an_end_of_all_days_is_no_error(alice):
    assert call("GET", "/v1/exports/focus?start=0001-01-01&end=9999-12-31", alice).status_code == 200


@pytest.mark.parametrize("name", ["f.csv", "f.parquet"])
def test_the_command_writes_a_file_of_all_tenants_or_one(used, tmp_path, name):
    done = CliRunner().invoke(cli, ["export", "focus", "--tenant", used.tenant.slug, "-o", str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    assert [file.name for file in tmp_path.glob("f.*")] == [name]


def test_the_command_leaves_no_broken_file(used, tmp_path, monkeypatch):
    def broken(*_args, **_options):
        yield b"half"
        raise OSError("the disk is full")

    monkeypatch.setattr("easel.reporting.exports.costs", broken)
    done = CliRunner().invoke(cli, ["export", "costs", "-o", str(tmp_path / "f.csv")])
    assert done.exit_code != 0
    assert list(tmp_path.glob("f.*")) == []
