"""API keys by the command line."""

import json

import pytest
from click.testing import CliRunner

from easel.cli.tenants import key
from tenants.keys import key_authenticate
from tenants.models import Scope
from tests.conftest import NOW, PEPPER


def create(customer, *arguments):
    return CliRunner().invoke(key, ["create", customer.tenant.slug, "--json", *arguments])


@pytest.mark.parametrize("scope", Scope.values)
def test_a_key_is_made_for_any_scope(alice, scope):
    made = json.loads(create(alice, "--scope", scope).output)
    assert key_authenticate(made["api_key"], pepper=PEPPER, now=NOW).scopes == [scope]


def test_a_key_has_all_scopes_by_default(alice):
    made = json.loads(create(alice).output)
    assert set(key_authenticate(made["api_key"], pepper=PEPPER, now=NOW).scopes) == set(Scope.values)


def test_an_unknown_scope_is_refused_with_the_known_ones(alice):
    refused = create(alice, "--scope", "everything")
    assert refused.exit_code == 2
    assert all(scope in refused.output for scope in Scope.values)
