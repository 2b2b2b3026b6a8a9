"""Declares the input and the answer of a call once: parsing, answers and the OpenAPI document come from it.

A body or a query is an `Input` or a `UrlQuery`, whose fields pydantic reads. An answer is a `TypedDict`, to which the
tests hold what the API really sends.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, ClassVar, Self, TypeVar
from uuid import UUID

from django.utils.dateparse import parse_date
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema
from typing_extensions import TypedDict

from core.errors import DomainError
from core.text import text_encodable, text_unstorable_at
from easel.api.errors import InvalidField, MissingParameter, UnknownField
from easel.api.leniency import Leniency

Schema = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])
LEFT_OUT: Any = None  # the default of a field that may be left out
WARNINGS_MAX = 20  # unknown fields that are named one by one


# --- the types of fields


class OneOf:
    """Annotates a text that is one of a few."""

    def __init__(self, values: Sequence[str]) -> None:
        self.values = tuple(values)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.custom_error_schema(
            core_schema.literal_schema(list(self.values)),
            custom_error_type="one_of",
            custom_error_message=f"must be {'one of ' if self.values[1:] else ''}{', '.join(self.values)}",
        )


def _storable(text: str) -> str:
    if found := text_unstorable_at(text):
        text = f"has {found.code_point} at position {found.position}, which can't be stored: leave it out"
        raise PydanticCustomError("unstorable", text)
    return text


def _finite(number: Any) -> Any:
    if isinstance(number, int) and not isinstance(number, bool):
        try:
            return float(number)
        except OverflowError:  # of a whole number of hundreds of digits
            return math.inf
    return number


def _day(text: Any) -> date:
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        raise PydanticCustomError("date", "must be a day, as 2027-01-31")
    return day


AnyText = Annotated[str, AfterValidator(_storable)]
Text = Annotated[AnyText, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_finite)]
Flag = Annotated[bool, Strict(False)]  # "true" and 1 are taken too
Day = Annotated[date, BeforeValidator(_day)]


def _default_in_words(field: Schema) -> Schema:
    """Return the schema of an optional field without its default, which is described instead.

    A client that is generated from the document would send the default itself, or demand it, and an alias of a model
    has defaults of its own.
    """
    if field.get("default") in (None, "", []):
        return {name: value for name, value in field.items() if name != "default"}
    text = f"{field.get('description', '')} By default `{json.dumps(field['default'])}`.".strip()
    described = {**field, "description": text}
    del described["default"]
    return described


def nullable(schema: Schema) -> Schema:
    """Return a JSON Schema that takes null too."""
    kind = schema.get("type")
    if isinstance(kind, list) or {"type": "null"} in schema.get("anyOf", ()) or not schema:
        return schema
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    # Client generators make one type of an alternative, and one for each of a null among the values.
    around: Schema = {name: schema[name] for name in ("description", "default") if name in schema}
    return {"anyOf": [{k: v for k, v in schema.items() if k not in around}, {"type": "null"}], **around}


# --- what calls take


class Input(BaseModel):
    """A JSON body. A field that is null counts as left out, at any depth.

    Unknown fields and wrong types are refused by name, never dropped or converted. Only a `Leniency` lets unknown
    fields be ignored.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    part_of: ClassVar[str] = ""  # the field that this is the value of
    other_names: ClassVar[Mapping[str, str]] = {}  # of fields, with the name that a hint should give

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        if unknown := sorted(given.keys() - cls.model_fields.keys()):
            # With escapes for lone surrogates, which JSON can spell and neither pydantic's errors nor a job can hold.
            _refuse_unknown([text_encodable(name) for name in unknown], cls, info.context)
            given = {name: value for name, value in given.items() if name in cls.model_fields}
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, declared: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        schema = handler(declared)
        whole = handler.resolve_ref_schema(schema)
        if not issubclass(cls, UrlQuery):  # a query string has no null
            for name, field in whole.get("properties", {}).items():
                if name not in whole.get("required", ()):
                    whole["properties"][name] = nullable(_default_in_words(field))
        return schema

    @classmethod
    def read(cls, data: Any, *, leniency: Leniency | None = None) -> Self:
        """Return the fields of `data`, with defaults for those left out. Raises `InvalidField` for the first wrong."""
        try:
            return cls.model_validate(data, context=leniency)
        except ValidationError as error:
            raise _refusal(error.errors(include_url=False)[0]) from error

    def given(self) -> dict[str, Any]:
        """Return the fields that the caller named."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class UrlQuery(Input):
    """A query string, whose values are texts. Azure's clients put their `api-version` into every one: it is ignored."""

    model_config = ConfigDict(strict=False)

    @classmethod
    def read(cls, data: Any, *, leniency: Leniency | None = None) -> Self:
        given = {name: value for name, value in data.items() if name != "api-version"}
        return super().read(given, leniency=leniency)


