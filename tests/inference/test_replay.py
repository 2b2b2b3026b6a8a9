"""A trace is replayed step by step, and refused with the place of an error; each image is as if generated alone."""

import json

import numpy as np
import pytest
from PIL import Image

from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.model import AdapterLimits, LoadedModel, load_model
from inference.tools.replay import EXAMPLE
from inference.tools.replaying import (
    Replay,
    contact_sheet,
    describe,
    largest_difference,
    read_trace,
    run,
)
from inference.tools.trace import TraceError


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model(str(CHECKPOINT_DIR), name="demo", limits=AdapterLimits(rank_max=8))


@pytest.fixture
def trace(tmp_path, demo):
    """Requests, by way of a file, to arrivals."""

    def trace(*requests):
        path = tmp_path / "trace.json"
        path.write_text(json.dumps({"requests": requests}))
        return read_trace(path, demo.targets)

    return trace


def images(replay: Replay) -> dict[int, list[int]]:
    """Return the numbers of the images in each step."""
    return {number: sorted(replay.rows.index(row) for row in step.rows) for number, step in replay.steps.items()}


def request(**fields):
    return {"prompt": "a red circle", "width": 64, "height": 64, "steps": 3, "seed": 1, **fields}


def test_requests_join_and_leave_at_their_steps(demo, trace):
    arrivals = trace(request(), request(join_step=1), request(steps=9, cancel_step=2))
    replay = run(demo, arrivals)
    assert images(replay) == {0: [0, 2], 1: [0, 1, 2], 2: [0, 1], 3: [1]}
    assert [row.steps_done for row in replay.rows] == [3, 3, 2]


def test_steps_in_which_nobody_is_there_are_skipped(demo, trace):
    replay = run(demo, trace(request(steps=1), request(join_step=10**12, steps=1)))
    assert images(replay) == {0: [0], 10**12: [1]}


def test_an_adapter_is_a_file_beside_the_trace_too(tmp_path, trace):
    (tmp_path / "mine.safetensors").write_bytes((ADAPTERS_DIR / "outline.safetensors").read_bytes())
    by_path, by_name = trace(*(request(adapters=[{"name": name}]) for name in ("mine.safetensors", "outline")))
    (mine, scale), (bundled, _) = by_path.request.adapters[0], by_name.request.adapters[0]
    assert (mine.sha256, scale) == (bundled.sha256, 1.0)
    assert mine.on("cpu").keys() == bundled.on("cpu").keys()


def test_equal_requests_are_images_of_their_own(demo, trace):
    assert images(run(demo, trace(request(steps=1), request(steps=1)))) == {0: [0, 1]}


def test_the_report_gives_the_outcome_of_each_image(demo, trace):
    report = describe(run(demo, trace(request(tenant="acme"), request(cancel_step=0), request(seed=2**70))))
    assert [line.split()[-1] for line in report.splitlines() if "64x64" in line][:2] == ["succeeded", "canceled"]
    assert report.count("succeeded") == 1


def test_a_trace_in_which_all_is_canceled_has_no_shares(demo, trace):
    assert "0.0%" in describe(run(demo, trace(request(cancel_step=0))))


def test_the_shipped_trace_mixes_everything_and_its_pictures_are_those_generated_alone(demo):
    replay = run(demo, read_trace(EXAMPLE, demo.targets))
    assert max(len({row.size for row in step.rows}) for step in replay.steps.values()) >= 3
    assert max(step.adapters for step in replay.steps.values()) == 2
    assert largest_difference(demo, replay) <= 1
    assert sum(row.gpu_seconds for row in replay.rows) == pytest.approx(replay.busy_seconds)


def test_the_sheet_shows_every_picture_under_its_number():
    pictures = {number: Image.new("RGB", (64, 32), "red") for number in (0, 2, 3, 4)}
    sheet = np.asarray(contact_sheet(pictures))
    assert (sheet == (255, 0, 0)).all(axis=-1).sum() == 4 * 64 * 32


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"widht": 64}, "`widht` is unknown.*trace_invalid"),
        ({"width": "64"}, '`width` cannot be "64" .*trace_invalid'),
        ({"steps": 0}, "`steps` cannot be 0 .*trace_invalid"),
        ({"seed": True}, "`seed` cannot be true .*trace_invalid"),
        ({"join_step": "soon"}, '`join_step` cannot be "soon" .*trace_invalid'),
        ({"adapters": [{"scale": 1}]}, "adapter 0: lacks name .*trace_invalid"),
        ({"adapters": [{"name": "outline"}, 3]}, "adapter 1: not an object .*trace_invalid"),
        ({"adapters": [{"name": "nothing-there"}]}, "adapter 0: .*nothing-there.*adapter_unreadable"),
        ({"adapters": [{"name": str(EXAMPLE)}]}, "adapter 0: .*adapter_unreadable"),
        ({"adapters": [{"name": "outline", "scale": float("nan")}]}, "finite.*adapter_scale_bad"),
        ({"width": 63}, "63 x 64.*size_unsupported"),
    ],
)
def test_a_bad_request_is_refused_with_its_place_and_a_code(demo, trace, broken, reason):
    with pytest.raises(TraceError, match=f"request 1.*{reason}"):
        run(demo, trace(request(), request(**broken)))


def test_a_request_without_a_required_field_is_refused(trace):
    with pytest.raises(TraceError, match=r"request 0: lacks width, seed \(trace_invalid\)"):
        trace({"prompt": "a red circle", "height": 64, "steps": 3})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"requests": []}', '{"requests": 3}'])
def test_a_file_that_is_no_trace_is_refused(demo, tmp_path, text):
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"trace\.json: .*\(trace_(invalid|unreadable)\)"):
        read_trace(path, demo.targets)
