import pytest

from billing.ledger.accounts import balances_by_kind
from tests.easel.api.conftest import call, end_job

pytestmark = pytest.mark.usefixtures("one_day")


@pytest.fixture
def used(alice, create):
    """Alice, whose project has a label, after a job."""
    alice.project.labels = {"department": "design", "cost center": "4711"}
    alice.project.save()
    end_job(create(alice)["id"])
    return alice


@pytest.mark.parametrize(
    "group_by",
    [
        "day",
        "project",
        "label:department",
        "label:cost center,model",
        "version,adapter,tier,resolution",
        "key",
        "meter",
    ],
)
def test_groups_of_any_kind_sum_to_what_the_ledger_earned(used, group_by):
    answer = call("GET", f"/v1/costs?group_by={group_by}", used).json()
    earned = balances_by_kind(used.tenant)["revenue"]
    assert sum(row["cost"]["amount_micros"] for row in answer["data"]) == earned
    assert answer["total"]["amount_micros"] == earned > 0
    assert list(answer["data"][0]["group"]) == group_by.split(",")


def test_a_label_that_nobody_has_is_empty(used):
    [row] = call("GET", "/v1/costs?group_by=label:team", used).json()["data"]
    assert row["group"] == {"label:team": ""}


def test_the_highest_come_first_if_asked(used):
    rows = call("GET", "/v1/costs?group_by=meter&sort=amount", used).json()["data"]
    amounts = [row["cost"]["amount_micros"] for row in rows]
    assert amounts == sorted(amounts, reverse=True)


@pytest.mark.parametrize(
    "query", ["group_by=colour", "group_by=label:", "group_by=day,day,", "group_by=a,b,c,d,e", "sort=size", "end=never"]
)
def test_what_makes_no_sense_is_refused(alice, query):
    answer = call("GET", f"/v1/costs?{query}", alice)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.split("=")[0]


def test_a_label_cannot_break_out_of_its_quotes(used):
    assert call("GET", "/v1/costs?group_by=label:'; DROP TABLE x; --%25s", used).status_code == 200


def test_another_tenants_costs_are_not_shown(used, bob):
    assert call("GET", "/v1/costs", bob).json()["data"] == []


@pytest.mark.parametrize("path", ["/v1/costs", "/v1/costs/outlook"])
def test_real_answers_are_as_described(used, path):
    assert call("GET", path, used).status_code == 200  # `call` compares answers with the OpenAPI document


def test_a_new_tenant_has_no_forecast_yet(used):
    found = call("GET", "/v1/costs/outlook", used).json()
    assert (found["so_far"]["amount_micros"], found["expected"]) == (balances_by_kind(used.tenant)["revenue"], None)
    assert found["missing"] == "a forecast needs 7 whole days from the first charge on; there are 0"


def test_requests_are_counted_in_whole_numbers(used):
    [row] = call("GET", "/v1/costs", used).json()["data"]
    assert repr(row["requests"]) == "1"
