"""`easel reporting-login`: a PostgreSQL login that reads the views of the schema `reporting` and nothing else."""

import json
import secrets
from urllib.parse import unquote, urlsplit

import click

from easel.cli.django_ready import django_ready


@click.command("reporting-login")
@click.argument("name", default="grafana")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reporting_login(name: str, as_json: bool) -> None:
    """Make the login NAME (default grafana) for Grafana's data source, or give it a new password."""
    with django_ready():
        from django.conf import settings
        from django.db import connection

        from easel.reporting.logins import login_set

        password = secrets.token_urlsafe(24)
        login_set(name=name, password=password)
        replica = urlsplit(settings.EASEL.reporting_database_url)
        database = unquote(replica.path.lstrip("/")) or connection.settings_dict["NAME"]
        host = replica.netloc.rpartition("@")[2] or None
    if as_json:
        click.echo(json.dumps({"user": name, "password": password, "database": database, "host": host}))
        return
    if host:
        click.echo(f"host      {host}")
    click.echo(f"user      {name}\npassword  {password}\ndatabase  {database}\nThe password is shown only now.")
