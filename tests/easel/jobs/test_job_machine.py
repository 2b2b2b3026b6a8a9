"""The life of jobs against a model of it: any order of what clients, workers, the clock and its keepers may do.

The model says which state each job has to be in; PostgreSQL says which it is in, and what it was charged.
"""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from billing.ledger.accounts import balances_by_kind
from billing.models import Transaction
from easel.jobs import dispatch, lifecycle, retries
from easel.jobs.lifecycle import Applied
from easel.jobs.models import FINAL, Attempt, Job, State
from easel.processes import scheduler
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput
from tests.conftest import NOW, worker_beat
from tests.profiles import examples

ATTEMPTS_MAX = 3
LEASE_SECONDS = 15
CONCURRENCY = 3
GRACE = timedelta(seconds=60)
# Of the jobs or attempts that there are, round and round: which those are hangs on ids and on the examples before, and
# what is chosen must not.
WHICH = st.integers(0, 99)


@dataclass
class Thought:
    """What the model thinks of a job."""

    expires_at: datetime
    state: State = State.QUEUED
    begun: int = 0
    cancel_requested: bool = False
    abandoned_at: datetime | None = None


@dataclass
class Try:
    """What the model thinks of an attempt; `report` is the end that was reported of it."""

    token: uuid.UUID
    job_id: uuid.UUID
    lease_expires_at: datetime
    live: bool = True
    begun: bool = False
    report: AttemptFinished | None = field(default=None)


def report_of(job: Job, token: uuid.UUID, outcome: str, retryable: bool) -> AttemptFinished:
    images = range(job.n if outcome == "succeeded" else 0)
    return AttemptFinished(
        attempt_token=str(token),
        worker="w1",
        gpu_class="cpu",
        outcome=outcome,
        gpu_seconds=1.25,
        outputs=tuple(StoredOutput(index=i, seed=job.seed + i, sha256="0" * 64, size_bytes=10) for i in images),
        retryable=retryable,
        error_code="worker_error" if outcome == "failed" else "",
    )


