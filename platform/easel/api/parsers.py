from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from easel.api.errors import InvalidJson


class StrictJSONParser(JSONParser):
    """JSON in UTF-8, as its standard has it, whatever charset a Content-Type names. Raises `InvalidJson`."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return super().parse(stream, media_type, {**(parser_context or {}), "encoding": "utf-8"})
        except ParseError as error:
            raise InvalidJson(str(error.detail)) from error
        except RecursionError as error:  # what Python's parser raises where it gives up
            raise InvalidJson("the JSON is nested too deep") from error
