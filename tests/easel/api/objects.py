"""The objects of a tenant, as its own calls name them, and where the API's calls name such objects.

The tables say what each path parameter and each text of a body or a query can name.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.db.models import ForeignKey, Model

from billing.invoices.statements import statement_draft, statement_final
from tenants.accounts import project_create
from tenants.keys import key_issue
from tenants.models import Scope, Tenant
from tests.conftest import NOW, PEPPER, Customer
from tests.easel.api.conftest import call
from tests.easel.privacy.conftest import secret_of

LATER = datetime(2100, 1, 1, tzinfo=UTC)

# What an identifier in a path names, by its parameter and, where its name is that of more than one kind, by its path.
KINDS = {
    "file_id": "file",
    "batch_id": "batch",
    "job_id": "job",
    "budget_id": "budget",
    "statement_id": "statement",
    "webhook_id": "webhook",
    "delivery_id": "delivery",
    "/v1/experiments/{name}": "experiment",
    "/v1/experiments/{name}/stop": "experiment",
    "/v1/adapters/{name}": "adapter",
    "/v1/models/{name}": "alias",
}
PARTS = {"position": "1", "form": "html"}  # of an object that the path names already
# Texts that name an object, with its kind, and those that name none.
GENERATION = {"model": "alias", "adapters": "adapter", "project": "project"}
REFERENCES = {
    "images_generations": GENERATION,
    "images_quotes": GENERATION,
    "jobs_create": GENERATION,
    "batches_create": {"input_file_id": "file"},
    "experiments_start": {"model": "alias", "arms": "adapter"},
    "adapters_upload": {"model": "alias"},
    "budgets_set": {"project": "project", "api_key": "key"},
    "files_list": {"after": "file"},
    "batches_list": {"after": "batch"},
    "jobs_list": {"after": "job"},
    "experiments_list": {"after": "experiment id"},
    "rollouts_list": {"after": "experiment id", "model": "alias"},
    "adapters_list": {"after": "adapter id"},
    "budgets_list": {"after": "budget"},
    "statements_list": {"after": "statement"},
    "statements_line_charges": {"after": "job"},
    "webhooks_list": {"after": "webhook"},
    "webhooks_deliveries": {"after": "delivery"},
}
FILTERS = {("rollouts_list", "model")}  # another tenant's name selects nothing


def objects_of(customer: Customer, furnish: Callable[[Customer], Any]) -> dict[str, str]:
    """Make one object of each kind, and a key with every scope; return them as the customer's own calls name them."""
    furnish(customer)
    secret = secret_of(customer)
    _, customer.secret = key_issue(project=customer.project, scopes=Scope.values, pepper=PEPPER, now=NOW)
    project = project_create(tenant=customer.tenant, slug=f"{secret}-project", now=NOW)
    webhook = listed("/v1/webhooks", customer)["id"]
    assert call("POST", f"/v1/webhooks/{webhook}/test", customer).status_code == 202
    assert call("PUT", "/v1/budgets", customer, json={"amount_micros": 5_000_000}).status_code == 200
    while not (draft := statement_draft(customer.tenant, now=LATER)).total_micros:
        statement_final(draft, now=datetime.now(UTC))
    return {
        "file": listed("/v1/files", customer)["id"],
        "batch": listed("/v1/batches", customer)["id"],
        "job": next(job["id"] for job in call("GET", "/v1/jobs", customer).json()["data"] if job["images"]),
        "experiment": f"{secret}-test",
        "adapter": f"{secret}-style",
        "alias": secret,
        "budget": listed("/v1/budgets", customer)["id"],
        "statement": str(draft.id),
        "webhook": webhook,
        "delivery": listed(f"/v1/webhooks/{webhook}/deliveries", customer)["id"],
        "key": customer.key.key_id,
        "project": project.slug,
        "experiment id": listed("/v1/experiments", customer)["id"],
        "adapter id": listed("/v1/adapters", customer)["id"],
    }


def listed(path: str, customer: Customer) -> dict[str, Any]:
    return call("GET", path, customer).json()["data"][0]


def rows_of(tenant: Tenant) -> dict[str, tuple[int, str]]:
    """Number and digest of the rows of each table that belong to the tenant, by the tables' foreign keys."""
    found = {}
    for model in apps.get_models():
        if (way := way_to_tenant(model, ())) is not None:
            rows = sorted(map(repr, model._base_manager.filter(**{way: tenant.pk}).values_list()))
            if rows:
                found[model._meta.db_table] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


def way_to_tenant(model: type[Model], seen: tuple[type[Model], ...]) -> str | None:
    """The shortest way of foreign keys to the tenant, as a lookup of Django."""
    if model is Tenant:
        return "pk"
    ways = [
        f"{field.name}__{rest}"
        for field in model._meta.fields
        if isinstance(field, ForeignKey) and field.related_model not in (model, *seen)
        if (rest := way_to_tenant(field.related_model, (*seen, model))) is not None
    ]
    return min(ways, key=lambda way: way.count("__"), default=None)
