"""The reference pages name every command and every setting."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from easel.cli.main import cli

ROOT = Path(__file__).parents[1]
COMMANDS = (ROOT / "docs/commands.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
CONFIGURATIONS = ("platform/easel/config.py", "inference/worker/config.py")
DATA_SOURCES = "deploy/grafana/provisioning/datasources/easel.yaml"


def commands(group: click.Group, path: str = "easel") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def variables() -> set[str]:
    found = {name for file in CONFIGURATIONS for name in re.findall(r'"(EASEL_[A-Z_]+)"', (ROOT / file).read_text())}
    return found | set(re.findall(r"\$(EASEL_[A-Z_]+)", (ROOT / DATA_SOURCES).read_text()))


def test_every_command_is_described():
    missing = [command for command in commands(cli) if not re.search(rf"{command}\b", COMMANDS)]
    assert not missing


def test_every_variable_is_described():
    found = variables()
    assert len(found) > 20
    assert not {name for name in found if f"`{name}`" not in SETTINGS}


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_link_to_a_file_leads_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text)
    assert not [link for link in links if not (page.parent / link).exists()]


PLACES = (ROOT, ROOT / "platform/easel", ROOT / "inference", ROOT / "inference/worker")
SKIPPED = {".venv", "var"}
READMES = [ROOT / "ARCHITECTURE.md", *(file for file in ROOT.rglob("README.md") if not SKIPPED & set(file.parts))]


@pytest.mark.parametrize("page", READMES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_page_names_is_there(page):
    named = re.findall(r"`([a-z_0-9/]+/[a-z_0-9]+\.(?:py|sql))`", page.read_text())
    missing = [name for name in named if not any((place / name).exists() for place in (*PLACES, page.parent))]
    assert not missing


@pytest.mark.parametrize("page", [page for page in READMES if page.parent != ROOT], ids=lambda page: str(page.parent))
def test_a_module_that_a_room_names_without_a_folder_is_its_own(page):
    named = re.findall(r"`((?!test_)[a-z_0-9]+\.(?:py|sql))`", page.read_text())
    assert not [name for name in named if not any(page.parent.rglob(name))]
