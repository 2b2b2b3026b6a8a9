"""Answers made from rows: the fields of one, and lists of many."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

from typing_extensions import TypedDict

T = TypeVar("T")


class Listed(TypedDict, Generic[T]):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


def listed(rows: Sequence[Any], *, has_more: bool = False) -> Listed[Any]:
    """Return the list of these rows; without `has_more` they are all there are."""
    ids = [None if row.get("id") is None else str(row["id"]) for row in (rows[:1], rows[-1:]) for row in row]
    first_id, last_id = ids or (None, None)
    return {"object": "list", "data": list(rows), "first_id": first_id, "last_id": last_id, "has_more": has_more}


def row_json(answer: type[T], row: Any, **computed: Any) -> T:
    """Return the answer's fields in their order: those that are `computed`, and attributes of `row` for the others."""
    names = answer.__annotations__
    return cast("T", {name: computed[name] if name in computed else getattr(row, name) for name in names})
