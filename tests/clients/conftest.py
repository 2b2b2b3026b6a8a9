"""Callers of the running Easel: one who can pay, one who can't, and one who may not ask again."""

import uuid

import httpx
import pytest

from easel.cli.client import Client
from tests.live import LiveEasel


def new_caller(easel: LiveEasel, *, credit: str | None = "10", requests_per_minute: int | None = None) -> Client:
    slug = f"client-{uuid.uuid4().hex[:12]}"
    made = easel.json("tenant", "create", slug, *(() if credit is None else ("--credit", credit)))
    if requests_per_minute is not None:
        limited = easel.command("tenant", "limit", slug, "--requests-per-minute", str(requests_per_minute))
        assert limited.returncode == 0, limited.stderr
    return Client(easel.url, made["api_key"])


@pytest.fixture
def caller(easel: LiveEasel) -> Client:
    return new_caller(easel)


@pytest.fixture
def poor(easel: LiveEasel) -> Client:
    """A caller without credit."""
    return new_caller(easel, credit=None)


@pytest.fixture
def hasty(easel: LiveEasel) -> Client:
    """A caller who has used up the requests of this minute."""
    caller = new_caller(easel, requests_per_minute=1)
    headers = {"Authorization": f"Bearer {caller.api_key}"}
    body = {"prompt": "a red circle", "size": "128x128"}  # a quote counts as a request, and makes nothing
    httpx.post(f"{caller.url}/v1/images/quotes", json=body, headers=headers, timeout=30).raise_for_status()
    return caller
