"""`easel model`, `rollout`, `pool` and `adapter`: models with their versions, and the workers that serve them."""

from typing import Any

import click

from easel.cli.action_commands import group_of
from easel.cli.django_ready import django_ready
from easel.cli.tables import Rows, list_command

model = group_of("model")
rollout = group_of("rollout")
pool = group_of("pool")
adapter = group_of("adapter")


@list_command(model)
def model_list() -> Rows:
    """List live versions and the percentage of callers of each."""
    from easel.catalog.models import ModelVersion

    versions = ModelVersion.objects.filter(retired_at=None).select_related("model", "pool", "route")
    return [
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


@list_command(model, "aliases")
def model_aliases() -> Rows:
    """List aliases with what they stand for and their defaults."""
    from easel.serving.models import Alias

    return [
        {
            "alias": found.name,
            "tenant": found.tenant.slug if found.tenant else "(all)",
            "model": found.model.name,
            "response_format": found.response_format,
            "quality": found.quality,
            "size": found.size,
            "ignored": ",".join(found.ignored),
            "lenient": found.is_lenient,
        }
        for found in Alias.objects.select_related("model", "tenant").order_by("name", "tenant__slug")
    ]


@list_command(rollout)
def rollout_list() -> Rows:
    """List rollouts, the latest first, with their latest verdict."""
    from easel.serving.models import Rollout

    return [
        {
            "candidate": found.candidate.label,
            "stable": found.stable.label,
            "state": found.state,
            "percent": found.stages[found.stage] if found.state == Rollout.State.RUNNING else "",
            "started_at": found.started_at.isoformat(timespec="seconds"),
            "verdict": found.verdict,
        }
        for found in Rollout.objects.select_related("candidate__model", "stable__model").order_by("-started_at")[:20]
    ]


@list_command(pool)
def pool_list() -> Rows:
    """List pools with tenant, tier and number of live workers."""
    from datetime import UTC, datetime, timedelta

    from easel.catalog.models import Pool
    from easel.catalog.workers import WORKER_SILENCE_SECONDS

    alive = datetime.now(UTC) - timedelta(seconds=WORKER_SILENCE_SECONDS)
    return [
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


@pool.command("environment")
@click.argument("name")
def pool_environment(name: str) -> None:
    """Print the environment of a pool's workers.

    Its lines are NAME=value. It contains a password.
    """
    with django_ready():
        from easel.serving.pool_workers import worker_named

        environment = worker_named(name)["env"]
    click.echo("\n".join(f"{variable}={value}" for variable, value in environment.items()))


@list_command(adapter, of_tenant=True)
def adapter_list(tenant: Any) -> Rows:
    """List a tenant's adapters."""
    return [
        {"name": found.name, "model": found.model.name, "retired": found.retired_at is not None}
        for found in tenant.adapters.select_related("model").order_by("name")
    ]
