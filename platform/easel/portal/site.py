"""The portal's site: its sign-in, its front page, and the registry of its pages."""

from datetime import UTC, datetime
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.sites import UnfoldAdminSite

from easel.portal.cost_pages import costs_page
from easel.portal.guesses import device_remember
from easel.portal.overview import DAYS, overview
from easel.portal.second_factor import (
    picture_of,
    second_factor_begin,
    second_factor_confirm,
    second_factor_of,
    secret_of,
)
from easel.portal.sign_in import WITH_FACTOR, SignInForm
from easel.portal.views import serve_all


class PortalSite(UnfoldAdminSite):
    login_form = SignInForm
    login_template = "portal/sign_in.html"
    index_title = "Overview"
    enable_nav_sidebar = True

    def get_urls(self) -> list[Any]:
        costs = path("costs/", self.admin_view(self.costs), name="costs")
        factor = path("second-factor/", super().admin_view(self.second_factor), name="second_factor")
        return serve_all([costs, factor, *super().get_urls()], self.each_context)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Lead a user who has no second factor to make one, where the platform demands it, before any page."""
        inner = super().admin_view(view, cacheable)

        @wraps(inner)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            is_lacking = settings.EASEL.second_factor_required and not request.session.get(WITH_FACTOR)
            if is_lacking and self.has_permission(request) and not request.path.endswith("/logout/"):
                return HttpResponseRedirect(reverse("admin:second_factor"))
            return inner(request, *args, **kwargs)  # type: ignore[no-any-return]

        return checked

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        answer: HttpResponse = super().login(request, extra_context)
        if request.method == "POST" and isinstance(request.user, User) and answer.status_code == 302:
            device_remember(answer, request.user)
        return answer

    def second_factor(self, request: HttpRequest) -> HttpResponse:
        """Show the secret until a code confirms it, then the recovery codes once."""
        user, now = request.user, datetime.now(UTC)
        assert isinstance(user, User)  # by `admin_view`
        factor, codes, is_wrong = second_factor_of(user), None, False
        if factor is None and request.method == "POST":
            codes = second_factor_confirm(user, request.POST.get("code", "")[:40], now=now)
            is_wrong = codes is None
            if codes:
                request.session.cycle_key()
                request.session[WITH_FACTOR] = True
        if factor is None and codes is None:
            factor = second_factor_begin(user, now=now)
        shown = factor if factor is not None and factor.confirmed_at is None else None
        context = {
            **self.each_context(request),
            "title": "Second factor",
            "codes": codes,
            "is_wrong": is_wrong,
            "secret": secret_of(shown) if shown else "",
            "picture": picture_of(shown) if shown else "",
        }
        answer = TemplateResponse(request, "portal/second_factor.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

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
