"""Names of the code use the field's terms: words that once stood for them don't come back.

The right column says what to write instead. A word counts wherever it is a part of a name: of a module, a class, a
function, an argument (where it is declared and where it is passed), a variable or a field. Names that are published
can't change any more; `EXCEPTIONS` lists them, each with its reason.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "tenants", "billing", "platform", "inference", "clients", "deploy", "scripts", "tests")

# Parts of names, in any case and number.
RETIRED_WORDS = {
    "kept": "cached, retained, supervised, decayed or not deleted: say which",
    "told": "notified",
    "drawn": "generated",
    "risen": "lifted",
    "standing": "Balance, PoolLoad or BudgetStatus",
    "leftover": "orphan",
    "stray": "orphan",
    "most": "max",
    "judge": "decide",
    "together": "run_pipelined",
}
# Whole names, as they are written.
RETIRED_NAMES = {
    "able": "headroom",
    "alone": "run_query",
    "assuming": "optimistic",
    "at": "now for the clock, ..._at for a stored instant",
    "uses": "adapters",
    "let_off": "waived_micros",
    "cap_of": "waiver",
    "drawing": "ImageSpec",
    "lives_seconds": "ttl_seconds",
    "Account": "LedgerAccount, BusyAccount or user",
    "Act": "Action",
    "Answer": "DeliveryResult",
    "Band": "PriceTier",
    "Drawn": "ImageSpec",
    "Move": "Decision",
    "Operator": "Action and its actor",
    "OutputSlot": "UploadTarget",
    "RateTier": "PriceTier",
    "Right": "Correction",
    "Stage": "RolloutStage or Preparation",
    "Standing": "Balance, PoolLoad or BudgetStatus",
    "Steps": "PipelinedQuery",
    "Tier": "PoolTier or PriceTier",
}
# By file and name: names that stay, and why.
EXCEPTIONS = {
    ("platform/easel/api/quotes.py", "most"): "a field of the published quote: the highest cost of a line and of all",
    ("platform/easel/api/quotes.py", "quantity_most"): "a field of the published quote: the quantity that costs `most`",
    ("platform/easel/api/webhooks.py", "at"): "a field of the published list of a delivery's attempts",
    ("clients/python/easel_client/types.py", "most"): "the same fields, in the client",
    ("clients/python/easel_client/types.py", "quantity_most"): "the same",
    ("clients/python/easel_client/types.py", "at"): "the same",
}


def python_files(folder: str) -> list[Path]:
    """The modules of a folder, and the scripts that have Python in their first line instead of an ending."""
    files = [file for file in sorted((ROOT / folder).rglob("*")) if "migrations" not in file.parts and file.is_file()]
    return [file for file in files if file.suffix == ".py" or (not file.suffix and is_python_script(file))]


def is_python_script(file: Path) -> bool:
    with file.open("rb") as content:
        first_line = content.readline()
    return first_line.startswith(b"#!") and b"python" in first_line


def names(file: Path) -> Iterator[tuple[int, str]]:
    """Every name that a module defines or passes an argument by, with its line; the module's own name has line 0."""
    yield 0, file.stem
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg() | ast.keyword(arg=str()):
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str()):
                yield node.lineno, node.asname
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
                yield node.lineno, node.name


def words(name: str) -> set[str]:
    """The words of a name in lower case, without a plural's `s`: `_answersKept` has `answer` and `kept`."""
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def retired(name: str) -> str | None:
    """What to write instead of a name; None if the name may stay."""
    if name.lstrip("_") in RETIRED_NAMES:
        return RETIRED_NAMES[name.lstrip("_")]
    return next((RETIRED_WORDS[word] for word in sorted(words(name)) if word in RETIRED_WORDS), None)


def findings(folder: str) -> Iterator[tuple[str, str, str]]:
    """(file, name, what is wrong) for each use of a retired word."""
    for file in python_files(folder):
        path = str(file.relative_to(ROOT))
        for line, name in names(file):
            if instead := retired(name):
                yield path, name, f"{path}:{line} {name}: say {instead}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_has_a_retired_word(folder):
    found = [text for path, name, text in findings(folder) if (path, name) not in EXCEPTIONS]
    assert not found, "\n".join(found)


def test_every_exception_is_still_used():
    used = {(path, name) for folder in FOLDERS for path, name, _ in findings(folder)}
    assert not EXCEPTIONS.keys() - used


def test_arguments_are_read_where_they_are_passed_and_scripts_without_an_ending_are_read_too(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env python\nimport os as told\nrun(at=1, **{})\n")
    assert is_python_script(script)
    assert {name for _, name in names(script)} == {"script", "told", "at"}


@pytest.mark.parametrize(
    ("name", "may_stay"),
    [("job_told", False), ("_KEPT_MAX", False), ("at", False), ("created_at", True), ("almost_done", True)],
)
def test_a_name_is_taken_apart_into_words(name, may_stay):
    assert (retired(name) is None) is may_stay
