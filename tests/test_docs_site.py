"""The documentation site builds without a warning, and everything in it leads somewhere."""

import ast
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from easel.cli.main import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


class Links(HTMLParser):
    """What a page has: the ids to link to, its links, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.loaded += [found[name] for name in ("href", "src") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site by their files. A warning of MkDocs is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        folder = tmp_path_factory.mktemp("site").resolve()
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return {page: Links(page) for page in folder.rglob("*.html")}


def test_every_page_is_built(site):
    built = {page.name for page in site}
    assert {"index.html", "tutorial.html", "api.html", "errors.html"} <= built
    assert len(site) >= len(PAGES)


def test_every_link_and_anchor_leads_somewhere(site):
    broken = []
    for page, found in site.items():
        if page.name == "404.html":  # its links are those of a server's root
            continue
        for link in found.links + found.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in site and anchor not in site[target].ids):
                broken.append(f"{page.name}: {link}")
    assert not broken


def test_nothing_is_loaded_from_another_host(site):
    assert not [
        f"{page.name}: {link}" for page, found in site.items() for link in found.loaded if urlsplit(link).netloc
    ]


def test_every_page_is_reached_from_the_first(site):
    [start] = [page for page in site if page.name == "index.html" and "clients" not in page.parts[-2:-1]]
    reached, ahead = set(), [start]
    while ahead:
        page = ahead.pop()
        if page in reached or page not in site:
            continue
        reached.add(page)
        links = (urlsplit(link) for link in site[page].links)
        ahead += [(page.parent / unquote(link.path)).resolve() for link in links if link.path and not link.scheme]
    assert not [page.name for page in site if page not in reached and page.name != "404.html"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every `easel` command in a block of a page."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.strip().partition(" #")[0]
                if words.startswith("easel "):
                    found.append((page.name, re.split(r" [|>] ", words)[0]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_a_page_takes_what_the_page_gives_it(page, line):
    words, command, context = shlex.split(line)[1:], cli, click.Context(cli, info_name="easel")
    while isinstance(command, click.Group):
        name = words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"{page}: there is no {name} in {line!r}"
        context = click.Context(command, info_name=name, parent=context)
    options, arguments, _ = command.make_parser(context).parse_args(args=words)
    required = [one for one in command.params if isinstance(one, click.Argument) and one.required]
    assert all(options.get(one.name) for one in required), f"{page}: {line!r} lacks an argument"
    assert not arguments


@pytest.mark.parametrize(("page", "code"), [(page.name, code) for page in PAGES for code in blocks(page, "python")])
def test_a_python_example_is_python(page, code):
    ast.parse(code)
