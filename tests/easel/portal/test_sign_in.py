"""Who gets into the portal, and what each role may do there."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from billing.invoices.statements import statement_draft
from billing.ledger.accounts import balances_by_kind
from billing.models import PriceBook
from core.models import AuditEvent
from easel.actions.roles import OperatorExists, operator_create, operator_disable
from easel.batches.models import Batch, File
from easel.catalog.models import Adapter
from easel.portal.pages import Page
from easel.portal.urls import portal
from easel.serving.models import Alias
from easel.serving.rollouts import rollout_start
from easel.webhooks.endpoints import endpoint_create
from easel.webhooks.outbox import webhook_test
from tenants.block_lists import block_list_add
from tenants.models import ApiKey
from tests.conftest import NOW
from tests.easel.portal.conftest import PASSWORD, Browser
from tests.easel.portal.test_pages import LISTS


def new_user(role: str = "operator") -> str:
    return operator_create(name=f"u-{uuid.uuid4().hex[:12]}", password=PASSWORD, role=role).username


@pytest.mark.parametrize("path", ["/admin/", *LISTS, "/admin/tenants/tenant/action/tenant.create", "/admin/nowhere/"])
def test_a_stranger_is_sent_to_sign_in(browser, path):
    answer = browser.get(path)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("/admin/login/")


def test_signing_in_leads_to_where_one_wanted_to_go(browser):
    name = new_user()
    assert browser.sign_in(name).headers["location"] == "/admin/"
    other = Browser()
    asked = other.get("/admin/jobs/job/").headers["location"]
    other.get(asked)
    assert other.post(asked, username=name, password=PASSWORD).headers["location"] == "/admin/jobs/job/"
    assert (
        other.post("/admin/login/?next=https://evil.test/", username=name, password=PASSWORD)
        .headers["location"]
        .startswith("/admin/")
    )


def test_an_api_key_opens_no_page(browser, alice):
    answer = browser.ask("GET", "/admin/", headers={"Authorization": f"Bearer {alice.secret}"})
    assert answer.status_code == 302


def test_signing_in_is_on_record(operator):
    assert AuditEvent.objects.filter(actor=f"operator:{operator.name}", action="operator.sign_in").count() == 1


def test_a_session_opens_nothing_of_the_api(operator):
    assert operator.get("/v1/jobs").status_code == 401


def test_cookies_are_for_the_portal_alone(operator):
    assert {cookie.path for cookie in operator.cookies.jar} == {"/admin/"}


def test_signing_out_ends_the_session(operator):
    before = Browser()
    before.cookies.update(operator.cookies)
    operator.post("/admin/logout/")
    assert before.get("/admin/").status_code == 302


def test_a_disabled_user_is_out_at_once(operator):
    operator_disable(name=operator.name)
    assert operator.get("/admin/").status_code == 302


@pytest.mark.parametrize("name", ["", "a" * 5000, "<script>alert(1)</script>", "ünïcode", "' OR 1=1 --"])
def test_an_odd_name_does_not_sign_in(browser, name):
    answer = browser.sign_in(name)
    assert answer.status_code == 200
    assert "<script>alert(1)" not in answer.text


@pytest.mark.parametrize("password", ["", "short", "password1234"])
def test_a_weak_password_makes_no_user(password):
    name = f"u-{uuid.uuid4().hex[:12]}"
    with pytest.raises(ValidationError):
        operator_create(name=name, password=password, role="viewer")
    assert not User.objects.filter(username=name).exists()


def test_a_name_has_one_user():
    name = new_user()
    with pytest.raises(OperatorExists):
        operator_create(name=name, password=PASSWORD, role="viewer")


def test_a_post_without_the_forms_token_changes_nothing(operator, alice):
    path = f"/admin/tenants/tenant/{alice.tenant.pk}/action/tenant.suspend"
    assert operator.ask("POST", path).status_code == 403
    alice.tenant.refresh_from_db()
    assert alice.tenant.suspended_at is None


def test_opening_an_action_changes_nothing(operator, alice):
    assert operator.get(f"/admin/tenants/tenant/{alice.tenant.pk}/action/tenant.suspend").status_code == 200
    alice.tenant.refresh_from_db()
    assert alice.tenant.suspended_at is None


ALL_ACTIONS = sorted(
    {(model._meta.label_lower, action.name) for model, page in portal._registry.items() for action in page.row_actions}
)


def batch_of(key: ApiKey) -> Batch:
    """A batch in progress."""
    owner = {"tenant": key.tenant, "created_at": NOW, "expires_at": NOW + timedelta(days=1)}
    file = File.objects.create(purpose=File.Purpose.BATCH, filename="a.jsonl", storage_key="a/b", **owner)
    terms = {"endpoint": "/v1/images/generations", "window_hours": 24, "status": Batch.Status.IN_PROGRESS}
    return Batch.objects.create(api_key=key, input_file=file, **terms, **owner)


@pytest.fixture
def rows(alice, second, plan, submit):
    """A row of each table that has actions."""
    adapter = Adapter.objects.create(tenant=alice.tenant, model=second.model, name="outline", created_at=NOW)
    rollout = rollout_start(candidate=second, plan=plan, now=NOW)
    newest = PriceBook.objects.order_by("-version").first()
    entry = block_list_add(tenant=alice.tenant, kind="phrase", pattern="word", reason="", now=NOW)
    rolled = (second.pool, second.model, second, rollout)
    url = "https://hooks.example/easel"
    hook, _ = endpoint_create(tenant=alice.tenant, url=url, events=(), endpoint_id=uuid.uuid4(), now=NOW)
    delivery = webhook_test(hook, now=NOW)
    month = statement_draft(alice.tenant, now=NOW + timedelta(days=40))
    alias = Alias.objects.create(name=f"alias-{uuid.uuid4().hex[:12]}", model=second.model, created_at=NOW)
    more = (alias, batch_of(alice.key))
    found = (alice.tenant, alice.key, adapter, *rolled, submit(alice), newest, entry, hook, delivery, month, *more)
    return {row._meta.label_lower: row for row in found}


@pytest.mark.parametrize(("table", "name"), ALL_ACTIONS)
def test_a_viewer_does_nothing(viewer, rows, table, name):
    row = rows[table]
    page = f"/admin/{table.replace('.', '/')}/{row.pk}/change/"
    path = f"/admin/{table.replace('.', '/')}/{row.pk}/action/{name}"
    assert path not in viewer.get(page).text
    assert viewer.get(path).status_code == 403
    answer = viewer.post(path)
    assert answer.status_code == 403
    assert "Your role does not allow this" in answer.text
    assert not AuditEvent.objects.filter(actor=f"operator:{viewer.name}").exclude(action="operator.sign_in").exists()


def test_finance_gives_credit_but_suspends_nobody(finance, alice):
    tenant = f"/admin/tenants/tenant/{alice.tenant.pk}/action"
    assert finance.fill_in(f"{tenant}/credit.grant", amount="1", reason="r").status_code == 302
    assert balances_by_kind(alice.tenant)["credit"] == 11_000_000
    assert finance.post(f"{tenant}/tenant.suspend").status_code == 403


@pytest.mark.parametrize(("model", "page"), portal._registry.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_not_even_a_superuser_edits_adds_or_deletes_rows(model, page, browser):
    assert isinstance(page, Page)
    user = User.objects.create_superuser(f"root-{uuid.uuid4().hex[:10]}", password=PASSWORD)
    browser.sign_in(user.username)
    base = f"/admin/{model._meta.app_label}/{model._meta.model_name}"
    assert browser.get(f"{base}/add/").status_code == 403
    row = model._default_manager.first()
    if row is not None:
        assert browser.post(f"{base}/{row.pk}/change/", name="x").status_code == 403
        assert browser.get(f"{base}/{row.pk}/delete/").status_code == 403
        assert browser.post(f"{base}/{row.pk}/delete/", post="yes").status_code == 403
        browser.post(f"{base}/", action="delete_selected", _selected_action=str(row.pk))
        assert model._default_manager.filter(pk=row.pk).exists()
