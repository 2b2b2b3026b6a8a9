import uuid

import pytest
from django.db import IntegrityError, transaction

from tenants.errors import InvalidApiKey, TenantSuspended
from tenants.keys import family_keys, key_authenticate, key_issue, key_revoke, key_rotate
from tenants.models import ApiKey, Tenant
from tests.conftest import NOW, PEPPER


def test_a_key_opens_its_tenant(alice):
    key = key_authenticate(alice.secret, pepper=PEPPER)
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
        key_authenticate(spoil(alice.secret), pepper=PEPPER)


def test_a_key_of_another_installation_is_refused(alice):
    with pytest.raises(InvalidApiKey):
        key_authenticate(alice.secret, pepper="another")


def test_alices_key_id_with_bobs_secret_is_refused(alice, bob):
    from tenants.keys import _check

    body = f"easel_sk_{alice.key.key_id}_{bob.secret.rpartition('_')[2][:32]}"
    with pytest.raises(InvalidApiKey):
        key_authenticate(body + _check(body), pepper=PEPPER)


def test_a_revoked_key_is_refused_at_once_and_stays_so(alice):
    assert key_revoke(key_id=alice.key.key_id, now=NOW)
    assert not key_revoke(key_id=alice.key.key_id, now=NOW)
    with pytest.raises(InvalidApiKey):
        key_authenticate(alice.secret, pepper=PEPPER)


def test_a_suspended_tenants_key_says_so(alice):
    Tenant.objects.filter(pk=alice.tenant.pk).update(suspended_at=NOW)
    with pytest.raises(TenantSuspended):
        key_authenticate(alice.secret, pepper=PEPPER)


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
