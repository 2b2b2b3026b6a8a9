"""Quotas and block lists, as operators set them."""

import uuid
from decimal import Decimal

import pytest

from core.models import AuditEvent
from easel.portal.limit_pages import quotas_section
from tenants.models import BlockListEntry, Quota
from tests.easel.portal.test_actions import action


def limits(row, **filters):
    quota = Quota.objects.get(**filters)
    return quota.requests_per_minute, quota.image_units_per_month, quota.pixels_max


def test_an_accounts_limits_are_set_and_an_empty_one_is_none(operator, alice):
    operator.fill_in(
        action(alice.tenant, "quota.set"), requests_per_minute="60", image_units_per_month="2.5", pixels_max=""
    )
    assert limits(alice.tenant, tenant=alice.tenant, api_key=None) == (60, Decimal("2.5"), None)
    event = AuditEvent.objects.get(tenant=alice.tenant, action="quota.set")
    assert (event.actor, event.details["requests_per_minute"]) == (f"operator:{operator.name}", "60")


def test_a_keys_limits_are_its_own(operator, alice):
    operator.fill_in(action(alice.key, "quota.set"), requests_per_minute="0")
    assert Quota.objects.get(api_key=alice.key).requests_per_minute == 0
    assert Quota.objects.get(tenant=alice.tenant, api_key=None).requests_per_minute is None


def test_the_form_begins_with_the_limits_as_they_are_and_the_page_shows_them(operator, alice):
    Quota.objects.filter(tenant=alice.tenant).update(steps_max=17)
    assert 'value="17"' in operator.get(action(alice.tenant, "quota.set")).text
    assert "1,835,008" in operator.get(f"/admin/tenants/tenant/{alice.tenant.pk}/change/").text


def test_every_limit_has_its_column(alice):
    section = quotas_section(alice.tenant)
    assert {len(row) for row in section.rows} == {len(section.headers)}


def test_a_negative_limit_is_refused_and_nothing_changes(operator, alice):
    assert operator.fill_in(action(alice.tenant, "quota.set"), requests_per_minute="-1").status_code == 200
    assert Quota.objects.get(tenant=alice.tenant).requests_per_minute is None


def test_a_viewer_sets_no_limits(viewer, alice):
    assert viewer.post(action(alice.tenant, "quota.set")).status_code == 403


def test_a_phrase_is_blocked_and_unblocked_on_record(operator, alice):
    phrase = f"phrase {uuid.uuid4().hex}"
    operator.fill_in(
        "/admin/tenants/blocklistentry/action/block_list.add", kind="phrase", pattern=phrase, tenant=alice.tenant.slug
    )
    entry = BlockListEntry.objects.get(pattern=phrase, tenant=alice.tenant)
    gone = operator.post(action(entry, "block_list.remove"))
    assert (gone.status_code, gone.headers["location"]) == (302, "/admin/tenants/blocklistentry/")
    assert not BlockListEntry.objects.filter(pattern=phrase).exists()
    events = AuditEvent.objects.filter(tenant=alice.tenant, action__startswith="block_list.").order_by("recorded_at")
    assert [event.action for event in events] == ["block_list.add", "block_list.remove"]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "regex", "pattern": "(unclosed"},
        {"kind": "regex", "pattern": "(?=look)"},
        {"kind": "phrase", "pattern": "word", "tenant": "no-such-tenant"},
    ],
)
def test_an_entry_that_can_not_be_is_refused_with_its_reason(operator, fields):
    before = BlockListEntry.objects.count()
    answer = operator.fill_in("/admin/tenants/blocklistentry/action/block_list.add", **fields)
    assert answer.status_code == 200
    assert "RE2" in answer.text or "no such tenant" in answer.text
    assert BlockListEntry.objects.count() == before


def test_days_of_retention_are_set_and_shown(operator, alice):
    answer = operator.fill_in(action(alice.tenant, "retention.set"), output_days="3", job_days="")
    assert answer.status_code == 302
    alice.tenant.refresh_from_db()
    assert (alice.tenant.output_days, alice.tenant.job_days) == (3, None)
    page = operator.get(f"/admin/tenants/tenant/{alice.tenant.pk}/change/").text
    assert "3 days" in page
    assert "90 days" in page
    (event,) = AuditEvent.objects.filter(tenant=alice.tenant, action="retention.set")
    assert event.details == {"output_days": 3, "job_days": None}


def test_images_are_not_retained_longer_than_their_jobs(operator, alice):
    answer = operator.fill_in(action(alice.tenant, "retention.set"), output_days="91")
    assert "no longer than their jobs" in answer.text
