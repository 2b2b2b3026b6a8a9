"""The portal's site: its sign-in, its front page, and the registry of its pages."""

from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import path
from unfold.sites import UnfoldAdminSite

from easel.portal.cost_pages import costs_page
from easel.portal.overview import DAYS, overview
from easel.portal.sign_in import SignInForm
from easel.portal.views import serve_all


class PortalSite(UnfoldAdminSite):
    login_form = SignInForm
    index_title = "Overview"
    enable_nav_sidebar = True

    def get_urls(self) -> list[Any]:
        costs = path("costs/", self.admin_view(self.costs), name="costs")
        return serve_all([costs, *super().get_urls()], self.each_context)

    def costs(self, request: HttpRequest) -> TemplateResponse:
        return costs_page(request, self.each_context(request), now=datetime.now(UTC))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, DAYS) else DAYS[0]
        context = {
            **self.each_context(request),
            "title": "Overview",
            "overview": overview(days=days, now=datetime.now(UTC)),
            "ranges": [(choice, choice == days) for choice in DAYS],
            **(extra_context or {}),
        }
        return TemplateResponse(request, "portal/overview.html", context)


portal = PortalSite(name="admin")
