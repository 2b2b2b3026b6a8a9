"""`easel model` and `easel pool`: what can be called, by which version, and on whose workers."""

from decimal import Decimal
from functools import partial
from typing import Any

import click

from core.errors import DomainError
from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


class RouteInvalid(DomainError):
    """A route is VERSION=PERCENT, as in 1=80 2=20."""

    code = "route_invalid"


@click.group()
def model() -> None:
    """Add versions of models, and share their callers out."""


@model.command("list")
@as_json_option
def model_list(as_json: bool) -> None:
    """List the live versions of every model, and what part of its callers each serves."""
    with django_ready():
        from easel.catalog.models import ModelVersion

        versions = ModelVersion.objects.filter(retired_at=None).select_related("model", "pool", "route")
        rows = [
            {
                "model": found.model.name,
                "version": found.number,
                "percent": found.route.weight if hasattr(found, "route") else 0,
                "steps": found.steps_default,
                "precision": found.precision,
                "pool": found.pool.slug,
                "checkpoint": found.checkpoint,
            }
            for found in versions.order_by("model__name", "number")
        ]
    print_rows(rows, as_json)


@model.command("add-version")
@click.argument("name")
@click.option("--checkpoint", help="A folder or a hub id; by default that of the newest version.")
@click.option("--pool", help="The pool that serves it; by default that of the newest version.")
@click.option("--steps", type=click.IntRange(1, 100), help="Steps of requests that name none.")
@click.option(
    "--fast-image-units-max",
    type=click.FloatRange(0),
    help="The largest image of the fast tier; 512x512 is 1. By default that of the newest version.",
)
@click.option(
    "--precision",
    type=click.Choice(["none", "int8", "fp8"]),
    help="Of the weights, by default the newest version's; `easel quality` shows what it costs.",
)
def model_add_version(
    name: str,
    checkpoint: str | None,
    pool: str | None,
    steps: int | None,
    fast_image_units_max: float | None,
    precision: str | None,
) -> None:
    """Add a version to a model, like its newest one but for what is given. Nobody is routed to it yet."""
    with committed() as act:
        from easel.catalog.errors import PoolNotFound
        from easel.catalog.models import Pool
        from easel.catalog.versions import VersionLimits
        from easel.serving.versions import version_register

        newest = version_named(name)
        serves = newest.pool if pool is None else Pool.objects.filter(slug=pool).first()
        if serves is None:
            raise PoolNotFound(f"there is no pool {pool!r}: `easel pool list` shows them")
        made = version_register(
            model_name=name,
            checkpoint=checkpoint or newest.checkpoint,
            precision=precision or newest.precision,
            pool=serves,
            limits=VersionLimits(
                side_min=newest.side_min,
                side_max=newest.side_max,
                size_default=newest.size_default,
                fast_image_units_max=newest.fast_image_units_max
                if fast_image_units_max is None
                else Decimal(str(fast_image_units_max)),
                steps_default=steps or newest.steps_default,
                steps_max=newest.steps_max,
                gpu_seconds_bound=newest.gpu_seconds_bound,
            ),
            now=act.now,
        )
        act.record(
            "version.register",
            made.label,
            details={"checkpoint": made.checkpoint, "precision": made.precision, "pool": serves.slug},
        )
    click.echo(f"{made.label} serves nobody yet: `easel rollout start {made.label}`")


@model.command("route")
@click.argument("name")
@click.argument("shares", nargs=-1, required=True, metavar="VERSION=PERCENT...")
def model_route(name: str, shares: tuple[str, ...]) -> None:
    """Share a model's callers out between versions, as in `easel model route z-image-demo 1=80 2=20`."""
    with committed() as act:
        from easel.serving.routing import routes_set

        weights = {}
        for share in shares:
            number, _, percent = share.partition("=")
            if not (number.isascii() and number.isdigit() and percent.lstrip("-").isdigit()) or int(number) in weights:
                raise RouteInvalid(f"{share!r} is not VERSION=PERCENT, each version once, as in 1=80 2=20")
            weights[int(number)] = int(percent)
        routes_set(model=version_named(name).model, weights=weights)
        act.record("model.route", name, details={"percent": weights})
    click.echo(f"{name}: " + ", ".join(f"version {number} serves {weight} %" for number, weight in weights.items()))


@click.group()
def pool() -> None:
    """List pools of workers, and give a tenant its own."""


