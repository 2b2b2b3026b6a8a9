"""The tables that hold a tenant's data: those whose foreign keys lead to the tenant."""

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Field, Model, QuerySet

from tenants.models import Tenant

_APPS = ("core", "tenants", "billing", "catalog", "serving", "jobs", "batches", "webhooks")
# Tables that refer to a tenant but hold the platform's data: what serves the tenant, and caches.
_PLATFORM_TABLES = {
    "jobs.CachedResult",
    "jobs.ClientCall",
    "jobs.FairShare",
    "jobs.BatchShare",
    "catalog.Pool",
    "tenants.BlockListRevision",
    "core.IdempotentRequest",
}
# Columns that are never exported: secrets and hashes of secrets, and hashes of prompts, which allow guesses.
_WITHHELD = ("secret", "fingerprint", "salt", "result_key")


@dataclass(frozen=True, slots=True)
class Holding:
    """A table with rows of tenants; `path` is the lookup from a row to its tenant."""

    model: type[Model]
    path: str

    @property
    def name(self) -> str:
        """The model's name in snake case, such as `usage_record`."""
        letters = (f"_{char.lower()}" if char.isupper() else char for char in self.model.__name__)
        return "".join(letters).removeprefix("_")

    @property
    def columns(self) -> list[str]:
        fields: list[Field[Any, Any]] = list(self.model._meta.concrete_fields)
        return [field.attname for field in fields if not any(word in field.attname for word in _WITHHELD)]

    def rows(self, tenant: Tenant) -> "QuerySet[Any, dict[str, Any]]":
        """Return the tenant's rows, in primary key order."""
        found = self.model._default_manager.filter(**{self.path: tenant.pk})
        return found.order_by("pk").values(*self.columns)


def holdings() -> list[Holding]:
    """All such tables by name. A new table is found without a change here, as its rows must lead to their tenant."""
    tables = (model for app in _APPS for model in apps.get_app_config(app).get_models())
    models = [model for model in tables if model._meta.label not in _PLATFORM_TABLES]
    paths: dict[type[Model], str] = {Tenant: "pk"}
    reached: list[type[Model]] = [Tenant]
    while reached:  # breadth first, so that each table gets its shortest path
        found = [
            (model, field.null, field.name if parent is Tenant else f"{field.name}__{paths[parent]}")
            for parent in reached
            for model in models
            if model not in paths
            for field in model._meta.concrete_fields
            if field.related_model is parent  # a foreign key to `parent`
        ]
        reached = []
        # A nullable foreign key finds the tenant of some rows only: it is used if the table has no other.
        for model, _, path in sorted(found, key=lambda candidate: candidate[1]):
            if model not in paths:
                paths[model] = path
                reached.append(model)
    return sorted((Holding(model, path) for model, path in paths.items()), key=lambda holding: holding.name)
