"""`easel operator`: who may sign in to the portal."""

import sys

import click

from core.errors import DomainError
from easel.cli.committed import committed


class PasswordRefused(DomainError):
    """The password or the name can't be used."""

    code = "password_refused"


@click.group()
def operator() -> None:
    """Let people into the portal, and out of it."""


@operator.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["operator", "finance", "viewer"]), default="viewer", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it.")
def operator_create(name: str, role: str, password_stdin: bool) -> None:
    """Create a user of the portal. A viewer reads, finance sets prices and gives credit, an operator does it all."""
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    )
    with committed() as act:
        from django.core.exceptions import ValidationError

        from easel.portal import roles

        try:
            roles.operator_create(name=name, password=password, role=role)
        except ValidationError as error:
            raise PasswordRefused(" ".join(error.messages)) from error
        act.record("operator.create", name, details={"role": role})
    click.echo(f"{name} may sign in at /admin/ of the API, as {role}")


@operator.command("disable")
@click.argument("name")
def operator_disable(name: str) -> None:
    """End a user's sign-ins and sessions."""
    with committed() as act:
        from easel.portal import roles

        roles.operator_disable(name=name)
        act.record("operator.disable", name)
    click.echo(f"{name} may sign in no more")
