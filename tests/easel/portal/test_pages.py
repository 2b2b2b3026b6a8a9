"""What the portal shows: every page opens, says what is so, escapes what tenants wrote, and asks little."""

import re
import uuid
from copy import copy

import click
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from billing.models import LedgerAccount, PriceBook, Transaction
from billing.money import format_micros
from billing.usage.queries import job_costs
from core.audit import audit_record
from easel.catalog.models import PoolFault
from easel.catalog.pool_faults import pool_shut_out
from easel.cli.main import cli as program
from easel.portal.urls import portal
from easel.serving.rollouts import rollout_start
from tenants.accounts import project_create
from tests.conftest import NOW

LISTS = [f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for model in portal._registry]


@pytest.mark.parametrize("path", ["/admin/", "/admin/?days=30", *LISTS])
def test_a_viewer_reads_every_list(viewer, path):
    answer = viewer.get(path)
    assert answer.status_code == 200, answer.text[:2000]


@pytest.mark.parametrize("page", portal._registry.values(), ids=lambda page: page.opts.model_name)
def test_a_list_without_rows_says_what_appears_there_and_how(page):
    """With a query that finds nothing: the tests' database has rows of most kinds."""
    request = RequestFactory().get("/")
    request.user = User(username="sees-nothing", is_superuser=True)
    page = copy(page)
    page.get_queryset = lambda request: page.model.objects.none()
    shown = page.changelist_view(request).render().content.decode()
    assert escape(page.empty) in shown
    assert "yielded" not in shown


@pytest.mark.parametrize("page", portal._registry.values(), ids=lambda page: page.opts.model_name)
def test_a_command_that_makes_a_row_is_there(page):
    for words in re.findall(r"easel ([a-z -]+)", page.empty):
        command = program
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
            assert command is not None, words


def test_a_search_that_finds_nothing_says_so_and_offers_all_rows(viewer, alice):
    shown = viewer.get(f"/admin/jobs/job/?q={uuid.uuid4()}").text
    assert "None of the jobs matches the search and the filters." in shown
    assert 'href="?"' in shown


def heads(page):
    """The links at the top of a page: its list, and the row."""
    return re.findall(r'tracking-tight">([^<]+)</', page)


def test_a_page_is_headed_by_its_list_and_its_row(viewer, alice, submit):
    job = submit(alice)
    assert heads(viewer.get(f"/admin/jobs/job/{job.pk}/change/").text) == ["Jobs", str(job.pk)]
    assert heads(viewer.get(f"/admin/tenants/apikey/{alice.key.pk}/change/").text) == ["API keys", str(alice.key)]
    assert heads(viewer.get("/admin/jobs/job/").text) == ["Jobs"]


def test_a_job_shows_its_story_and_its_cost(viewer, alice, submit, end):
    job = end(submit(alice, prompt="a red circle"))
    page = viewer.get(f"/admin/jobs/job/{job.id}/change/").text
    cost = format_micros(job_costs([job.id])[job.id].cost_micros, "USD")
    assert "a red circle" in page
    assert "attempt 1 dispatched" in page
    assert "USD version 1" in page
    assert page.count(cost) >= 2
    assert "portal-images" in page


def test_a_waiting_job_shows_its_place_and_why_it_waits(viewer, alice, submit):
    page = viewer.get(f"/admin/jobs/job/{submit(alice).id}/change/").text
    assert "Position in the pool" in page
    assert "its pool had no live worker" in page  # the test's pool had one long ago


def test_a_pool_shows_what_its_workers_did_wrong_in_redis(viewer, pool):
    pool_shut_out(pool, PoolFault.Kind.MEMORY, "over <b>80</b> MiB", now=NOW)
    page = viewer.get(f"/admin/catalog/pool/{pool.pk}/change/").text
    assert "too much memory of Redis" in page
    assert "over &lt;b&gt;80&lt;/b&gt; MiB" in page


def test_a_failed_job_shows_why(viewer, alice, submit, end):
    job = end(submit(alice), outcome="failed", error_message="the worker fell over")
    page = viewer.get(f"/admin/jobs/job/{job.id}/change/").text
    assert "worker_error: the worker fell over" in page
    assert "Nothing charged." in page


