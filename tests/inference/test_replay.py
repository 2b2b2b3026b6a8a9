"""A trace is run as it says, is drawn as each alone would be, and is refused with the place of what is wrong."""

import json

import pytest

from inference.demo_model import CHECKPOINT_DIR
from inference.model import LoadedModel, Room, load_model
from inference.replay import EXAMPLE, TraceError, describe, largest_difference, read_trace, run


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model(str(CHECKPOINT_DIR), name="demo", room=Room(rank_max=8))


@pytest.fixture
def trace(tmp_path, demo):
    """Requests, by way of a file, to arrivals."""

    def trace(*requests):
        path = tmp_path / "trace.json"
        path.write_text(json.dumps({"requests": requests}))
        return read_trace(path, demo.targets)

    return trace


def request(**fields):
    return {"prompt": "a red circle", "width": 64, "height": 64, "steps": 3, "seed": 1, **fields}


def test_requests_join_and_leave_at_their_steps(demo, trace):
    arrivals = trace(request(), request(join_step=1), request(steps=9, cancel_step=2))
    rows, steps, _ = run(demo, arrivals)
    assert [sorted(rows.index(row) for row in step.rows) for step in steps] == [[0, 2], [0, 1, 2], [0, 1], [1]]
    assert [row.steps_done for row in rows] == [3, 3, 2]


def test_the_shipped_trace_mixes_everything_and_its_pictures_are_those_drawn_alone(demo):
    rows, steps, engine = run(demo, read_trace(EXAMPLE, demo.targets))
    assert max(len({row.size for row in step.rows}) for step in steps) >= 3
    assert max(step.adapters for step in steps) == 2
    assert largest_difference(demo, rows) <= 1
    assert "drift" in describe(rows, steps, engine)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"widht": 64}, "widht"),
        ({"adapters": [{"name": "nothing-there"}]}, "nothing-there"),
        ({"adapters": [{"scale": 1}]}, "name"),
        ({"join_step": "soon"}, "soon"),
    ],
)
def test_a_bad_request_is_refused_with_its_place(trace, broken, reason):
    with pytest.raises(TraceError, match=f"request 1: .*{reason}"):
        trace(request(), request(**broken))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"requests": []}', '{"requests": 3}'])
def test_what_is_no_trace_is_refused(demo, tmp_path, text):
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"trace\.json"):
        read_trace(path, demo.targets)
