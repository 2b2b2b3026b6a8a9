"""What operators do in the portal: what it changes, that it is on record, and that twice is once."""

import asyncio
import re
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.budgets.budgets import budgets_of
from billing.ledger.accounts import balances_by_kind
from billing.models import Entry, PriceBook, Transaction
from billing.pricing.price_books import price_book_seed
from core import clock
from core.errors import DomainError
from core.models import AuditEvent
from easel.api.quota import quota_json
from easel.catalog.models import Adapter
from easel.jobs.budgets import budget_set
from easel.jobs.models import State
from easel.seed import PRICES
from easel.serving.models import Rollout, Route
from easel.serving.rollouts import rollout_start
from tenants.keys import key_authenticate
from tenants.models import ApiKey, Tenant
from tenants.quotas import quota_set
from tests.conftest import NOW, PEPPER
from tests.easel.portal.conftest import hidden_fields


def events(tenant: Tenant | None, action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(tenant=tenant, action=action))


def action(row, name: str) -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/action/{name}"


def shown_secret(page: str) -> str:
    return re.search(r'id="secret">([^<]+)<', page)[1]


def refused_with(secret: str) -> str:
    with pytest.raises(DomainError) as error:
        key_authenticate(secret, pepper=PEPPER, now=NOW)
    return error.value.code


def test_a_suspended_tenants_key_is_refused_until_it_is_resumed(operator, alice):
    assert operator.post(action(alice.tenant, "tenant.suspend")).status_code == 302
    assert refused_with(alice.secret) == "account_suspended"
    operator.post(action(alice.tenant, "tenant.resume"))
    assert key_authenticate(alice.secret, pepper=PEPPER, now=NOW)
    assert [event.actor for event in events(alice.tenant, "tenant.suspend")] == [f"operator:{operator.name}"]
    assert len(events(alice.tenant, "tenant.resume")) == 1


def test_suspending_twice_is_one_event(operator, alice):
    for _ in range(2):
        operator.post(action(alice.tenant, "tenant.suspend"))
    assert len(events(alice.tenant, "tenant.suspend")) == 1


def test_a_tenant_is_made_with_its_first_project(operator):
    slug = f"new-{uuid.uuid4().hex[:10]}"
    answer = operator.fill_in("/admin/tenants/tenant/action/tenant.create", slug=slug, name="New & Co")
    tenant = Tenant.objects.get(slug=slug)
    assert answer.headers["location"] == f"/admin/tenants/tenant/{tenant.pk}/change/"
    assert [project.slug for project in tenant.projects.all()] == ["default"]
    assert len(events(tenant, "tenant.create")) == 1


@pytest.mark.parametrize("slug", ["", "Has Spaces", "-x", "x" * 41, "ü", "<b>"])
def test_a_tenant_without_a_usable_name_is_not_made(operator, slug):
    answer = operator.fill_in("/admin/tenants/tenant/action/tenant.create", slug=slug)
    assert answer.status_code == 200
    assert "<b>" not in answer.text
    assert not Tenant.objects.filter(slug=slug).exists()


def test_a_taken_name_is_said_at_its_field(operator, alice):
    answer = operator.fill_in("/admin/tenants/tenant/action/tenant.create", slug=alice.tenant.slug)
    assert "This name is taken" in answer.text


def test_a_form_sent_twice_grants_once(finance, customer):
    alice = customer(credit="0")
    page = finance.get(action(alice.tenant, "credit.grant")).text
    token = hidden_fields(page)["token"]
    for _ in range(2):
        finance.post(action(alice.tenant, "credit.grant"), amount="12.345678", reason="invoice 7", token=token)
    assert balances_by_kind(alice.tenant)["credit"] == 12_345_678
    assert Transaction.objects.get(tenant=alice.tenant, kind="grant").description == "invoice 7"
    assert [event.details for event in events(alice.tenant, "credit.grant")] == [
        {
            "amount": "12.345678",
            "currency": "USD",
            "category": "paid",
            "priority": 50,
            "expires_at": None,
            "reason": "invoice 7",
        }
    ]