@pytest.mark.parametrize("what", ["id", "request_id"])
def test_a_job_is_found_by_its_whole_id(viewer, alice, submit, what):
    job = submit(alice)
    other = submit(alice)
    page = viewer.get(f"/admin/jobs/job/?q={getattr(job, what)}&tenant={alice.tenant.slug}").text
    assert str(job.id) in page
    assert (str(other.id) in page) == (what == "request_id")


def test_the_list_of_jobs_is_of_the_tenant_that_was_typed(viewer, alice, bob, submit):
    hers, his = submit(alice), submit(bob)
    page = viewer.get(f"/admin/jobs/job/?tenant={alice.tenant.slug}").text
    assert (str(hers.id) in page, str(his.id) in page) == (True, False)


def test_what_tenants_wrote_is_shown_as_text(viewer, alice, submit):
    hostile = "<script>alert(1)</script>"
    project_create(tenant=alice.tenant, slug="art", labels={"department": hostile}, now=NOW)
    type(alice.tenant).objects.filter(pk=alice.tenant.pk).update(name=hostile)
    job = submit(alice, prompt=hostile, user=hostile, metadata={hostile: hostile})
    audit_record(
        actor="operator:x", action="x.y", subject=hostile, tenant=alice.tenant, details={"a": hostile}, now=NOW
    )
    for path in (
        f"/admin/tenants/tenant/{alice.tenant.pk}/change/",
        f"/admin/tenants/tenant/?q={alice.tenant.slug}",
        f"/admin/jobs/job/{job.id}/change/",
        f"/admin/jobs/job/?tenant={alice.tenant.slug}",
        f"/admin/core/auditevent/?tenant={alice.tenant.slug}",
        "/admin/jobs/job/?tenant=<script>alert(1)</script>",
    ):
        page = viewer.get(path).text
        assert "&lt;script&gt;alert(1)" in page, path
        assert hostile not in page, path


def test_every_kind_of_row_has_a_page(viewer, alice, submit, end, second, plan):
    end(submit(alice))
    rollout = rollout_start(candidate=second, plan=plan, now=NOW)
    rows = [
        alice.tenant,
        alice.key,
        second.model,
        second,
        rollout,
        second.pool,
        PriceBook.objects.order_by("version").first(),
        LedgerAccount.objects.filter(tenant=alice.tenant).first(),
        *Transaction.objects.filter(tenant=alice.tenant),
    ]
    for row in rows:
        path = f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"
        assert viewer.get(path).status_code == 200, path


@pytest.mark.parametrize("path", LISTS)
def test_a_list_asks_a_bounded_number_of_queries(path, alice, submit, end):
    for _ in range(3):
        end(submit(alice))
    few = _queries(path)
    for _ in range(3):
        end(submit(alice))
    assert _queries(path) <= few <= 20


def _queries(path: str) -> int:
    user = User.objects.filter(username="counts").first() or User.objects.create_superuser("counts")
    request = RequestFactory().get(path)
    request.user = user
    page = next(page for model, page in portal._registry.items() if path.endswith(f"/{model._meta.model_name}/"))
    with CaptureQueriesContext(connection) as asked:
        page.changelist_view(request).render()
    return len(asked)


def test_an_unknown_row_sends_back_to_the_overview(viewer):
    assert viewer.get(f"/admin/jobs/job/{uuid.uuid4()}/change/").status_code == 302


def test_an_unknown_page_is_a_page_that_says_so(viewer):
    answer = viewer.get("/admin/nowhere/")
    assert answer.status_code == 404
    assert "There is no such page" in answer.text


def test_times_say_their_zone(viewer, alice):
    assert re.search(r"2026-03-01 12:00:00 UTC", viewer.get(f"/admin/tenants/tenant/{alice.tenant.pk}/change/").text)


def test_style_and_scripts_come_from_here_and_are_cached(browser):
    page = browser.get("/admin/login/").text
    found = re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page)
    assert len(found) > 5
    assert all(path.startswith("/admin/static/") for path in found)
    for path in found:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        again = browser.ask("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("path", ["../settings.py", "%2e%2e/settings.py", "unfold", "nothing.css", "//etc/passwd"])
def test_nothing_else_is_served_as_a_static_file(browser, path):
    assert browser.get(f"/admin/static/{path}").status_code in (404, 302)
