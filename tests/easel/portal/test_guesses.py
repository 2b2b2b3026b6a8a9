"""Guesses at passwords and codes: slow for who guesses, and nobody else is shut out."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import User
from redis.exceptions import RedisError

from easel.actions.roles import operator_create
from easel.portal import guesses
from easel.portal.second_factor import (
    STEP_SECONDS,
    code_at,
    second_factor_begin,
    second_factor_confirm,
    second_factor_remove,
    second_factor_use,
)
from tests.conftest import NOW
from tests.easel.portal.conftest import PASSWORD, Browser

TOO_MANY = "Too many wrong passwords"


@pytest.fixture
def user() -> User:
    return operator_create(name=f"u-{uuid.uuid4().hex[:12]}", password=PASSWORD, role="operator")


@pytest.fixture
def address():
    """A function that makes an address that nobody guessed from."""
    return lambda: f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"


def confirmed(user, *, now=NOW):
    """The user's factor in use, and its recovery codes."""
    factor = second_factor_begin(user, now=now)
    return factor, second_factor_confirm(user, code_at(factor, now=now), now=now)


def test_guesses_at_a_name_are_bounded_by_address(user, address):
    browser = Browser(address())
    for _ in range(guesses.PAIR_MAX):
        assert TOO_MANY not in browser.sign_in(user.username, "wrong password").text
    assert TOO_MANY in browser.sign_in(user.username).text


def test_guesses_of_an_address_are_bounded_whatever_names_it_tries(user, address, monkeypatch):
    monkeypatch.setattr(guesses, "ADDRESS_MAX", 3)
    browser = Browser(address())
    for _ in range(3):
        browser.sign_in(f"nobody-{uuid.uuid4()}")
    assert TOO_MANY in browser.sign_in(user.username).text


def test_guesses_of_another_address_shut_nobody_out(user, address):
    attacker = Browser(address())
    for _ in range(guesses.PAIR_MAX + 1):
        attacker.sign_in(user.username, "wrong password")
    assert Browser(address()).sign_in(user.username).status_code == 302


def test_a_name_that_all_addresses_guess_needs_a_code_in_a_new_browser(user, address, monkeypatch):
    monkeypatch.setattr(guesses, "NAME_MAX", 3)
    factor, _ = confirmed(user, now=datetime.now(UTC) - timedelta(seconds=4 * STEP_SECONDS))
    for _ in range(3):
        Browser(address()).sign_in(user.username, "wrong password")
    browser = Browser(address())
    assert TOO_MANY in browser.sign_in(user.username).text
    assert browser.sign_in(user.username, code=code_at(factor, now=datetime.now(UTC))).status_code == 302


def test_codes_are_not_guessed_without_end_at_a_name_that_needs_one(user, address, monkeypatch):
    monkeypatch.setattr(guesses, "NAME_MAX", 1)
    factor, _ = confirmed(user, now=datetime.now(UTC) - timedelta(seconds=4 * STEP_SECONDS))
    Browser(address()).sign_in(user.username, "wrong password")
    browser = Browser(address())
    for _ in range(guesses.PAIR_MAX):
        assert TOO_MANY in browser.sign_in(user.username, code="000000").text
    assert TOO_MANY in browser.sign_in(user.username, code=code_at(factor, now=datetime.now(UTC))).text


@pytest.mark.parametrize("what", ["unavailable", "full"])
def test_guesses_are_bounded_without_redis_too(user, address, monkeypatch, what):
    """A process counts by itself what it can't write; Redis that is full answers what it has, which is nothing."""
    broken = mock.MagicMock()
    broken.pipeline.side_effect = RedisError("OOM command not allowed")
    broken.mget.side_effect = RedisError if what == "unavailable" else lambda keys: [None] * len(keys)
    monkeypatch.setattr(guesses, "redis_fail_fast", lambda: broken)
    browser = Browser(address())
    for _ in range(guesses.PAIR_MAX):
        assert TOO_MANY not in browser.sign_in(user.username, "wrong password").text
    assert TOO_MANY in browser.sign_in(user.username).text
    assert Browser(address()).sign_in(user.username).status_code == 302


