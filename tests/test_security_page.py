"""Every threat of `docs/security.md` has a wall and tests that exist, and every attack of the tests is on the page."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
THREAT = re.compile(r"[STRIDE](, [STRIDE])*: .+")
TEST = re.compile(r"`(tests/[a-z_0-9/]+\.py)::(test_[a-z_0-9]+)`")


def rows() -> list[list[str]]:
    """The cells of each row of the tables, without the heads."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("Threat", "---")]


def names_of_tests(file: Path) -> set[str]:
    found = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_threat_has_its_kind_a_wall_and_a_test():
    assert not [cells for cells in rows() if len(cells) != 3 or not THREAT.fullmatch(cells[0])]
    assert not [cells[0] for cells in rows() if not cells[1] or not TEST.search(cells[2])]


def test_every_test_that_the_page_names_is_there():
    assert not [name for file, name in TEST.findall(PAGE) if name not in names_of_tests(ROOT / file)]


def test_every_attack_is_on_the_page():
    named = set(TEST.findall(PAGE))
    files = (ROOT / "tests/attacks").glob("test_*.py")
    attacks = {(str(file.relative_to(ROOT)), name) for file in files for name in names_of_tests(file)}
    assert not attacks - named
