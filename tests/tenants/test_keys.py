import uuid
from datetime import datetime, timedelta, timezone

import pytest
from django.db import DataError, IntegrityError, transaction

from tenants.errors import AddressNotAllowed, InvalidApiKey, KeyExpired, KeyLimitsInvalid, TenantSuspended
from tenants.keys import family_keys, key_authenticate, key_issue, key_revoke, key_rotate, key_set_access
from tenants.models import ApiKey, Tenant
from tests.conftest import NOW, PEPPER


def test_a_key_opens_its_tenant(alice):
    key = key_authenticate(alice.secret, pepper=PEPPER, now=NOW)
    assert (key.tenant, key.project) == (alice.tenant, alice.project)


def test_a_key_has_a_readable_prefix_and_is_not_stored(alice):
    assert alice.secret.startswith(f"easel_sk_{alice.key.key_id}_")
    stored = ApiKey.objects.filter(pk=alice.key.pk).values().get()
    secret = alice.secret.rpartition("_")[2]
    assert secret.encode() not in repr(stored).encode()


def swap_last(text):
    return text[:-1] + ("A" if text[-1] != "A" else "B")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "",
        lambda key: "sk-proj-123",
        swap_last,
        lambda key: key[:-1],
        lambda key: key + " ",
        lambda key: key.upper(),
        lambda key: "é" * len(key),
        lambda key: "x" * 100_000,
    ],
)
def test_what_is_no_key_is_refused(alice, spoil):
    with pytest.raises(InvalidApiKey):
        key_authenticate(spoil(alice.secret), pepper=PEPPER, now=NOW)


def test_a_key_of_another_installation_is_refused(alice):
    with pytest.raises(InvalidApiKey):
        key_authenticate(alice.secret, pepper="another", now=NOW)


def test_alices_key_id_with_bobs_secret_is_refused(alice, bob):
    from tenants.keys import _check

    body = f"easel_sk_{alice.key.key_id}_{bob.secret.rpartition('_')[2][:32]}"
    with pytest.raises(InvalidApiKey):
        key_authenticate(body + _check(body), pepper=PEPPER, now=NOW)


def test_a_revoked_key_is_refused_at_once_and_stays_so(alice):
    assert key_revoke(key_id=alice.key.key_id, now=NOW)
    assert not key_revoke(key_id=alice.key.key_id, now=NOW)
    with pytest.raises(InvalidApiKey):
        key_authenticate(alice.secret, pepper=PEPPER, now=NOW)


def test_a_suspended_tenants_key_says_so(alice):
    Tenant.objects.filter(pk=alice.tenant.pk).update(suspended_at=NOW)
    with pytest.raises(TenantSuspended):
        key_authenticate(alice.secret, pepper=PEPPER, now=NOW)


def test_two_keys_of_a_project_differ(alice):
    _, second = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    assert second != alice.secret


def rotate(key):
    return key_rotate(key=key, pepper=PEPPER, now=NOW)[0]


def test_a_key_and_all_that_it_is_rotated_to_are_a_family(alice):
    other, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    second = rotate(alice.key)
    third = rotate(second)
    assert {second.family_id, third.family_id} == {alice.key.family_id}
    assert set(family_keys(third.family_id)) == {alice.key, second, third}
    assert list(family_keys(other.family_id)) == [other]


def test_the_database_keeps_a_key_in_its_family(alice):
    second = rotate(alice.key)
    for first in (None, second.pk):
        with pytest.raises(IntegrityError), transaction.atomic():
            ApiKey.objects.filter(pk=second.pk).update(first_key=first)


@pytest.mark.parametrize("whose", ["bob", "alice"])
def test_the_database_refuses_a_first_key_of_another_tenant_or_family(alice, bob, whose):
    first = bob.key if whose == "bob" else rotate(alice.key)
    made, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    made._state.adding, made.pk, made.key_id, made.first_key = True, uuid.uuid4(), made.key_id[::-1], first
    with pytest.raises(IntegrityError), transaction.atomic():
        made.save()


AT = NOW + timedelta(days=1)