def test_two_forms_at_once_with_one_token_grant_once(finance, customer):
    alice = customer(credit="0")
    fields = {
        "csrfmiddlewaretoken": finance.cookies["easel_csrf"],
        "amount": "5",
        "reason": "r",
        "token": str(uuid.uuid4()),
    }

    async def both():
        return await asyncio.gather(
            *(finance._ask("POST", action(alice.tenant, "credit.grant"), data=fields) for _ in range(4))
        )

    assert {answer.status_code for answer in asyncio.run(both())} == {302}
    assert balances_by_kind(alice.tenant)["credit"] == 5_000_000
    assert len(events(alice.tenant, "credit.grant")) == 1


@pytest.mark.parametrize("amount", ["0", "-1", "1e30", "nan", "0.0000001", "", "ten", "1,000"])
def test_no_odd_amount_is_granted(finance, alice, amount):
    answer = finance.fill_in(action(alice.tenant, "credit.grant"), amount=amount, reason="r")
    assert answer.status_code == 200
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


def test_a_key_is_made_and_shown_once(operator, alice):
    page = operator.get(action(alice.tenant, "key.create")).text
    fields = {**hidden_fields(page), "project": str(alice.project.pk), "scopes": ["generate"], "name": "site"}
    shown = operator.post(action(alice.tenant, "key.create"), **fields)
    key = ApiKey.objects.get(tenant=alice.tenant, name="site")
    secret = shown_secret(shown.text)
    assert key_authenticate(secret, pepper=PEPPER, now=NOW).scopes == ["generate"]
    assert "no-store" in shown.headers["cache-control"]
    assert secret not in operator.get(f"/admin/tenants/apikey/{key.pk}/change/").text
    again = operator.post(action(alice.tenant, "key.create"), **fields)
    assert "was sent before" in again.text
    assert ApiKey.objects.filter(tenant=alice.tenant, name="site").count() == 1
    assert secret not in str([event.details for event in events(alice.tenant, "key.create")])


def test_a_key_is_not_made_for_another_tenants_project(operator, alice, bob):
    answer = operator.fill_in(action(alice.tenant, "key.create"), project=str(bob.project.pk), scopes="generate")
    assert answer.status_code == 200
    assert ApiKey.objects.filter(tenant=alice.tenant).count() == 1


def test_a_rotated_key_ends_and_its_successor_works(operator, alice):
    shown = operator.post(action(alice.key, "key.rotate")).text
    secret = shown_secret(shown)
    assert refused_with(alice.secret) == "invalid_api_key"
    assert key_authenticate(secret, pepper=PEPPER, now=NOW).project == alice.project
    assert len(events(alice.tenant, "key.rotate")) == 1


def test_a_rotated_keys_budget_and_units_of_the_month_are_its_successors(operator, alice, submit):
    now = clock.now()
    limits = {"image_units_per_month": 1, "requests_per_minute": 60}
    quota_set(tenant=alice.tenant, api_key=alice.key, limits=limits, now=now)
    made = budget_set(tenant=alice.tenant, api_key=alice.key, amount_micros=10**6, hard_stop=True, now=now)
    submit(alice, now=now)
    operator.post(action(alice.key, "key.rotate"))
    successor = ApiKey.objects.get(predecessor=alice.key)
    [budget] = budgets_of(alice.tenant, now=now)
    assert (budget.budget, budget.budget.api_key) == (made, successor)
    assert budget.held_micros == balances_by_kind(alice.tenant)["held"] > 0
    used = {(row["limit"], row["of"]): row["used"] for row in quota_json(successor, now=now)["data"]}
    assert used["image_units_per_month", "api_key"] == 0.25


def test_a_revoked_key_is_refused(operator, alice):
    operator.post(action(alice.key, "key.revoke"))
    assert refused_with(alice.secret) == "invalid_api_key"
    assert len(events(alice.tenant, "key.revoke")) == 1


