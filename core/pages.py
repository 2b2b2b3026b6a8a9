"""Pages of lists that clients read row by row: keyset pagination, which stays right while rows are added."""

from collections.abc import Sequence
from typing import TypeVar

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model)


def page_after(rows: QuerySet[M], *, order: Sequence[str], after: M | None, limit: int) -> tuple[list[M], bool]:
    """Return at most `limit` rows, those that follow the row `after` in `order`, and True if more follow.

    `order` names fields as `order_by` does, `-` for descending. Together they must be unique: let the id be the last.
    """
    if after is not None:
        following, equal = Q(), Q()
        for field in order:
            name, comparison = field.removeprefix("-"), "lt" if field.startswith("-") else "gt"
            value = getattr(after, name)
            following |= equal & Q(**{f"{name}__{comparison}": value})
            equal &= Q(**{name: value})
        rows = rows.filter(following)
    found = list(rows.order_by(*order)[: limit + 1])
    return found[:limit], len(found) > limit
