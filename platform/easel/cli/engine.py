"""Commands of the engine, which is another program: their arguments are passed on unchanged."""

import subprocess
import sys

import click

_AS_GIVEN = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _run(module: str, arguments: list[str]) -> None:
    sys.exit(subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode)  # noqa: S603


@click.command(context_settings=_AS_GIVEN)
@click.pass_context
def quality(context: click.Context) -> None:
    """See how far quantised weights drift."""
    _run("inference.tools.quality", context.args)


@click.command(context_settings=_AS_GIVEN)
@click.pass_context
def replay(context: click.Context) -> None:
    """Run a mixed batch from a trace file, step by step."""
    _run("inference.tools.replay", context.args)
