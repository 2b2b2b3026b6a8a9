"""`easel model`, `easel pool` and `easel adapter`: models with their versions, and the workers that serve them."""

import click

from easel.actions import serving
from easel.cli.action_commands import add_commands
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


@click.group()
def model() -> None:
    """Add versions of models, and divide callers between them."""


add_commands(model, (serving.ADD_VERSION, serving.SET_ROUTES, serving.MAKE_DEFAULT, serving.RETIRE_VERSION))


@model.command("list")
@as_json_option
def model_list(as_json: bool) -> None:
    """List the live versions of every model, and the share of its callers that each serves."""
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


@click.group()
def pool() -> None:
    """Make pools of workers, list them, and give a tenant its own."""


add_commands(pool, (serving.ADD_POOL, serving.DEDICATE_POOL, serving.SET_COST))


@pool.command("list")
@as_json_option
def pool_list(as_json: bool) -> None:
    """List pools with their tenant, their tier and the number of their live workers."""
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


@pool.command("environment")
@click.argument("name")
def pool_environment(name: str) -> None:
    """Print the environment of a pool's workers, as NAME=value lines. It contains a password."""
    with django_ready():
        from easel.serving.pool_workers import worker_named

        environment = worker_named(name)["env"]
    click.echo("\n".join(f"{variable}={value}" for variable, value in environment.items()))


@click.group()
def adapter() -> None:
    """Retire tenants' adapters, and list them."""


add_commands(adapter, (serving.RETIRE_ADAPTER,))


@adapter.command("list")
@click.argument("tenant_name", metavar="TENANT")
@as_json_option
def adapter_list(tenant_name: str, as_json: bool) -> None:
    """List a tenant's adapters."""
    with django_ready():
        from easel.actions.subjects import tenant_named

        rows = [
            {"name": found.name, "model": found.model.name, "retired": found.retired_at is not None}
            for found in tenant_named(tenant_name).adapters.select_related("model").order_by("name")
        ]
    print_rows(rows, as_json)
