"""Aliases of models: whose they are, what they may be called, and what their names lead to."""

import threading
import uuid

import pytest
from django.db import IntegrityError, connection, transaction

from easel import seed
from easel.catalog.errors import ModelNotFound
from easel.catalog.models import Model
from easel.seed import DEMO_LIMITS
from easel.serving.aliases import alias_find, alias_remove, alias_set, aliases_of, nearest_name
from easel.serving.errors import AliasInvalid, AliasNotFound, ModelNameTaken
from easel.serving.models import Alias, Route
from easel.serving.routing import listed_models, model_get
from easel.serving.versions import version_register
from tenants.accounts import tenant_list_models
from tenants.models import ListedModels
from tests.conftest import NOW


@pytest.fixture
def name():
    return f"gpt-image-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def alias(version):
    """Sets aliases of the test's model: `alias("gpt-image-1", tenant=tenant, size="512x512")`."""

    def make(name, *, tenant=None, model=None, ignored=(), is_lenient=False, **defaults):
        terms = {"ignored": ignored, "is_lenient": is_lenient, "defaults": defaults, "now": NOW}
        return alias_set(name=name, model=model or version.model, tenant=tenant, **terms)

    return make


@pytest.fixture
def other_model(version):
    """Another model, with the same weights."""
    return version_register(
        model_name=f"other-{uuid.uuid4().hex[:8]}",
        checkpoint=version.checkpoint,
        pool=version.pool,
        limits=DEMO_LIMITS,
        now=NOW,
    ).model


def test_an_alias_of_the_platform_is_everybodys(alias, version, alice, name):
    alias(name)
    assert model_get(name, tenant=alice.tenant) == version.model
    assert model_get(name) == version.model


def test_an_alias_of_a_tenant_is_its_own(alias, version, alice, bob, name):
    alias(name, tenant=alice.tenant)
    assert model_get(name, tenant=alice.tenant) == version.model
    for nobody_elses in (bob.tenant, None):
        with pytest.raises(ModelNotFound):
            model_get(name, tenant=nobody_elses)


def test_a_tenants_alias_comes_before_the_platforms(alias, version, other_model, alice, bob, name):
    alias(name)
    alias(name, tenant=alice.tenant, model=other_model)
    assert model_get(name, tenant=alice.tenant) == other_model
    assert model_get(name, tenant=bob.tenant) == version.model
    alias_remove(alias_find(name=name, tenant=alice.tenant))
    assert model_get(name, tenant=alice.tenant) == version.model


def test_a_model_may_have_several_aliases_and_an_alias_one_model(alias, version, other_model, name):
    alias(name, size="256x256", ignored=("style",))
    alias(f"{name}-mini")
    changed = alias(name, model=other_model, quality="low")
    assert model_get(f"{name}-mini") == version.model
    assert model_get(name) == other_model
    assert (changed.defaults, changed.ignored) == ({"quality": "low"}, [])
    assert Alias.objects.filter(name=name).count() == 1


@pytest.mark.parametrize("good", ["gpt-image-1", "Tongyi-MAI/Z-Image-Turbo", "org/sub/name.v1:free", "a", "x" * 92])
def test_names_and_hub_ids_are_taken(alias, good):
    with transaction.atomic():
        assert alias(good).name == good
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    "bad", ["", " ", "a b", "/a", "a/", "a//b", "../a", "a@2", "é", "a\n", "-a", ".a", "a/.b", "a\x00", "x" * 101]
)
def test_what_is_no_name_is_refused(alias, bad):
    with pytest.raises(AliasInvalid):
        alias(bad)


@pytest.mark.parametrize("bad", ["a b", "", "é", "x" * 65, "a.b"])
def test_what_is_no_field_is_refused(alias, name, bad):
    with pytest.raises(AliasInvalid):
        alias(name, ignored=(bad,))
    assert not Alias.objects.filter(name=name).exists()


@pytest.mark.parametrize("of_a_tenant", [False, True])
def test_the_name_of_a_model_is_no_alias(alias, other_model, alice, of_a_tenant):
    with pytest.raises(ModelNameTaken):
        alias(other_model.name, tenant=alice.tenant if of_a_tenant else None)


@pytest.mark.parametrize("of_a_tenant", [False, True])
def test_an_alias_is_no_name_for_a_new_model(alias, version, alice, name, of_a_tenant):
    alias(name, tenant=alice.tenant if of_a_tenant else None)
    with pytest.raises(ModelNameTaken):
        version_register(model_name=name, checkpoint=version.checkpoint, pool=version.pool, limits=DEMO_LIMITS, now=NOW)
    assert not Model.objects.filter(name=name).exists()


