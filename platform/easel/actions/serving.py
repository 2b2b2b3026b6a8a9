"""Models, their versions and routes, rollouts, pools, adapters."""

from dataclasses import fields as dataclass_fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms

from core.errors import DomainError
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action
from easel.actions.subjects import (
    ADAPTER,
    ALIAS,
    MODEL,
    POOL,
    ROLLOUT,
    TENANT,
    VERSION,
    model_named,
    pool_named,
    version_named,
)

_COST_LIMITS = {"min_value": 0, "max_digits": 12, "decimal_places": 6}


class RouteInvalid(DomainError, code="route_invalid"):
    """A route is VERSION=PERCENT, as in 1=80 2=20.

    Write each route as VERSION=PERCENT; the percents sum to 100.
    """


class RoutesForm(ActionForm):
    """A weight for each version that could serve."""

    def prepare(self) -> None:
        current = dict(self.row.routes.values_list("version__number", "weight"))
        for number in self.row.versions.filter(retired_at=None).order_by("number").values_list("number", flat=True):
            self.fields[f"version_{number}"] = forms.IntegerField(
                label=f"Version {number}, percent", min_value=0, max_value=100, initial=current.get(number, 0)
            )

    def clean(self) -> dict[str, Any]:
        # `routes_set` checks the sum.
        given = {name: value for name, value in (super().clean() or {}).items() if value}
        return {"weights": {int(name.removeprefix("version_")): value for name, value in given.items()}}


class SharesForm(ActionForm):
    """The same weights, as a command's arguments."""

    shares = fields.Lines(label="VERSION=PERCENT...", help_text="VERSION=PERCENT, once for each version.")

    def clean(self) -> dict[str, Any]:
        weights: dict[int, int] = {}
        for share in (super().clean() or {}).get("shares", ()):
            number, _, percent = share.partition("=")
            if not (number.isascii() and number.isdigit() and percent.lstrip("-").isdigit()) or int(number) in weights:
                raise RouteInvalid(f"{share!r} is not VERSION=PERCENT, each version once, as in 1=80 2=20")
            weights[int(number)] = int(percent)
        return {"weights": weights}


class PlanForm(ActionForm):
    stages = fields.text("Percents of the callers, stage by stage, growing up to 100.", initial="5, 25, 50, 100")
    stage_seconds = fields.whole("The least time that a stage lasts.", min_value=0, initial=600)
    jobs_min = fields.whole("Ended jobs that a decision needs.", min_value=1, initial=20)
    error_rate_max = fields.real("A higher error rate rolls back.", min_value=0, max_value=1, initial=0.05)
    p95_ratio_max = fields.real(
        "A p95 above this multiple of the stable version's rolls back.", min_value=0, initial=1.5
    )

    def clean_stages(self) -> tuple[int, ...]:
        try:
            return tuple(int(stage) for stage in self.cleaned_data["stages"].split(","))
        except ValueError as error:
            raise forms.ValidationError("Give whole percents separated by commas, as 5,25,50,100") from error


class EndForm(ActionForm):
    reason = fields.optional_text("Stored with the rollout.", max_length=300, initial="by an operator")


class VersionForm(ActionForm):
    """Begins with what the newest version has."""

    checkpoint = fields.optional_text("A folder or a hub id.", max_length=500)
    pool = fields.optional_text("The name of the pool that serves it.", max_length=60)
    steps = fields.whole("Denoising steps of requests that name none.", min_value=1, max_value=100, required=False)
    fast_image_units_max = fields.number(
        "The largest image of the fast tier; 512x512 is 1.", min_value=0, required=False
    )
    precision = forms.ChoiceField(
        choices=[("none", "none"), ("int8", "int8"), ("fp8", "fp8")],
        required=False,
        help_text="The weights' precision; `easel quality` shows what it costs.",
    )

    def prepare(self) -> None:
        newest = self.row.versions.filter(retired_at=None).select_related("pool").order_by("-number").first()
        if newest is not None:
            same = ("checkpoint", "fast_image_units_max", "precision")
            self.initial = {name: getattr(newest, name) for name in same}
            self.initial |= {"pool": newest.pool.slug, "steps": newest.steps_default}


