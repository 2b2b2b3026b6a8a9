"""`easel generate`: an image from the command line."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from easel.cli.django_ready import django_ready
from easel.cli.server import local_url, server_options
from easel_client import Easel, JobFailed

_LOCAL_TENANT = "local"
_LOCAL_CREDIT_MICROS = 10_000_000


@click.command()
@click.argument("prompt")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="easel.png", show_default=True)
@click.option("--model", help="By default the platform's.")
@click.option("--size", default="auto", show_default=True, help="WIDTHxHEIGHT.")
@click.option("--n", default=1, show_default=True, help="Number of images; the files are out-1.png, out-2.png.")
@click.option("--steps", type=int, help="Denoising steps; by default the model's.")
@click.option("--seed", type=int, help="The same seed makes the same image.")
@click.option("--adapter", "adapters", multiple=True, help="NAME or NAME:SCALE; may be repeated.")
@server_options(key_help=f"Without it, one of the tenant `{_LOCAL_TENANT}`, made here.", former_names=True)
def generate(output: Path, adapters: tuple[str, ...], server: str | None, key: str | None, **asked: Any) -> None:
    """Generate an image of PROMPT, write it to a file and print its cost."""
    if not output.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.absolute().parent}", param_hint="--output")
    fields = {name: value for name, value in asked.items() if value is not None}
    fields["adapters"] = [_adapter(text) for text in adapters]
    fields["output_format"] = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}.get(output.suffix.lower(), "png")
    with _key(key) as secret, Easel(server or local_url(), secret) as client:
        from easel.cli.my import followed

        job = followed(client, client.jobs.create(**fields))
        if job["status"] != "succeeded":
            raise JobFailed(job)
        for number, image in enumerate(job["images"], start=1):
            path = output if asked["n"] == 1 else output.with_stem(f"{output.stem}-{number}")
            path.write_bytes(client.fetch(image["url"]))
            click.echo(f"{path}  seed {image['seed']}")
    usage = job["usage"]
    assert usage is not None
    cost = usage["cost_details"]
    click.echo(f"{cost['amount']} {cost['currency']} for {usage['gpu_seconds']:.3f} GPU s, job {job['id']}")


def _adapter(text: str) -> dict[str, object]:
    name, _, scale = text.partition(":")
    try:
        return {"name": name, "scale": float(scale or 1)}
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not NAME or NAME:SCALE", param_hint="--adapter") from error


@contextmanager
def _key(given: str | None) -> Iterator[str]:
    """Yield the given key, or one for the length of this command."""
    if given:
        yield given
        return
    local_url()  # before anything is started or written
    with django_ready():
        from django.conf import settings
        from django.db import transaction

        from billing.ledger.postings import credit_grant
        from tenants import accounts, keys
        from tenants.models import Project

        now = datetime.now(UTC)
        with transaction.atomic():
            project = Project.objects.filter(tenant__slug=_LOCAL_TENANT, slug="default").first()
            if project is None:
                tenant, project = accounts.tenant_create(slug=_LOCAL_TENANT, now=now)
                credit_grant(tenant=tenant, amount_micros=_LOCAL_CREDIT_MICROS, reference=uuid.uuid4(), now=now)
            key, secret = keys.key_issue(
                project=project, pepper=settings.EASEL.secret_key, now=now, name="easel generate", scopes=["generate"]
            )
        try:
            yield secret
        finally:
            keys.key_revoke(key_id=key.key_id, now=datetime.now(UTC))