def test_a_process_keeps_no_more_counts_than_it_has_room_for(monkeypatch):
    monkeypatch.setattr(guesses, "OWN_COUNTS_MAX", 3)
    monkeypatch.setattr(guesses, "_own_counts", {})
    for key in ("a", "b", "a", "c", "d"):
        guesses._count_here([key])
    assert {key: count for key, (count, _) in guesses._own_counts.items()} == {"a": 2, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ("192.0.2.7:50123", "192.0.2.7"),  # as some proxies write it
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[2001:db8:1:2:3::4]:443", "2001:db8:1:2::/64"),
        ("", "unknown"),
    ],
)
def test_a_client_is_counted_by_its_address_however_that_is_written(written, counted):
    assert guesses._network_of(written) == counted


def test_a_known_browser_signs_in_whatever_others_guess(user, address, monkeypatch):
    monkeypatch.setattr(guesses, "NAME_MAX", 3)
    monkeypatch.setattr(guesses, "ADDRESS_MAX", 3)
    office = address()
    known, stranger = Browser(office), Browser(office)
    assert known.sign_in(user.username).status_code == 302
    known.post("/admin/logout/")
    for _ in range(4):
        stranger.sign_in(user.username, "wrong password")
    assert TOO_MANY in stranger.sign_in(user.username).text
    assert known.sign_in(user.username).status_code == 302
    user.set_password("another horse battery")
    user.save()
    known.post("/admin/logout/")
    assert TOO_MANY in known.sign_in(user.username, "another horse battery").text


def test_a_password_alone_does_not_sign_in_a_user_with_a_second_factor(user, address):
    factor, recovery = confirmed(user, now=datetime.now(UTC) - timedelta(seconds=4 * STEP_SECONDS))
    browser = Browser(address())
    wrong_password = browser.sign_in(user.username, "wrong password", code="000000")
    for code in ("", "000000", code_at(factor, now=NOW), "x" * 40):
        answer = browser.sign_in(user.username, code=code)
        assert answer.status_code == 200
        assert said(answer) == said(wrong_password)
    assert browser.sign_in(user.username, code=recovery[3].lower()).status_code == 302
    assert Browser(address()).sign_in(user.username, code=recovery[3]).status_code == 200


def said(answer) -> str:
    return re.findall(r"Please enter[^<]*", answer.text)[0]


@pytest.mark.parametrize(
    ("steps", "works"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)], ids=lambda value: str(value)
)
def test_a_code_is_good_for_a_clock_that_is_half_a_minute_wrong(user, steps, works):
    factor, _ = confirmed(user)
    now = NOW + timedelta(hours=1)
    code = code_at(factor, now=now + timedelta(seconds=steps * STEP_SECONDS))
    assert second_factor_use(user, code, now=now) == works


def test_a_code_signs_in_once(user):
    factor, _ = confirmed(user)
    now = NOW + timedelta(hours=1)
    before, code = code_at(factor, now=now - timedelta(seconds=STEP_SECONDS)), code_at(factor, now=now)
    assert [second_factor_use(user, one, now=now) for one in (code, code, before)] == [True, False, False]


def test_a_user_without_a_second_factor_makes_one_before_any_page(user, address, settings_of):
    settings_of(second_factor_required=True)
    browser = Browser(address())
    assert browser.sign_in(user.username).status_code == 302
    for path in ("/admin/", "/admin/jobs/job/", "/admin/tenants/tenant/action/tenant.create"):
        assert browser.get(path).headers["location"] == "/admin/second-factor/"
    page = browser.get("/admin/second-factor/").text
    assert 'src="data:image/svg+xml;base64,' in page
    user.refresh_from_db()
    shown = browser.post("/admin/second-factor/", code=code_at(user.second_factor, now=datetime.now(UTC))).text
    assert len(re.findall(r"[2-9A-Z]{4}-[2-9A-Z]{4}-[2-9A-Z]{4}", shown)) == 10
    assert browser.get("/admin/").status_code == 200
    second_factor_remove(name=user.username)
    assert browser.get("/admin/").headers["location"].startswith("/admin/login/")


def test_codes_follow_rfc_6238(user, monkeypatch):
    """Its appendix B, with the last six digits of its eight."""
    monkeypatch.setattr("easel.portal.second_factor._key", lambda factor: b"12345678901234567890")
    factor = second_factor_begin(user, now=NOW)
    times = {59: "287082", 1111111109: "081804", 2000000000: "279037"}
    assert {second: code_at(factor, now=datetime.fromtimestamp(second, UTC)) for second in times} == times
