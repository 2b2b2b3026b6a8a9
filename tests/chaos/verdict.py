"""What has to hold once everything has settled, read from the database, the storage and the API.

Imports Django's models: only after `Stack` has set the environment and called `django.setup`.
"""

import hashlib
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.db.models import Sum

from billing.ledger.accounts import balances_by_kind
from billing.ledger.postings import credit_grant
from billing.models import Charge, Transaction, UsageRecord
from billing.money import to_micros
from easel.catalog.adapters import adapter_add_version
from easel.catalog.models import Worker
from easel.jobs.models import FINAL, Attempt, Job, Output, State
from easel.jobs.outputs import attempts_sweep, orphans_sweep
from easel.serving.routing import main_version
from inference.demo_model import ADAPTERS_DIR
from tenants.accounts import tenant_create
from tenants.keys import key_issue
from tenants.models import Tenant
from tests.chaos.clients import Customer, Order
from tests.chaos.stack import audit

CREDIT_MICROS = to_micros(Decimal(100))
DRIFT_MAX = Decimal("0.001")
# Of workers that were killed or stopped, and of an API that was away for long or held another worker's upload up.
FAILURES = {"worker_lost", "job_quarantined", "worker_stopped", "storage_unavailable", "storage_refused"}
Booked = dict[str, tuple[Decimal, Decimal]]


def tenant_made(slug: str) -> str:
    """The secret of its key. It has credit, and an adapter."""
    now = datetime.now(UTC)
    tenant, project = tenant_create(slug=slug, now=now)
    credit_grant(tenant=tenant, amount_micros=CREDIT_MICROS, reference=uuid.uuid4(), now=now)
    adapter_add_version(
        project=project,
        name="outline",
        data=(ADAPTERS_DIR / "outline.safetensors").read_bytes(),
        base=main_version(None),
        bytes_max=2**30,
        rank_max=128,
        now=now,
    )
    return key_issue(project=project, pepper=settings.EASEL.secret_key, now=now)[1]


def leave_database() -> None:
    """Before it is killed."""
    connection.close()
    connection.close_pool()  # of PostgreSQL's wrapper


def gpu_seconds_booked() -> Booked:
    """By life of a worker: what its attempts were attributed, and what it said that it attributed."""
    booked = Attempt.objects.order_by().values_list("worker").annotate(sum=Sum("gpu_seconds"))
    by_worker = dict(booked)
    return {
        worker.name: (by_worker.get(worker.name, Decimal(0)), Decimal(worker.attributed_seconds))
        for worker in Worker.objects.all()
    }


def violations(customers: list[Customer]) -> Iterator[str]:
    """What is broken, a line each; a line about a job names it by its id."""
    with ThreadPoolExecutor(1) as beside:
        audited = beside.submit(audit)  # another process
        yield from _broken(customers)
        if said := audited.result():
            yield f"easel audit: {said}"


def _broken(customers: list[Customer]) -> Iterator[str]:
    slugs = [customer.slug for customer in customers]
    jobs = {job.id: job for job in Job.objects.filter(tenant__slug__in=slugs).select_related("tenant")}
    for customer in customers:
        yield from _answers_hold(customer, {j: job for j, job in jobs.items() if job.tenant.slug == customer.slug})
    for job in jobs.values():
        yield from _settled_once(job)
    for tenant in Tenant.objects.filter(slug__in=slugs):
        yield from _money_adds_up(tenant)
    for customer in customers:
        yield from _images_are_there(customer, [job for job in jobs.values() if job.tenant.slug == customer.slug])
    yield from _nothing_is_left_over(slugs)


def _answers_hold(customer: Customer, jobs: dict[uuid.UUID, Job]) -> Iterator[str]:
    by_tag: dict[str, list[Job]] = defaultdict(list)
    for job in jobs.values():
        by_tag[job.metadata["tag"]].append(job)
    for order in customer.orders:
        made = by_tag.pop(order.tag, [])
        names = f"{order.tag} of {customer.slug}, jobs {[str(job.id) for job in made]}"
        answered = set(order.jobs)
        if answered - {str(job.id) for job in made}:
            yield f"accepted and not there: {answered} of {names}"
        wanted = [job for job in made if not _given_up(job, order)]
        if order.key and len(wanted) > 1:
            yield f"one Idempotency-Key, {len(made)} jobs: {names}"
        if order.key and len(answered) > 1:
            yield f"one Idempotency-Key was answered with {answered}: {names}"
        if not order.key and not len(answered) <= len(made) <= order.sent:
            yield f"sent {order.sent} times, {len(answered)} accepted, {len(made)} made: {names}"
        if order.has_images and [job.state for job in wanted] != [State.SUCCEEDED]:
            yield f"answered with images, and not a success: {names}"
        yield from (f"ended {job.state} {job.error_code} for no reason: {names}" for job in made if _astray(job, order))
        yield from (f"refused with {why}: {names}" for why in order.refused if _is_wrong(why, made))
    yield from (f"nobody asked for job {job.id}" for made in by_tag.values() for job in made)


def _astray(job: Job, order: Order) -> bool:
    """Only who asked for it or left is canceled, or expires; what fails does so for what was done to its workers."""
    return {
        State.CANCELED: not order.canceled and not _given_up(job, order),
        State.EXPIRED: "expires_in_seconds" not in order.fields,
        State.FAILED: job.error_code not in FAILURES,
    }.get(State(job.state), False)


def _given_up(job: Job, order: Order) -> bool:
    """Canceled because its client lost the connection or its patience. An Idempotency-Key then makes another job."""
    is_broken = any(not why[0].isdigit() for why in order.refused)
    return job.state == State.CANCELED and job.abandoned_at is not None and is_broken


