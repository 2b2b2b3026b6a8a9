"""Values that no browser's form would send: the portal answers with a page, and never breaks."""

import re
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory

from easel.portal.urls import portal

NUL, BEYOND_BIGINT, NO_DAY, NO_UUID = "a\0b", "9" * 30, "2026-02-30", "not-a-uuid"
JUNK = [NUL, BEYOND_BIGINT, NO_DAY, NO_UUID, "-1", "x" * 20_000]


def fields_of(page) -> list[str]:
    """The fields by which a list is searched, sorted, paged and filtered, and some that only an address has."""
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True)
    filters = page.get_changelist_instance(request).filter_specs
    return ["q", "o", "p", "id__gt", "pk__in", *(name for one in filters for name in one.expected_parameters() if name)]


def test_junk_in_an_address_breaks_no_page(operator):
    """Each page with one kind of junk in one of its fields: every kind in every field takes minutes."""
    paths = [
        f"/admin/{path}={quote(NUL)}" for path in ("?days", "login/?next", "search/?s", "costs/?month", "costs/?a")
    ]
    for turn, (model, page) in enumerate(portal._registry.items()):
        base, junk = f"/admin/{model._meta.app_label}/{model._meta.model_name}/", quote(JUNK[turn % len(JUNK)])
        fields = fields_of(page)
        paths += [f"{base}?{fields[turn % len(fields)]}={junk}", f"{base}{junk}/change/"]
    answers = {path: operator.get(path).status_code for path in paths}
    assert not {path: status for path, status in answers.items() if status >= 500}


@pytest.mark.parametrize("field", ["id__gt", "pool__id__exact", "p"])
def test_a_number_beyond_the_databases_breaks_no_list(operator, field):
    assert operator.get(f"/admin/jobs/job/?{field}={BEYOND_BIGINT}").status_code < 500


def test_nul_in_a_filter_is_answered_with_a_page(operator):
    answer = operator.get("/admin/core/auditevent/?actor=a%00b")
    assert (answer.status_code, "values that are none" in answer.text) == (400, True)


def test_nul_in_a_form_changes_nothing(operator):
    answer = operator.post("/admin/tenants/tenant/action/tenant.create", slug="a\0b", name="A")
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["easel_session", "easel_csrf", "easel_device", "messages"])
def test_nul_in_a_cookie_is_no_cookie(operator, name):
    """A quoted cookie spells it in octal, where no character of the head is one."""
    session = f"; easel_session={operator.cookies['easel_session']}" if name != "easel_session" else ""
    cookie = {"Cookie": f'{name}="abcdefgh\\000"{session}'}
    operator.cookies.clear()
    assert operator.ask("GET", "/admin/", headers=cookie).status_code == (200 if session else 302)
    large = operator.ask("POST", "/admin/jobs/job/", headers=cookie, content=b"x" * 100_000)
    assert large.status_code == (403 if session else 302)


def test_a_visitor_who_is_not_signed_in_is_refused_with_a_page_too(browser):
    sent = (
        ("GET", "/admin/login/?next=%00", 400),
        ("GET", "/admin/core/auditevent/?actor=a%00b", 400),
        ("GET", "/admin/x%00/", 400),
        ("DELETE", "/admin/", 405),
        ("POST", "/admin/login/", 403),
    )
    for method, path, status in sent:
        answer = browser.ask(method, path)
        assert (answer.status_code, "Sign in</a>" in answer.text) == (status, True), path


def test_a_form_without_its_token_is_answered_with_a_page(operator):
    for path in ("/admin/login/", "/admin/tenants/tenant/action/tenant.create"):
        answer = operator.ask("POST", path, data={"slug": "forged"})
        assert (answer.status_code, "Open its page again" in answer.text) == (403, True)


def test_a_method_that_no_page_has_is_answered_with_a_page(operator):
    for content in (b"", b"x" * 100_000):
        answer = operator.ask("DELETE", "/admin/jobs/job/", content=content)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
        assert "A page has no method DELETE" in answer.text


def test_a_static_file_that_is_not_there_has_the_one_error_body(operator):
    for path in ("nowhere.js", "..%2f..%2fsettings.py"):
        answer = operator.get(f"/admin/static/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/nowhere/", "/docs", "/"])
def test_no_page_lets_a_script_be_inline_or_evaluated(operator, path):
    answer = operator.ask("GET", path, headers={"Accept": "text/html"})
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy.get("script-src", policy["default-src"]) in ("'self'", "'none'")
    assert policy["frame-ancestors"] == "'none'"
    assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>\s*\S", answer.text.replace('id="api-reference"', 'src=""'))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
