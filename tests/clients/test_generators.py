"""Clients that others generate from the OpenAPI document: no generator warns, and what they write works."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from easel_client import Easel
from tests.clients.programs import ROOT, Ran, installed, run_python
from tests.live import LiveEasel

MODULES = ("--target", "es2022", "--module", "nodenext")
TYPESCRIPT = ROOT / "tests/clients/node/generated.ts"
PYTHON = """
import os, time, uuid
from generated import AuthenticatedClient
from generated.api.jobs import jobs_create, jobs_get, jobs_list
from generated.models import Error, Job, JobInput, JobStatus

url = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
client = AuthenticatedClient(base_url=url, token=os.environ["OPENAI_API_KEY"])
job = jobs_create.sync(client=client, body=JobInput(prompt="a red circle", size="128x128"))
assert isinstance(job, Job), job
while job.finished_at is None:
    time.sleep(0.2)
    job = jobs_get.sync(job.id, client=client)
assert job.status is JobStatus.SUCCEEDED
listed = jobs_list.sync(client=client, limit=1)
refused = jobs_get.sync(uuid.uuid4(), client=client)
assert isinstance(refused, Error)
print("job", job.id, len(job.images), job.usage.cost)
print("listed", listed.data[0].id, listed.has_more)
print("refused", refused.error.code)
"""


@pytest.fixture(scope="module")
def document(easel: LiveEasel, tmp_path_factory) -> Path:
    """The OpenAPI document as it is served, in a file."""
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_text(httpx.get(f"{easel.url}/v1/openapi.json", timeout=60).raise_for_status().text)
    return path


def run(*argv: str, folder: Path, **env: str) -> Ran:
    """Run a program that must succeed."""
    env = {"PATH": f"{installed('venv', 'bin')}:{os.environ['PATH']}", "HOME": str(folder), **env}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, folder)


def test_openapi_python_client_generates_without_a_warning_what_makes_jobs(document, caller: Easel, tmp_path):
    generator = str(installed("venv", "bin/openapi-python-client"))
    options = ("--path", str(document), "--output-path", "generated", "--meta", "none", "--fail-on-warning")
    ran = run(generator, "generate", *options, folder=tmp_path)
    assert "warning" not in (ran.out + ran.err).lower()
    assert len(list((tmp_path / "generated/models").glob("error*.py"))) <= 6  # one class of errors, not one per call
    found = run_python(PYTHON, caller, tmp_path, own_venv=True)
    assert found.code == 0, found.err
    job_id, images, cost = found.said("job").split()
    assert int(images) == 1
    assert float(cost) > 0
    assert found.said("listed") == f"{job_id} False"
    assert found.said("refused") == "job_not_found"


def test_openapi_typescript_generates_types_by_which_a_program_is_checked_and_runs(document, caller: Easel, tmp_path):
    packages = installed("node", "node_modules")
    (tmp_path / "node_modules").symlink_to(packages, target_is_directory=True)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.ts").write_text(TYPESCRIPT.read_text())
    ran = run("node", str(packages / "openapi-typescript/bin/cli.js"), str(document), "-o", "api.ts", folder=tmp_path)
    assert "warn" not in (ran.out + ran.err).lower()
    tsc = str(packages / "typescript/bin/tsc")
    options = ("--strict", *MODULES, "--lib", "es2022,dom", "--skipLibCheck")
    run("node", tsc, *options, "program.ts", folder=tmp_path)
    env = {"EASEL_URL": caller.url, "EASEL_API_KEY": caller.api_key}
    found = json.loads(run("node", "--input-type=module", "-e", _started(env), folder=tmp_path).out)
    assert (found["status"], found["images"], found["refused"]) == ("succeeded", 1, "job_not_found")
    assert found["listed"] == [found["id"]]


def test_the_types_refuse_what_the_api_would_refuse(document, tmp_path):
    packages = installed("node", "node_modules")
    run("node", str(packages / "openapi-typescript/bin/cli.js"), str(document), "-o", "api.ts", folder=tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    wrong = (
        'import type { components } from "./api.js";\n'
        'export const input: components["schemas"]["JobInput"] = { prompt: "a", quality: "ultra" };\n'
    )
    (tmp_path / "wrong.ts").write_text(wrong)
    tsc = [str(packages / "typescript/bin/tsc"), "--strict", "--noEmit", "--skipLibCheck", *MODULES, "wrong.ts"]
    done = subprocess.run(["node", *tsc], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert "ultra" in done.stdout


def _started(env: dict[str, str]) -> str:
    return f'import {{ main }} from "./program.js"; console.log(JSON.stringify(await main({json.dumps(env)})));'
