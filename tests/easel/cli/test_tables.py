import re
import uuid

from easel.cli.tables import print_rows


def test_ids_and_numbers_are_never_cut_or_wrapped(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    row = {f"column_{number}": str(uuid.uuid4()) for number in range(4)} | {"amount": "1234567890.123456 USD"}
    print_rows([row, row], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split("  ") == list(row.values())


def test_no_rows_are_said_to_be_none(capsys):
    print_rows([], as_json=False)
    assert capsys.readouterr().out == "none\n"


def test_a_cell_shows_what_a_command_takes(capsys):
    print_rows([{"origins": ["https://a.example", "https://b.example"], "lenient": True, "limit": None}], as_json=False)
    cells = capsys.readouterr().out.splitlines()[1]
    assert re.split(" {2,}", cells) == ["https://a.example, https://b.example", "true", "none"]
