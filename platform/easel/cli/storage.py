"""`easel storage`: what an operator does with the store of images."""

import getpass
import json
from datetime import UTC, datetime

import click

from easel.cli.django_ready import django_ready


@click.group()
def storage() -> None:
    """Say which pages may read images in a bucket."""


@storage.command()
@click.option("--apply", is_flag=True, help="Set the rules, in place of all that the bucket has.")
def cors(apply: bool) -> None:
    """Print or set which pages may read images in a bucket.

    The rules have the origins that the platform and its tenants allow. A browser reads an image from the bucket itself,
    so the bucket decides which pages may. Apply the rules again after every change of origins. They are the same for
    all tenants: S3 has no rules for a part of a bucket.
    """
    with django_ready():
        from django.conf import settings
        from django.db import transaction

        from core.audit import audit_record
        from easel.storage import S3Store, StoreIsFolder, cors_rules, store
        from tenants.origins import origins_by_tenant

        images = store()
        if not isinstance(images, S3Store):
            raise StoreIsFolder
        rules = cors_rules(settings.EASEL.cors_origins.union(*origins_by_tenant().values()))
        click.echo(json.dumps({"CORSRules": rules}, indent=2))
        if not apply:
            return
        with transaction.atomic():  # a refusal leaves no record
            actor, details = f"command:{getpass.getuser()}", {"rules": rules}
            audit_record(
                actor=actor, action="storage.cors", subject=images.bucket, details=details, now=datetime.now(UTC)
            )
            images.cors_set(rules)
    click.echo(f"The bucket {images.bucket} has these rules now.", err=True)
