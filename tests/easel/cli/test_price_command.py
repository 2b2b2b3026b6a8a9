import json

import pytest
from click.testing import CliRunner

from billing.models import UsageRecord
from core.errors import DomainError
from easel.cli.prices import contract, price
from easel.cli.usage import usage

OWN = "rates:\n  - {meter: image_unit, model: m, price: 0.001}\n"


def run(command, *arguments):
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False).output


def test_a_tenants_prices_are_its_contracts_and_then_the_lists(alice, prices, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    made = ("--discount", "0.1", "--minimum", "5", "--prices", str(tmp_path / "own.yaml"))
    run(contract, "make", alice.tenant.slug, *made)
    rows = json.loads(run(price, "list", "--tenant", alice.tenant.slug, "--json"))
    assert (rows[0]["price_book"], rows[0]["model"], rows[0]["price"]) == (
        f"USD version 1 of {alice.tenant}",
        "m",
        "0.001",
    )
    assert {"request", "gpu_second"} <= {row["meter"] for row in rows[1:]}
    [agreed] = json.loads(run(contract, "list", alice.tenant.slug, "--json"))
    assert (agreed["discount"], agreed["minimum"]) == ("0.1", "5.000000 USD")
    assert "ends" in run(contract, "end", alice.tenant.slug)


def test_the_prices_of_another_time_are_those_of_its_book(prices):
    assert json.loads(run(price, "list", "--at", "2020-01-01", "--json")) == []
    assert {row["price_book"] for row in json.loads(run(price, "list", "--at", "2026-03-02", "--json"))} == {
        "USD version 1"
    }


@pytest.mark.parametrize("content", [b"rates: []", b"\xff\xfe", b"rates: [{meter: request, price: -1}]"])
def test_a_file_that_holds_no_prices_publishes_nothing(prices, tmp_path, content):
    (tmp_path / "prices.yaml").write_bytes(content)
    with pytest.raises(DomainError) as error:
        run(price, "publish", str(tmp_path / "prices.yaml"))
    assert error.value.code == "prices_invalid"


def test_a_jobs_usage_is_listed_and_corrected(alice, submit, end):
    job = end(submit(alice))
    record = UsageRecord.objects.get(job_id=job.id, meter="image_unit")
    said = run(usage, "correct", str(record.id), "--quantity", "0.1", "--reason", "cropped", "--key", str(job.id))
    assert said == "image_unit is 0.1; -0.000300 USD (given back)\n"
    rows = json.loads(run(usage, "list", str(job.id), "--json"))
    [correction] = [row for row in rows if row["corrects"]]
    assert (correction["quantity"], correction["charged"]) == ("-0.15", "correction -0.000300 USD")