def _is_wrong(why: str, made: list[Job]) -> bool:
    """A refusal is a broken connection, an absence, or what became of the job."""
    status, _, code = why.partition(" ")
    endings = {job.error_code for job in made if job.error_code} | {f"job_{job.state}" for job in made}
    return status.isdigit() and status not in ("429", "503", "504") and code not in endings


def _settled_once(job: Job) -> Iterator[str]:
    if job.state not in FINAL:
        yield f"job {job.id} is {job.state}"
    kinds = Counter(Transaction.objects.filter(reference=job.id).values_list("kind", flat=True))
    due = {"hold": 1, "post" if job.state == State.SUCCEEDED else "void": 1}
    if kinds != due:
        yield f"job {job.id} is {job.state}, and its transactions are {dict(kinds)}"
    live = job.attempts.filter(state=Attempt.State.LIVE).count()
    wins = list(job.attempts.filter(state=Attempt.State.SUCCEEDED))
    if live or len(wins) != (job.state == State.SUCCEEDED and job.cached_from_id is None):
        yield f"job {job.id} is {job.state} with {live} live attempts and {len(wins)} that succeeded"
    used = {record.meter: record.quantity for record in UsageRecord.objects.filter(job_id=job.id)}
    meters = UsageRecord.objects.filter(job_id=job.id).count()
    if meters != len(used) or bool(used) != (job.state == State.SUCCEEDED):
        yield f"job {job.id} is {job.state}, and its usage is {used}"
    if wins and used.get("gpu_second") != wins[0].gpu_seconds:
        yield f"job {job.id} was billed {used.get('gpu_second')} GPU seconds of {wins[0].gpu_seconds}"


def _money_adds_up(tenant: Tenant) -> Iterator[str]:
    balances = balances_by_kind(tenant)
    charged = Charge.objects.filter(usage_record__tenant=tenant).aggregate(sum=Sum("amount_micros"))["sum"] or 0
    if balances["held"] or balances["revenue"] != charged or balances["credit"] + charged != CREDIT_MICROS:
        yield f"{tenant.slug} has {balances} and was charged {charged} of {CREDIT_MICROS} micros"


def _images_are_there(customer: Customer, jobs: Iterable[Job]) -> Iterator[str]:
    """As the tenant gets them, by the links in the job."""
    for job in jobs:
        if job.state != State.SUCCEEDED:
            continue
        stored = list(Output.objects.filter(job=job).values_list("sha256", flat=True))
        shown = customer.get(f"/v1/jobs/{job.id}").json()["images"]
        read = [hashlib.sha256(customer.get(image["url"]).content).hexdigest() for image in shown]
        if read != stored or len(read) != job.n:
            yield f"job {job.id} should have {job.n} images {stored} and has {read}"


def _nothing_is_left_over(slugs: list[str]) -> Iterator[str]:
    """Once the links that workers were given are over, the storage has the images and nothing else."""
    now = datetime.now(UTC)
    while attempts_sweep(now=now + timedelta(hours=3)):
        pass
    for day in {now.date(), now.date() - timedelta(days=1)}:
        orphans_sweep(day=day)
    root = Path(settings.EASEL.storage_url.removeprefix("file://"))
    stored = set(Output.objects.filter(job__tenant__slug__in=slugs).values_list("storage_key", flat=True))
    found = {
        str(path.relative_to(root)) for slug in slugs for path in (root / slug / "outputs").rglob("*") if path.is_file()
    }
    yield from (f"left in the storage: {key}" for key in sorted(found - stored))
    yield from (f"gone from the storage: {key}" for key in sorted(stored - found))


def gpu_seconds_astray(live: set[str], before: Booked, calm: Booked) -> Iterator[str]:
    """What a worker that lives attributed is in its attempts, billed or wasted.

    While things broke, never more of it: an end that Redis lost is in no attempt, and neither is the second generation
    of a task that was delivered twice. In the calm after that, all of it.
    """
    after = gpu_seconds_booked()
    for name in live:
        nothing = (Decimal(0), Decimal(0))
        for when, first, last in (("in the storm", before, calm), ("in the calm", calm, after)):
            booked, said = (last[name][i] - first.get(name, nothing)[i] for i in range(2))
            if booked > said * (1 + DRIFT_MAX) or (when == "in the calm" and booked < said * (1 - DRIFT_MAX)):
                yield f"worker {name} attributed {said:.6f} s {when}, and its attempts have {booked:.6f} s"


def story(job_id: str, log: Path) -> str:
    """All that is known of a job."""
    job = Job.objects.filter(id=job_id).first()
    if job is None:
        return f"no job {job_id}"
    about = {
        "job": _row(job),
        "attempts": [_row(attempt) for attempt in job.attempts.all()],
        "outputs": [_row(output) for output in job.outputs.all()],
        "transactions": [_row(row) for row in Transaction.objects.filter(reference=job.id).order_by("created_at")],
        "usage": [_row(record) for record in UsageRecord.objects.filter(job_id=job.id)],
    }
    names = [job_id, *(str(attempt.token) for attempt in job.attempts.all())]
    lines = [line for line in log.read_text(errors="replace").splitlines() if any(name in line for name in names)]
    return json.dumps(about, indent=1, default=str) + "\n" + "\n".join(lines)


def _row(found: Job | Attempt | Output | Transaction | UsageRecord) -> dict[str, object]:
    return {field.name: getattr(found, field.attname) for field in found._meta.concrete_fields}


def accepted(orders: Iterable[Order]) -> int:
    return len({job for order in orders for job in order.jobs})
