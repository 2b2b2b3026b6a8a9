"""Credit, budgets and billing by the command line: what moves, and that it is on record with its author."""

import getpass
import json
import uuid

import pytest
from click.testing import CliRunner

from billing.ledger.accounts import balances_by_kind, credit_limit_set
from billing.ledger.holds import hold_void
from billing.models import Adjustment, Budget, CreditGrant
from billing.profiles import profile_of
from core.models import AuditEvent
from easel.cli.tenants import tenant
from tenants.accounts import project_create
from tests.conftest import NOW, take_hold

DOLLAR = 1_000_000


def easel(command, customer, *arguments):
    return CliRunner().invoke(tenant, [command, customer.tenant.slug, *arguments])


def refused(command, customer, *arguments):
    """The code of the refusal; `usage` is click's own."""
    done = easel(command, customer, *arguments)
    assert done.exit_code != 0
    return getattr(done.exception, "code", None) if not isinstance(done.exception, SystemExit) else "usage"


def recorded(customer, action):
    return [event.details for event in AuditEvent.objects.filter(tenant=customer.tenant, action=action)]


def test_a_grant_with_its_terms_is_given(customer):
    alice = customer(credit="0")
    terms = ("--expires", "2099-01-01", "--priority", "10", "--promotional", "--reason", "welcome")
    done = easel("grant", alice, "2.5", *terms)
    assert "2.500000 USD; what is left of it on 2099-01-01 00:00 UTC is lost" in done.output
    grant = CreditGrant.objects.get(tenant=alice.tenant)
    assert (grant.amount_micros, grant.priority, grant.category) == (2_500_000, 10, "promotional")
    assert recorded(alice, "credit.grant")[0]["reason"] == "welcome"


def test_a_grant_that_has_expired_is_none(alice):
    assert refused("grant", alice, "1", "--expires", "2020-01-01") == "grant_invalid"


@pytest.mark.parametrize(
    "amount", ["0", "-1", "NaN", "sNaN", "Infinity", "1e12", "1234567890123456789", "0.0000001", "x"]
)
@pytest.mark.parametrize("command", ["grant", "credit-limit", "adjust", "budget"])
def test_no_odd_amount_moves_or_limits_anything(alice, command, amount):
    allowed = {("credit-limit", "0"), ("budget", "0"), ("adjust", "-1")}
    if (command, amount) in allowed:
        return
    arguments = {"adjust": (amount, "--reason", "r"), "budget": ("--amount", amount)}.get(command, (amount,))
    assert refused(command, alice, *arguments) == "usage"
    assert balances_by_kind(alice.tenant)["credit"] == 10 * DOLLAR


def test_a_credit_limit_is_set_and_not_below_what_is_used_of_it(alice):
    assert "can spend 15.000000 USD" in easel("credit-limit", alice, "5").output
    take_hold(tenant=alice.tenant, amount_micros=14 * DOLLAR, reference=uuid.uuid4(), now=NOW)
    assert refused("credit-limit", alice, "3") == "credit_limit_below_debt"
    assert recorded(alice, "credit.limit") == [{"amount": "5", "currency": "USD", "reason": ""}]


@pytest.mark.parametrize(("amount", "credit", "kind"), [("4", 6, "debit"), ("-4", 14, "credit")])
def test_an_adjustment_goes_either_way_with_its_reason_and_its_author(alice, amount, credit, kind):
    spring = project_create(tenant=alice.tenant, slug="spring", now=NOW)
    assert easel("adjust", alice, amount, "--reason", "ticket 7", "--project", "spring").exit_code == 0
    made = Adjustment.objects.get(tenant=alice.tenant)
    assert balances_by_kind(alice.tenant)["credit"] == credit * DOLLAR
    assert (made.kind, made.reason, made.project) == (kind, "ticket 7", spring)
    assert made.author == f"command:{getpass.getuser()}"
    assert recorded(alice, "credit.adjust")[0]["reason"] == "ticket 7"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_an_adjustment_says_why(alice, reason):
    assert refused("adjust", alice, "1", "--reason", reason) == "adjustment_invalid"
    assert not Adjustment.objects.filter(tenant=alice.tenant).exists()


