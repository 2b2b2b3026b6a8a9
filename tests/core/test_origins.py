import pytest

from core.origins import origin_of


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example/", "https://app.example"),
        (" https://App.Example ", "https://app.example"),
        ("HTTPS://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text, origin):
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "null", "app.example", "//app.example", "https://", "https://app.example/page", "https://app.example?a",
        "https://app.example#a", "https://ann@app.example", "https://app.example:99999", "https://app.example:a",
        "https://*.app.example", "https://a b", "https://a,b", "https://a\nb", "https://a\x00", "file:///",
        "https://a..b", "https://app.example https://b.example", "https://[::1", f"https://{'a' * 300}.example",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match="scheme://host"):
        origin_of(text)
