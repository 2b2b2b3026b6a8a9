"""Weighted fair queueing between tenants: decides which waiting job of a pool runs next. It reads and writes nothing.

Each tenant has a virtual time per pool: the GPU seconds that it was given there, divided by its weight. The waiting
tenant with the least virtual time goes next. It is charged at once for the estimated GPU seconds of its job, so a
burst of a thousand jobs delays only its own tenant. When the attempt ends, the measured seconds replace the estimate:
a wrong estimate costs that tenant its turn and no other. A tenant that returns after a pause is lifted to the least
virtual time of the tenants that were active, so that it can't use its pause to jump ahead (virtual-time counters, Sheng
et al., OSDI 2024).

Within a tenant, jobs go by priority, then by age.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

RELEASED_MAX = 64  # jobs per turn, so that the turn holds its locks briefly
# GPU seconds of a pixel-step before the pool has measured any. Any value will do: it is the same for all tenants.
RATE_UNMEASURED = 1e-6


class Waiting(NamedTuple):
    """A queued job. `work` is in pixel-steps. A quarantined job runs only while no other quarantined job does."""

    job_id: uuid.UUID
    work: float
    quarantined: bool = False


@dataclass(slots=True)
class Contender:
    """A tenant with waiting jobs: its virtual time in seconds, its weight, and its jobs in the order they run.

    It may have `headroom` more jobs running.
    """

    tenant_id: uuid.UUID
    virtual_time: float
    weight: int
    jobs: list[Waiting]
    headroom: int = RELEASED_MAX

    @property
    def turn(self) -> tuple[float, uuid.UUID]:
        """The contender with the least one has the next turn."""
        return self.virtual_time, self.tenant_id


class Chosen(NamedTuple):
    """A job to release, and the estimated GPU seconds that its tenant is charged with."""

    job_id: uuid.UUID
    seconds: float


def choose(contenders: Iterable[Contender], *, room: int, rate: float = 1.0) -> list[Chosen]:
    """Return the next `room` jobs, in order, and charge the virtual time of their contenders.

    `rate` is the estimate of GPU seconds per pixel-step.
    """
    contenders = list(contenders)
    chosen: list[Chosen] = []
    while len(chosen) < room and (waiting := [contender for contender in contenders if contender.jobs]):
        # This line decides which job runs next.
        next_up = min(waiting, key=lambda contender: contender.turn)
        job = next_up.jobs.pop(0)
        chosen.append(Chosen(job.job_id, job.work * rate))
        next_up.virtual_time += job.work * rate / next_up.weight
        if job.quarantined:
            for contender in waiting:
                contender.jobs = [job for job in contender.jobs if not job.quarantined]
    return chosen


class ActiveTenant(NamedTuple):
    """A tenant with jobs waiting or running in a pool; it may have `headroom` more jobs running."""

    tenant_id: uuid.UUID
    is_waiting: bool
    is_running: bool
    running_max: int | None
    weight: int
    virtual_time: float | None  # None if the pool has not served it yet
    was_waiting: bool  # at the last turn
    capped_since: datetime | None  # since when it runs as many jobs as it may while others wait
    headroom: int = RELEASED_MAX

    @property
    def is_reference(self) -> bool:
        """True if a returning tenant may be lifted to this tenant's virtual time: it was already active, and it isn't
        waiting merely because of its own cap."""
        was_active = self.is_running or (self.is_waiting and self.was_waiting)
        return self.virtual_time is not None and was_active and (self.headroom > 0 or not self.is_waiting)


def contenders_of(
    tenants: Sequence[ActiveTenant], virtual_time_max: float
) -> tuple[list[Contender], dict[uuid.UUID, float]]:
    """Return the tenants that may run a job, without their jobs; and the virtual times to which returning ones are
    lifted: the least of the active tenants, or `virtual_time_max` if none was active."""
    references = [t.virtual_time for t in tenants if t.is_reference and t.virtual_time is not None]
    level = min(references, default=virtual_time_max)
    contenders, lifted = [], {}
    for tenant in tenants:
        if not tenant.is_waiting:
            continue
        virtual_time = tenant.virtual_time or 0.0
        if not (tenant.is_running or tenant.was_waiting):
            lifted[tenant.tenant_id] = virtual_time = max(virtual_time, level)
        if tenant.headroom > 0:
            contenders.append(Contender(tenant.tenant_id, virtual_time, tenant.weight, [], tenant.headroom))
    return contenders, lifted
