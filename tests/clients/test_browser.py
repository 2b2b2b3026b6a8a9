"""OpenAI's client in a real browser, on a page of another origin: docs/clients/browser.md as it stands there."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from easel_client import Easel
from tests.browser import chromium
from tests.clients.programs import PAGES, blocks, installed, requests_of
from tests.end_to_end.test_other_origins import site
from tests.end_to_end.test_portal import slug_of
from tests.live import LiveEasel, all_costs

RECIPE = "\n".join(blocks(PAGES / "browser.md", "js"))
SAYS = "window.said = [answer.usage.cost, image.width, image.height, new Set(pixels).size];"
CAUGHT = "window.addEventListener('error', (event) => { window.said = [event.error?.status, event.error?.code]; });"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(easel: LiveEasel, caller: Easel, browser: Browser) -> Iterator[Page]:
    """An empty page, of an origin that the caller's tenant allows and that serves OpenAI's client."""
    with site(installed("node", "node_modules/openai")) as origin, browser.new_page() as page:
        allowed = easel.command("tenant", "origins", slug_of(caller, easel), origin)
        assert allowed.returncode == 0, allowed.stderr
        page.goto(origin)
        yield page


def run(page: Page, source: str, url: str, key: str) -> list[object]:
    """What the recipe's program says, with the reader's address and key in it."""
    for placeholder, value in (("http://127.0.0.1:8000", url), ("easel_sk_…", key), ('"openai"', '"/index.mjs"')):
        assert source.count(placeholder) == 1
        source = source.replace(placeholder, value)
    page.evaluate(f"() => {{ {CAUGHT} }}")
    page.add_script_tag(content=f"{source}\n{SAYS}", type="module")
    page.wait_for_function("() => window.said", timeout=240_000)
    said: list[object] = page.evaluate("() => window.said")
    return said


def test_the_recipe_generates_reads_its_cost_and_the_pixels(easel: LiveEasel, caller: Easel, page: Page):
    cost, width, height, colours = run(page, RECIPE, easel.url, caller.api_key)
    charged = all_costs(caller, group_by="model")["total"]["amount_micros"]
    assert charged > 0
    assert cost * 1e6 == pytest.approx(charged)
    assert (width, height) == (256, 256)
    assert colours > 1


def test_the_recipe_reads_why_it_is_refused(easel: LiveEasel, caller: Easel, page: Page):
    too_wide = RECIPE.replace("256x256", "100x100")
    assert run(page, too_wide, easel.url, caller.api_key) == [400, "size_invalid"]
    assert requests_of(easel, caller) == [400]
