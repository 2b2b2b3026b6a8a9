"""Grafana's dashboards as they are provisioned. That their queries bring data is tested on a running Easel."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from deploy.grafana.__main__ import FOLDER, dashboards
from deploy.grafana.board import WIDTH

SOURCES = yaml.safe_load((Path(FOLDER).parent / "provisioning/datasources/easel.yaml").read_text())["datasources"]
BOARDS = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
PANELS = [pytest.param(panel, id=f"{board['uid']}: {panel['title']}") for board in BOARDS for panel in board["panels"]]
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
each_panel = pytest.mark.parametrize("panel", PANELS)


def test_the_files_are_up_to_date():
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == dashboards(), "run `make dashboards`"


def test_no_two_dashboards_have_the_same_address_or_title():
    assert len({board["uid"] for board in BOARDS}) == len({board["title"] for board in BOARDS}) == len(BOARDS)


@each_board
def test_panels_have_ids_of_their_own(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@each_board
def test_panels_do_not_overlap(board):
    boxes = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    assert all(box["x"] + box["w"] <= WIDTH for _, box in boxes)
    assert not [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if overlap(a, b)]


def overlap(a, b):
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not beside and not below


@each_panel
def test_a_panel_has_a_description_and_a_unit(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_uses_a_provisioned_data_source(panel):
    known = {(source["type"], source["uid"]) for source in SOURCES}
    asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert {(source["type"], source["uid"]) for source in asked} <= known


@each_panel
def test_an_amount_in_the_chosen_currency_names_it(panel):
    """No unit of Grafana follows a variable: a sign of a currency here would be wrong for another one."""
    chosen = any("${currency" in target.get("rawSql", "") for target in panel["targets"])
    amount = any("_micros" in target.get("rawSql", "") for target in panel["targets"])
    if chosen and amount:
        assert (panel["fieldConfig"]["defaults"]["unit"], "${currency}" in panel["title"]) == ("none", True)
    elif amount:
        assert panel["fieldConfig"]["defaults"]["unit"] == "currencyUSD"
