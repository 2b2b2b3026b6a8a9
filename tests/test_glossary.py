"""Names of the code use the field's terms: words that once stood for them don't come back.

The right column says what to write instead. A word counts wherever it is a part of a name: of a module, a class, a
function, an argument, a variable or a field.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "tenants", "billing", "platform", "inference", "deploy")

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


def python_files() -> list[Path]:
    return [
        file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in file.parts
    ]


def names(file: Path) -> Iterator[tuple[int, str]]:
    """Every name that a module defines, with its line; its own name has line 0."""
    yield 0, file.stem
    tree = ast.parse(file.read_text())
    published = {line for node in ast.walk(tree) if is_answer(node) for line in range(node.lineno, node.end_lineno + 1)}
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) in published and not isinstance(node, ast.ClassDef):
            continue
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def is_answer(node: ast.AST) -> bool:
    """True for a class whose fields are names of the published API, which clients rely on."""
    return isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "TypedDict" for base in node.bases)


def words(name: str) -> set[str]:
    """The words of a name in lower case, without a plural's `s`: `_answersKept` has `answer` and `kept`."""
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def retired(name: str) -> str | None:
    """What to write instead of a name; None if the name may stay."""
    if name.lstrip("_") in RETIRED_NAMES:
        return RETIRED_NAMES[name.lstrip("_")]
    return next((RETIRED_WORDS[word] for word in sorted(words(name)) if word in RETIRED_WORDS), None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_has_a_retired_word(folder):
    found = [
        f"{file.relative_to(ROOT)}:{line} {name}: say {instead}"
        for file in python_files()
        if file.relative_to(ROOT).parts[0] == folder
        for line, name in names(file)
        if (instead := retired(name))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "may_stay"),
    [("job_told", False), ("_KEPT_MAX", False), ("at", False), ("created_at", True), ("almost_done", True)],
)
def test_a_name_is_taken_apart_into_words(name, may_stay):
    assert (retired(name) is None) is may_stay
