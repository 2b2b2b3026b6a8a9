"""Every operation of the OpenAPI document with every state of a key and its tenant, and with every scope.

The table says which scope each operation needs. An operation without a row fails.
"""

from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from core import clock
from easel.privacy.erasure import erase_request
from tenants.accounts import tenant_suspend
from tenants.keys import key_issue, key_revoke
from tenants.models import ApiKey, Scope
from tests.conftest import NOW, Customer
from tests.easel.api.conftest import call
from tests.easel.api.described import whole

PUBLIC, ANY = "no key", "any key"
NEEDED = {
    PUBLIC: ("index_get", "errors_list", "openapi_get"),
    ANY: ("rollouts_list", "models_list", "models_get", "quota_get"),
    "generate": (
        *("images_generations", "images_edits", "images_variations", "images_quotes"),
        *("files_list", "files_create", "files_get", "files_delete", "files_content"),
        *("batches_list", "batches_create", "batches_get", "batches_cancel"),
        *("jobs_list", "jobs_create", "jobs_get", "jobs_delete", "jobs_events", "jobs_cancel", "jobs_images_delete"),
        *("jobs_feedback", "experiments_list", "experiments_start", "experiments_get", "experiments_stop"),
    ),
    "adapters": ("adapters_list", "adapters_upload", "adapters_get", "adapters_retire"),
    "usage": (
        *("usage_get", "costs_get", "costs_outlook", "exports_focus", "exports_costs", "exports_events"),
        *("balance_get", "budgets_list", "statements_list", "statements_current", "statements_get"),
        *("statements_document", "statements_line_charges"),
    ),
    "billing": ("budgets_set", "budgets_remove"),
    "webhooks": (
        *("webhooks_list", "webhooks_create", "webhooks_get", "webhooks_change", "webhooks_delete"),
        *("webhooks_rotate", "webhooks_test", "webhooks_deliveries", "webhooks_replay"),
    ),
}
SCOPE_OF = {operation: scope for scope, operations in NEEDED.items() for operation in operations}
# Of no object: a call that is let in finds nothing and changes nothing.
NOTHING = {
    **dict.fromkeys(("job_id", "budget_id", "statement_id", "webhook_id", "delivery_id"), str(UUID(int=0))),
    "file_id": f"file-{0:032x}",
    "batch_id": f"batch_{0:032x}",
    "name": "none",
    "position": "1",
    "form": "html",
}


def operations() -> list[tuple[str, str, str]]:
    """Name, method and path of each operation."""
    return [
        (operation["operationId"], method.upper(), path.format_map(NOTHING))
        for path, methods in whole()["paths"].items()
        for method, operation in methods.items()
    ]


def refusal(answer: httpx.Response) -> tuple[int, str] | None:
    """Status and code of an answer that refuses the caller, not the call."""
    return (answer.status_code, answer.json()["error"]["code"]) if answer.status_code in (401, 403) else None


def test_the_table_names_every_operation_and_no_other():
    assert SCOPE_OF.keys() == {name for name, _, _ in operations()}


def without_a_key(owner: Customer) -> str | None:
    return None


def with_another_secret(owner: Customer) -> str:
    return owner.secret[:-1] + ("a" if owner.secret[-1] != "a" else "b")


def with_another_pepper(owner: Customer) -> str:
    return key_issue(project=owner.project, pepper="another", now=NOW)[1]


def revoked(owner: Customer) -> str:
    key_revoke(key_id=owner.key.key_id, now=NOW)
    return owner.secret


def expired(owner: Customer) -> str:
    ApiKey.objects.filter(pk=owner.key.pk).update(expires_at=clock.now())
    return owner.secret


def from_another_address(owner: Customer) -> str:
    ApiKey.objects.filter(pk=owner.key.pk).update(addresses=["192.0.2.0/24", "2001:db8::/32"])
    return owner.secret


def of_a_suspended_tenant(owner: Customer) -> str:
    tenant_suspend(tenant=owner.tenant, now=NOW)
    return owner.secret


def of_a_tenant_that_is_to_be_erased(owner: Customer) -> str:
    erase_request(tenant=owner.tenant, cancel_jobs=True, actor="test", now=NOW)
    return owner.secret


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (without_a_key, 401, "invalid_api_key"),
        (with_another_secret, 401, "invalid_api_key"),
        (with_another_pepper, 401, "invalid_api_key"),
        (revoked, 401, "invalid_api_key"),
        (expired, 401, "key_expired"),
        (from_another_address, 403, "address_not_allowed"),
        (of_a_suspended_tenant, 403, "account_suspended"),
        (of_a_tenant_that_is_to_be_erased, 401, "invalid_api_key"),
    ],
)
def test_no_operation_serves_a_key_that_is_none(customer, state: Callable[[Customer], str | None], status, code):
    caller = customer(scopes=tuple(Scope.values))
    caller.secret = state(caller)
    for name, method, path in operations():
        expected = None if SCOPE_OF[name] == PUBLIC else (status, code)
        assert refusal(call(method, path, caller)) == expected, name


@pytest.mark.parametrize("scope", Scope.values)
def test_a_key_of_one_scope_is_let_in_there_and_nowhere_else(customer, scope):
    """The scope `read` is let in wherever something is read, and nowhere else: it changes nothing."""
    caller = customer(scopes=(scope,))
    for name, method, path in operations():
        is_let_in = method == "GET" if scope == Scope.READ else SCOPE_OF[name] == scope
        expected = None if SCOPE_OF[name] in (PUBLIC, ANY) or is_let_in else (403, "insufficient_scope")
        assert refusal(call(method, path, caller)) == expected, name


def test_a_key_without_any_scope_reads_only_what_every_key_may(customer):
    caller = customer()
    ApiKey.objects.filter(pk=caller.key.pk).update(scopes=[])
    for name, method, path in operations():
        expected = None if SCOPE_OF[name] in (PUBLIC, ANY) else (403, "insufficient_scope")
        assert refusal(call(method, path, caller)) == expected, name
