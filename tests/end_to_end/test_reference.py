"""The reference at /docs in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from easel_client import Easel
from tests.browser import chromium
from tests.live import LiveEasel

LOADS_MS = 120_000  # the script takes seconds, and minutes of a busy machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(easel: LiveEasel, browser: Browser) -> Iterator[Page]:
    """A page without a session; errors of its scripts and requests to elsewhere fail the test."""
    wrong: list[str] = []
    own = (easel.url, "data:", "blob:")
    with browser.new_page() as page:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith(own) else None)
        yield page
    assert not wrong


def test_the_reference_shows_the_operations_and_sends_a_request_with_a_key(easel: LiveEasel, alice: Easel, page: Page):
    page.goto(f"{easel.url}/docs#tag/models/GET/v1/models")
    expect(page.get_by_text("List the models and aliases").first).to_be_visible(timeout=LOADS_MS)
    page.get_by_label("Bearer Token").first.click(timeout=LOADS_MS)
    page.keyboard.type(alice.api_key)
    page.get_by_role("button", name="Test Request").first.click(timeout=LOADS_MS)
    with page.expect_response("**/v1/models", timeout=LOADS_MS) as sent:
        page.get_by_role("button", name="Send").last.click(timeout=LOADS_MS)
    assert sent.value.status == 200
    assert sent.value.json()["object"] == "list"


def test_the_reference_lists_each_group_of_calls_once(easel: LiveEasel, page: Page):
    page.goto(f"{easel.url}/docs")
    groups = page.get_by_role("navigation").first
    expect(groups.get_by_text("Models", exact=True).first).to_be_visible(timeout=LOADS_MS)
    expect(groups.get_by_text("Models", exact=True)).to_have_count(1)
