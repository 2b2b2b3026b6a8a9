"""The web origins whose pages may call the API with a tenant's keys from a browser."""

from collections.abc import Mapping, Sequence

from core.errors import DomainError
from core.origins import origin_of
from core.revision import cached_by_revision, revision_begin
from tenants.models import ORIGINS_MAX, Tenant


class OriginInvalid(DomainError, code="origin_invalid"):
    """An origin must be scheme://host or scheme://host:port, and a tenant may have 20.

    Write the origin as the browser shows it in the address bar, without a path. Remove origins that are no longer used.
    """


def origins_set(*, tenant: Tenant, origins: Sequence[str]) -> list[str]:
    """Set a tenant's origins in place of those before, and return them as browsers write them. Raises `OriginInvalid`.

    The platform alone can allow every origin, by `EASEL_CORS_ORIGINS`.
    """
    try:
        found = list(dict.fromkeys(origin_of(text) for text in origins))
    except ValueError as error:
        raise OriginInvalid(str(error), param="origins") from error
    if len(found) > ORIGINS_MAX:
        raise OriginInvalid(f"a tenant may have {ORIGINS_MAX} origins, not {len(found)}", param="origins")
    tenant.origins = found
    tenant.save(update_fields=["origins"])
    return found


def origins_by_tenant() -> Mapping[str, frozenset[str]]:
    """Return the origins of each tenant that has some, by its slug, as of the revision in force."""
    revision_begin()
    return _origins()


@cached_by_revision
def _origins() -> Mapping[str, frozenset[str]]:
    rows = Tenant.objects.exclude(origins=[]).values_list("slug", "origins")
    return {slug: frozenset(origins) for slug, origins in rows}
