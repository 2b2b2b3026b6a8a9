"""One seed: tenants at work while things break, then calm, then the verdict.

Imports Django's models: only after `Stack` has set the environment and called `django.setup`.
"""

import random
import time

import redis

from inference.contract import WorkerBeat, report_from_json
from tests.chaos import verdict
from tests.chaos.clients import Customer
from tests.chaos.messages import REPORTS, Meddler
from tests.chaos.schedule import Fault, schedule
from tests.chaos.stack import Stack

TENANTS, PROGRAMS = 3, 3
SETTLE_SECONDS = 240


class Run:
    """One seed on a stack whose processes all run."""

    def __init__(self, stack: Stack, seed: int, *, faults: int, apart_seconds: float) -> None:
        self.stack, self.seed = stack, seed
        self.schedule = schedule(seed, faults=faults, apart_seconds=apart_seconds)
        self.survived: list[Fault] = []
        self.meddled = 0
        self.accepted = 0

    def violations(self) -> list[str]:
        run = f"{time.time():.0f}"
        customers = []
        for number in range(TENANTS):
            slug = f"chaos-{self.seed}-{number}-{run}"
            customers.append(Customer(slug, verdict.tenant_made(slug), list(self.stack.urls.values()), self.seed))
        before = verdict.gpu_seconds_booked()
        verdict.leave_database()
        meddler = Meddler(self.stack.redis.url, random.Random(self.seed))
        for customer in customers:
            customer.start(PROGRAMS)
        try:
            self._break(meddler)
        finally:
            for customer in customers:
                customer.stop()
            for customer in customers:
                customer.join()
            self.stack.resume_all()
            meddler.release()
            meddler.close()
        self.meddled = meddler.done.total() - meddler.done["pass"]
        self.accepted = verdict.accepted(order for customer in customers for order in customer.orders)
        slugs = [customer.slug for customer in customers]
        try:
            self.stack.wait_for(self.stack.is_whole, "every process to be back")
            live = self._settle(slugs)
            calm = verdict.gpu_seconds_booked()
            for customer in customers:
                customer.order_once()
            self._settle(slugs)
        except TimeoutError as error:
            return [str(error), *verdict.violations(customers)]
        return [*verdict.gpu_seconds_astray(live, before, calm), *verdict.violations(customers)]

    def _break(self, meddler: Meddler) -> None:
        client = redis.Redis.from_url(self.stack.redis.url, socket_timeout=2)
        begun = time.monotonic()
        for fault in self.schedule:
            time.sleep(max(0.0, begun + fault.at_seconds - time.monotonic()))
            if fault.kind == "meddle":
                meddler.start(fault.target, fault.seconds)
            elif fault.kind == "flush":
                try:
                    client.flushall()
                except redis.RedisError:
                    continue
            elif not self.stack.strike(fault):
                continue
            self.survived.append(fault)
        over = max(fault.at_seconds + fault.seconds for fault in self.schedule)
        time.sleep(max(0.0, begun + over - time.monotonic()))

    def _settle(self, slugs: list[str]) -> set[str]:
        """Until every job has ended and the workers hold nothing; who these are."""
        self.stack.wait_for(lambda: self._unfinished(slugs) == 0, "every job to end", seconds=SETTLE_SECONDS)
        live = self.stack.live_workers()
        self._await_idle(live)
        return live

    def _unfinished(self, slugs: list[str]) -> int:
        ((count,),) = self.stack.rows(
            "SELECT count(*) FROM jobs_job JOIN tenants_tenant AS tenant ON tenant.id = tenant_id"
            " WHERE finished_at IS NULL AND slug = ANY(%s)",
            slugs,
        )
        return count

    def _await_idle(self, live: set[str]) -> None:
        """Waits until each worker has said that it holds no attempt, and its totals of that beat are in the database.

        Until then attempts whose lease was lost may still generate. Any beat is not enough: the next one that is read
        may be an earlier one that was held back.
        """
        client = redis.Redis.from_url(self.stack.redis.url, socket_timeout=10)
        totals: dict[str, float] = {}
        last = "$"
        deadline = time.monotonic() + SETTLE_SECONDS
        while not live <= totals.keys() and time.monotonic() < deadline:
            for _, entries in client.xread({REPORTS: last}, block=1000):
                for entry_id, fields in entries:
                    last = entry_id
                    report = report_from_json(fields[b"report"])
                    if isinstance(report, WorkerBeat) and not report.attempts:
                        totals[report.worker] = report.attributed_seconds
        if busy := live - totals.keys():
            raise TimeoutError(f"{busy} still hold attempts")

        def read() -> bool:
            found = dict(self.stack.rows("SELECT name, attributed_seconds FROM catalog_worker"))
            return all(found.get(name, 0.0) >= totals[name] for name in live)

        self.stack.wait_for(read, "the workers' totals", seconds=60)
