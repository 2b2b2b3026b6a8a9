"""`easel tenant retention`, `export` and `erase`: what is kept of a tenant, and for how long."""

import sys
from pathlib import Path
from typing import Any

import click

from easel.cli.committed import Act, actor_name, committed
from easel.cli.django_ready import django_ready
from easel.cli.limits import NO_LIMIT, WholeLimit
from easel.cli.tables import as_json_option, print_rows

# After a request to cancel a worker stops at its next step; a lost one's lease runs out.
_WORKERS_STOP_SECONDS = 60


@click.command("retention")
@click.argument("name")
@click.option("--output-days", type=WholeLimit(), help="How long images are kept: 1 to 3650, or none of its own.")
@click.option("--job-days", type=WholeLimit(), help="How long prompts, metadata, users and errors are kept.")
@as_json_option
def tenant_retention(name: str, as_json: bool, **given: Any) -> None:
    """Set how long a tenant's images and jobs are kept, or show it; deletion follows within seconds.

    A job's row stays after its days, without its words: what it did and what it cost.
    """
    with committed() as act:
        from django.conf import settings

        from easel.cli.tenants import tenant_named
        from tenants.retention import retention_of, retention_set

        found = tenant_named(name)
        changes = {field: None if days is NO_LIMIT else days for field, days in given.items() if days is not None}
        holds = retention_of(found, default=settings.EASEL)
        if changes:
            holds = retention_set(tenant=found, changes=changes, default=settings.EASEL)
            act.record("retention.set", name, tenant=found, details=changes)
        rows = [{"tenant": name, "output_days": holds.output_days, "job_days": holds.job_days}]
    print_rows(rows, as_json)


@click.command("export")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A zip, or a folder where the name doesn't end in .zip, for millions of images. By default NAME.zip.",
)
def tenant_export(name: str, output: Path | None) -> None:
    """Write down everything that a tenant has: jobs with prompts, images, adapters, usage, money, the audit log.

    Rows come as JSON Lines, all of one instant; manifest.json counts them, with a SHA-256 of each part. Secrets of
    keys are not kept, so they are not in there.
    """
    to = output or Path(f"{name}.zip")
    with django_ready():
        from datetime import UTC, datetime

        from django.db import transaction

        from easel.cli.tenants import tenant_named
        from easel.privacy import export

        found, now = tenant_named(name), datetime.now(UTC)
        bar: Any = None

        def progress(step: int, *, total: int) -> None:
            nonlocal bar
            if bar is None:  # to stderr, as stdout is the answer
                bar = click.progressbar(length=total, label=f"{name}: rows and files", file=sys.stderr, show_pos=True)
            bar.update(step)

        manifest = export.tenant_export(tenant=found, to=to, now=now, progress=progress)
        if bar is not None:
            bar.render_finish()
        parts = manifest["contents"]
        files = parts["files.jsonl"]
        with transaction.atomic():
            Act(now).record("tenant.export", name, tenant=found, details={"files": files["rows"], "to": to.name})
    rows = sum(part["rows"] for part in parts.values()) - files["rows"]
    click.echo(f"{to} has {rows} rows and {files['rows'] - files['missing']} files of {name}")
    if files["missing"]:
        click.echo(f"{files['missing']} files were deleted meanwhile: files.jsonl names them")


@click.command("erase")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask for the tenant's name again.")
@click.option("--cancel-jobs", is_flag=True, help="Cancel its unfinished jobs; without this they are a refusal.")
def tenant_erase(name: str, yes: bool, cancel_jobs: bool) -> None:
    """Erase a tenant for good: images, adapters, prompts, users, names. What it was charged stays, without those.

    Its keys are revoked at once. Broken off, it is finished by the scheduler, or by the same command again.
    """
    with django_ready():
        import time
        from datetime import UTC, datetime

        from django.conf import settings

        from easel.cli.tenants import tenant_named
        from easel.privacy.erasure import JobsUnfinished, erase_advance, erase_request, unfinished_jobs

        found = tenant_named(name)
        if found.erased_at is not None:
            click.echo(f"{name} was erased at {found.erased_at:%Y-%m-%d %H:%M} UTC")
            return
        if not yes and click.prompt(f"This can't be undone. Type {name} to erase it", err=True) != name:
            raise click.Abort
        actor = actor_name()
        erase_request(tenant=found, cancel_jobs=cancel_jobs, actor=actor, now=datetime.now(UTC))
        give_up_at = time.monotonic() + _WORKERS_STOP_SECONDS
        total = found.jobs.filter(deleted_at=None).count()
        with click.progressbar(length=total, label=f"{name}: jobs", file=sys.stderr, show_pos=True) as bar:
            while found.erased_at is None:
                touched = erase_advance(tenant=found, default=settings.EASEL, actor=actor, now=datetime.now(UTC))
                bar.update(total - found.jobs.filter(deleted_at=None).count() - bar.pos)
                found.refresh_from_db()
                if touched or found.erased_at is not None:
                    continue
                if time.monotonic() > give_up_at:
                    raise JobsUnfinished(
                        f"{unfinished_jobs(found).count()} jobs are in workers' hands still: the scheduler erases the"
                        " rest once they end"
                    )
                time.sleep(0.5)
        images = found.jobs.filter(outputs__isnull=False).values("outputs").count()
        click.echo(
            f"{name} is erased: {found.jobs.count()} jobs, {images} images, {found.adapters.count()} adapters."
            f" Nothing is left under {name}/ in the storage. Usage, charges and ledger stay, under its id {found.pk}."
        )
        for pool in found.pools.all():
            click.echo(f"Its pool {pool.slug} is left: stop its workers and delete its namespace.")
