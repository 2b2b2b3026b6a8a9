"""Sets which of a tenant's requests the platform's classifier judges, and by which of its categories."""

import re
from collections.abc import Sequence

from core.errors import DomainError
from tenants.models import Moderation, Tenant

CATEGORIES_MAX = 30
_CATEGORY = re.compile(r"[A-Za-z0-9_./ -]{1,80}(=(0(\.[0-9]{1,6})?|1(\.0)?))?")


class ModerationCategoryInvalid(DomainError, code="moderation_category_invalid"):
    """A category must be its name, or its name and a score from 0 to 1, as violence=0.4; a tenant may have 30.

    Write the category as the classifier names it.
    """


def moderation_set(*, tenant: Tenant, moderation: Moderation, categories: Sequence[str]) -> list[str]:
    """Set a tenant's policy, which holds from its next request; return the categories.

    Raises `ModerationCategoryInvalid`.
    """
    found = list(dict.fromkeys(text.strip() for text in categories))
    if len(found) > CATEGORIES_MAX or not all(map(_CATEGORY.fullmatch, found)):
        raise ModerationCategoryInvalid(param="categories")
    tenant.moderation, tenant.moderation_categories = moderation, found
    tenant.save(update_fields=["moderation", "moderation_categories"])
    return found
