"""The calls of OpenAI's Images API that change an existing image: no model here can, so each is refused, and says so.

The form with the images is read and thrown away (`EDIT_BYTES_MAX` in `intake.py`), because a client that is cut off
while it sends reports a broken connection, and sends it all again.
"""

from django.http import HttpRequest, HttpResponse

from core.errors import DomainError
from easel.api.declaration import Error
from easel.api.endpoint import endpoint
from tenants.models import Scope


class UnsupportedEndpoint(DomainError, code="unsupported_endpoint", http_status=404):
    """No model here can change an image: describe the whole image in a prompt to POST /v1/images/generations.

    Generate an image from a prompt instead. Nothing was charged.
    """


@endpoint("post", "images_edits", Error, status=404, errors=(UnsupportedEndpoint,), scope=Scope.GENERATE)
def images_edits(request: HttpRequest) -> HttpResponse:
    """OpenAI's call that edits an image: always refused as `unsupported_endpoint`, and never charged."""
    raise UnsupportedEndpoint


@endpoint("post", "images_variations", Error, status=404, errors=(UnsupportedEndpoint,), scope=Scope.GENERATE)
def images_variations(request: HttpRequest) -> HttpResponse:
    """OpenAI's call that varies an image: always refused as `unsupported_endpoint`, and never charged."""
    raise UnsupportedEndpoint
