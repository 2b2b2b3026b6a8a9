"""Finds and removes characters that PostgreSQL can't store, that no model can be given, or that can't be printed."""

import json
import re
from typing import NamedTuple

# PostgreSQL stores no NUL, and UTF-8 encodes no lone surrogate. JSON's escapes can spell both.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
# In addition the control characters (C0, DEL, C1) except tab, line feed and carriage return.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Character(NamedTuple):
    """A character's place in its text, and its code point as Unicode writes it: `U+0007`."""

    position: int
    code_point: str


def text_unstorable_at(text: str) -> Character | None:
    """Return the first NUL or lone surrogate of a text that is to be stored."""
    return _first(_UNSTORABLE, text)


def text_unusable_at(text: str) -> Character | None:
    """Return the first character that no prompt may contain: an unstorable one, or a control character except tab, line
    feed and carriage return."""
    return _first(_UNUSABLE, text)


def text_storable(text: str) -> str:
    """Return the text without its unstorable characters, for a search that would find nothing with them."""
    return _UNSTORABLE.sub("", text)


def text_encodable(text: str) -> str:
    """Return the text with lone surrogates, which JSON can spell and UTF-8 can't hold, written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def text_escaped(text: str) -> str:
    """Return the text with escapes for its unstorable characters, for a message that quotes it."""
    return text_encodable(text).replace("\0", "\\0")


def json_text(content: bytes) -> str:
    """Return the text of JSON in UTF-8, without the byte order mark that some programs begin it with.

    Raises `ValueError` for another encoding, with a sentence for its sender.
    """
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):  # what begins like UTF-16 or UTF-32, with a byte order mark or without one
        raise ValueError(f"it seems to be in {encoding[:6].upper()}: send it in UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"the byte at position {error.start} is not UTF-8: send it in UTF-8") from error


def is_line(text: str, *, chars_max: int) -> bool:
    """Return True for a text of one line: at most `chars_max` characters, each of them printable."""
    return len(text) <= chars_max and text.isprintable()


def _first(pattern: re.Pattern[str], text: str) -> Character | None:
    found = pattern.search(text)
    return Character(found.start(), f"U+{ord(found[0]):04X}") if found else None
