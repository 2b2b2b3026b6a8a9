"""What stops a batch for a while, what it shows meanwhile, and how it goes on; and what ends it instead."""

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.conf import settings

from billing.ledger.postings import credit_grant
from core.errors import declared_errors
from easel.batches import feeding
from easel.batches.feeding import RETRY_MAX
from easel.batches.models import Batch, Line
from easel.catalog.models import Worker
from easel.jobs.budgets import budget_set
from easel.jobs.models import Job
from easel.serving.models import Route
from tenants.keys import key_issue, key_revoke, key_rotate
from tenants.models import ApiKey, Quota, Tenant
from tenants.quotas import quota_set
from tests.conftest import NOW, PEPPER
from tests.easel.batches.conftest import read, retrieve, sdk, turn, work
from tests.easel.batches.test_batches import jobs_of, line_of


def after(**time):
    return datetime.now(UTC) + timedelta(**time)


def waits_for(customer, made):
    found = retrieve(customer, made.id)
    return found.status, found.waiting_for and found.waiting_for["code"]


def lines_of(made):
    return Line.objects.filter(batch=uuid.UUID(made.id.removeprefix("batch_")))


def test_a_batch_whose_credit_is_spent_waits_and_goes_on_once_some_is_added(customer, live, line, batch):
    poor = customer(name="poor", credit="0.002")  # one image may cost 0.0018
    made = batch(poor, [line("a"), line("b"), line("c")])
    turn()
    work(live)
    assert waits_for(poor, made) == ("in_progress", "insufficient_quota")
    assert "add credit" in retrieve(poor, made.id).waiting_for["message"]
    credit_grant(tenant=poor.tenant, amount_micros=1_000_000, reference=uuid.uuid4(), now=NOW)
    turn(after(minutes=1))
    assert waits_for(poor, made) == ("in_progress", None)
    work(live)
    turn()
    done = retrieve(poor, made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 3, 0)


def test_a_batch_that_waits_until_its_deadline_expires(customer, live, line, batch):
    poor = customer(name="poor", credit="0.002")
    made = batch(poor, [line("a"), line("b")], completion_window="1h")
    turn()
    work(live)
    turn(after(hours=1))
    done = retrieve(poor, made.id)
    assert (done.status, done.request_counts.completed, done.waiting_for) == ("expired", 1, None)
    assert [one["error"]["code"] for one in read(poor, done.error_file_id)] == ["batch_expired"]


def set_units(customer, units):
    quota_set(tenant=customer.tenant, api_key=None, limits={"image_units_per_month": units}, now=NOW)


def set_budget(customer, amount_micros):
    budget_set(tenant=customer.tenant, amount_micros=amount_micros, hard_stop=True, now=datetime.now(UTC))


def set_suspended(customer, since):
    Tenant.objects.filter(pk=customer.tenant.pk).update(suspended_at=since)


@pytest.mark.parametrize(
    ("stop", "go_on", "code"),
    [
        # A line of the test's model is a quarter of an image unit, and may cost 1800 micros.
        (lambda one: set_units(one, Decimal("0.25")), lambda one: set_units(one, 100), "image_quota_exceeded"),
        (lambda one: set_budget(one, 2000), lambda one: set_budget(one, 2_000_000), "budget_exceeded"),
    ],
)
def test_a_limit_that_may_be_raised_stops_a_batch_until_it_is(alice, live, line, batch, stop, go_on, code):
    stop(alice)
    made = batch(alice, [line("a"), line("b")])
    turn()
    assert jobs_of(alice).count() == 1
    assert waits_for(alice, made) == ("in_progress", code)
    go_on(alice)
    turn(after(minutes=1))
    assert jobs_of(alice).count() == 2
    assert waits_for(alice, made) == ("in_progress", None)


def test_the_lines_of_a_suspended_tenant_wait_until_it_is_resumed(alice, live, line, batch):
    made = batch(alice, [line("a")])
    set_suspended(alice, NOW)
    turn()
    assert line_of(made, "a").state == "waiting"
    set_suspended(alice, None)
    assert waits_for(alice, made) == ("in_progress", "account_suspended")
    turn(after(minutes=1))
    assert line_of(made, "a").state == "begun"


def test_a_line_that_no_month_has_room_for_fails_and_the_next_is_tried(alice, live, line, batch):
    set_units(alice, Decimal("0.25"))
    made = batch(alice, [line("two", body={"n": 2}), line("one")])
    turn()
    assert line_of(made, "two").error["code"] == "image_quota_exceeded"
    assert line_of(made, "one").state == "begun"


def test_a_model_that_is_gone_fails_its_line_at_once(alice, live, line, batch, version):
    made = batch(alice, [line("a")])
    Route.objects.filter(model=version.model).delete()
    turn()
    assert line_of(made, "a").error["code"] == "model_not_found"


