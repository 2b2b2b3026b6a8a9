"""Writes the dashboards to `dashboards/`."""

import json
from pathlib import Path

from deploy.grafana import cost, engine, health, margin, storage

FOLDER = Path(__file__).with_name("dashboards")


def dashboards() -> dict[str, str]:
    """Return the text of each file, by file name."""
    boards = [module.BOARD for module in (health, engine, cost, storage, margin)]
    return {f"{board['uid']}.json": json.dumps(board, indent=2, sort_keys=True) + "\n" for board in boards}


if __name__ == "__main__":
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
