"""A click group that imports a command only when it is called, so that `--help` stays fast."""

from collections.abc import Mapping
from pkgutil import resolve_name

import click


class LazyGroup(click.Group):
    """Has the commands of `lazy` besides those added the ordinary way.

    Each has its path, as "module:attribute", and the line that `--help` shows for it. A command without a help
    text of its own gets that line.
    """

    def __init__(self, *args: object, lazy: Mapping[str, tuple[str, str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        path, explain = self._lazy[cmd_name]
        command: click.Command = resolve_name(path)
        command.help = command.help or explain
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing the lazy ones."""
        rows = [
            (name, self._lazy[name][1] if name in self._lazy else self.commands[name].get_short_help_str(limit=90))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
