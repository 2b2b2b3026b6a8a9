"""Models, their versions and routes, rollouts, and the pools that serve them."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Count, F, OuterRef, Prefetch, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from easel.actions import serving
from easel.catalog.models import Model, ModelVersion, Pool
from easel.jobs.models import FINAL, Job
from easel.portal import cells
from easel.portal.pages import Page, Section
from easel.portal.site import portal
from easel.serving.models import Rollout, Route

DAYS = 14


@admin.register(Model, site=portal)
class ModelPage(Page):
    list_display = ("name", "is_default", "served_by", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name", "is_default", "created_at")
    row_actions = (serving.SET_ROUTES, serving.MAKE_DEFAULT, serving.ADD_VERSION)

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
            "No version: add one with easel model add-version.",
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
    row_actions = (serving.START_ROLLOUT, serving.RETIRE_VERSION)

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
    row_actions = (serving.PROMOTE, serving.ROLL_BACK)

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
        if rollout.state == Rollout.State.RUNNING:
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
    list_actions = (serving.ADD_POOL,)
    row_actions = (serving.SET_COST,)
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