def _qualities() -> Any:
    from easel.serving.tiers import Quality

    return [("", "none"), *Quality.choices]


class AliasForm(ActionForm):
    """The inputs of an alias. Setting it again replaces all of it."""

    name = fields.text("The further name, for example gpt-image-1 or a hub id.", max_length=100, label="Alias")
    model = fields.text("The model that it stands for.", max_length=100)
    tenant = fields.TenantSlug(required=False, help_text="For this tenant alone; without one: for everybody.")
    response_format = forms.ChoiceField(
        choices=[("", "none"), ("b64_json", "b64_json"), ("url", "url"), ("both", "both")],
        required=False,
        help_text="For requests that have none of their own.",
    )
    quality = forms.ChoiceField(
        choices=_qualities, required=False, help_text="For requests that have none of their own."
    )
    size = fields.optional_text("For requests that have none of their own, as 512x512.", max_length=11)
    ignore = fields.optional_text(
        "Fields, separated by commas, that are ignored with a warning where they would be refused.", max_length=1000
    )
    lenient = fields.flag("Ignore all fields that Easel doesn't know or can't obey, with a warning.")

    def clean_ignore(self) -> list[str]:
        return [name for name in self.cleaned_data["ignore"].replace(",", " ").split() if name]


class CostForm(ActionForm):
    gpu_hour_cost = fields.number("In USD.", label="Cost of a GPU hour, USD", **_COST_LIMITS)

    def prepare(self) -> None:
        self.fields["gpu_hour_cost"].initial = self.row.gpu_hour_cost


class DedicateForm(ActionForm):
    model = fields.optional_text("The model whose weights it holds; by default the default model.", max_length=100)
    gpu_class = fields.text("The class that its GPU seconds are priced as.", max_length=60, initial="cpu")
    gpu_hour_cost = fields.number("The provider's price of a GPU hour, in USD.", initial=0, **_COST_LIMITS)


class PoolForm(DedicateForm):
    slug = fields.text("Lower-case letters, digits and hyphens.", max_length=40, label="Name")
    tier = forms.ChoiceField(
        choices=[("", "any"), ("fast", "fast"), ("hd", "hd")],
        required=False,
        help_text="Take the small images and low qualities (fast), or the large and high ones (hd), of a model.",
    )

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if given.get("model") and not given.get("tier"):
            raise forms.ValidationError({"model": "A model goes with a tier; a version names its pool otherwise."})
        return given


@action(
    "routes.set",
    command="model route",
    label="Set routes",
    subject=MODEL,
    form=RoutesForm,
    command_form=SharesForm,
    arguments=("shares",),
)
def set_routes(model: Any, actor: str, now: datetime, *, weights: dict[int, int]) -> Done:
    """Divide a model's callers between versions, in percents that sum to 100; not while a rollout runs."""
    from easel.serving.routing import routes_set

    routes_set(model=model, weights=weights)
    shares = ", ".join(f"version {number} serves {weight} %" for number, weight in weights.items())
    return Done(
        f"{model.name}: {shares}", details={"weights": {str(number): weight for number, weight in weights.items()}}
    )


@action("model.make_default", subject=MODEL, applies=lambda model: not model.is_default and model.routes.exists())
def make_default(model: Any, actor: str, now: datetime) -> Done:
    """Send requests that name no model here."""
    from easel.catalog.versions import model_make_default

    model_make_default(model)
    return Done(f"Requests that name no model go to {model.name}.")


