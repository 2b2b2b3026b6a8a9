"""`easel tenant export` and `easel tenant erase`: everything that a tenant has."""

import sys
from pathlib import Path
from typing import Any

import click

from easel.actions.tenants import erase
from easel.cli.action_commands import actor_name, command_record, perform
from easel.cli.django_ready import django_ready

# A worker stops at its next step after a request to cancel; the lease of a lost one expires.
_WORKERS_STOP_SECONDS = 60


@click.command("export")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A zip, or a folder where the name doesn't end in .zip, for millions of images. By default NAME.zip.",
)
def tenant_export(name: str, output: Path | None) -> None:
    """Export everything that a tenant has.

    That is jobs with prompts, images, adapters, usage, money and the audit log. Rows are JSON Lines, all of one
    instant; manifest.json counts them, with a SHA-256 of each part. Secrets of keys are not stored, so the export has
    none.
    """
    to = output or Path(f"{name}.zip")
    with django_ready():
        from datetime import UTC, datetime

        from django.db import transaction

        from easel.actions.subjects import tenant_named
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
            details = {"files": files["rows"], "to": to.name}
            command_record("tenant.export", name, tenant=found, details=details, now=now)
    rows = sum(part["rows"] for part in parts.values()) - files["rows"]
    click.echo(f"{to} has {rows} rows and {files['rows'] - files['missing']} files of {name}")
    if files["missing"]:
        click.echo(f"{files['missing']} files were deleted meanwhile: files.jsonl names them")


@click.command("erase")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask for the tenant's name again.")
@click.option("--cancel-jobs", is_flag=True, help=erase.form.base_fields["cancel_jobs"].help_text)
def tenant_erase(name: str, yes: bool, cancel_jobs: bool) -> None:
    """Delete a tenant's content and names, and revoke its keys.

    Images, adapters, prompts and users can't be restored. The charges stay. If the command is interrupted, the
    scheduler finishes the erasure, or the same command again.
    """
    with django_ready():
        import time
        from datetime import UTC, datetime

        from django.conf import settings

        from easel.actions.subjects import tenant_named
        from easel.privacy.erasure import JobsUnfinished, erase_advance, unfinished_jobs

        found = tenant_named(name)
        if found.erased_at is not None:
            click.echo(f"{name} was erased at {found.erased_at:%Y-%m-%d %H:%M} UTC")
            return
        if not yes and click.prompt(f"This can't be undone. Type {name} to erase it", err=True) != name:
            raise click.Abort
        actor = actor_name()
        perform(erase, found, {"slug": name, "cancel_jobs": cancel_jobs}, now=datetime.now(UTC))
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
                        f"workers still run {unfinished_jobs(found).count()} jobs: the scheduler erases the rest once"
                        " they end"
                    )
                time.sleep(0.5)
        images = found.jobs.filter(outputs__isnull=False).values("outputs").count()
        click.echo(
            f"{name} is erased: {found.jobs.count()} jobs, {images} images, {found.adapters.count()} adapters."
            f" Nothing is left under {name}/ in the storage. Usage, charges and ledger stay, under its id {found.pk}."
        )
        for pool in found.pools.all():
            click.echo(f"Its pool {pool.slug} is left: stop its workers and delete its namespace.")
