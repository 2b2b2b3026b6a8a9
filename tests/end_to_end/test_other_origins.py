"""Pages of other origins in a real browser: what they may read of the API and of its images."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from easel_client import Easel
from tests.browser import chromium
from tests.end_to_end.test_portal import slug_of
from tests.live import LiveEasel

# What the pages run. They get `[url of the API, key]`, and say what they could read.
GENERATED = """async ([url, key]) => {
    const asked = {model: null, prompt: "a red circle", size: "128x128", response_format: "url"};
    const answer = await fetch(`${url}/v1/images/generations`, {
        method: "POST",
        headers: {Authorization: `Bearer ${key}`, "Content-Type": "application/json", "x-stainless-lang": "js"},
        body: JSON.stringify(asked),
    });
    return {
        status: answer.status, request: answer.headers.get("X-Request-Id"), cost: answer.headers.get("Easel-Cost"),
        url: (await answer.json()).data[0].url,
    };
}"""
PIXELS = """async (url) => {
    const image = await createImageBitmap(await (await fetch(url)).blob());
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    return [image.width, image.height, pixels.some((value, place) => place % 4 < 3 && value > 0)];
}"""
TAINTED = """(url) => new Promise((resolve) => {
    const image = new Image();
    image.onload = () => {
        const context = document.createElement("canvas").getContext("2d");
        context.drawImage(image, 0, 0);
        try { resolve(context.getImageData(0, 0, 1, 1) && "read"); } catch (error) { resolve(error.name); }
    };
    image.onerror = () => resolve("not loaded");
    image.src = url;
})"""
REFUSED = """async ([url, key]) => {
    const answer = await fetch(`${url}/v1/models`, {headers: {Authorization: `Bearer ${key}`}});
    return [answer.status, (await answer.json()).error.code];
}"""
STREAMED = """async ([url, key]) => {
    const asked = {prompt: "a blue square", size: "128x128", stream: true};
    const answer = await fetch(`${url}/v1/images/generations`, {
        method: "POST",
        headers: {Authorization: `Bearer ${key}`, "Content-Type": "application/json"},
        body: JSON.stringify(asked),
    });
    return (await answer.text()).includes("image_generation.completed");
}"""


class Site(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """An origin with the files of a folder, and a page that lists them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def pages(easel: LiveEasel, alice: Easel, browser: Browser, tmp_path: Path) -> Iterator[tuple[Page, Page]]:
    """A page of an origin that Alice's tenant allows, and one of an origin that nobody allows."""
    with site(tmp_path) as app, site(tmp_path) as foreign:
        allowed = easel.command("tenant", "origins", slug_of(alice, easel), app)
        assert allowed.returncode == 0, allowed.stderr
        with browser.new_page() as page, browser.new_page() as foreign_page:
            page.goto(app)
            foreign_page.goto(foreign)
            yield page, foreign_page


def failure(page: Page, script: str, given: object) -> str:
    """What a browser says of a request that it doesn't let through."""
    return str(page.evaluate(f"given => ({script})(given).then(() => '', error => `${{error.name}}`)", given))


def test_a_page_of_an_allowed_origin_generates_an_image_and_reads_its_pixels(easel, alice, pages):
    page, foreign = pages
    generated = page.evaluate(GENERATED, [easel.url, alice.api_key])
    assert generated["status"] == 200
    assert generated["request"]
    assert float(generated["cost"]) > 0
    assert page.evaluate(PIXELS, generated["url"]) == [128, 128, True]
    # A page of another origin may show the image, whose URL is its key, and may not read it.
    assert failure(foreign, PIXELS, generated["url"]) == "TypeError"
    assert foreign.evaluate(TAINTED, generated["url"]) == "SecurityError"
    # It was shown without an Origin before it is fetched with one: the browser's cache keeps the two apart.
    assert page.evaluate(TAINTED, generated["url"]) == "SecurityError"
    assert page.evaluate(PIXELS, generated["url"]) == [128, 128, True]


def test_a_page_of_a_foreign_origin_calls_nothing(easel, alice, pages):
    assert failure(pages[1], GENERATED, [easel.url, alice.api_key]) == "TypeError"
    listed = httpx.get(f"{easel.url}/v1/jobs", headers={"Authorization": f"Bearer {alice.api_key}"}).json()
    assert listed["data"] == []  # the browser asked first, and sent nothing


def test_a_page_of_an_allowed_origin_reads_refusals_and_streams(easel, alice, pages):
    assert pages[0].evaluate(REFUSED, [easel.url, "easel_sk_wrong"]) == [401, "invalid_api_key"]
    assert pages[0].evaluate(STREAMED, [easel.url, alice.api_key])
