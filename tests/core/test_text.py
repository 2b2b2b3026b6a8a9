import json

import pytest

from core.text import is_line, json_text, text_storable, text_unstorable_at, text_unusable_at


@pytest.mark.parametrize(
    ("text", "unstorable", "unusable"),
    [
        ("a red circle", None, None),
        ("tab\t, line feed\n and carriage return\r", None, None),
        ("é 圆 😀 \u200d", None, None),
        ("a\x00b", (1, "U+0000"), (1, "U+0000")),
        ("ab\ud800", (2, "U+D800"), (2, "U+D800")),
        ("bell\x07", None, (4, "U+0007")),
        ("\x7f", None, (0, "U+007F")),
        ("\x9f\x00", (1, "U+0000"), (0, "U+009F")),
    ],
)
def test_a_text_is_refused_at_its_first_character_that_cannot_be_used(text, unstorable, unusable):
    assert text_unstorable_at(text) == unstorable
    assert text_unusable_at(text) == unusable


def test_a_storable_text_lacks_only_the_unstorable_characters():
    assert text_storable("a\x00b\ud800c\n") == "abc\n"


@pytest.mark.parametrize("content", ['{"a": "圆"}', "5", "", "not JSON"])
def test_json_may_begin_with_a_byte_order_mark(content):
    assert json_text(b"\xef\xbb\xbf" + content.encode()) == json_text(content.encode()) == content


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_another_encoding_is_named(encoding):
    with pytest.raises(ValueError, match=rf"in {encoding[:6].upper()}: send it in UTF-8"):
        json_text(json.dumps({"prompt": "a red circle"}).encode(encoding))


def test_json_in_no_unicode_is_refused_where_it_fails():
    with pytest.raises(ValueError, match="the byte at position 4 is not UTF-8"):
        json_text('"café"'.encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", True), ("", True), ("a 圆", True), ("abcde", False), ("a\n", False), ("\x07", False), ("\ud800", False)],
)
def test_a_line_is_short_and_printable(text, expected):
    assert is_line(text, chars_max=4) is expected
