"""Sizes of images, held against every size that there is."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.jobs.errors import SizeInvalid
from easel.jobs.sizes import sides_of, size_nearest, size_parse, size_wanted
from easel.seed import DEMO_LIMITS
from easel.serving.versions import version_register
from tenants.models import Quota
from tests.conftest import NOW


def allowed(*, side_min, side_max, pixels_max):
    """Every size that the limits allow, by their wording in the documentation."""
    sides = [side for side in range(1, side_max + 1) if side % 16 == 0 and side >= side_min]
    return [
        (width, height)
        for width in sides
        for height in sides
        if max(width, height) <= 3 * min(width, height) and (pixels_max is None or width * height <= pixels_max)
    ]


@pytest.mark.parametrize(
    ("asked", "limits", "nearest"),
    [
        ((1920, 1080), (256, 2048, None), (1920, 1088)),  # 1072 is as near, and smaller
        ((1080, 1920), (256, 2048, None), (1088, 1920)),
        ((1920, 1080), (128, 512, None), (512, 288)),  # 16:9 within the sides
        ((1920, 1080), (256, 2048, 1024 * 1024), (1360, 768)),  # 16:9 is 1365x768 at that many pixels
        ((1024, 1024), (128, 512, None), (512, 512)),
        ((1792, 1024), (128, 512, None), (512, 288)),  # 293 high
        ((1, 1), (128, 512, None), (128, 128)),
        ((64, 128), (128, 512, None), (128, 256)),
        ((4000, 100), (256, 2048, None), (768, 256)),  # at most 3 to 1
        ((100, 4000), (256, 2048, None), (256, 768)),
        ((250, 250), (128, 512, None), (256, 256)),
        ((512, 512), (128, 512, 65536), (256, 256)),
        ((512, 512), (128, 512, 128 * 128), (128, 128)),
        ((512, 512), (128, 512, 128 * 128 - 1), None),  # the limits allow nothing
        ((512, 512), (130, 140, None), None),  # no multiple of 16 between them
    ],
)
def test_the_nearest_size_is(asked, limits, nearest):
    side_min, side_max, pixels_max = limits
    assert size_nearest(*asked, side_min=side_min, side_max=side_max, pixels_max=pixels_max) == nearest


limits_of_a_model = st.fixed_dictionaries(
    {
        "side_min": st.integers(1, 400),
        "side_max": st.integers(64, 700),
        "pixels_max": st.none() | st.integers(1, 700 * 700),
    }
)


@given(st.integers(1, 99999), st.integers(1, 99999), limits_of_a_model)
def test_no_allowed_size_is_nearer_than_the_nearest(width, height, limits):
    found = size_nearest(width, height, **limits)
    sizes = allowed(**limits)
    if not sizes:
        assert found is None
        return
    wanted = size_wanted(width, height, **limits)
    assert found in sizes
    assert math.dist(found, wanted) == pytest.approx(min(math.dist(size, wanted) for size in sizes))


@given(st.integers(1, 700), st.integers(1, 700), limits_of_a_model)
def test_of_a_size_within_the_limits_only_the_multiples_matter(width, height, limits):
    fits = (
        limits["side_min"] <= min(width, height)
        and max(width, height) <= limits["side_max"]
        and max(width, height) <= 3 * min(width, height)
        and (limits["pixels_max"] is None or width * height <= limits["pixels_max"])
    )
    if fits:
        assert size_wanted(width, height, **limits) == pytest.approx((width, height))
        if width % 16 == height % 16 == 0:
            assert size_nearest(width, height, **limits) == (width, height)


@given(st.integers(1, 99999), st.integers(1, 99999), limits_of_a_model)
def test_the_wanted_size_has_the_shape_that_was_asked_for_and_passes_no_upper_limit(width, height, limits):
    found = size_wanted(width, height, **limits)
    aspect = min(max(width / height, 1 / 3), 3)
    assert found[0] / found[1] == pytest.approx(aspect)
    assert max(found) <= limits["side_max"] * (1 + 1e-9)
    assert limits["pixels_max"] is None or found[0] * found[1] <= limits["pixels_max"] * (1 + 1e-9)


@pytest.mark.parametrize("size", ["512x256", "512X256", "512×256", "512*256"])
def test_a_size_may_be_spelled(size):
    assert sides_of(size) == (512, 256)


@pytest.mark.parametrize(
    "size", ["", "512", "x", "512x", "512 x 256", "512x256x3", "0512x256", "512x256\n", "５12x256"]
)
def test_what_is_no_size_is_none(size):
    assert sides_of(size) is None


@pytest.fixture
def large(version):
    """A version of a model of large images."""
    limits = replace(DEMO_LIMITS, side_min=256, side_max=2048, size_default="1024x1024")
    return version_register(
        model_name=f"{version.model.name}-l", checkpoint=version.checkpoint, pool=version.pool, limits=limits, now=NOW
    )


@pytest.mark.parametrize("size", ["1920x1080", "300x5000", "16x16", "4096x4096", "99999x1", "2048x512"])
def test_a_refused_size_names_one_that_is_then_taken(large, size):
    quotas = [Quota(pixels_max=1_500_000), Quota(pixels_max=None), Quota(pixels_max=2_000_000)]
    with pytest.raises(SizeInvalid) as refusal:
        size_parse(size, version=large, quotas=quotas)
    named = re.search(r"the nearest allowed size is (\d+x\d+)$", str(refusal.value))
    assert named, str(refusal.value)
    assert size_parse(named[1], version=large, quotas=quotas) == sides_of(named[1])


def test_a_size_that_nothing_comes_near_to_is_refused_without_advice(large):
    with pytest.raises(SizeInvalid) as refusal:
        size_parse("512x512", version=large, quotas=[Quota(pixels_max=100)])
    assert "nearest" not in str(refusal.value)
