"""Commands of the engine, which is another program: their arguments are passed on unchanged."""

import subprocess
import sys

import click

_AS_GIVEN = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _tool(name: str) -> click.Command:
    @click.command(name, context_settings=_AS_GIVEN)
    @click.pass_context
    def run(context: click.Context) -> None:
        argv = [sys.executable, "-m", f"inference.tools.{name}", *context.args]
        sys.exit(subprocess.run(argv, check=False).returncode)  # noqa: S603

    return run


quality = _tool("quality")
replay = _tool("replay")
