"""A hook of MkDocs: each page of docs/clients goes into the navigation, under its heading."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    pages = sorted(
        Path(config.docs_dir, "clients").glob("*.md"), key=lambda page: (page.name != "README.md", page.name)
    )
    section = [{_heading(page): f"clients/{page.name}"} for page in pages]
    assert config.nav is not None
    config.nav.insert(-1, {"Clients and tools": section})


def _heading(page: Path) -> str:
    return "Overview" if page.name == "README.md" else page.read_text().partition("\n")[0].removeprefix("# ")
