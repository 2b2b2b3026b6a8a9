"""Reaches a server as a tenant: a command's options, and the server of this machine as the default."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from easel_client import EaselError

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(*, key_help: str, former_names: bool = False) -> Callable[[Command], Command]:
    """Give a command the options `--server` and `--key`, and with `former_names` also `--url` and `--api-key`."""
    server_names, key_names = ["--server"], ["--key"]
    if former_names:
        server_names, key_names = ["--server", "--url"], ["--key", "--api-key"]
    server = click.option(*server_names, "server", envvar="EASEL_URL", help="By default the stack of EASEL_HOME.")
    key = click.option(*key_names, "key", envvar="EASEL_API_KEY", help=key_help)
    return lambda command: server(key(command))


def local_url() -> str:
    """Return the URL of the stack of EASEL_HOME. Raises `EaselError` if it is not up."""
    from easel_local.home import home_of
    from easel_local.status import stack_status

    url = stack_status(home_of(os.environ)).url
    if not url:
        raise EaselError(
            "Easel is not running here: start it with `easel up`, or name another with --server", code="not_running"
        )
    return url


def error_text(error: EaselError) -> str:
    """Return an error as a command prints it: the message, the stable code, and what finds the request in the logs."""
    request = f", request {error.request_id}" if error.request_id else ""
    return f"{error} ({error.code}{request})"