def test_the_database_holds_that_a_name_is_a_models_or_an_aliass(alias, version, other_model, name):
    alias(name)
    with pytest.raises(IntegrityError), transaction.atomic():
        Model.objects.create(name=name, created_at=NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        Alias.objects.create(name=other_model.name, model=version.model, created_at=NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        Alias.objects.filter(name=name).update(name=other_model.name)


def test_of_a_model_and_an_alias_at_the_same_moment_one_is_made(alias, name):
    model_inserted, refused = threading.Event(), []

    def set_alias():
        model_inserted.wait()
        try:
            alias(name)
        except ModelNameTaken as error:
            refused.append(error)
        finally:
            connection.close()

    other = threading.Thread(target=set_alias)
    other.start()
    with transaction.atomic():
        Model.objects.create(name=name, created_at=NOW)
        model_inserted.set()
        with connection.cursor() as cursor:
            is_waiting = False
            while not is_waiting and other.is_alive():  # for this transaction, whose model it can't see
                cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)")
                ((is_waiting,),) = cursor.fetchall()
        assert is_waiting
    other.join()
    assert len(refused) == 1
    assert not Alias.objects.filter(name=name).exists()


def test_an_alias_of_a_model_that_nobody_serves_says_so(alias, other_model, name):
    alias(name, model=other_model)
    Route.objects.filter(model=other_model).delete()
    with pytest.raises(ModelNotFound, match=f"{name!r} stands for {other_model.name!r}, which no version serves"):
        model_get(name)
    with pytest.raises(ModelNotFound, match=f"no version serves {other_model.name!r}"):
        model_get(other_model.name)
    assert name not in {listed.name for listed in listed_models(None)}


def test_an_unknown_name_names_the_nearest(alias, version, name):
    alias(name)
    for wrong, meant in ((name.upper(), name), (name + "x", name), (version.model.name[:-1], version.model.name)):
        with pytest.raises(ModelNotFound, match=f"did you mean {meant}\\?"):
            model_get(wrong)
    assert nearest_name("zzzzzz", [name]) is None


def test_the_nearest_name_is_never_another_tenants(alias, alice, bob, name):
    alias(name, tenant=alice.tenant)
    with pytest.raises(ModelNotFound) as refusal:
        model_get(name + "x", tenant=bob.tenant)
    assert name + "?" not in str(refusal.value)


@pytest.mark.parametrize(
    ("policy", "shows_model", "shows_alias"), [("models", True, False), ("aliases", False, True), ("all", True, True)]
)
def test_a_tenants_policy_says_which_names_are_listed(alias, version, alice, name, policy, shows_model, shows_alias):
    alias(name)
    tenant_list_models(tenant=alice.tenant, listed=ListedModels(policy))
    alice.tenant.refresh_from_db()
    names = {listed.name for listed in listed_models(alice.tenant)}
    assert (version.model.name in names, name in names) == (shows_model, shows_alias)


def test_an_alias_that_is_not_there_cannot_be_removed(alias, alice, name):
    alias(name)
    with pytest.raises(AliasNotFound):
        alias_find(name=name, tenant=alice.tenant)


def aliases_seeded(model):
    """The aliases that seeding sets for a model in an installation that has none."""
    Alias.objects.all().delete()
    seed._seed_aliases(model, now=NOW)
    return aliases_of(None)


def test_seeding_gives_the_names_that_clients_have_hard_coded(version):
    with transaction.atomic():
        found = aliases_seeded(version.model)
        formats = {name: alias.response_format for name, alias in found.items()}
        assert formats == {"gpt-image-1": "", "gpt-image-1-mini": "", "dall-e-2": "url", "dall-e-3": "url"}
        assert {tuple(alias.ignored) for alias in found.values()} == {("background", "moderation", "style")}
        transaction.set_rollback(True)


def test_only_its_own_weights_are_seeded_under_a_hub_id(version):
    with transaction.atomic():
        Model.objects.filter(name="z-image-turbo").update(name=f"z-{uuid.uuid4()}")
        Model.objects.filter(pk=version.model_id).update(name="z-image-turbo")
        version.model.refresh_from_db()
        assert "Tongyi-MAI/Z-Image-Turbo" in aliases_seeded(version.model)
        transaction.set_rollback(True)


def test_seeding_changes_no_alias_that_is_there(alias, version, other_model):
    with transaction.atomic():
        Alias.objects.all().delete()
        alias("dall-e-3", model=other_model)
        seed._seed_aliases(version.model, now=NOW)
        assert alias_find(name="dall-e-3", tenant=None).model == other_model
        transaction.set_rollback(True)
