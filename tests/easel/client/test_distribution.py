"""`pip install ./clients/python` gives a package that needs nothing of the server."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    source = shutil.copytree(ROOT / "clients/python", folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True, capture_output=True)
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_has_types_and_licence_and_needs_httpx_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    assert {"easel_client/py.typed", "easel_client/api.py", "easel_client/images.py"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert [line.split()[1].partition(">")[0] for line in required] == ["httpx"]


def test_it_is_the_version_of_the_server(wheel):
    from importlib.metadata import version

    assert wheel.name.startswith(f"easel_client-{version('easel')}-")


def test_it_is_imported_without_the_server(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "import sys, easel_client.images; print([m for m in sys.modules if m in ('django', 'easel', 'core')])"
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(httpx.__file__).parents[1])]),
    }
    done = subprocess.run([sys.executable, "-S", "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
