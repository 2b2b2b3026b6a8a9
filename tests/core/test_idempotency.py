import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from core.errors import IdempotencyKeyInvalid, IdempotencyKeyReused
from core.idempotency import idempotent
from tests.conftest import NOW


class Maker:
    """Counts what it makes."""

    def __init__(self):
        self.made = []

    def __call__(self):
        self.made.append(uuid.uuid4())
        return self.made[-1]


def post(customer, make, *, key="k", body=None, endpoint="jobs"):
    return idempotent(tenant=customer.tenant, endpoint=endpoint, key=key, body=body or {"a": 1}, now=NOW, make=make)


def test_the_second_request_gets_the_first_ones_thing(alice):
    make = Maker()
    first, second = post(alice, make), post(alice, make)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.resource_id == second.resource_id
    assert len(make.made) == 1


def test_the_order_of_fields_does_not_matter(alice):
    make = Maker()
    post(alice, make, body={"a": 1, "b": 2})
    assert post(alice, make, body={"b": 2, "a": 1}).replayed


def test_a_field_of_null_is_as_one_left_out(alice):
    make = Maker()
    post(alice, make, body={"a": 1})
    assert post(alice, make, body={"a": 1, "b": None}).replayed


def test_another_body_under_the_same_key_is_refused(alice):
    make = Maker()
    post(alice, make)
    with pytest.raises(IdempotencyKeyReused):
        post(alice, make, body={"a": 2})


def test_keys_belong_to_a_tenant_and_an_endpoint(alice, bob):
    make = Maker()
    post(alice, make)
    post(bob, make)
    post(alice, make, endpoint="images")
    assert len(make.made) == 3


def test_without_a_key_every_request_counts(alice):
    make = Maker()
    for _ in range(2):
        post(alice, make, key=None)
    assert len(make.made) == 2


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "é", "a\nb", "\x00"])
def test_a_key_that_is_no_key_is_refused(alice, key):
    with pytest.raises(IdempotencyKeyInvalid):
        post(alice, Maker(), key=key)


def test_a_refused_request_can_be_mended_and_sent_again(alice):
    def refuse():
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError):
        post(alice, refuse)
    assert not post(alice, Maker(), body={"a": 2}).replayed


def test_of_many_at_once_one_makes_the_thing(alice):
    make, start = Maker(), threading.Barrier(8)

    def send(_):
        start.wait()
        try:
            return post(alice, make).resource_id
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(send, range(8)))
    assert len(ids) == 1
    assert len(make.made) == 1
