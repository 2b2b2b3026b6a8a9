"""The pages of the API for people: what this server is (`/`), and the reference of its calls (`/docs`).

The reference is rendered by Scalar's script, which comes with this package (`reference/LICENSE`). Nothing is fetched
from another host: the policy below forbids it.
"""

import gzip
import json
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import get_conditional_response
from typing_extensions import TypedDict

from core.web_headers import HEADERS
from easel.api.endpoint import endpoint
from easel.api.resource import answer_json

# The script makes styles, fonts and pictures by itself, evaluates none of them, and calls this server only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' blob:; worker-src 'self' blob:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": _POLICY,
}
# What Scalar would fetch from its own hosts, or send there, is off.
_CONFIGURATION = {
    "withDefaultFonts": False,
    "telemetry": False,
    "proxyUrl": "",
    "hideClientButton": True,
    "showDeveloperTools": "never",
    "agent": {"disabled": True},
    "mcp": {"disabled": True},
    "persistAuth": False,
    "authentication": {"preferredSecurityScheme": "apiKey"},
    "defaultOpenAllTags": False,
    "hideModels": True,  # of the document's schemas, which each call shows anyway: the tag Models is another thing
    "layout": "modern",
    "metaData": {"title": "Easel API"},
}


class ApiIndex(TypedDict):
    """The addresses of this server's pages and calls."""

    object: str
    name: str
    version: str
    base_url: str
    reference: str
    openapi: str
    errors: str
    portal: str
    health: str


def index_json() -> ApiIndex:
    url = settings.EASEL.public_url
    return {
        "object": "api",
        "name": "Easel",
        "version": version("easel"),
        "base_url": f"{url}/v1",
        "reference": f"{url}/docs",
        "openapi": f"{url}/v1/openapi.json",
        "errors": f"{url}/v1/errors",
        "portal": f"{url}/admin/",
        "health": f"{url}/healthz/ready",
    }


@endpoint("get", "index_get", ApiIndex, is_public=True)
def api_index(request: HttpRequest) -> HttpResponse:
    """Say what this server is, and where its reference, its document and its portal are."""
    return answer_json(index_json())


async def home(request: HttpRequest) -> HttpResponse:
    """Answer a browser with a page and a program with JSON; both say where things are."""
    if "text/html" in request.headers.get("Accept", ""):
        return _page(request, "api/home.html", dict(index_json()))
    return answer_json(index_json(), headers={"Vary": "Accept"})


async def reference(request: HttpRequest) -> HttpResponse:
    return _page(request, "api/reference.html", {"configuration": json.dumps(_CONFIGURATION)})


async def reference_script(request: HttpRequest) -> HttpResponse:
    """Send the script as it is stored, compressed; without `Accept-Encoding: gzip` it is expanded."""
    content, etag = _script()
    headers = {"ETag": etag, "Cache-Control": "public, max-age=86400", "Vary": "Accept-Encoding", **_HEADERS}
    unchanged = get_conditional_response(request, etag=etag)
    answer = unchanged or HttpResponse(content, content_type="text/javascript")
    if unchanged is None and "gzip" in request.headers.get("Accept-Encoding", ""):
        answer["Content-Encoding"] = "gzip"
    elif unchanged is None:
        answer.content = gzip.decompress(content)
    for name, value in headers.items():
        answer[name] = value
    return answer


def _page(request: HttpRequest, template: str, context: dict[str, object]) -> HttpResponse:
    answer = render(request, template, context)
    for name, value in {"Vary": "Accept", "Cache-Control": "no-cache", **_HEADERS}.items():
        answer[name] = value
    return answer


@cache
def _script() -> tuple[bytes, str]:
    """Return the compressed script and its ETag."""
    content = files("easel.api").joinpath("reference/scalar.js.gz").read_bytes()
    return content, f'W/"{sha256(content).hexdigest()[:32]}"'
