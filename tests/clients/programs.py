"""Programs that use a client of another project, run as their author would run them, and what they asked of Easel."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from easel_client import Easel
from tests.live import LiveEasel

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/clients"
INSTALLED = ROOT / "var/clients"  # by scripts/client-programs
_SECONDS_MAX = 240  # LiteLLM's first import takes half a minute of CPU


class Ran(NamedTuple):
    """A program that has ended: what it printed, and the folder that it ran in."""

    code: int
    out: str
    err: str
    folder: Path

    def said(self, word: str) -> str:
        """The rest of the line that begins with a word."""
        found = re.search(rf"^{word} (.*)$", self.out, re.MULTILINE)
        assert found, self.out + self.err
        return found[1]


def installed(part: str, path: str) -> Path:
    """A path of what `scripts/client-programs` installs. Without it a test is skipped, or fails where all must run."""
    if not (INSTALLED / part / ".made-from").exists():  # written last
        missing = f"{part} of the clients is not installed: run scripts/client-programs"
        if os.environ.get("EASEL_TESTS_COMPLETE") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return INSTALLED / part / path


def node_version(package: str) -> str:
    """The version of a Node package that the tests run."""
    package_json = installed("node", f"node_modules/{package}/package.json")
    version: str = json.loads(package_json.read_text())["version"]
    return version


def venv_version(package: str) -> str:
    """The version of a Python package that the tests run in the clients' own environment."""
    pinned = (ROOT / "tests/clients/requirements.txt").read_text()
    found = re.search(rf"^{package}==(\S+)", pinned, re.MULTILINE)
    assert found, package
    return found[1]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def settings_of(caller: Easel) -> dict[str, str]:
    """The environment that the pages tell the reader to set."""
    azure = {"AZURE_OPENAI_ENDPOINT": caller.url, "AZURE_OPENAI_API_KEY": caller.api_key}
    version = {"OPENAI_API_VERSION": "2025-04-01-preview"}
    return {"OPENAI_BASE_URL": f"{caller.url}/v1", "OPENAI_API_KEY": caller.api_key, **azure, **version}


def run_python(source: str, caller: Easel, folder: Path, *, own_venv: bool = False, **env: str) -> Ran:
    """Run Python with the tests' own packages, or those of the clients' environment."""
    python = str(installed("venv", "bin/python")) if own_venv else sys.executable
    (folder / "program.py").write_text(source)
    # LiteLLM would fetch its list of prices from elsewhere, several times.
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", **env}
    return _run([python, "program.py"], folder, settings_of(caller) | env)


def run_node(source: str, caller: Easel, folder: Path, **env: str) -> Ran:
    """Run a module of JavaScript that imports the installed packages."""
    packages = installed("node", "node_modules")
    # A module finds packages from where it is, and works where it is started.
    (folder / "node_modules").symlink_to(packages, target_is_directory=True)
    (folder / "program.mjs").write_text(source)
    return _run(["node", "program.mjs"], folder, settings_of(caller) | env)


def _run(argv: list[str], folder: Path, env: dict[str, str]) -> Ran:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **env}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    return Ran(done.returncode, done.stdout, done.stderr, folder)


def requests_of(easel: LiveEasel, caller: Easel) -> list[int]:
    """The status of each request that came with a caller's key, in the order in which they ended."""
    # A request of our own, whose line in the log follows those of all that ended before.
    last = f"last-of-{uuid.uuid4()}"
    headers = {"Authorization": f"Bearer {caller.api_key}", "X-Request-Id": last}
    httpx.get(f"{caller.url}/v1/quota", headers=headers, timeout=30).raise_for_status()

    def lines() -> list[dict[str, Any]]:
        found = (json.loads(text[text.find("{") :]) for text in easel.log_lines() if '"event": "request"' in text)
        return [line for line in found if line.get("api_key") == caller.api_key.split("_")[2]]

    easel.wait_for(lambda: any(line["request_id"] == last for line in lines()))
    return [line["status"] for line in lines() if line["request_id"] != last]
