"""`easel operator`: the users of the portal. Only a command makes one: no role may raise its own rights."""

import sys
from datetime import UTC, datetime

import click

from core.errors import DomainError
from easel.cli.action_commands import command_record
from easel.cli.django_ready import django_ready


class PasswordRefused(DomainError, code="password_refused"):
    """The password or the name can't be used.

    Choose another name or password; the message says why.
    """


operator = click.Group("operator")


@operator.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["operator", "finance", "viewer"]), default="viewer", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it.")
def operator_create(name: str, role: str, password_stdin: bool) -> None:
    """Create a user of the portal.

    A viewer reads, finance also sets prices and gives credit, an operator does all.
    """
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    )
    with django_ready():
        from django.core.exceptions import ValidationError
        from django.db import transaction

        from easel.actions import roles

        try:
            with transaction.atomic():
                roles.operator_create(name=name, password=password, role=role)
                command_record("operator.create", name, details={"role": role}, now=datetime.now(UTC))
        except ValidationError as error:
            raise PasswordRefused(" ".join(error.messages)) from error
    click.echo(f"{name} may sign in at /admin/ of the API, as {role}")


@operator.command("disable")
@click.argument("name")
def operator_disable(name: str) -> None:
    """End a user's sign-ins and sessions."""
    with django_ready():
        from django.db import transaction

        from easel.actions import roles

        with transaction.atomic():
            roles.operator_disable(name=name)
            command_record("operator.disable", name, now=datetime.now(UTC))
    click.echo(f"{name} can no longer sign in")


@operator.command("reset")
@click.argument("name")
def operator_reset(name: str) -> None:
    """Remove a user's second factor, and end the sessions.

    The next sign-in needs the password alone, and asks for a new factor. Be sure who asks.
    """
    with django_ready():
        from django.db import transaction

        from easel.portal.second_factor import second_factor_remove

        with transaction.atomic():
            second_factor_remove(name=name)
            command_record("operator.reset", name, now=datetime.now(UTC))
    click.echo(f"{name} signs in with the password alone, once, and is asked for a new second factor then")
