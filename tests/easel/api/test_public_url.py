"""URLs in answers lead where the operator says, behind any proxy."""

import io
import json
import logging

import pytest
import structlog

from easel.api import middleware
from easel.observability import logs
from tests.easel.api.conftest import call


@pytest.fixture
def noticed(monkeypatch):
    """What the log says of the public URL, of a process that has said nothing yet."""
    monkeypatch.setattr(middleware, "_host_noticed", False)
    root, out = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(service="api", out=out, env={"EASEL_LOG_FORMAT": "json"})
    yield lambda: [line for text in out.getvalue().splitlines() if (line := json.loads(text))["level"] == "warning"]
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


FORGED = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}


def test_what_a_request_says_of_its_host_is_in_no_url(alice, body, settings_of):
    settings_of(public_url="https://easel.example")
    made = call("POST", "/v1/jobs", alice, json=body(), headers=FORGED)
    assert made.json()["urls"]["get"].startswith("https://easel.example/v1/jobs/")
    assert "evil.example" not in made.text


def test_a_proxy_without_a_public_url_is_noticed_once(alice, noticed):
    for _ in range(2):
        call("GET", "/v1/models", alice, headers={"X-Forwarded-Host": "easel.example"})
    [line] = noticed()
    assert (line["event"], line["host"]) == ("public_url_not_set", "easel.example")
    assert line["urls_begin_with"] == "http://127.0.0.1:8000"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "localhost"])
def test_a_client_on_the_same_machine_is_not_noticed(alice, noticed, host):
    call("GET", "/v1/models", alice, headers={"Host": host})
    assert noticed() == []


def test_with_a_public_url_no_host_is_noticed(alice, noticed, settings_of):
    settings_of(public_url="https://easel.example")
    call("GET", "/v1/models", alice, headers=FORGED)
    assert noticed() == []


def test_browsers_are_asked_to_come_by_https(settings_of):
    assert "Strict-Transport-Security" not in call("GET", "/").headers
    settings_of(public_url="https://easel.example")
    assert call("GET", "/").headers["Strict-Transport-Security"] == "max-age=31536000"
    assert call("GET", "/admin/").headers["Strict-Transport-Security"] == "max-age=31536000"