def test_a_failure_of_the_platform_stops_one_batch_and_not_the_others(alice, bob, live, line, batch, monkeypatch):
    hers, his = batch(alice, [line("a"), line("b")]), batch(bob, [line("a")])
    begin = feeding.line_begin

    def storage_is_away_for_alice(one, **terms):
        if one.batch.tenant_id == alice.tenant.pk:
            raise ConnectionError("the object store is away")
        return begin(one, **terms)

    monkeypatch.setattr(feeding, "line_begin", storage_is_away_for_alice)
    turn()
    assert waits_for(alice, hers) == ("in_progress", "line_delayed")
    assert waits_for(bob, his) == ("in_progress", None)
    assert line_of(his, "a").state == "begun"
    monkeypatch.undo()
    turn(after(minutes=1))
    assert set(lines_of(hers).values_list("state", flat=True)) == {"begun"}


def test_a_batch_without_a_live_worker_says_so(alice, live, line, batch):
    made = batch(alice, [line("a")])
    assert waits_for(alice, made) == ("in_progress", None)
    Worker.objects.filter(pool=live).update(beat_at=NOW)
    assert waits_for(alice, made) == ("in_progress", "no_live_worker")
    assert [one.waiting_for["code"] for one in sdk(alice, lambda client: client.batches.list()).data] == [
        "no_live_worker"
    ]


def test_a_batch_that_waits_leaves_the_pool_to_others(customer, bob, live, line, batch):
    poor = customer(name="poor", credit="0")
    batch(poor, [line(str(i)) for i in range(9)])
    batch(bob, [line(str(i)) for i in range(9)])
    turn()
    turn()
    assert jobs_of(bob).count() == 8  # all that the pool has room for


def test_a_batch_that_waits_is_tried_ever_less_often(customer, live, line, batch, monkeypatch):
    poor = customer(name="poor", credit="0")
    made = batch(poor, [line("a"), line("b")])
    tried = []
    begin = feeding.line_begin

    def noted(one, **terms):
        if one.batch.tenant_id == poor.tenant.pk:
            tried.append(terms["now"])
        return begin(one, **terms)

    monkeypatch.setattr(feeding, "line_begin", noted)
    began = datetime.now(UTC)
    for second in range(0, 600, 5):
        feeding.lines_feed(config=settings.EASEL, now=began + timedelta(seconds=second))
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(tried)]
    assert pauses[:5] == [5, 5, 10, 20, 40]
    assert set(pauses[5:]) == {RETRY_MAX.total_seconds()}
    assert waits_for(poor, made) == ("in_progress", "insufficient_quota")


def test_a_refusal_passes_soon_or_later_or_never():
    both = [error.__name__ for error in declared_errors() if error.retryable and error.passes_later]
    assert both == []


def test_a_batch_goes_on_under_the_key_that_its_key_is_rotated_to(alice, live, line, batch):
    quota_set(tenant=alice.tenant, api_key=alice.key, limits={"pixels_max": 512 * 512}, now=NOW)
    made = batch(alice, [line(str(i)) for i in range(12)])
    turn()
    work(live)
    key = alice.key
    for _ in range(2):
        key, _ = key_rotate(key=key, pepper=PEPPER, now=datetime.now(UTC))
    for _ in range(4):
        turn()
        work(live)
    turn()
    done = Batch.objects.get(tenant=alice.tenant)
    assert (done.status, done.lines_completed, done.lines_failed) == ("completed", 12, 0)
    last = Job.objects.get(pk=line_of(made, "11").pk)
    assert (last.api_key, last.project) == (key, alice.project)
    assert Quota.objects.get(tenant=alice.tenant, api_key__isnull=False).api_key == key


def test_a_revoked_key_fails_what_is_left_of_its_batches_at_once(alice, live, line, batch):
    made = batch(alice, [line(str(i)) for i in range(10)])
    turn()
    work(live)  # four of eight
    _, secret = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    key_revoke(key_id=alice.key.key_id, now=datetime.now(UTC))
    turn()
    left = lines_of(made).filter(state="failed")
    assert [(one.custom_id, one.error["code"]) for one in left.order_by("number")] == [
        ("8", "invalid_api_key"),
        ("9", "invalid_api_key"),
    ]
    work(live)  # what was queued by then is worked off
    turn()
    done = retrieve(dataclasses.replace(alice, secret=secret), made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 8, 2)


def test_an_expired_key_fails_what_is_left_of_its_batches_at_once(alice, live, line, batch):
    made = batch(alice, [line("a")])
    ApiKey.objects.filter(pk=alice.key.pk).update(expires_at=datetime.now(UTC))
    assert feeding.lines_feed(config=settings.EASEL, now=datetime.now(UTC)) == 0
    turn()
    assert [(one.state, one.error["code"]) for one in lines_of(made)] == [("failed", "key_expired")]
    assert not jobs_of(alice).exists()


def test_a_key_that_is_revoked_between_two_looks_makes_no_job(alice, live, line, batch):
    made = batch(alice, [line("a")])
    key_revoke(key_id=alice.key.key_id, now=datetime.now(UTC))
    assert feeding.lines_feed(config=settings.EASEL, now=datetime.now(UTC)) == 0
    assert line_of(made, "a").state == "waiting"
    assert not jobs_of(alice).exists()
