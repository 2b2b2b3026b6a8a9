"""Models, their versions and routes, canaries, and the pools that serve them."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, F, OuterRef, Prefetch, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from easel.catalog.models import Model, ModelVersion, Pool
from easel.catalog.pools import pool_cost_set
from easel.catalog.versions import model_make_default
from easel.jobs.models import FINAL, Job
from easel.portal import cells
from easel.portal.pages import Act, ActForm, Done, Operator, Page, Section
from easel.portal.site import portal
from easel.serving.models import Rollout, Route
from easel.serving.rollouts import (
    RolloutPlan,
    rollout_promote,
    rollout_roll_back,
    rollout_start,
)
from easel.serving.routing import routes_set
from easel.serving.versions import version_retire

DAYS = 14
_PLAN = RolloutPlan()


class RoutesForm(ActForm):
    """A weight for each version that could serve."""

    def prepare(self) -> None:
        current = dict(self.row.routes.values_list("version__number", "weight"))
        for number in self.row.versions.filter(retired_at=None).order_by("number").values_list("number", flat=True):
            self.fields[f"version_{number}"] = forms.IntegerField(
                label=f"Version {number}, percent", min_value=0, max_value=100, initial=current.get(number, 0)
            )

    def clean(self) -> dict[str, Any]:
        # What `routes_set` takes; it checks the sum.
        given = {name: value for name, value in (super().clean() or {}).items() if value}
        return {"weights": {int(name.removeprefix("version_")): value for name, value in given.items()}}


class PlanForm(ActForm):
    stages = forms.CharField(
        initial="5, 25, 50, 100", help_text="Percents of the callers, stage by stage, growing up to 100."
    )
    stage_seconds = forms.IntegerField(
        initial=_PLAN.stage_seconds, min_value=0, help_text="How long a stage lasts at least."
    )
    jobs_min = forms.IntegerField(initial=_PLAN.jobs_min, min_value=1, help_text="Ended jobs that a verdict needs.")
    error_rate_max = forms.FloatField(
        initial=_PLAN.error_rate_max, min_value=0, max_value=1, help_text="More failures than this roll back."
    )
    p95_ratio_max = forms.FloatField(
        initial=_PLAN.p95_ratio_max, min_value=0, help_text="Slower than the stable version by more: roll back."
    )

    def clean_stages(self) -> tuple[int, ...]:
        try:
            return tuple(int(stage) for stage in self.cleaned_data["stages"].split(","))
        except ValueError as error:
            raise forms.ValidationError("Whole percents separated by commas, as 5, 25, 50, 100") from error


class CostForm(ActForm):
    gpu_hour_cost = forms.DecimalField(
        label="Cost of a GPU hour, USD", min_value=0, max_digits=12, decimal_places=6, widget=forms.TextInput
    )

    def prepare(self) -> None:
        self.fields["gpu_hour_cost"].initial = self.row.gpu_hour_cost


def _set_cost(pool: Pool, operator: Operator, *, gpu_hour_cost: Decimal) -> Done:
    pool_cost_set(pool, gpu_hour_cost=gpu_hour_cost)
    details = {"from": str(pool.gpu_hour_cost), "to": str(gpu_hour_cost)}
    operator.record("pool.set_cost", pool.slug, tenant=pool.tenant, details=details)
    return Done(f"An hour of a GPU of {pool.slug} costs {gpu_hour_cost} USD.")


def _set_routes(model: Model, operator: Operator, *, weights: dict[int, int]) -> Done:
    routes_set(model=model, weights=weights)
    operator.record(
        "routes.set", model.name, details={"weights": {str(number): weight for number, weight in weights.items()}}
    )
    return Done(f"{model.name} is shared out anew.")


def _make_default(model: Model, operator: Operator) -> Done:
    model_make_default(model)
    operator.record("model.make_default", model.name)
    return Done(f"Requests that name no model go to {model.name}.")


def _start(version: ModelVersion, operator: Operator, **plan: Any) -> Done:
    rollout = rollout_start(candidate=version, plan=RolloutPlan(**plan), now=operator.now)
    operator.record("rollout.start", version.label, details={**plan, "stages": list(plan["stages"])})
    return Done(f"{version.label} serves {rollout.stages[0]} % of the callers.", show=rollout)


def _retire(version: ModelVersion, operator: Operator) -> Done:
    version_retire(version, now=operator.now)
    operator.record("version.retire", version.label)
    return Done(f"{version.label} is retired.")


def _promote(rollout: Rollout, operator: Operator) -> Done:
    verdict = f"promoted by {operator.name}"
    ended = rollout_promote(rollout, verdict=verdict, now=operator.now)
    operator.record("rollout.promote", ended.candidate.label, details={"verdict": verdict})
    return Done(f"{ended.candidate.label} serves all of {ended.model.name}.")


def _roll_back(rollout: Rollout, operator: Operator) -> Done:
    verdict = f"rolled back by {operator.name}"
    ended = rollout_roll_back(rollout, verdict=verdict, now=operator.now)
    operator.record("rollout.roll_back", ended.candidate.label, details={"verdict": verdict})
    return Done(f"{ended.stable.label} serves all of {ended.model.name} again.")


def _is_running(rollout: Rollout) -> bool:
    return rollout.state == Rollout.State.RUNNING


@admin.register(Model, site=portal)
class ModelPage(Page):
    list_display = ("name", "is_default", "served_by", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name", "is_default", "created_at")
    acts = (
        Act(
            name="routes",
            label="Share out callers",
            permission="catalog.change_model",
            perform=_set_routes,
            form=RoutesForm,
            explain="Percents of the callers by version; they sum to 100. Not while a canary runs.",
        ),
        Act(
            name="make-default",
            label="Make default",
            permission="catalog.change_model",
            perform=_make_default,
            applies=lambda model: not model.is_default and model.routes.exists(),
            explain="Requests that name no model go here.",
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        models: QuerySet[Model] = super().get_queryset(request)
        routes = Route.objects.select_related("version").order_by("version__number")
        return models.prefetch_related(Prefetch("routes", queryset=routes))

    @admin.display(description="served by")
    def served_by(self, model: Model) -> str:
        routes = (f"version {route.version.number}: {route.weight} %" for route in model.routes.all())
        return ", ".join(routes) or "nobody"

    def sections(self, row: Model) -> Iterable[Section]:
        versions = row.versions.select_related("pool", "route", "model").order_by("-number")
        yield Section(
            "Versions",
            ("Version", "Share", "Pool", "Checkpoint", "Steps", "Sides", "State"),
            [
                (
                    cells.link(version),
                    f"{version.route.weight} %" if hasattr(version, "route") else cells.NOTHING,
                    cells.link(version.pool),
                    cells.code(version.checkpoint),
                    f"{version.steps_default} of {version.steps_max} at most",
                    f"{version.side_min} to {version.side_max}",
                    cells.state("retired" if version.retired_at else "active"),
                )
                for version in versions
            ],
            "No version: add one with easel model add.",
        )
        yield Section(
            "Canaries",
            ("Candidate", "State", "Started", "Verdict"),
            [
                (
                    cells.link(rollout, rollout.candidate.label),
                    cells.state(rollout.state),
                    cells.when(rollout.started_at),
                    rollout.verdict,
                )
                for rollout in row.rollouts.select_related("candidate__model").order_by("-started_at")[:10]
            ],
            "None yet: start one from a version's page.",
        )


@admin.register(ModelVersion, site=portal)
class ModelVersionPage(Page):
    list_display = ("shown_label", "share", "pool", "precision", "shown_state", "created_at")
    list_filter = ("model", "pool", ("retired_at", admin.EmptyFieldListFilter))
    list_select_related = ("model", "pool", "route")
    ordering = ("model__name", "-number")
    fields = (
        "shown_label", "share", "pool", "checkpoint", "precision", "steps_default", "steps_max", "side_min", "side_max",
        "size_default", "fast_image_units_max", "gpu_seconds_bound", "modules", "shown_state", "created_at",
        "retired_at",
    )  # fmt: skip
    readonly_fields = ("shown_label", "share", "modules", "shown_state")
    acts = (
        Act(
            name="roll-out",
            label="Start a canary",
            permission="serving.add_rollout",
            perform=_start,
            form=PlanForm,
            applies=lambda version: version.retired_at is None,
            explain="Gives this version growing shares of its model's callers, and takes them back if it does badly.",
        ),
        Act(
            name="retire",
            label="Retire",
            permission="catalog.change_modelversion",
            perform=_retire,
            applies=lambda version: version.retired_at is None,
            explain="Only a version that nobody is routed to.",
            danger=True,
        ),
    )

    @admin.display(description="version")
    def shown_label(self, version: ModelVersion) -> str:
        return version.label

    @admin.display(description="share of callers")
    def share(self, version: ModelVersion) -> str:
        return f"{version.route.weight} %" if hasattr(version, "route") else cells.NOTHING

    @admin.display(description="modules that adapters may change")
    def modules(self, version: ModelVersion) -> str:
        return str(len(version.lora_targets))

    @admin.display(description="state")
    def shown_state(self, version: ModelVersion) -> str:
        return cells.state("retired" if version.retired_at else "active")


@admin.register(Rollout, site=portal)
class RolloutPage(Page):
    list_display = ("shown_candidate", "shown_stable", "shown_state", "percent", "verdict", "started_at", "ended_at")
    list_filter = ("state", "model")
    list_select_related = ("model", "candidate__model", "stable__model")
    ordering = ("-started_at", "-id")
    fields = (
        "model", "shown_candidate", "shown_stable", "shown_state", "percent", "shown_stages", "stage_seconds",
        "stage_started_at", "jobs_min", "error_rate_max", "p95_ratio_max", "verdict", "started_at", "ended_at",
    )  # fmt: skip
    readonly_fields = ("shown_candidate", "shown_stable", "shown_state", "percent", "shown_stages")
    acts = (
        Act(
            name="promote",
            label="Promote",
            permission="serving.change_rollout",
            perform=_promote,
            applies=_is_running,
            explain="The candidate serves all, from now on.",
        ),
        Act(
            name="roll-back",
            label="Roll back",
            permission="serving.change_rollout",
            perform=_roll_back,
            applies=_is_running,
            explain="The stable version serves all again, from now on.",
            danger=True,
        ),
    )

    @admin.display(description="candidate")
    def shown_candidate(self, rollout: Rollout) -> str:
        return rollout.candidate.label

    @admin.display(description="stable")
    def shown_stable(self, rollout: Rollout) -> str:
        return rollout.stable.label

    @admin.display(description="state")
    def shown_state(self, rollout: Rollout) -> str:
        return cells.state(rollout.state)

    @admin.display(description="candidate's share")
    def percent(self, rollout: Rollout) -> str:
        if _is_running(rollout):
            return f"{rollout.stages[rollout.stage]} %"
        return "100 %" if rollout.state == Rollout.State.PROMOTED else "0 %"

    @admin.display(description="stages")
    def shown_stages(self, rollout: Rollout) -> str:
        return ", ".join(f"{stage} %" for stage in rollout.stages)


@admin.register(Pool, site=portal)
class PoolPage(Page):
    list_display = ("slug", "tenant", "shown_tier", "gpu_class", "workers_seen", "waiting", "hour_cost", "created_at")
    search_fields = ("slug",)
    list_select_related = ("tenant",)
    ordering = ("slug",)
    fields = (
        "slug", "namespace", "tenant", "shown_tier", "checkpoint", "precision", "gpu_class", "hour_cost", "created_at",
    )  # fmt: skip
    acts = (
        Act(
            name="cost",
            label="Set cost",
            permission="catalog.change_pool",
            perform=_set_cost,
            form=CostForm,
            explain="What the provider asks for an hour of one GPU; the overview's costs are made of it.",
        ),
    )
    readonly_fields = ("shown_tier", "hour_cost")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        pools: QuerySet[Pool] = super().get_queryset(request)
        unfinished = Job.objects.filter(~Q(state__in=FINAL), pool=OuterRef("pk")).order_by().values("pool")
        return pools.annotate(
            workers_counted=Count("workers"),
            jobs_unfinished=Coalesce(Subquery(unfinished.annotate(count=Count("*")).values("count")), 0),
        )

    @admin.display(description="tier", ordering="tier")
    def shown_tier(self, pool: Pool) -> str:
        return pool.tier or "any"

    @admin.display(description="workers seen")
    def workers_seen(self, pool: Any) -> str:
        return cells.number(pool.workers_counted)

    @admin.display(description="unfinished jobs")
    def waiting(self, pool: Any) -> str:
        return cells.number(pool.jobs_unfinished)

    @admin.display(description="cost of a GPU hour")
    def hour_cost(self, pool: Pool) -> str:
        return cells.number(f"{pool.gpu_hour_cost:.6f} USD")

    def sections(self, row: Pool) -> Iterable[Section]:
        yield Section(
            "Workers",
            ("Worker", "GPU", "Versions", "Concurrency", "Started", "Last beat"),
            [
                (
                    worker.name,
                    worker.gpu_class,
                    worker.model_version,
                    worker.concurrency,
                    cells.when(worker.started_at),
                    cells.when(worker.beat_at),
                )
                for worker in row.workers.order_by("-beat_at")[:50]
            ],
            "No worker has reported: start one with easel worker.",
        )
        days = row.worker_days.order_by("-day").values("day")
        sums = days.annotate(
            up=Sum("up_seconds"),
            busy=Sum("busy_seconds"),
            load=Sum("load_seconds"),
            paid=Sum("cost"),
            idle=F("up") - F("busy") - F("load"),
        )
        yield Section(
            f"Latest {DAYS} days, in GPU hours",
            ("Day", "Up", "Busy", "Loading", "Idle", "Cost"),
            [
                (
                    day["day"].isoformat(),
                    *(cells.number(f"{max(0.0, day[name]) / 3600:.2f}") for name in ("up", "busy", "load", "idle")),
                    cells.number(f"{day['paid']:.6f} USD"),
                )
                for day in sums[:DAYS]
            ],
            "No worker has reported on any day.",
        )
