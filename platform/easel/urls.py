from django.urls import include, path

from easel.api import storage_views
from easel.ops import health

urlpatterns = [
    path("v1/", include("easel.api.urls")),
    path("storage/<path:key>", storage_views.stored_object),
    path("healthz/live", health.live),
    path("healthz/ready", health.ready),
    path("metrics", health.metrics),
]
handler400 = "easel.api.errors.bad_request"
handler404 = "easel.api.errors.not_found"
handler500 = "easel.api.errors.server_error"
