"""What is installed is what was locked: each package at one version, and each of its files by its hash."""

import re
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "requirements").glob("*.lock")), ROOT / "tests/clients/requirements.txt"]
LOCKED = re.compile(r"([a-z0-9-]+)==([^ ]+)( ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


def locked(file):
    """The versions of the packages of a lock file."""
    return {name: pinned for name, pinned, *_ in LOCKED.findall(file.read_text())}


def test_a_lock_file_has_pinned_packages_with_hashes_and_nothing_else():
    assert len(FILES) == 8
    for file in FILES:
        rest = LOCKED.sub("", file.read_text())
        assert [line for line in rest.splitlines() if not line.startswith("#")] == [], file


def test_everything_that_pyproject_names_is_locked_and_installed_at_the_locked_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    named = [*project["build-system"]["requires"], *project["project"]["dependencies"], *chain(*extras.values())]
    names = {canonicalize_name(Requirement(line).name) for line in named} - {"easel"}
    all_locked = {name: pinned for file in FILES[:-1] for name, pinned in locked(file).items()}
    assert not names - set(all_locked)
    assert {name: version(name).removesuffix("+cpu") for name in names} == {name: all_locked[name] for name in names}


def test_an_image_is_built_of_locked_files_and_easel_itself():
    for file in (ROOT / "deploy/images").glob("*Dockerfile"):
        installs = re.findall(r"pip install (.*?)(?:&&|\n(?! ))", file.read_text().replace("\\\n", " "))
        assert len(installs) == 3
        own = "--no-deps --no-build-isolation ."
        assert [line for line in installs if "--require-hashes" not in line and line.strip() != own] == []