@action(
    "version.register",
    command="model add-version",
    label="Add version",
    permission="catalog.add_modelversion",
    subject=MODEL,
    form=VersionForm,
    applies=lambda model: model.versions.filter(retired_at=None).exists(),
)
def add_version(
    model: Any,
    actor: str,
    now: datetime,
    *,
    checkpoint: str,
    pool: str,
    steps: int | None,
    fast_image_units_max: Decimal | None,
    precision: str,
) -> Done:
    """Add a version to a model, like its newest one but for what is given. Nobody is routed to it yet."""
    from easel.catalog.versions import VersionLimits
    from easel.serving.versions import version_register

    newest = version_named(model.name)
    serves = pool_named(pool) if pool else newest.pool
    changes = {"steps_default": steps, "fast_image_units_max": fast_image_units_max}
    limits = {limit.name: getattr(newest, limit.name) for limit in dataclass_fields(VersionLimits)}
    limits |= {name: value for name, value in changes.items() if value is not None}
    made = version_register(
        model_name=model.name,
        checkpoint=checkpoint or newest.checkpoint,
        precision=precision or newest.precision,
        pool=serves,
        limits=VersionLimits(**limits),
        now=now,
    )
    return Done(
        f"{made.label} serves nobody yet: `easel rollout start {made.label}`",
        subject=made.label,
        details={"checkpoint": made.checkpoint, "precision": made.precision, "pool": serves.slug},
        answer={"version": made.label},
        show=made,
    )


@action(
    "version.retire",
    command="model retire",
    subject=VERSION,
    applies=lambda version: version.retired_at is None,
    is_dangerous=True,
)
def retire_version(version: Any, actor: str, now: datetime) -> Done:
    """Retire a version that nobody is routed to."""
    from easel.serving.versions import version_retire

    version_retire(version, now=now)
    return Done(f"{version.label} is retired.")


@action(
    "alias.set",
    command="model alias",
    label="Set an alias",
    permission="serving.add_alias",
    form=AliasForm,
    arguments=("name", "model"),
)
def set_alias(
    row: None,
    actor: str,
    now: datetime,
    *,
    name: str,
    model: str,
    tenant: Any,
    ignore: list[str],
    lenient: bool,
    **defaults: str,
) -> Done:
    """Make a further name stand for a model, with defaults of its own; setting it again replaces all of it."""
    from easel.jobs.sizes import size_parse
    from easel.serving.aliases import alias_set
    from easel.serving.routing import main_version

    served = model_named(model)
    if defaults["size"]:
        size_parse(defaults["size"], version=main_version(served.name), quotas=[])
    alias = alias_set(
        name=name, model=served, tenant=tenant, defaults=defaults, ignored=ignore, is_lenient=lenient, now=now
    )
    return Done(
        f"{name} stands for {served.name}, for {tenant.slug if tenant else 'every tenant'}.",
        subject=name,
        tenant=tenant,
        details={"model": served.name, **alias.defaults, "ignored": alias.ignored, "lenient": lenient},
        show=alias,
    )


@action("alias.remove", command="model unalias", subject=ALIAS, is_dangerous=True)
def remove_alias(alias: Any, actor: str, now: datetime) -> Done:
    """Remove an alias: requests that name it are refused from now on."""
    from easel.serving.aliases import alias_remove

    alias_remove(alias)
    message = f"{alias.name} stands for {alias.model.name} no longer."
    return Done(message, details={"model": alias.model.name}, is_gone=True)


@action(
    "rollout.start",
    label="Start a rollout",
    permission="serving.add_rollout",
    subject=VERSION,
    form=PlanForm,
    applies=lambda version: version.retired_at is None,
)
def start_rollout(version: Any, actor: str, now: datetime, **plan: Any) -> Done:
    """Give a version growing shares of its model's callers; it is rolled back if it does badly."""
    from easel.serving.rollouts import RolloutPlan, rollout_start

    rollout = rollout_start(candidate=version, plan=RolloutPlan(**plan), now=now)
    return Done(
        f"{version.label} serves {rollout.stages[0]} % of {rollout.model.name}",
        details={**plan, "stages": list(plan["stages"])},
        show=rollout,
    )


def _is_running(rollout: Any) -> bool:
    return bool(rollout.state == "running")


