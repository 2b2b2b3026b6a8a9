"""What is left in the storage that no job's images are."""

import io
import uuid
from datetime import timedelta

import pytest

from easel.jobs import dispatch, lifecycle
from easel.jobs.outputs import attempts_sweep, orphans_sweep
from easel.jobs.storage_keys import output_key
from easel.storage import store
from tests.conftest import NOW


def put(key):
    store().put(key, io.BytesIO(b"picture"), "image/png")


def is_stored(key):
    try:
        return bool(store().get(key))
    except FileNotFoundError:
        return False


def test_the_outputs_of_a_lost_attempt_go_once_nobody_can_write_them_any_more(alice, pool, submit):
    job = submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    key = output_key(job, attempt.token, 0)
    put(key)
    lifecycle.lose(token=attempt.token, now=attempt.lease_expires_at, attempts_max=3)
    attempts_sweep(now=NOW + timedelta(minutes=30))
    assert is_stored(key)
    attempts_sweep(now=NOW + timedelta(hours=2))
    assert not is_stored(key)


@pytest.fixture
def orphan(alice, submit):
    """What an answer from the cache had copied when its process was killed."""
    job = submit(alice)
    job.id = uuid.uuid4()
    put(output_key(job, job.id, 0))
    return output_key(job, job.id, 0)


def test_what_a_crash_left_of_a_job_that_never_was_goes_with_its_day(orphan):
    orphans_sweep(day=(NOW + timedelta(days=1)).date())
    assert is_stored(orphan)
    orphans_sweep(day=NOW.date())
    assert not is_stored(orphan)


def test_images_and_what_a_job_under_way_has_stored_stay(alice, submit, end):
    done, waiting = end(submit(alice)), submit(alice)
    keys = [done.outputs.get().storage_key, output_key(waiting, uuid.uuid4(), 0)]
    for key in keys:
        put(key)
    orphans_sweep(day=NOW.date())
    assert all(map(is_stored, keys))