def test_a_project_is_made_with_its_labels(operator, alice):
    operator.fill_in(
        action(alice.tenant, "project.create"), slug="spring", labels="department = design\nregion=eu=west\n"
    )
    assert alice.tenant.projects.get(slug="spring").labels == {"department": "design", "region": "eu=west"}
    assert len(events(alice.tenant, "project.create")) == 1


def test_an_adapter_is_retired(operator, alice, version):
    adapter = Adapter.objects.create(tenant=alice.tenant, model=version.model, name="outline", created_at=NOW)
    operator.post(action(adapter, "adapter.retire"))
    adapter.refresh_from_db()
    assert adapter.retired_at is not None
    assert len(events(alice.tenant, "adapter.retire")) == 1


@pytest.mark.parametrize(("name", "state"), [("rollout.roll_back", "rolled_back"), ("rollout.promote", "promoted")])
def test_a_canary_is_ended_by_one_click(operator, version, second, plan, name, state):
    rollout = rollout_start(candidate=second, plan=plan, now=NOW)
    assert operator.post(action(rollout, name)).status_code == 302
    rollout.refresh_from_db()
    winner = second if state == "promoted" else version
    assert rollout.state == state
    assert [(route.version, route.weight) for route in Route.objects.filter(model=version.model)] == [(winner, 100)]
    assert AuditEvent.objects.filter(action=name, subject=second.label).count() == 1
    operator.post(action(rollout, name))
    assert AuditEvent.objects.filter(action=name, subject=second.label).count() == 1


def test_a_canary_is_started_with_a_plan(operator, second):
    answer = operator.fill_in(
        action(second, "rollout.start"),
        stages="10, 100",
        stage_seconds=60,
        jobs_min=3,
        error_rate_max="0.1",
        p95_ratio_max="2",
    )
    rollout = Rollout.objects.get(candidate=second)
    assert answer.headers["location"] == f"/admin/serving/rollout/{rollout.pk}/change/"
    assert (rollout.stages, rollout.jobs_min) == ([10, 100], 3)


def test_a_canarys_form_begins_with_the_usual_plan(operator, second):
    page = operator.get(action(second, "rollout.start")).text
    for name, usual in {"stages": "5, 25, 50, 100", "stage_seconds": "600", "jobs_min": "20"}.items():
        assert re.search(f'name="{name}" value="{usual}"', page)


def test_weights_that_do_not_sum_to_100_change_nothing(operator, version, second):
    answer = operator.fill_in(action(version.model, "routes.set"), version_1="50", version_2="40")
    assert "sum to 90" in answer.text
    assert Route.objects.get(model=version.model).weight == 100


def test_callers_are_shared_out_by_weight(operator, version, second):
    operator.fill_in(action(version.model, "routes.set"), version_1="30", version_2="70")
    assert sorted(Route.objects.filter(model=version.model).values_list("version__number", "weight")) == [
        (1, 30),
        (2, 70),
    ]


def test_a_pools_cost_is_set(operator, pool):
    operator.fill_in(action(pool, "pool.set_cost"), gpu_hour_cost="2.5")
    pool.refresh_from_db()
    assert pool.gpu_hour_cost == Decimal("2.5")
    assert AuditEvent.objects.filter(action="pool.set_cost", subject=pool.slug).count() == 1


def test_a_model_that_nothing_serves_is_not_offered_as_the_default(operator, version):
    path = action(version.model, "model.make_default")
    page = f"/admin/catalog/model/{version.model.pk}/change/"
    assert path in operator.get(page).text
    Route.objects.filter(model=version.model).delete()
    assert path not in operator.get(page).text
    operator.post(path)
    version.model.refresh_from_db()
    assert not version.model.is_default


def test_a_waiting_job_is_canceled_and_its_hold_goes_back(operator, alice, submit):
    job = submit(alice)
    operator.post(action(job, "job.cancel"))
    job.refresh_from_db()
    assert job.state == State.CANCELED
    assert balances_by_kind(alice.tenant)["held"] == 0
    assert len(events(alice.tenant, "job.cancel")) == 1