@pytest.mark.parametrize(("now", "is_live"), [(AT - timedelta(microseconds=1), True), (AT, False)])
def test_a_key_is_refused_from_the_moment_that_it_expires(alice, now, is_live):
    _, secret = key_issue(project=alice.project, pepper=PEPPER, expires_at=AT, now=NOW)
    if is_live:
        assert key_authenticate(secret, pepper=PEPPER, now=now).expires_at == AT
    else:
        with pytest.raises(KeyExpired):
            key_authenticate(secret, pepper=PEPPER, now=now)


@pytest.mark.parametrize(
    ("networks", "address", "is_allowed"),
    [
        ([], "203.0.113.9", True),
        ([], "", True),
        (["10.1.0.0/16"], "10.1.255.255", True),
        (["10.1.0.0/16"], "10.2.0.0", False),
        (["10.1.2.3"], "10.1.2.3", True),
        (["10.1.2.3"], "10.1.2.3:50123", True),  # as some proxies write it
        (["10.1.0.0/16"], "::ffff:10.1.2.3", True),  # IPv4 on a socket for both
        (["::ffff:10.1.0.0/112"], "10.1.2.3", True),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "[2001:db8::1]:443", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["::/0"], "10.1.2.3", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["0.0.0.0/0", "::/0"], "unknown", False),
        (["0.0.0.0/0", "::/0"], "", False),
    ],
)
def test_a_key_is_used_from_its_networks_alone(alice, networks, address, is_allowed):
    _, secret = key_issue(project=alice.project, pepper=PEPPER, addresses=networks, now=NOW)
    if is_allowed:
        assert key_authenticate(secret, pepper=PEPPER, now=NOW, address=address)
    else:
        with pytest.raises(AddressNotAllowed):
            key_authenticate(secret, pepper=PEPPER, now=NOW, address=address)


@pytest.mark.parametrize(
    "limits",
    [
        {"expires_at": NOW},
        {"expires_at": NOW - timedelta(days=1)},
        {"expires_at": datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-14)))},  # of the year 10000
        {"addresses": ["fe80::1%eth0"]},
        {"addresses": ["10.1.0.1/16"]},  # host bits: which network is meant?
        {"addresses": ["example.com"]},
        {"addresses": ["10"]},
        {"addresses": [""]},
        {"addresses": [f"10.0.0.{last}" for last in range(51)]},
    ],
)
def test_a_key_without_sense_is_not_made(alice, limits):
    with pytest.raises(KeyLimitsInvalid):
        key_issue(project=alice.project, pepper=PEPPER, now=NOW, **limits)
    assert list(alice.tenant.api_keys.all()) == [alice.key]


def test_a_rotation_takes_expiry_networks_and_scopes_along(alice):
    given = {"scopes": ["read"], "expires_at": AT, "addresses": ["10.1.0.0/16", "2001:db8::1/128"]}
    key, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW, **given)
    made = ApiKey.objects.get(pk=rotate(key).pk)
    assert {name: getattr(made, name) for name in given} == given


def test_a_key_that_has_expired_is_not_rotated(alice):
    key, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW, expires_at=AT)
    with pytest.raises(KeyLimitsInvalid):
        key_rotate(key=key, pepper=PEPPER, now=AT)
    key.refresh_from_db()
    assert key.revoked_at is None


def test_access_is_set_anew_and_a_key_has_a_scope(alice):
    given = {"scopes": ["read"], "expires_at": AT, "addresses": ["10.1.2.3"]}
    assert key_set_access(key=alice.key, now=NOW, **given)
    alice.key.refresh_from_db()
    assert (alice.key.scopes, alice.key.expires_at, alice.key.addresses) == (["read"], AT, ["10.1.2.3/32"])
    assert not key_set_access(key=alice.key, now=AT, **given)  # nothing new, also after it has expired
    for wrong in ({"scopes": []}, {"expires_at": NOW}, {"addresses": ["x"]}):
        with pytest.raises(KeyLimitsInvalid):
            key_set_access(key=alice.key, now=NOW, **(given | wrong))


def test_the_database_takes_networks_alone(alice):
    with pytest.raises(DataError), transaction.atomic():
        ApiKey.objects.filter(pk=alice.key.pk).update(addresses=["anywhere"])
