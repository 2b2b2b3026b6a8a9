"""Which tables hold what is a tenant's: those that lead to it by their foreign keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Field, Model, QuerySet

from tenants.models import Tenant

_APPS = ("tenants", "billing", "registry", "generation", "webhooks")
# The platform's own, though they name a tenant: what serves it, and what only this database can use.
_PLATFORMS = {
    "generation.CachedResult",
    "generation.FairShare",
    "registry.Pool",
    "tenants.BlockListRevision",
    "tenants.IdempotentRequest",
}
# What would let somebody act or guess: hashes of secrets and of what was asked.
_WITHHELD = ("secret", "fingerprint", "salt", "result_key")


@dataclass(frozen=True, slots=True)
class Holding:
    """A table with rows of tenants; `path` leads from a row to its tenant."""

    model: type[Model]
    path: str

    @property
    def name(self) -> str:
        """`usage_record` of UsageRecord."""
        letters = (f"_{char.lower()}" if char.isupper() else char for char in self.model.__name__)
        return "".join(letters).removeprefix("_")

    @property
    def columns(self) -> list[str]:
        fields: list[Field[Any, Any]] = list(self.model._meta.concrete_fields)
        return [field.attname for field in fields if not any(word in field.attname for word in _WITHHELD)]

    def rows(self, tenant: Tenant) -> "QuerySet[Any, dict[str, Any]]":
        """The tenant's, in the order of their keys."""
        found = self.model._default_manager.filter(**{self.path: tenant.pk})
        return found.order_by("pk").values(*self.columns)


def holdings() -> list[Holding]:
    """All of them, by name: a table that is added later is found, as its rows have to lead to their tenant."""
    paths: dict[type[Model], str] = {Tenant: "pk"}
    reached: list[type[Model]] = [Tenant]
    while reached:  # nearest first, so that each table has its shortest path
        found = [
            (model, field.null, field.name if parent is Tenant else f"{field.name}__{paths[parent]}")
            for parent in reached
            for model in _models()
            if model not in paths
            for field in _links(model, parent)
        ]
        reached = []
        # A link that may be empty leads to the tenant of some rows alone: only where there is no other.
        for model, _, path in sorted(found, key=lambda candidate: candidate[1]):
            if model not in paths:
                paths[model] = path
                reached.append(model)
    return sorted((Holding(model, path) for model, path in paths.items()), key=lambda holding: holding.name)


def _models() -> Iterator[type[Model]]:
    for app in _APPS:
        yield from (model for model in apps.get_app_config(app).get_models() if model._meta.label not in _PLATFORMS)


def _links(model: type[Model], parent: type[Model]) -> list[Any]:
    """Foreign keys to the parent."""
    return [field for field in model._meta.concrete_fields if field.related_model is parent]