class PageQuery(UrlQuery):
    limit: int = Field(default=20, ge=1, le=100)
    after: UUID = Field(default=LEFT_OUT, description="The id that the page begins after.")

    def page(self) -> dict[str, Any]:
        return {"limit": self.limit, "after": self.after}


class LongPageQuery(PageQuery):
    """The page of a list that most callers read whole."""

    limit: int = Field(default=100, ge=1, le=100)


def _refuse_unknown(names: list[str], taken_by: type[Input], leniency: Leniency | None) -> None:
    """Refuse the first of these unknown fields that is not ignored, or add warnings of them."""
    for name in names:
        if leniency is None or not leniency.ignores(name):
            raise PydanticCustomError("unknown_field", "{why}", {"field": name, "why": _meant(name, taken_by)})
    assert leniency is not None
    path = f"{taken_by.part_of}." if taken_by.part_of else ""
    for name in names[:WARNINGS_MAX]:
        leniency.warn(path + name, code="unknown_field", why=f"it {_meant(name, taken_by)}")
    if more := names[WARNINGS_MAX:]:
        why = f"it is not known here, like {len(more) - 1} more fields of this request"
        leniency.warn(path + more[0], code="unknown_field", why=why)


def _meant(name: str, taken_by: type[Input]) -> str:
    """Say that a field is unknown, and which one may have been meant."""
    if near := difflib.get_close_matches(name, taken_by.model_fields, n=1):
        return f"is not known here; did you mean {taken_by.other_names.get(near[0], near[0])}?"
    return "is not known here: leave it out; /docs lists the fields of every call"


# What pydantic finds, in our words: each follows the name of its field.
_MESSAGES = {
    "missing": "is required: send it",
    "string_type": "must be a string",
    "string_unicode": "has characters that UTF-8 can't encode: leave them out",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} elements",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "uuid_type": "must be an id, a UUID as the answers have it",
    "uuid_parsing": "must be an id, a UUID as the answers have it",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
    "model_type": "must be a JSON object",
}
_KINDS = {"missing": MissingParameter, "unknown_field": UnknownField}


def _refusal(first: ErrorDetails) -> InvalidField:
    """Return the refusal of the first wrong field, by its path."""
    message = _MESSAGES.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
    if first["input"] is None and first["type"] != "missing":
        message = "must not be null: leave it out"
    path = first["loc"] + ((first["ctx"]["field"],) if first["type"] == "unknown_field" else ())
    param = ".".join(str(part) for part in path) or None
    return _KINDS.get(first["type"], InvalidField)(f"{param or 'the body'} {message}", param=param)


# --- what calls are


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str


class Error(TypedDict):
    """OpenAI's error body. The `code` is stable, the message may change, `param` names the field at fault."""

    error: ErrorDetail


class ErrorEvent(Error):
    """The last event of a stream that failed, with the status that an answer would have had."""

    type: str
    http_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The declaration of what a handler takes and answers.

    `answer` is its JSON, `files` the media types of its files, `events` the data of its server-sent events by their
    names; `errors` are its refusals beside those that all calls have.
    """

    name: str
    answer: Any = None
    status: int = 200
    query: type[UrlQuery] | None = None
    request: type[Input] | None = None
    is_form: bool = False
    files: tuple[str, ...] = ()
    events: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[type[DomainError], ...] = ()
    headers: tuple[str, ...] = ()
    is_deprecated: bool = False

    @property
    def media_types(self) -> list[str]:
        """The media types of its answers, the preferred one first."""
        whole = ["application/json"] if self.answer is not None or not (self.files or self.events) else []
        return [*whole, *self.files, *(["text/event-stream"] if self.events else [])]


# Any file is also answered where the request's `Accept` says one of these; the second is that of OpenAI's clients.
OCTETS, BINARY = "application/octet-stream", "application/binary"
OPERATIONS: dict[str, Operation] = {}


def operation(name: str, answer: Any = None, **declared: Any) -> Callable[[Handler], Handler]:
    """Describe a handler by an `Operation`, which the OpenAPI document is made from. Its docstring is the text."""
    OPERATIONS[name] = Operation(name=name, answer=answer, **declared)

    def mark(handler: Handler) -> Handler:
        handler.operation = OPERATIONS[name]  # type: ignore[attr-defined]
        return handler

    return mark