def test_only_an_own_charge_is_disputed(alice):
    assert refused("adjust", alice, "-1", "--reason", "r", "--charge", str(uuid.uuid4())) == "charge_not_found"


def test_a_debt_is_written_off_once(alice):
    assert refused("write-off", alice, "--reason", "r") == "nothing_owed"
    easel("adjust", alice, "25", "--reason", "r")
    assert "15.000000 USD" in easel("write-off", alice, "--reason", "bankrupt").output
    assert refused("write-off", alice, "--reason", "r") == "nothing_owed"
    assert Adjustment.objects.get(tenant=alice.tenant, kind="write_off").amount_micros == -15 * DOLLAR
    assert recorded(alice, "credit.write_off") == [{"amount": "15.000000 USD", "reason": "bankrupt"}]


def test_what_is_held_on_account_is_not_given_up_with_a_debt(alice):
    credit_limit_set(tenant=alice.tenant, limit_micros=20 * DOLLAR)
    running = uuid.uuid4()
    take_hold(tenant=alice.tenant, amount_micros=15 * DOLLAR, reference=running, now=NOW)
    assert refused("write-off", alice, "--reason", "r") == "nothing_owed"
    hold_void(tenant=alice.tenant, reference=running, now=NOW)
    assert balances_by_kind(alice.tenant)["credit"] == 10 * DOLLAR


def test_budgets_are_set_changed_shown_and_removed(alice):
    easel("budget", alice, "--amount", "500", "--hard-stop")
    easel("budget", alice, "--key", alice.key.key_id, "--amount", "5")
    easel("budget", alice, "--key", alice.key.key_id, "--hard-stop")
    easel("budget", alice, "--project", "default", "--amount", "7")
    easel("budget", alice, "--project", "default", "--remove")
    rows = json.loads(easel("budget", alice, "--json").output)
    assert [(row["key"], row["amount"], row["hard_stop"]) for row in rows] == [
        ("", "500.000000", True),
        (alice.key.key_id, "5.000000", True),
    ]
    assert len(recorded(alice, "budget.set")) == 4
    assert len(recorded(alice, "budget.remove")) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--remove",), "budget_not_found"),
        (("--hard-stop",), "budget_invalid"),
        (("--remove", "--amount", "1"), "usage"),
        (("--project", "nope", "--amount", "1"), "project_not_found"),
        (("--key", "nope", "--amount", "1"), "key_not_found"),
    ],
)
def test_a_budget_of_nothing_is_refused_by_name(alice, arguments, code):
    assert refused("budget", alice, *arguments) == code
    assert not Budget.objects.filter(tenant=alice.tenant).exists()


def test_a_billing_profile_is_set_and_shown(alice):
    given = (
        "--legal-name",
        "Alice & Söhne GmbH",
        "--time-zone",
        "Europe/Berlin",
        "--tax-rate",
        "0.19",
        "--email",
        "a@b.de",
    )
    easel("billing", alice, *given)
    shown = json.loads(easel("billing", alice, "--json").output)
    assert (shown["legal_name"], shown["time_zone"], shown["tax_rate"]) == (
        "Alice & Söhne GmbH",
        "Europe/Berlin",
        "0.190000",
    )
    assert recorded(alice, "billing_profile.set")[0]["email"] == "a@b.de"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--time-zone", "Mars/Olympus"),
        ("--time-zone", "../../etc/passwd"),
        ("--time-zone", ""),
        ("--tax-rate", "1.5"),
        ("--tax-rate", "0.1234567"),
        ("--email", "nobody"),
        ("--legal-name", "x" * 201),
        ("--legal-name", "\ud800"),
        ("--tax-name", ""),
        ("--address", "x" * 1001),
    ],
)
def test_a_profile_that_nobody_can_be_billed_by_is_refused(alice, option, value):
    assert refused("billing", alice, option, value) in ("billing_profile_invalid", "usage")
    assert profile_of(alice.tenant).updated_at is None
