"""What is cached of the configuration between requests: answers stay the same, and none is out of date."""

import contextvars
import threading

from django.db import connections, transaction

from core.models import Configuration
from core.pipeline import run_query
from core.revision import cached_by_revision, optimistic, revision_begin, revision_validate
from tenants.models import Quota, Tenant
from tenants.quotas import quota_set, quotas_of
from tests.conftest import NOW


def request(function, *args):
    """Calls a function as a request does: in a context of its own, as of the revision in force."""

    def run():
        revision_begin()
        return function(*args)

    return contextvars.copy_context().run(run)


def test_a_second_request_reads_nothing_again(alice):
    reads = []

    @cached_by_revision
    def read(tenant_id):
        reads.append(tenant_id)
        return tenant_id

    assert [request(read, alice.tenant.pk) for _ in range(3)] == [alice.tenant.pk] * 3
    assert len(reads) == 1


def test_a_change_holds_from_the_next_request_on(alice):
    assert request(quotas_of, alice.key)[0].steps_max is None
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 3}, now=NOW)
    assert request(quotas_of, alice.key)[0].steps_max == 3


def test_a_change_by_sql_holds_too(alice):
    request(quotas_of, alice.key)
    Quota.objects.filter(tenant=alice.tenant).update(steps_max=4)
    assert request(quotas_of, alice.key)[0].steps_max == 4


def test_outside_a_request_everything_is_read_anew(alice):
    quotas_of(alice.key)
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 5}, now=NOW)
    assert quotas_of(alice.key)[0].steps_max == 5


def test_a_request_that_began_before_a_change_leaves_nothing_old_behind(alice):
    began, changed = threading.Event(), threading.Event()
    old = []

    def slow():
        began.set()
        changed.wait(10)
        old.append(quotas_of(alice.key))
        connections.close_all()

    thread = threading.Thread(target=request, args=(slow,))
    thread.start()
    began.wait(10)
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 6}, now=NOW)
    request(quotas_of, alice.key)
    changed.set()
    thread.join()
    assert request(quotas_of, alice.key)[0].steps_max == 6
    assert len(old) == 1


def test_a_transaction_that_is_undone_changes_no_revision(alice):
    before = Configuration.objects.get().revision
    with transaction.atomic():
        quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 7}, now=NOW)
        transaction.set_rollback(True)
    assert Configuration.objects.get().revision == before


def assumed(function, *, is_final=lambda answer: False):
    return contextvars.copy_context().run(optimistic(function, is_final=is_final))


def test_a_wrong_assumption_writes_nothing_and_is_followed_by_a_look(alice):
    request(quotas_of, alice.key)
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 8}, now=NOW)
    seen = []

    def admit():
        revision_begin()
        seen.append([quota.steps_max for quota in quotas_of(alice.key)])
        with transaction.atomic():
            run_query(revision_validate())
            Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=len(seen))
        return len(seen)

    assert assumed(admit) == 2
    assert seen[1] == [8]


def test_an_answer_of_a_wrong_assumption_is_not_given(alice):
    request(quotas_of, alice.key)
    quota_set(tenant=alice.tenant, api_key=None, limits={"steps_max": 9}, now=NOW)

    def look():
        revision_begin()
        return [quota.steps_max for quota in quotas_of(alice.key)]

    assert assumed(look) == [9]
