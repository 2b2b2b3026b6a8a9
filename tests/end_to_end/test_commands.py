"""The operator's commands on a running stack."""

import httpx
import pytest

from easel_client import Easel
from easel_local.stack import free_port
from tests.live import LiveEasel, new_home


def spendable(easel, name):
    return next(row["credit"] for row in easel.json("tenant", "list") if row["tenant"] == name)


def test_a_new_tenant_has_a_key_that_works_and_its_credit(easel):
    made = easel.json("tenant", "create", "acme", "--credit", "2.5", "--project", "design")
    assert (made["tenant"], spendable(easel, "acme")) == ("acme", "2.500000")
    assert Easel(easel.url, made["api_key"]).costs.get(group_by="project")["data"] == []


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
    assert "1.500000 USD" in easel.command("tenant", "grant", "topped-up", "0.5").stdout


def test_a_tenants_share_of_busy_pools_is_set_and_shown(easel):
    easel.json("tenant", "create", "shares")
    easel.json("tenant", "share", "shares", "--weight", "3", "--running-jobs-max", "2")
    assert easel.json("tenant", "share", "shares") == [{"tenant": "shares", "weight": 3, "running_jobs_max": 2}]
    assert easel.json("tenant", "share", "shares", "--running-jobs-max", "none")[0]["running_jobs_max"] is None


def test_a_key_of_one_scope_may_do_that_alone(easel):
    easel.json("tenant", "create", "scoped")
    made = easel.json("key", "create", "scoped", "--scope", "usage")
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    statuses = [httpx.get(f"{easel.url}/v1/{path}", headers=headers).status_code for path in ("usage", "jobs")]
    assert statuses == [200, 403]
    assert [row["scopes"] for row in easel.json("key", "list", "scoped")] == [
        "adapters,billing,generate,read,usage,webhooks",
        "usage",
    ]


def test_what_is_not_there_is_named(easel):
    refused = [easel.command("key", "create", "nobody"), easel.command("key", "revoke", "nokey")]
    assert [done.returncode for done in refused] == [1, 1]
    assert ["tenant_not_found" in refused[0].stderr, "key_not_found" in refused[1].stderr] == [True, True]


def test_a_command_on_a_database_without_tables_says_what_makes_them():
    with new_home() as home:
        refused = LiveEasel(home, free_port()).program("tenant", "list")
    assert (refused.returncode, "easel migrate" in refused.stderr) == (1, True)


def test_a_version_is_added_rolled_out_and_rolled_back(easel):
    added = easel.command("model", "add-version", "z-image-demo", "--steps", "3")
    label = added.stdout.split()[0]
    assert easel.command("rollout", "start", label, "--stages", "10,100").returncode == 0
    again = easel.command("rollout", "start", label)
    assert (again.returncode, "rollout_running" in again.stderr) == (1, True)
    latest = easel.json("rollout", "list")[0]
    assert (latest["candidate"], latest["state"], latest["percent"]) == (label, "running", 10)
    assert easel.command("rollout", "roll-back", "z-image-demo").returncode == 0
    shares = {row["version"]: row["percent"] for row in easel.json("model", "list")}
    assert (shares[1], shares[int(label.partition("@")[2])]) == (100, 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["model", "route", "z-image-demo", "1=50"], "weights_invalid"),
        (["model", "route", "z-image-demo", "1=150", "2=-50"], "weights_invalid"),
        (["model", "route", "z-image-demo", "1=half"], "route_invalid"),
        (["model", "route", "nothing", "1=100"], "model_not_found"),
        (["rollout", "start", "z-image-demo@99"], "version_not_found"),
        (["rollout", "promote", "z-image-demo"], "rollout_not_found"),
        (["pool", "dedicate", "nobody"], "tenant_not_found"),
    ],
)
def test_what_can_not_be_routed_is_refused_with_a_code(easel, arguments, code):
    refused = easel.command(*arguments)
    assert (refused.returncode, code in refused.stderr) == (1, True)


def test_a_rotated_key_is_replaced_and_a_suspended_tenant_is_refused(easel):
    made = easel.json("tenant", "create", "rotated")
    key_id = made["api_key"].split("_")[2]
    new = easel.json("key", "rotate", key_id)["api_key"]

    def status(key):
        return httpx.get(f"{easel.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

    assert (status(made["api_key"]), status(new)) == (401, 200)
    easel.command("tenant", "suspend", "rotated")
    assert status(new) == 403
    easel.command("tenant", "resume", "rotated")
    assert status(new) == 200
