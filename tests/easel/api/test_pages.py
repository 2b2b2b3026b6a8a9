"""The pages of the API: what a browser and a program find at `/`, `/v1` and `/docs`."""

import re

import pytest

from tests.easel.api.conftest import call

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
def test_a_program_reads_where_things_are(path):
    found = call("GET", path).json()
    assert found["base_url"] == "http://127.0.0.1:8000/v1"
    own = {name: url.removeprefix("http://127.0.0.1:8000") for name, url in found.items() if url.startswith("http")}
    assert own == {
        "base_url": "/v1",
        "reference": "/docs",
        "openapi": "/v1/openapi.json",
        "errors": "/v1/errors",
        "portal": "/admin/",
        "health": "/healthz/ready",
    }


def test_a_browser_gets_a_page_that_leads_to_the_same():
    answer = call("GET", "/", headers=BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert "Accept" in answer.headers["vary"]
    for link in ("/docs", "/v1/openapi.json", "/v1/errors", "/admin/", "/healthz/ready"):
        assert f'href="http://127.0.0.1:8000{link}"' in answer.text


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/reference.js"])
def test_a_page_may_fetch_nothing_from_elsewhere(path):
    policy = call("GET", path, headers=BROWSER).headers["content-security-policy"]
    directives = dict(one.strip().partition(" ")[::2] for one in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert not [sources for sources in directives.values() if "http" in sources or "*" in sources]


def test_the_reference_loads_its_script_and_its_document_from_here():
    page = call("GET", "/docs", headers=BROWSER).text
    assert '<script src="/docs/reference.js">' in page
    assert 'data-url="/v1/openapi.json"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_reference_page_styles_nothing_that_its_script_draws():
    [style] = re.findall(r"<style>(.*?)</style>", call("GET", "/docs", headers=BROWSER).text)
    assert set(re.findall(r"([^{}]+) {", style)) == {"body", " #loading", " body:has(.scalar-app) > #loading"}


def test_the_reference_says_something_before_its_script_has_run():
    page = call("GET", "/docs", headers=BROWSER).text
    before = page.partition("<script")[0]
    assert "is loading" in before
    assert 'href="/v1/openapi.json"' in before
    assert "needs JavaScript" in before


def test_the_script_is_sent_compressed_once():
    answer = call("GET", "/docs/reference.js", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.num_bytes_downloaded < 1_100_000
    assert b"createApiReference" in answer.content
    plain = call("GET", "/docs/reference.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
    again = call("GET", "/docs/reference.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