@pytest.fixture
def book():
    """The newest price book of a currency of this test alone."""
    currency = "".join(chr(65 + int(digit, 16)) for digit in uuid.uuid4().hex[:3])
    return price_book_seed(currency=currency, version=1, rates=PRICES, effective_at=NOW, now=NOW)


def prices_of(book: PriceBook, **changed: str) -> dict[str, str]:
    fields = {f"rate_{rate.pk}": f"{rate.unit_price.normalize():f}" for rate in book.rates.all()}
    soon = datetime.now(UTC) + timedelta(days=1)
    return {**fields, "effective_at": f"{soon:%Y-%m-%dT%H:%M}", "batch_discount": "50", **changed}


def test_new_prices_are_a_new_book_and_the_old_one_stays(finance, book):
    rate = book.rates.get(meter="request")
    finance.fill_in(action(book, "price_book.publish"), **prices_of(book, **{f"rate_{rate.pk}": "0.75"}))
    new = PriceBook.objects.get(currency=book.currency, version=2)
    assert new.rates.get(meter="request").unit_price == Decimal("0.75")
    assert new.batch_discount == Decimal("0.5")
    assert new.rates.count() == book.rates.count()
    assert book.rates.get(meter="request").unit_price == rate.unit_price
    assert AuditEvent.objects.get(action="price_book.publish", subject=str(new)).details["batch_discount"] == "0.5"


def test_prices_published_twice_are_one_book(finance, book):
    fields = {**prices_of(book), "version": "2"}
    for _ in range(2):
        finance.post(action(book, "price_book.publish"), **fields)
    assert "not possible as things are now" in finance.get(f"/admin/billing/pricebook/{book.pk}/change/").text
    assert PriceBook.objects.filter(currency=book.currency).count() == 2


@pytest.mark.parametrize("when", ["2020-01-01T00:00", "2026-03-01T12:00", "soon", ""])
def test_prices_are_not_published_for_the_past(finance, book, when):
    answer = finance.fill_in(action(book, "price_book.publish"), **prices_of(book, effective_at=when))
    assert answer.status_code == 200
    assert PriceBook.objects.filter(currency=book.currency).count() == 1


def test_an_act_that_fails_leaves_no_record(operator, version):
    before = AuditEvent.objects.filter(action="rollout.start").count()
    operator.fill_in(action(version, "rollout.start"))  # it serves its model already
    assert AuditEvent.objects.filter(action="rollout.start").count() == before
    assert not Rollout.objects.filter(candidate=version).exists()


def test_every_grant_of_the_portal_balances(finance, customer):
    alice = customer(credit="0")
    finance.fill_in(action(alice.tenant, "credit.grant"), amount="3", reason="r")
    entries = Entry.objects.filter(transaction__tenant=alice.tenant)
    assert sum(entry.amount_micros for entry in entries) == 0


def test_a_tenant_is_erased_once_its_name_is_typed(operator, alice):
    wrong = operator.fill_in(action(alice.tenant, "tenant.erase"), slug="alice")
    assert "not the tenant&#x27;s name" in wrong.text
    assert operator.fill_in(action(alice.tenant, "tenant.erase"), slug=alice.tenant.slug).status_code == 302
    assert refused_with(alice.secret) == "invalid_api_key"
    page = operator.get(f"/admin/tenants/tenant/{alice.tenant.pk}/change/").text
    assert "being erased" in page
    assert operator.post(action(alice.tenant, "tenant.resume")).status_code == 302
    alice.tenant.refresh_from_db()
    assert alice.tenant.suspended_at is not None
    assert [event.actor for event in events(alice.tenant, "tenant.erase")] == [f"operator:{operator.name}"]


def test_finance_erases_nobody(finance, alice):
    assert finance.get(action(alice.tenant, "tenant.erase")).status_code == 403