@action("rollout.promote", subject=ROLLOUT, form=EndForm, applies=_is_running, one_click=True)
def promote(rollout: Any, actor: str, now: datetime, *, reason: str) -> Done:
    """Route all callers to the candidate, without waiting for the rest of its stages."""
    from easel.serving.rollouts import rollout_promote

    ended = rollout_promote(rollout, verdict=reason or "by an operator", now=now)
    return _ended(ended, f"{ended.candidate.label} serves all of {ended.model.name}")


@action("rollout.roll_back", subject=ROLLOUT, form=EndForm, applies=_is_running, one_click=True, is_dangerous=True)
def roll_back(rollout: Any, actor: str, now: datetime, *, reason: str) -> Done:
    """Route all callers to the stable version again."""
    from easel.serving.rollouts import rollout_roll_back

    ended = rollout_roll_back(rollout, verdict=reason or "by an operator", now=now)
    return _ended(ended, f"{ended.stable.label} serves all of {ended.model.name} again")


def _ended(rollout: Any, message: str) -> Done:
    return Done(message, subject=rollout.candidate.label, details={"verdict": rollout.verdict})


@action("pool.create", label="New pool", permission="catalog.add_pool", form=PoolForm, arguments=("slug",))
def add_pool(row: None, actor: str, now: datetime, *, slug: str, tier: str, model: str, **gpu: Any) -> Done:
    """Make a shared pool: of a tier, or for a version that is added to it."""
    from easel.catalog.models import PoolTier
    from easel.catalog.pools import shared_pool_create, tier_pool_create
    from easel.serving.routing import main_version

    if tier:
        version = main_version(model or None)
        return _waits(tier_pool_create(name=slug, tier=PoolTier(tier), version=version, now=now, **gpu), "workers")
    return _waits(shared_pool_create(name=slug, now=now, **gpu), "a version, and for workers")


@action(
    "pool.dedicate",
    label="Dedicate a pool",
    permission="catalog.add_pool",
    subject=TENANT,
    form=DedicateForm,
    applies=lambda tenant: not tenant.pools.exists(),
)
def dedicate_pool(tenant: Any, actor: str, now: datetime, *, model: str, **gpu: Any) -> Done:
    """Give a tenant a pool of its own, which all its jobs go to from now on."""
    from easel.catalog.pools import dedicated_pool_create
    from easel.serving.routing import main_version

    version = main_version(model or None, tenant=tenant)
    return _waits(dedicated_pool_create(tenant=tenant, version=version, now=now, **gpu), "workers")


def _waits(pool: Any, what: str) -> Done:
    """Return the result of making a pool, which waits for `what`."""
    details = {name: getattr(pool, name) for name in ("tier", "checkpoint", "gpu_class")}
    return Done(
        f"{pool.slug} waits for {what}: `easel worker --pool {pool.slug}`",
        subject=pool.slug,
        details={**details, "gpu_hour_cost": f"{pool.gpu_hour_cost:f}"},
        show=pool,
    )


@action("pool.set_cost", command="pool cost", subject=POOL, form=CostForm, arguments=("gpu_hour_cost",))
def set_cost(pool: Any, actor: str, now: datetime, *, gpu_hour_cost: Decimal) -> Done:
    """Set the provider's price of an hour of one GPU; the overview's costs are computed from it."""
    from easel.catalog.pools import pool_cost_set

    pool_cost_set(pool, gpu_hour_cost=gpu_hour_cost)
    return Done(
        f"An hour of a GPU of {pool.slug} costs {gpu_hour_cost} USD.",
        details={"from": f"{pool.gpu_hour_cost.normalize():f}", "to": f"{gpu_hour_cost.normalize():f}"},
    )


@action("adapter.retire", subject=ADAPTER, applies=lambda adapter: adapter.retired_at is None, is_dangerous=True)
def retire_adapter(adapter: Any, actor: str, now: datetime) -> Done:
    """End an adapter's use in new requests; its next upload brings it back."""
    from easel.serving.experiments import adapter_retire

    adapter_retire(tenant=adapter.tenant, name=adapter.name, now=now)
    return Done(f"{adapter.name} is retired: new requests can't use it, running ones finish.")
