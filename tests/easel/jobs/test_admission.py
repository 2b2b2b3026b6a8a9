import uuid
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.ledger.holds import InsufficientBalance
from core.image_units import image_units
from easel.catalog.errors import AdapterNotFound, AdapterRetired, ModelNotFound
from easel.catalog.models import Adapter, AdapterVersion
from easel.jobs.errors import ProjectNotFound, PromptInvalid, SizeInvalid, StepsInvalid
from easel.jobs.models import Job, State
from easel.serving.models import Route
from tenants.accounts import project_create
from tenants.models import Quota
from tests.conftest import NOW


def adapter(customer, version, *, name="outline", retired_at=None):
    made = Adapter.objects.create(
        tenant=customer.tenant, model=version.model, name=name, created_at=NOW, retired_at=retired_at
    )
    AdapterVersion.objects.create(
        adapter=made,
        number=1,
        upload_sha256="0" * 64,
        sha256="0" * 64,
        size_bytes=1,
        rank_max=4,
        modules=1,
        storage_key="t/a.safetensors",
        created_at=NOW,
    )
    return made


def test_an_admitted_job_is_queued_with_the_defaults_of_its_model(alice, version, submit):
    job = submit(alice)
    assert (job.state, job.width, job.height, job.steps, job.n) == (State.QUEUED, 256, 256, 8, 1)
    assert (job.pool, job.project) == (version.pool, alice.project)


def test_the_hold_is_the_highest_cost_that_the_job_can_have(alice, submit):
    submit(alice, size="512x256", n=2, steps=10)
    # 1 image unit; 1 * 10 steps * 4 GPU seconds at 0.0001; 0.002 a unit; 0.0005 a request
    assert balances_by_kind(alice.tenant)["held"] == 4000 + 2000 + 500


def test_a_seed_is_chosen_when_none_is_given(alice, submit):
    assert submit(alice).seed != submit(alice).seed


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * 101, "limit is 100"),
        ("a\x00b", r"U\+0000 at position 1"),
        ("a\x1bb", r"U\+001B"),
        ("\ud800", r"U\+D800"),
    ],
)
def test_a_prompt_that_is_no_text_is_refused(alice, submit, prompt, reason):
    with pytest.raises(PromptInvalid, match=reason):
        submit(alice, prompt=prompt)


@pytest.mark.parametrize("prompt", ["红色的圆", "a\ncircle\twith tabs", "🟥" * 100, "\u00e9"])
def test_any_text_is_a_prompt(alice, submit, prompt):
    assert submit(alice, prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("big", "WIDTHxHEIGHT"),
        ("256", "WIDTHxHEIGHT"),
        ("0x256", "WIDTHxHEIGHT"),
        ("-256x256", "WIDTHxHEIGHT"),
        ("256x256 ", "WIDTHxHEIGHT"),
        ("999999999x16", "WIDTHxHEIGHT"),
        ("٢٥٦x٢٥٦", "WIDTHxHEIGHT"),
        ("250x256", "multiples of 16"),
        ("112x256", "128 to 512"),
        ("528x256", "128 to 512"),
        ("512x128", "3 times"),
    ],
)
def test_a_size_that_the_model_does_not_draw_is_refused(alice, submit, size, reason):
    with pytest.raises(SizeInvalid, match=reason):
        submit(alice, size=size)


def test_a_size_over_the_tenants_maximum_is_refused(alice, submit):
    Quota.objects.filter(tenant=alice.tenant).update(pixels_max=256 * 256)
    alice.key.refresh_from_db()
    with pytest.raises(SizeInvalid, match="account's limit of 65536"):
        submit(alice, size="272x256")


@pytest.mark.parametrize("steps", [0, -1, 51])
def test_steps_outside_the_models_range_are_refused(alice, submit, steps):
    with pytest.raises(StepsInvalid):
        submit(alice, steps=steps)


def test_an_unknown_model_is_refused(alice, submit):
    with pytest.raises(ModelNotFound):
        submit(alice, model="gpt-image-9")


def test_a_model_that_no_version_serves_is_unknown(alice, version, submit):
    Route.objects.filter(model=version.model).delete()
    with pytest.raises(ModelNotFound):
        submit(alice)


def test_an_adapter_is_used_in_its_newest_version(alice, version, submit):
    adapter(alice, version)
    used = submit(alice, adapters=["outline"]).adapters.get()
    assert (used.adapter_version.adapter.name, used.adapter_version.number) == ("outline", 1)


def test_another_tenants_adapter_is_unknown(alice, bob, version, submit):
    adapter(bob, version)
    with pytest.raises(AdapterNotFound):
        submit(alice, adapters=["outline"])


def test_a_retired_adapter_is_refused(alice, version, submit):
    adapter(alice, version, retired_at=NOW)
    with pytest.raises(AdapterRetired):
        submit(alice, adapters=["outline"])


def test_a_project_is_one_of_the_tenants_own(alice, bob, submit):
    project_create(tenant=alice.tenant, slug="posters", now=NOW)
    assert submit(alice, project="posters").project.slug == "posters"
    with pytest.raises(ProjectNotFound):
        submit(bob, project="posters")


def test_a_request_over_the_balance_leaves_nothing_behind(customer, submit):
    poor, job_id = customer(credit="0.001"), uuid.uuid4()
    with pytest.raises(InsufficientBalance):
        submit(poor, job_id=job_id)
    assert not Job.objects.filter(id=job_id).exists()
    assert balances_by_kind(poor.tenant)["credit"] == 1000


def test_a_refused_request_holds_nothing(alice, submit):
    with pytest.raises(AdapterNotFound):
        submit(alice, adapters=["unknown"])
    assert balances_by_kind(alice.tenant)["held"] == 0


@pytest.mark.parametrize(("size", "units"), [("512x512", 1), ("256x256", Decimal("0.25")), ("1024x1024", 4)])
def test_an_image_unit_is_512_by_512_pixels(size, units):
    width, height = map(int, size.split("x"))
    assert image_units(width=width, height=height, n=1) == units
