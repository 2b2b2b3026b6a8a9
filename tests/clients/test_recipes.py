"""The pages of docs/clients: what each tells the reader to run is run as it stands there."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from easel_client import Easel
from easel_local.stack import free_port
from tests.clients.conftest import new_tenant
from tests.clients.programs import PAGES, Ran, blocks, installed, requests_of, run_node, run_python
from tests.live import LiveEasel, all_costs

OWN_VENV = {"litellm", "langchain"}
RECIPES = ["openai-python", "azure-openai", "openai-node", "vercel-ai", "litellm", "langchain"]
MASTER_KEY = "sk-change-me"  # of the proxy, as in its page


def source(recipe: str) -> str:
    """The blocks of a page, one after the other."""
    page = PAGES / f"{recipe}.md"
    return "\n".join(blocks(page, "js") or blocks(page, "python"))


def run(recipe: str, caller: Easel, folder: Path, *, program: str = "") -> Ran:
    """A page's program, or another, with the packages that the page tells to install."""
    program = program or source(recipe)
    if blocks(PAGES / f"{recipe}.md", "js"):
        return run_node(program, caller, folder)
    return run_python(program, caller, folder, own_venv=recipe in OWN_VENV)


def check(ran: Ran, caller: Easel, *, code: str) -> None:
    """A picture of the size asked for, the cost that was charged, and an error's code and message."""
    assert ran.code == 0, ran.err
    image = Image.open(ran.folder / "circle.png")
    assert (image.format, image.size) == ("PNG", (256, 256))
    charged = all_costs(caller, group_by="model")["total"]["amount_micros"]
    assert charged > 0
    assert float(ran.said("cost")) == pytest.approx(charged / 1e6, abs=1e-9)
    refused = ran.said("refused")
    assert refused.startswith(f"{code} ")
    assert "multiples of 16" in refused


# LiteLLM drops the code and passes the status on.
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_draws_reads_its_cost_and_meets_an_error(caller, recipe, tmp_path):
    check(run(recipe, caller, tmp_path), caller, code="400" if recipe == "litellm" else "size_invalid")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_of_a_caller_without_credit_is_refused_once(easel: LiveEasel, poor, recipe, tmp_path):
    # Vercel's SDK repeats every 429 unless it is told not to, as its page says.
    program = source(recipe).replace('size: "256x256",', 'size: "256x256", maxRetries: 0,')
    ran = run(recipe, poor, tmp_path, program=program if recipe == "vercel-ai" else "")
    assert ran.code != 0
    assert "add credit" in ran.err
    assert requests_of(easel, poor) == [429]


@pytest.fixture(scope="module")
def proxied(easel: LiveEasel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Easel, Easel]]:
    """A caller of Easel's, and LiteLLM's proxy with that caller's key, configured as its page says."""
    (_, caller), folder, port = new_tenant(easel), tmp_path_factory.mktemp("proxy"), free_port()
    program = installed("venv", "bin/litellm")
    (folder / "config.yaml").write_text("\n".join(blocks(PAGES / "litellm-proxy.md", "yaml")))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "EASEL_BASE_URL": f"{caller.url}/v1",
        "EASEL_API_KEY": caller.api_key,
    }
    argv = [str(program), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-5000:]
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).is_success
        except httpx.TransportError:
            return False

    try:
        easel.wait_for(is_up, seconds=300)  # it takes 20 seconds of CPU to start
        yield caller, Easel(f"http://127.0.0.1:{port}", MASTER_KEY)
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_litellms_proxy_draws_reads_the_cost_and_meets_errors(easel: LiveEasel, proxied, tmp_path):
    caller, proxy = proxied
    ran = run("litellm-proxy", proxy, tmp_path)
    check(ran, caller, code="400")
    *_, draw, error, edit, _ = requests_of(
        easel, caller
    )  # before them it lists the models, after them we ask for costs
    assert (draw, error, edit) == (200, 400, 404)
    assert "unsupported_endpoint" in ran.said("edit")
