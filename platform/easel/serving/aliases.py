"""Aliases: further names of models, for clients whose model name is fixed, each with its own defaults.

A tenant's alias comes before the platform's of the same name. No alias has the name of a model, so that a model's name
always means that model: a trigger holds it (`sql/aliases.sql`).
"""

import difflib
import re
from collections.abc import Collection, Mapping
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from core.revision import cached_by_revision
from easel.catalog.models import Model
from easel.serving.errors import AliasInvalid, AliasNotFound, ModelNameTaken
from easel.serving.models import ALIAS_FIELD, ALIAS_NAME, Alias
from tenants.models import Tenant

NAME_CHARS_MAX = 100


@transaction.atomic
def alias_set(
    *,
    name: str,
    model: Model,
    tenant: Tenant | None,
    defaults: Mapping[str, str],
    ignored: Collection[str],
    is_lenient: bool,
    now: datetime,
) -> Alias:
    """Make a name stand for a model, for one tenant or for all; what it stood for before is replaced.

    `defaults` are of `response_format`, `quality` and `size`. Raises `AliasInvalid`, `ModelNameTaken`.
    """
    if len(name) > NAME_CHARS_MAX or not re.fullmatch(ALIAS_NAME, name):
        parts = "letters, digits, dots, underscores, colons and hyphens, in parts separated by single slashes"
        raise AliasInvalid(
            f"an alias must have at most {NAME_CHARS_MAX} {parts}, each beginning with a letter or digit"
        )
    if wrong := [field for field in ignored if not re.fullmatch(ALIAS_FIELD, field)]:
        raise AliasInvalid(f"{wrong[0]!r} is no name of a field")
    if Model.objects.filter(name=name).exists():
        raise ModelNameTaken(f"{name!r} is the name of a model, which always means that model")
    values = {
        "model": model,
        "response_format": defaults.get("response_format", ""),
        "quality": defaults.get("quality", ""),
        "size": defaults.get("size", ""),
        "ignored": sorted(set(ignored)),
        "is_lenient": is_lenient,
    }
    try:
        with transaction.atomic():
            alias, _ = Alias.objects.update_or_create(
                name=name, tenant=tenant, defaults=values, create_defaults={**values, "created_at": now}
            )
    except IntegrityError as error:  # a model of this name was registered meanwhile
        raise ModelNameTaken(f"{name!r} is the name of a model, which always means that model") from error
    return alias


def alias_remove(alias: Alias) -> None:
    """Remove an alias. Requests that name it are refused from now on, or get the platform's alias of the same name."""
    Alias.objects.filter(pk=alias.pk).delete()


def alias_find(*, name: str, tenant: Tenant | None) -> Alias:
    """Return a tenant's own alias, or the platform's. Raises `AliasNotFound`."""
    found = Alias.objects.select_related("model", "tenant").filter(name=name, tenant=tenant).first()
    if found is None:
        owner = tenant.slug if tenant else "the platform"
        raise AliasNotFound(f"{owner} has no alias {name!r}: `easel model aliases` shows them")
    return found


def aliases_erase(*, tenant: Tenant) -> None:
    """Delete a tenant's aliases."""
    Alias.objects.filter(tenant=tenant).delete()


@cached_by_revision
def aliases_of(tenant: Tenant | None) -> dict[str, Alias]:
    """Return the aliases that a tenant's requests may name, by name; without a tenant the platform's."""
    visible = Alias.objects.select_related("model").filter(Q(tenant=None) | Q(tenant=tenant))
    # The tenant's own come last and replace the platform's of the same name.
    return {alias.name: alias for alias in visible.order_by(F("tenant").asc(nulls_first=True), "name")}


def model_name_of(name: str, *, tenant: Tenant | None) -> str:
    """Return the name of the model that an alias stands for; any other name as it is."""
    alias = aliases_of(tenant).get(name)
    return alias.model.name if alias else name


def nearest_name(name: str, names: Collection[str]) -> str | None:
    """Return the one of these names that was probably meant, whatever the case of its letters; None if none is near."""
    by_lower = {known.lower(): known for known in sorted(names)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None
