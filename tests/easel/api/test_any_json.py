"""Any JSON at all in a body: never a failure of ours, and a job that is whole or no job."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.ledger.accounts import balances_by_kind
from easel.api.images import ImagesInput
from easel.jobs.models import Job
from tenants.keys import key_set_leniency
from tests.easel.api.conftest import call

texts = st.text(st.characters(codec=None), max_size=20)  # with NUL and lone surrogates
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**30, -1, 0, 1, 2**63])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
# What a client that knows of other APIs may send: many of these are taken.
plausible = st.fixed_dictionaries(
    {},
    optional={
        "n": st.sampled_from([1, 2, None]),
        "size": st.sampled_from(["auto", "256x256", "256X256", "1024x1024", "1920×1080", None]),
        "width": st.sampled_from([128, 250, 256, None]),
        "height": st.sampled_from([128, 250, 256, None]),
        "steps": st.sampled_from([1, 2, 1000, None]),
        "num_inference_steps": st.sampled_from([1, 2, None]),
        "seed": st.sampled_from([-1, 7, None]),
        "guidance_scale": st.sampled_from([0, 1, 7.5, None]),
        "negative_prompt": st.sampled_from(["", "blurry", None]),
        "style": st.sampled_from(["vivid", None]),
        "background": st.sampled_from(["transparent", "auto", None]),
        "output_format": st.sampled_from(["jpg", "png", "gif", None]),
        "quality": st.sampled_from(["low", "hd", "ultra", None]),
        "metadata": st.dictionaries(texts, texts | st.none(), max_size=3),
        "adapters": st.lists(st.fixed_dictionaries({"name": texts}, optional={"weight": numbers}), max_size=2),
    },
)
known = st.dictionaries(st.sampled_from(sorted(ImagesInput.model_fields)), values, max_size=3)
unknown = st.dictionaries(texts, values, max_size=2)
bodies = st.builds(
    lambda *parts: {name: value for part in parts for name, value in part.items()}, plausible, known, unknown
)


@pytest.mark.parametrize("is_lenient", [False, True], ids=["strict", "lenient"])
@given(given_body=bodies)
def test_any_object_gets_a_whole_job_or_a_refusal_that_leaves_nothing(alice, version, is_lenient, given_body):
    key_set_leniency(key=alice.key, is_lenient=is_lenient)
    content = json.dumps({"prompt": "a red circle", "model": version.model.name, **given_body})
    headers = {"Content-Type": "application/json"}
    before = Job.objects.filter(tenant=alice.tenant).count(), balances_by_kind(alice.tenant)["held"]
    answer = call("POST", "/v1/jobs", alice, content=content, headers=headers)
    after = Job.objects.filter(tenant=alice.tenant).count(), balances_by_kind(alice.tenant)["held"]
    if answer.status_code == 202:
        assert after[0] == before[0] + 1
        assert after[1] > before[1]
        job = answer.json()
        assert call("GET", f"/v1/jobs/{job['id']}", alice).json()["warnings"] == job["warnings"]
    else:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["error"]["code"]
        assert after == before


@given(content=values)
def test_any_value_gets_a_quote_or_a_refusal(alice, content):
    headers = {"Content-Type": "application/json"}
    answer = call("POST", "/v1/images/quotes", alice, content=json.dumps(content), headers=headers)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text


@given(given_body=bodies)
def test_any_object_is_quoted_as_it_would_be_admitted(alice, version, given_body):
    content = json.dumps({"prompt": "a red circle", "model": version.model.name, **given_body})
    answer = call("POST", "/v1/images/quotes", alice, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    assert not Job.objects.filter(tenant=alice.tenant).exists()
