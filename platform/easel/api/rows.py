"""Answers made from rows: the fields of one, and lists of many."""

from typing import Any, Generic, TypeVar, cast

from typing_extensions import TypedDict

T = TypeVar("T")


class Listed(TypedDict, Generic[T]):
    object: str
    data: list[T]


class ListPage(Listed[T], Generic[T]):
    has_more: bool


def row_json(answer: type[T], row: Any, **computed: Any) -> T:
    """Return the answer's fields in their order: those that are `computed`, and attributes of `row` for the others."""
    names = answer.__annotations__
    return cast("T", {name: computed[name] if name in computed else getattr(row, name) for name in names})
