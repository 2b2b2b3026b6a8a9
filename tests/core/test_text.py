import pytest

from core.text import is_line, text_storable, text_unstorable_at, text_unusable_at


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", True), ("", True), ("a 圆", True), ("abcde", False), ("a\n", False), ("\x07", False), ("\ud800", False)],
)
def test_a_line_is_short_and_printable(text, expected):
    assert is_line(text, chars_max=4) is expected
