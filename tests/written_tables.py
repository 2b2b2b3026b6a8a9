"""Tables of pages that tests write: between two comments of the page stands what the test found."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def check_table(page: str, name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Fail where a page's table differs from these rows. With RECORD=1 write it instead."""
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    begin, end = f"<!-- table: {name}; written by the tests -->\n", "<!-- end -->"
    file = ROOT / page
    text = file.read_text()
    found = re.search(re.escape(begin) + "(.*?)" + re.escape(end), text, re.DOTALL)
    assert found, f"{page} has no place for the table {name!r}: {begin}{end}"
    if os.environ.get("RECORD") == "1":
        file.write_text(text[: found.start(1)] + table + text[found.end(1) :])
        return
    test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
    assert found[1] == table, f"{page} is not up to date: run RECORD=1 .venv/bin/pytest {test}"
