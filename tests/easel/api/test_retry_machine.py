"""Equal calls of one client that time out and are repeated, in any order of what can happen to them.

The requests and the notices of disconnects are submitted as the API does it; the machine plays the network, the clients
and the workers.
"""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Q
from django.test import RequestFactory
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from core import clock
from easel.api.submission import submit_waiting
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import FINAL, Attempt, Job, State
from easel.jobs.retries import job_abandon
from easel.jobs.spec import Spec
from easel.processes import scheduler
from tests.conftest import worker_beat
from tests.easel.jobs.test_job_machine import report_of
from tests.profiles import examples

CALLS = 3
WHICH = st.integers(0, 99)  # of the things that there are, round and round
GRACE = timedelta(seconds=60)
SWEPT = Q(finished_at=None, cancel_requested_at__isnull=False)  # a worker stops such a job


def request_of(customer, retry_count):
    request = RequestFactory().post("/", headers={"X-Stainless-Retry-Count": str(retry_count)})
    request.auth, request.request_id = customer and customer.key, uuid.uuid4().hex
    return request


def submitted(customer, version, retry_count, prompt="a red circle"):
    """The job of a request, as the API admits or joins it."""
    request = request_of(customer, retry_count)
    spec = Spec(prompt=prompt, model=version.model.name)
    return submit_waiting(request, spec, {"prompt": prompt}, "images", outlives_client=False).resource_id


@dataclass
class Call:
    """What its client sees: it waits for an answer, has timed out and will repeat its request, or is done."""

    sent: int = 0
    waits: bool = False
    done: bool = False
    arrived: bool = False


@dataclass
class Sent:
    """A request of a call, on its way or arrived; `job_id` is the job that it waits for at the server."""

    call: Call
    retry_count: int
    job_id: uuid.UUID | None = field(default=None)


def machine(customer, pool, version, *, is_orderly) -> type[RuleBasedStateMachine]:
    """`is_orderly`: no request is lost or overtaken, and a disconnect is noticed before the retry arrives."""

    class RetryMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.customer = customer(name="retries")
            self.prompt = uuid.uuid4().hex
            self.calls = [Call() for _ in range(CALLS)]
            self.in_transit: list[Sent] = []
            self.waiting: list[Sent] = []
            self.unnoticed: list[Sent] = []
            self.received: Counter[uuid.UUID] = Counter()

        # What clients and the network do.

        @rule(which=WHICH)
        def a_client_sends_its_request(self, which):
            call = self.calls[which % CALLS]
            if call.waits or call.done:
                return
            self.in_transit.append(Sent(call, call.sent))
            call.sent, call.waits = call.sent + 1, True
            if is_orderly:
                self.a_request_arrives(-1)

        @precondition(lambda self: self.in_transit)
        @rule(which=WHICH)
        def a_request_arrives(self, which):
            sent = self.in_transit.pop(which % len(self.in_transit))
            sent.call.arrived = True
            sent.job_id = submitted(self.customer, version, sent.retry_count, self.prompt)
            is_late = not sent.call.waits or sent.call.sent != sent.retry_count + 1
            (self.unnoticed if is_late else self.waiting).append(sent)
            self._deliver()

        @precondition(lambda self: self.in_transit and not is_orderly)
        @rule(which=WHICH)
        def a_request_is_lost(self, which):
            self.in_transit.pop(which % len(self.in_transit))

        @rule(which=WHICH)
        def a_client_times_out(self, which):
            call = self.calls[which % CALLS]
            if not call.waits:
                return
            call.waits = False
            for sent in [sent for sent in self.waiting if sent.call is call]:
                self.waiting.remove(sent)
                self.unnoticed.append(sent)
            if is_orderly and self.unnoticed:
                self.a_disconnect_is_noticed(-1)

        @precondition(lambda self: self.unnoticed)
        @rule(which=WHICH)
        def a_disconnect_is_noticed(self, which):
            sent = self.unnoticed.pop(which % len(self.unnoticed))
            job_abandon(job_id=sent.job_id, retry_count=sent.retry_count, returns=False, cancels=False, now=clock.now())

        # What workers and the scheduler do.

        @rule()
        def a_worker_takes_jobs(self):
            lifecycle.beat(pool=pool, report=worker_beat(concurrency=99), now=clock.now(), lease_seconds=3600)
            dispatch.release(pool=pool, now=clock.now(), lease_seconds=3600)

        @rule(which=WHICH, outcome=st.sampled_from(["succeeded", "succeeded", "failed"]))
        def a_job_ends(self, which, outcome):
            live = Attempt.objects.filter(job__tenant=self.customer.tenant, state=Attempt.State.LIVE)
            if not live:
                return
            attempt = live.order_by("job__created_at")[which % len(live)]
            if attempt.job.cancel_requested_at is not None:
                outcome = "canceled"
            report = report_of(attempt.job, attempt.token, outcome, False)
            lifecycle.finish(pool=pool, report=report, now=clock.now(), attempts_max=1)
            self._deliver()

        @rule()
        def the_scheduler_looks_when_the_grace_is_over(self):
            scheduler.cancel_abandoned_jobs(clock.now() + GRACE, tenants=[self.customer.tenant])

        def _deliver(self):
            """Answer the clients that wait for a job that has ended."""
            for sent in [*self.waiting]:
                job = Job.objects.get(id=sent.job_id)
                if job.state in FINAL:
                    self.waiting.remove(sent)
                    sent.call.waits, sent.call.done = False, True
                    self.received[job.id] += 1

        # What has to hold.

        @invariant()
        def no_more_jobs_are_charged_than_there_are_calls(self):
            jobs = Job.objects.filter(tenant=self.customer.tenant).exclude(SWEPT).exclude(state=State.CANCELED)
            assert jobs.count() <= sum(call.arrived for call in self.calls)

        @invariant()
        def a_job_that_a_client_waits_for_is_neither_canceled_nor_going_to_be(self):
            waits_for = [sent.job_id for sent in self.waiting]
            given_up = Q(state=State.CANCELED) | SWEPT | Q(abandoned_at__isnull=False)
            if is_orderly:
                assert not Job.objects.filter(given_up, id__in=waits_for).exists()

        @invariant()
        def no_two_calls_share_a_job(self):
            if is_orderly:
                shared = self.received + Counter(sent.job_id for sent in self.waiting)
                assert all(count == 1 for count in shared.values())

        def teardown(self):
            lifecycle.beat(pool=pool, report=worker_beat(concurrency=99), now=clock.now(), lease_seconds=3600)
            for job in Job.objects.filter(tenant=self.customer.tenant, finished_at=None):
                lifecycle.cancel(job=job, now=clock.now())

    return RetryMachine


def test_calls_that_time_out_are_charged_once_each_whatever_is_lost_late_or_unnoticed(customer, pool, version):
    tested = machine(customer, pool, version, is_orderly=False)
    run_state_machine_as_test(tested, settings=settings(stateful_step_count=25, max_examples=examples(0.4)))


def test_calls_that_time_out_get_a_picture_of_their_own_if_their_requests_arrive_in_order(customer, pool, version):
    tested = machine(customer, pool, version, is_orderly=True)
    run_state_machine_as_test(tested, settings=settings(stateful_step_count=25, max_examples=examples(0.4)))
