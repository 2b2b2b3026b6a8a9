"""Models, their versions and routes, rollouts, and the pools that serve them."""

from collections.abc import Iterable

from django.contrib import admin
from django.db.models import Count, F, OuterRef, Prefetch, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from easel.actions import serving
from easel.catalog.models import Model, ModelVersion, Pool
from easel.jobs.models import FINAL, Job
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register
from easel.serving.models import Alias, Rollout, Route

DAYS = 14


@register(Model)
class ModelPage(Page):
    empty = "Models appear here. The command easel migrate registers the one that EASEL_MODEL names."
    list_display = ("name", "is_default", "served_by", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name", "is_default", "created_at")
    row_actions = (serving.set_routes, serving.make_default, serving.add_version)

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
        yield Section.of(
            "Versions",
            versions,
            {
                "Version": lambda version: cells.link(version),
                "Share": lambda version: f"{version.route.weight} %" if hasattr(version, "route") else cells.NOTHING,
                "Pool": lambda version: cells.link(version.pool),
                "Checkpoint": lambda version: cells.code(version.checkpoint),
                "Steps": lambda version: f"{version.steps_default} of {version.steps_max} at most",
                "Sides": lambda version: f"{version.side_min} to {version.side_max}",
                "State": lambda version: cells.state("retired" if version.retired_at else "active"),
            },
            "No version: add one with easel model add-version.",
        )
        yield Section.of(
            "Aliases",
            row.aliases.select_related("tenant").order_by("name", "tenant__slug"),
            {
                "Alias": lambda alias: cells.link(alias),
                "Tenant": lambda alias: cells.link(alias.tenant) if alias.tenant else "every tenant",
                "Defaults": lambda alias: cells.pairs(alias.defaults),
                "Ignores": ignored_text,
            },
            "No other name: set one on the page of aliases, or with easel model alias.",
        )
        yield Section.of(
            "Canaries",
            row.rollouts.select_related("candidate__model").order_by("-started_at")[:10],
            {
                "Candidate": lambda rollout: cells.link(rollout, rollout.candidate.label),
                "State": lambda rollout: cells.state(rollout.state),
                "Started": lambda rollout: cells.when(rollout.started_at),
                "Verdict": lambda rollout: rollout.verdict,
            },
            "None yet: start one from a version's page.",
        )


def ignored_text(alias: Alias) -> str:
    return "all that it can't obey" if alias.is_lenient else ", ".join(alias.ignored) or cells.NOTHING


@register(Alias)
class AliasPage(Page):
    empty = "Further names of models appear here. An operator adds one here, or by easel model alias."
    list_display = ("name", "shown_tenant", "model", "shown_defaults", "shown_ignored", "created_at")
    list_filter = (TenantFilter, "model")
    search_fields = ("name",)
    list_select_related = ("tenant", "model")
    ordering = ("name", "id")
    fields = ("name", "shown_tenant", "model", "response_format", "quality", "size", "shown_ignored", "created_at")
    list_actions = (serving.set_alias,)
    row_actions = (serving.remove_alias,)

    shown_tenant = column("tenant", lambda alias: alias.tenant.slug if alias.tenant else "every tenant")
    shown_defaults = column("defaults", lambda alias: cells.pairs(alias.defaults))
    shown_ignored = column("ignores", ignored_text)


@register(ModelVersion)
class ModelVersionPage(Page):
    empty = (
        "Versions of models appear here. An operator adds one on the page of its model, or by easel model add-version."
    )
    list_display = ("shown_label", "share", "pool", "precision", "shown_state", "created_at")
    list_filter = ("model", "pool", ("retired_at", admin.EmptyFieldListFilter))
    list_select_related = ("model", "pool", "route")
    ordering = ("model__name", "-number")
    fields = (
        "shown_label", "share", "pool", "checkpoint", "precision", "steps_default", "steps_max", "side_min", "side_max",
        "size_default", "fast_image_units_max", "gpu_seconds_bound", "modules", "shown_state", "created_at",
        "retired_at",
    )  # fmt: skip
    row_actions = (serving.start_rollout, serving.retire_version)

    shown_label = column("version", lambda version: version.label)
    share = column(
        "share of callers", lambda version: f"{version.route.weight} %" if hasattr(version, "route") else cells.NOTHING
    )
    modules = column("modules that adapters may change", lambda version: str(len(version.lora_targets)))
    shown_state = column("state", lambda version: cells.state("retired" if version.retired_at else "active"))


@register(Rollout)
class RolloutPage(Page):
    empty = "Canaries appear here. An operator starts one on the page of a version, or by easel rollout start."
    list_display = ("shown_candidate", "shown_stable", "shown_state", "percent", "verdict", "started_at", "ended_at")
    list_filter = ("state", "model")
    list_select_related = ("model", "candidate__model", "stable__model")
    ordering = ("-started_at", "-id")
    fields = (
        "model", "shown_candidate", "shown_stable", "shown_state", "percent", "shown_stages", "stage_seconds",
        "stage_started_at", "jobs_min", "error_rate_max", "p95_ratio_max", "verdict", "started_at", "ended_at",
    )  # fmt: skip
    row_actions = (serving.promote, serving.roll_back)

    shown_candidate = column("candidate", lambda rollout: rollout.candidate.label)
    shown_stable = column("stable", lambda rollout: rollout.stable.label)

    @admin.display(description="candidate's share")
    def percent(self, rollout: Rollout) -> str:
        if rollout.state == Rollout.State.RUNNING:
            return f"{rollout.stages[rollout.stage]} %"
        return "100 %" if rollout.state == Rollout.State.PROMOTED else "0 %"

    shown_stages = column("stages", lambda rollout: ", ".join(f"{stage} %" for stage in rollout.stages))


@register(Pool)
class PoolPage(Page):
    empty = "Pools of workers appear here. An operator adds one here, or by easel pool create."
    list_display = (
        "slug", "tenant", "shown_tier", "shown_class", "workers_seen", "waiting", "hour_cost", "created_at",
    )  # fmt: skip
    search_fields = ("slug",)
    list_select_related = ("tenant",)
    ordering = ("slug",)
    fields = (
        "slug", "namespace", "tenant", "shown_tier", "checkpoint", "precision", "shown_class", "hour_cost",
        "created_at",
    )  # fmt: skip
    list_actions = (serving.add_pool,)
    row_actions = (serving.set_cost,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        pools: QuerySet[Pool] = super().get_queryset(request)
        unfinished = Job.objects.filter(~Q(state__in=FINAL), pool=OuterRef("pk")).order_by().values("pool")
        return pools.annotate(
            workers_counted=Count("workers"),
            jobs_unfinished=Coalesce(Subquery(unfinished.annotate(count=Count("*")).values("count")), 0),
        )

    shown_tier = column("tier", lambda pool: pool.tier or "any", ordering="tier")
    shown_class = column("GPU class", lambda pool: pool.gpu_class, ordering="gpu_class")
    workers_seen = column("workers seen", lambda pool: cells.number(pool.workers_counted))
    waiting = column("unfinished jobs", lambda pool: cells.number(pool.jobs_unfinished))
    hour_cost = column("cost of a GPU hour", lambda pool: cells.number(f"{pool.gpu_hour_cost:.6f} USD"))

    def sections(self, row: Pool) -> Iterable[Section]:
        yield Section.of(
            "Workers",
            row.workers.order_by("-beat_at")[:50],
            {
                "Worker": lambda worker: worker.name,
                "GPU": lambda worker: worker.gpu_class,
                "Versions": lambda worker: worker.model_version,
                "Concurrency": lambda worker: worker.concurrency,
                "Started": lambda worker: cells.when(worker.started_at),
                "Last beat": lambda worker: cells.when(worker.beat_at),
            },
            "No worker has reported: start one with easel worker.",
        )
        yield Section.of(
            "Faults in Redis",
            row.faults.order_by("-last_at"),
            {
                "What": lambda fault: fault.get_kind_display(),
                "Times": lambda fault: cells.number(fault.count),
                "Latest": lambda fault: cells.when(fault.last_at),
                "Latest in detail": lambda fault: fault.detail,
                "Login off until": lambda fault: cells.when(fault.shut_until) if fault.shut_until else "",
            },
            "The pool's workers have used Redis as they should.",
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
