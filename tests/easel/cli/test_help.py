import click
import pytest
from click.testing import CliRunner

from easel.cli.main import cli
from tenants.models import Scope

WIDTH = 80


def groups():
    context = click.Context(cli)
    found = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    return [(name, command) for name, command in found if isinstance(command, click.Group)]


def shown(*arguments):
    return CliRunner().invoke(cli, [*arguments, "--help"], terminal_width=WIDTH, prog_name="easel").output


def test_each_command_is_listed_on_one_line():
    listed = shown().partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == cli.list_commands(click.Context(cli))


@pytest.mark.parametrize(("name", "group"), groups())
def test_no_command_of_a_group_has_its_line_cut(name, group):
    assert "..." not in shown(name).partition("Commands:")[2]


@pytest.mark.parametrize(("name", "group"), groups())
def test_a_group_says_what_the_list_of_commands_says_of_it(name, group):
    line = next(line for line in shown().splitlines() if line.split()[:1] == [name])
    assert group.help == line.split(maxsplit=1)[1]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("model", "add-version"), "--precision [none|int8|fp8]"),
        (("model", "add-version"), "--steps INTEGER"),
        (("pool", "create"), "--tier [fast|hd]"),
        (("pool", "create"), "--gpu-hour-cost NUMBER"),
        (("tenant", "limit"), "--steps-max N|none"),
        (("contract", "make"), "--until TIME"),
        (("project", "create"), "--label NAME=VALUE"),
        (("pool", "create"), "--gpu-class TEXT"),
    ],
)
def test_an_option_shows_what_its_field_takes(command, option):
    assert option in shown(*command)


@pytest.mark.parametrize("command", ["create", "access"])
def test_the_scopes_of_a_key_are_named(command):
    assert f"{', '.join(Scope.values)}; may be repeated" in " ".join(shown("key", command).split())
