"""The tutorial, the Python pages and the first examples of others: what they tell the reader to run is run."""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from PIL import Image

from tests.live import LiveEasel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.M | re.S)
    assert found, f"{page} has no {language}"
    return "\n".join(found)


@pytest.fixture
def shell(easel: LiveEasel, tmp_path):
    """Runs a script where `easel` is, in a folder that looks like the repository; returns what it prints."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "easel").write_text(f'#!/bin/sh\nexec {sys.executable} -m easel.cli.main "$@"\n')
    (programs / "easel").chmod(0o755)
    (tmp_path / "inference").symlink_to(ROOT / "inference")

    def run(script: str, **env: str) -> str:
        argv = ["bash", "-euo", "pipefail", "-c", script]
        given = {**easel._env(), **env}
        done = subprocess.run(argv, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_tutorial_leads_from_a_picture_to_a_line_of_an_invoice(easel, shell, tmp_path):
    said = shell(blocks("tutorial.md", "sh").replace("http://127.0.0.1:8000", easel.url))
    plain, outlined = (Image.open(tmp_path / name) for name in ("circle.png", "outlined.png"))
    assert plain.size == outlined.size == (256, 256)
    assert plain.tobytes() != outlined.tobytes()
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
    statement = said.rpartition("lines\n")[2]
    assert re.search(r"image_unit .* \d+\.\d{6} USD", statement)
    assert (tmp_path / "costs.csv").read_text().count("image_unit") >= 2


@pytest.mark.parametrize("page", ["python-client.md", "how-to/many-images.md"])
def test_the_python_pages_run_as_they_stand(easel, shell, tmp_path, page):
    key = easel.json("tenant", "create", f"t-{uuid.uuid4().hex[:12]}", "--credit", "10")["api_key"]
    (tmp_path / "page.py").write_text(blocks(page, "python"))
    shell(f"{sys.executable} page.py", EASEL_URL=easel.url, EASEL_API_KEY=key)
    assert list(tmp_path.glob("*/*.png"))


def test_the_first_examples_run_as_they_stand(easel, alice, shell, tmp_path):
    alice.adapters.upload(name="outline", file=ROOT / "inference/demo_model/adapters/outline.safetensors")
    readme = blocks("../README.md", "python").replace("http://127.0.0.1:8000", easel.url)
    batch = blocks("api.md", "python").replace("range(500)", "range(2)")
    program = f"import json\n{readme}\n{batch}\nprint(batch.status)\n"
    (tmp_path / "page.py").write_text(program.replace("easel_sk_…", alice.api_key))
    curl = "\n".join(blocks(page, "sh") for page in ("index.md", "how-to/retries.md"))
    said = shell(f"{sys.executable} page.py\n{curl}", EASEL_URL=easel.url, EASEL_API_KEY=alice.api_key)
    cost, batch_status, *answers = said.splitlines()
    assert float(cost.split()[0]) > 0
    assert batch_status == "in_progress"
    image, job = map(json.loads, "".join(answers).replace("}{", "}\n{").splitlines())
    assert image["data"][0]["url"]
    assert job["status"] == "queued"


def test_the_queries_of_costs_run_as_they_stand(easel):
    done = easel.command("psql", "-v", "ON_ERROR_STOP=1", "-c", blocks("costs.md", "sql"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" row") == 3
