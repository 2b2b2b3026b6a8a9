"""Multipart forms, in which files are uploaded."""

from typing import Annotated, Any

from django.http import HttpRequest
from pydantic import AfterValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request

from easel.api.declaration import AnyText


def _uploaded(part: Any) -> Any:
    if not hasattr(part, "read"):  # a part without a filename is text
        raise PydanticCustomError("file", "must be a part of the form that has a filename")
    return part


FormText = Annotated[AnyText, StringConstraints(strip_whitespace=True, min_length=1)]
FormFile = Annotated[Any, AfterValidator(_uploaded), WithJsonSchema({"type": "string", "format": "binary"})]


def form_of(request: HttpRequest) -> dict[str, Any]:
    """Return the parts of a request's form by name, the last of each; none without a body.

    Raises DRF's `UnsupportedMediaType` and `ParseError`.
    """
    form: Any = Request(request, parsers=[MultiPartParser()]).data  # a QueryDict, or a dict if there is no body
    return {name: form[name] for name in form}
