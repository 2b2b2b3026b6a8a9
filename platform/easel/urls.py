"""The paths of the whole application: the API, storage, health, metrics and the portal."""

from django.http import HttpRequest, HttpResponseRedirect
from django.urls import include, path

from easel.api import pages, storage_views
from easel.api.reading import read_only
from easel.api.resource import serve
from easel.observability import health
from easel.portal.urls import portal
from easel.portal.views import static_file


async def _to_portal(request: HttpRequest) -> HttpResponseRedirect:
    return HttpResponseRedirect("/admin/")


urlpatterns = [
    path("v1/", include("easel.api.urls")),  # first, since a request is tried with each in turn
    path("", read_only(pages.home)),
    path("docs", read_only(pages.reference)),
    path("docs/reference.js", read_only(pages.reference_script)),
    path("v1", serve(pages.api_index)),
    path("storage/<path:key>", storage_views.stored_object),
    path("healthz/live", read_only(health.live)),
    path("healthz/ready", read_only(health.ready)),
    path("metrics", read_only(health.metrics)),
    path("admin", read_only(_to_portal)),
    path("admin/static/<path:path>", read_only(static_file)),
    path("admin/", portal.urls),
]
handler400 = "easel.api.errors.bad_request"
handler404 = "easel.api.errors.not_found"
handler500 = "easel.api.errors.server_error"
