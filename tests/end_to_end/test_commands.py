"""The operator's commands on a running stack."""

import httpx
import pytest

from easel.ops.client import Client
from easel.ops.stack import free_port
from tests.end_to_end.conftest import LiveEasel


def spendable(easel, name):
    return next(row["credit"] for row in easel.json("tenant", "list") if row["tenant"] == name)


def test_a_new_tenant_has_a_key_that_works_and_its_credit(easel):
    made = easel.json("tenant", "create", "acme", "--credit", "2.5", "--project", "design")
    assert (made["tenant"], spendable(easel, "acme")) == ("acme", "2.500000")
    assert Client(easel.url, made["api_key"]).usage(group_by="project")["data"] == []


def test_a_name_that_is_taken_is_refused_and_changes_nothing(easel):
    easel.json("tenant", "create", "twice", "--credit", "1")
    again = easel.command("tenant", "create", "twice", "--credit", "1")
    assert (again.returncode, "slug_taken" in again.stderr) == (1, True)
    assert spendable(easel, "twice") == "1.000000"


@pytest.mark.parametrize("amount", ["0", "-1", "ten", "0.0000001", "NaN", "1e12"])
def test_an_amount_that_is_none_is_refused_before_anything_is_made(easel, amount):
    refused = easel.command("tenant", "create", "never-made", f"--credit={amount}")
    assert (refused.returncode, "--credit" in refused.stderr) == (2, True)


def test_credit_is_added(easel):
    easel.json("tenant", "create", "topped-up", "--credit", "1")
    assert "1.500000 USD" in easel.command("tenant", "credit", "topped-up", "0.5").stdout


def test_a_key_of_one_scope_may_do_that_alone(easel):
    easel.json("tenant", "create", "scoped")
    made = easel.json("key", "create", "scoped", "--scope", "usage")
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    statuses = [httpx.get(f"{easel.url}/v1/{path}", headers=headers).status_code for path in ("usage", "jobs")]
    assert statuses == [200, 403]
    assert [row["scopes"] for row in easel.json("key", "list", "scoped")] == ["adapters,generate,usage", "usage"]


def test_what_is_not_there_is_named(easel):
    refused = [easel.command("key", "create", "nobody"), easel.command("key", "revoke", "nokey")]
    assert [done.returncode for done in refused] == [1, 1]
    assert ["tenant_not_found" in refused[0].stderr, "key_not_found" in refused[1].stderr] == [True, True]


def test_a_command_on_a_database_without_tables_says_what_makes_them(tmp_path):
    refused = LiveEasel(tmp_path, free_port()).command("tenant", "list")
    assert (refused.returncode, "easel migrate" in refused.stderr) == (1, True)