@pool.command("list")
@as_json_option
def pool_list(as_json: bool) -> None:
    """List pools, whose and what they are for, and their workers that are alive."""
    with django_ready():
        from datetime import UTC, datetime, timedelta

        from easel.catalog.models import Pool
        from easel.jobs.queue import WORKER_SILENCE_SECONDS

        alive = datetime.now(UTC) - timedelta(seconds=WORKER_SILENCE_SECONDS)
        rows = [
            {
                "pool": found.slug,
                "tenant": found.tenant.slug if found.tenant else "(shared)",
                "tier": found.tier or "(any)",
                "gpu_class": found.gpu_class,
                "gpu_hour_cost": f"{found.gpu_hour_cost} USD",
                "workers": found.workers.filter(beat_at__gte=alive).count(),
            }
            for found in Pool.objects.select_related("tenant").order_by("slug")
        ]
    print_rows(rows, as_json)


@pool.command("create")
@click.argument("name")
@click.option(
    "--tier",
    type=click.Choice(["fast", "hd"]),
    help="Take the small images and low qualities (fast), or the large and high ones (hd), of a model's weights.",
)
@click.option("--model", "model_name", help="With --tier: whose weights; by default those of the default model.")
@click.option("--gpu-class", default="cpu", show_default=True, help="What its GPU seconds are priced as.")
@click.option("--gpu-hour-cost", type=click.FloatRange(0), default=0.0, help="What the provider asks, in USD.")
def pool_create(name: str, tier: str | None, model_name: str | None, gpu_class: str, gpu_hour_cost: float) -> None:
    """Make a shared pool: of a tier, or for a version with `easel model add-version --pool NAME`."""
    if model_name and not tier:
        raise click.UsageError("--model goes with --tier; `easel model add-version --pool` gives a pool its version")
    with committed() as act:
        from easel.catalog.models import PoolTier
        from easel.catalog.pools import shared_pool_create, tier_pool_create
        from easel.serving.routing import main_version

        create = (
            partial(tier_pool_create, tier=PoolTier(tier), version=main_version(model_name))
            if tier
            else shared_pool_create
        )
        made = create(name=name, gpu_class=gpu_class, gpu_hour_cost=Decimal(str(gpu_hour_cost)), now=act.now)
        act.record("pool.create", made.slug, details={"tier": made.tier, "checkpoint": made.checkpoint})
    waits_for = "workers" if tier else "a version, and for workers"
    click.echo(f"{made.slug} waits for {waits_for}: `easel worker --pool {made.slug}`")


@pool.command("environment")
@click.argument("name")
def pool_environment(name: str) -> None:
    """Print what a pool's workers are to be told, as NAME=value lines. They hold a password."""
    with django_ready():
        from easel.serving.pool_workers import worker_named

        told = worker_named(name)["env"]
    click.echo("\n".join(f"{variable}={value}" for variable, value in told.items()))


@pool.command("dedicate")
@click.argument("tenant_name", metavar="TENANT")
@click.option("--model", "model_name", help="Whose weights it holds; by default those of the default model.")
@click.option("--gpu-class", default="cpu", show_default=True, help="What its GPU seconds are priced as.")
@click.option("--gpu-hour-cost", type=click.FloatRange(0), default=0.0, help="What the provider asks, in USD.")
def pool_dedicate(tenant_name: str, model_name: str | None, gpu_class: str, gpu_hour_cost: float) -> None:
    """Give a tenant a pool of its own; `easel worker --pool TENANT` runs a worker for it."""
    with committed() as act:
        from easel.catalog.pools import dedicated_pool_create
        from easel.cli.tenants import tenant_named
        from easel.serving.routing import main_version

        owner = tenant_named(tenant_name)
        made = dedicated_pool_create(
            tenant=owner,
            version=main_version(model_name),
            gpu_class=gpu_class,
            gpu_hour_cost=Decimal(str(gpu_hour_cost)),
            now=act.now,
        )
        act.record("pool.dedicate", made.slug, tenant=owner)
    click.echo(f"{made.slug} waits for workers: `easel worker --pool {made.slug}`")


def version_named(text: str) -> Any:
    """The version `name@number`, or the newest of `name`. Raises `ModelNotFound`, `VersionNotFound`."""
    from easel.catalog.errors import ModelNotFound, VersionNotFound
    from easel.catalog.models import ModelVersion

    name, _, number = text.partition("@")
    live = ModelVersion.objects.filter(model__name=name, retired_at=None).select_related("model", "pool")
    if not live:
        raise ModelNotFound(f"there is no model {name!r}: `easel model list` shows them")
    found = live.filter(number=number).first() if number.isascii() and number.isdigit() else None
    if number and found is None:
        raise VersionNotFound(f"{name} has no live version {number!r}: `easel model list` shows them")
    return found or live.order_by("-number")[0]