def machine(customer, pool, submit) -> type[RuleBasedStateMachine]:
    """A machine on the test's pool. Examples follow each other in time, as nothing is rolled back."""
    clock = [NOW]

    class JobMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.customers = [customer(name="a"), customer(name="b")]
            self.before = [balances_by_kind(one.tenant) for one in self.customers]
            self.jobs: dict[uuid.UUID, Thought] = {}
            self.tries: list[Try] = []

        # What clients do.

        @rule(who=st.integers(0, 1), n=st.integers(1, 2), priority=st.integers(-1, 1))
        def submit_a_job(self, who, n, priority):
            if sum(thought.state not in FINAL for thought in self.jobs.values()) == 2 * CONCURRENCY:
                return
            job = submit(self.customers[who], now=clock[0], n=n, priority=priority)
            self.jobs[job.id] = Thought(expires_at=job.expires_at)

        @rule(which=WHICH)
        def cancel_a_job(self, which):
            if not self.jobs:
                return
            job_id = list(self.jobs)[which % len(self.jobs)]
            lifecycle.cancel(job=Job.objects.get(id=job_id), now=clock[0])
            thought = self.jobs[job_id]
            if thought.state == State.QUEUED:
                thought.state = State.CANCELED
            elif thought.state not in FINAL:
                thought.cancel_requested = True

        @rule(which=WHICH, returns=st.booleans(), cancels=st.booleans())
        def the_client_of_a_job_leaves(self, which, returns, cancels):
            if not self.jobs:
                return
            job_id = list(self.jobs)[which % len(self.jobs)]
            retries.job_abandon(job_id=job_id, retry_count=None, returns=returns, cancels=cancels, now=clock[0])
            thought = self.jobs[job_id]
            thought.abandoned_at = clock[0]
            if thought.state == State.QUEUED and (cancels or not returns):
                thought.state = State.CANCELED
            elif cancels and thought.state not in FINAL:
                thought.cancel_requested = True

        @rule(which=WHICH)
        def the_client_of_a_job_comes_back(self, which):
            if not self.jobs:
                return
            job_id = list(self.jobs)[which % len(self.jobs)]
            thought = self.jobs[job_id]
            is_given_up = thought.state == State.CANCELED or (thought.cancel_requested and thought.state not in FINAL)
            returned = retries.job_return(job_id=job_id)
            assert returned is (thought.abandoned_at is None or not is_given_up)
            if returned:
                thought.abandoned_at = None

        # What the dispatcher and the workers do.

        @rule()
        def release_jobs(self):
            lifecycle.beat(
                pool=pool, report=worker_beat(concurrency=CONCURRENCY), now=clock[0], lease_seconds=LEASE_SECONDS
            )
            in_hand = sum(one.live for one in self.tries)
            waiting = [t for t in self.jobs.values() if t.state == State.QUEUED and t.expires_at > clock[0]]
            suspects = Job.objects.filter(id__in=self.jobs, quarantined=True, finished_at=None).count()
            attempts = dispatch.release(pool=pool, now=clock[0], lease_seconds=LEASE_SECONDS)
            # No capacity idles while a job waits that may run; suspects run one at a time.
            possible = min(CONCURRENCY - in_hand, len(waiting))
            assert possible - suspects <= len(attempts) <= possible
            for attempt in attempts:
                thought = self.jobs[attempt.job_id]
                assert thought.state == State.QUEUED
                assert thought.expires_at > clock[0]
                thought.state = State.DISPATCHED
                self.tries.append(Try(attempt.token, attempt.job_id, attempt.lease_expires_at))

        @rule(which=st.lists(WHICH, min_size=1, max_size=4))
        def beat(self, which):
            """Of any attempts that ever were: a worker may hold on to one that was taken from it."""
            places = {one % len(self.tries) for one in which} if self.tries else ()
            self._beat([self.tries[place] for place in sorted(places)])

        @rule()
        def a_worker_takes_what_there_is_and_dies(self):
            self.release_jobs()
            self._beat([one for one in self.tries if one.live])
            clock[0] += timedelta(seconds=LEASE_SECONDS)
            self.the_scheduler_looks()

        def _beat(self, tries):
            progress = tuple(AttemptProgress(attempt_token=str(t.token), steps_done=1, steps_total=8) for t in tries)
            report = worker_beat(concurrency=CONCURRENCY, attempts=progress)
            lifecycle.beat(pool=pool, report=report, now=clock[0], lease_seconds=LEASE_SECONDS)
            for one in tries:
                if one.live:
                    one.lease_expires_at = clock[0] + timedelta(seconds=LEASE_SECONDS)
                    self._begin(one)

        @rule(
            which=WHICH,
            of_any=st.booleans(),
            outcome=st.sampled_from(["succeeded", "succeeded", "failed", "canceled", "expired"]),
            retryable=st.booleans(),
        )
        def report_an_end(self, which, of_any, outcome, retryable):
            """Of any attempt that ever was: the first report of a live one counts, others change nothing."""
            if not self.tries:
                return
            live = [one for one in self.tries if one.live and not of_any] or self.tries
            one = live[which % len(live)]
            job = Job.objects.get(id=one.job_id)
            one.report = one.report or report_of(job, one.token, outcome, retryable)
            applied = lifecycle.finish(pool=pool, report=one.report, now=clock[0], attempts_max=ATTEMPTS_MAX)
            if not one.live:
                assert applied == Applied.LATE
                return
            thought = self._begin(one)
            one.live = False
            if one.report.outcome == "failed":
                self._failed(thought, retryable=one.report.retryable)
            else:
                thought.state = State(one.report.outcome)
            assert applied == (Applied.REQUEUED if thought.state == State.QUEUED else Applied.SETTLED)

        @rule(outcome=st.sampled_from(["succeeded", "failed"]))
        def report_an_attempt_that_never_was(self, outcome):
            report = AttemptFinished(
                attempt_token=str(uuid.uuid4()), worker="w1", gpu_class="cpu", outcome=outcome, gpu_seconds=1.0
            )
            applied = lifecycle.finish(pool=pool, report=report, now=clock[0], attempts_max=ATTEMPTS_MAX)
            assert applied == Applied.UNKNOWN

        # What time does.

        @rule(seconds=st.sampled_from([1, 10, 20, 3700]))
        def time_passes(self, seconds):
            clock[0] += timedelta(seconds=seconds)

        @rule()
        def the_scheduler_looks(self):
            tenants = [one.tenant for one in self.customers]
            scheduler.lose_silent_attempts(clock[0], tenants=tenants)
            scheduler.expire_jobs(clock[0], tenants=tenants)
            scheduler.cancel_abandoned_jobs(clock[0], tenants=tenants)
            for one in self.tries:
                if one.live and one.lease_expires_at <= clock[0]:
                    one.live = False
                    self._failed(self.jobs[one.job_id], retryable=True)
            for thought in self.jobs.values():
                if thought.state == State.QUEUED and thought.expires_at <= clock[0]:
                    thought.state = State.EXPIRED
                if thought.abandoned_at and thought.abandoned_at <= clock[0] - GRACE and thought.state not in FINAL:
                    if thought.state == State.QUEUED:
                        thought.state = State.CANCELED
                    thought.cancel_requested = True

        # What has to hold.

        @invariant()
        def every_job_is_as_the_model_says(self):
            states = dict(Job.objects.filter(id__in=self.jobs).values_list("id", "state"))
            assert states == {job_id: thought.state for job_id, thought in self.jobs.items()}

        @invariant()
        def a_job_in_hand_has_one_live_attempt_and_no_other_has_any(self):
            live = Counter(
                Attempt.objects.filter(job__in=self.jobs, state=Attempt.State.LIVE).values_list("job_id", flat=True)
            )
            in_hand = (State.DISPATCHED, State.RUNNING)
            assert live == Counter(job_id for job_id, thought in self.jobs.items() if thought.state in in_hand)

        @invariant()
        def a_success_is_charged_once_and_nothing_else_is(self):
            settled = Transaction.objects.filter(reference__in=self.jobs, kind__in=("post", "void"))
            expected = {
                (job_id, "post" if thought.state == State.SUCCEEDED else "void")
                for job_id, thought in self.jobs.items()
                if thought.state in FINAL
            }
            assert Counter(settled.values_list("reference", "kind")) == Counter(expected)

        @invariant()
        def what_is_held_is_held_for_jobs_that_go_on(self):
            for one, before in zip(self.customers, self.before, strict=True):
                now = balances_by_kind(one.tenant)
                own = Job.objects.filter(tenant=one.tenant, id__in=self.jobs)
                assert (now["held"] > 0) == own.filter(finished_at=None).exists()
                assert now["credit"] + now["held"] + now["revenue"] == before["credit"]

        def teardown(self):
            """Whatever happened, everything ends: leases run out and jobs expire."""
            while any(thought.state not in FINAL for thought in self.jobs.values()):
                clock[0] += timedelta(seconds=3700)
                self.the_scheduler_looks()
            self.every_job_is_as_the_model_says()
            self.a_success_is_charged_once_and_nothing_else_is()
            self.what_is_held_is_held_for_jobs_that_go_on()

        def _begin(self, one: Try) -> Thought:
            thought = self.jobs[one.job_id]
            if not one.begun:
                one.begun = True
                thought.begun += 1
            if thought.state == State.DISPATCHED:
                thought.state = State.RUNNING
            return thought

        def _failed(self, thought: Thought, *, retryable: bool) -> None:
            if thought.cancel_requested:
                thought.state = State.CANCELED
            elif retryable and thought.begun < ATTEMPTS_MAX:
                thought.state = State.QUEUED
            else:
                thought.state = State.FAILED

    return JobMachine


def test_jobs_live_as_the_model_says_whatever_happens_in_whatever_order(customer, pool, submit):
    run_state_machine_as_test(
        machine(customer, pool, submit), settings=settings(stateful_step_count=30, max_examples=examples(0.4))
    )
