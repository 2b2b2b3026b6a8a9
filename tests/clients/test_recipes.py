"""The pages of docs/clients: what each tells the reader to run is run as it stands there."""

from pathlib import Path

import pytest
from PIL import Image

from easel.cli.client import Client
from tests.clients.programs import PAGES, Ran, blocks, requests_of, run_node, run_python
from tests.live import LiveEasel

RECIPES = ["openai-python", "openai-node"]


def run(recipe: str, caller: Client, folder: Path) -> Ran:
    """The blocks of a page, one after the other, as one program."""
    page = PAGES / f"{recipe}.md"
    if scripts := blocks(page, "js"):
        return run_node("\n".join(scripts), caller, folder)
    return run_python("\n".join(blocks(page, "python")), caller, folder)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_draws_reads_its_cost_and_meets_an_error(easel: LiveEasel, caller, recipe, tmp_path):
    ran = run(recipe, caller, tmp_path)
    assert ran.code == 0, ran.err
    image = Image.open(tmp_path / "circle.png")
    assert (image.format, image.size) == ("PNG", (256, 256))
    charged = caller.costs(group_by="model")["total"]["amount_micros"]
    assert charged > 0
    assert float(ran.said("cost")) == pytest.approx(charged / 1e6, abs=1e-9)
    assert ran.said("refused").startswith("size_invalid ")
    assert "multiple" in ran.said("refused")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_of_a_caller_without_credit_is_refused_once(easel: LiveEasel, poor, recipe, tmp_path):
    ran = run(recipe, poor, tmp_path)
    assert ran.code != 0
    assert "add credit" in ran.err
    assert requests_of(easel, poor) == [429]
