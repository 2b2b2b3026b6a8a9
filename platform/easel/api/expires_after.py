"""OpenAI's `expires_after` of files: an object in JSON, or the fields of a form."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import from_json

from easel.api.declaration import Input, OneOf

_NAME = "expires_after"


class ExpiresAfterInput(Input):
    anchor: Annotated[str, OneOf(("created_at",))]
    seconds: int = Field(ge=3600, le=30 * 24 * 3600, description="Counted from the time that the file was made at.")


def seconds_of(given: ExpiresAfterInput | None) -> int | None:
    """Return the seconds after which a file expires; None if the caller did not say."""
    return None if given is None else given.seconds


def form_fields(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a form, with `expires_after` as JSON has it.

    OpenAI's clients send `expires_after[anchor]` and `expires_after[seconds]`; others may send the object as JSON. An
    empty text is null. What can't be read stays as it is, and is refused with the name of its field.
    """
    fields = dict(form)
    whole = fields.get(_NAME)
    if isinstance(whole, str):
        fields[_NAME] = _json(whole)
    elif _NAME not in fields:
        parts = {name: name[len(_NAME) + 1 : -1] for name in fields if name.startswith(f"{_NAME}[") and name[-1] == "]"}
        if parts:
            fields[_NAME] = {part: _whole(fields.pop(name)) for name, part in parts.items()}
    return fields


def _json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return from_json(text)
    except ValueError:
        return text


def _whole(text: Any) -> Any:
    is_whole = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 10
    return int(text) if is_whole else text
