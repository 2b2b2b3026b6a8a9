"""Callers of the running Easel: one who can pay, one who can't, and one who may not ask again."""

import uuid

import httpx
import pytest

from easel.seed import HUB_ID
from easel_client import Easel
from tests.clients.tools import MODEL, Installation
from tests.live import LiveEasel


def new_tenant(easel: LiveEasel, *, credit: str | None = "10") -> tuple[str, Easel]:
    """A tenant's name, and a caller with its key."""
    slug = f"client-{uuid.uuid4().hex[:12]}"
    made = easel.json("tenant", "create", slug, *(() if credit is None else ("--credit", credit)))
    return slug, Easel(easel.url, made["api_key"])


@pytest.fixture
def caller(easel: LiveEasel) -> Easel:
    return new_tenant(easel)[1]


@pytest.fixture
def poor(easel: LiveEasel) -> Easel:
    """A caller without credit."""
    return new_tenant(easel, credit=None)[1]


@pytest.fixture
def hasty(easel: LiveEasel) -> Easel:
    """A caller who has used up the requests of this minute."""
    slug, caller = new_tenant(easel)
    limited = easel.command("tenant", "limit", slug, "--requests-per-minute", "1")
    assert limited.returncode == 0, limited.stderr
    headers = {"Authorization": f"Bearer {caller.api_key}"}
    body = {"prompt": "a red circle", "size": "128x128"}  # a quote counts as a request, and makes nothing
    httpx.post(f"{caller.url}/v1/images/quotes", json=body, headers=headers, timeout=30).raise_for_status()
    return caller


@pytest.fixture(scope="session")
def installation(easel: LiveEasel) -> Installation:
    slug, caller = new_tenant(easel)
    poor_slug, poor = new_tenant(easel, credit=None)
    for tenant in (slug, poor_slug):  # an installation with the weights of that name begins with this alias
        done = easel.command("model", "alias", HUB_ID, MODEL, "--tenant", tenant)
        assert done.returncode == 0, done.stderr
    lenient = easel.json("key", "create", slug, "--lenient")
    return Installation(caller, Easel(easel.url, lenient["api_key"]), poor)
