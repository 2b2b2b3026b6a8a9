"""The reference at /docs in a real browser."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from easel_client import Easel
from tests.end_to_end.test_portal import CHROMIUM, FLAGS
from tests.live import LiveEasel

LOADS_MS = 120_000  # the script takes seconds, and minutes of a busy machine


@pytest.fixture
def page(easel: LiveEasel) -> Iterator[Page]:
    """A page without a session; errors of its scripts and requests to elsewhere fail the test."""
    if CHROMIUM is None:
        assert os.environ.get("EASEL_TESTS_COMPLETE") != "1", "Chromium is not installed"
        pytest.skip("Chromium is not installed")
    wrong: list[str] = []
    own = (easel.url, "data:", "blob:")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith(own) else None)
        yield page
        browser.close()
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
