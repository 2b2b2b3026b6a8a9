"""The `easel` command. Each command imports its heavy modules itself, so that `--help` stays fast."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click

from core.errors import DomainError
from easel.cli.lazy_group import LazyGroup
from easel.cli.loading import loading_modules
from easel_local.embedded import ServersUnavailable

# Commands of other modules, each with its line in the list of commands. A group has no other text.
_ELSEWHERE = {
    "adapter": ("easel.cli.models:adapter", "Retire tenants' adapters, and list them."),
    "audit": ("easel.cli.audit:audit", "Check the invariants on the live system."),
    "block-list": ("easel.cli.tenants:block_list", "Phrases and patterns that no prompt may contain."),
    "contract": ("easel.cli.prices:contract", "Contracts with tenants: make, list, end."),
    "demo": ("easel.demo.command:demo", "Start everything, generate, show costs, keep serving."),
    "export": ("easel.cli.export:export", "Export costs and usage as files: FOCUS, CSV, CloudEvents."),
    "generate": ("easel.cli.generate:generate", "Generate an image."),
    "batch": ("easel.cli.jobs:batch", "List and cancel batches."),
    "job": ("easel.cli.jobs:job", "Show where jobs are, and cancel them."),
    "key": ("easel.cli.tenants:key", "Create, list, rotate and revoke API keys."),
    "model": ("easel.cli.models:model", "Add versions and aliases of models, and route callers."),
    "my": ("easel.cli.my:my", "What a tenant may do, with its key: jobs, costs and so on."),
    "operator": ("easel.cli.operators:operator", "Add users of the portal, and disable them."),
    "pool": ("easel.cli.models:pool", "Make pools of workers, list them, give a tenant its own."),
    "price": ("easel.cli.prices:price", "Prices: list, publish, quote."),
    "project": ("easel.cli.tenants:project", "Add projects, and list them."),
    "quality": ("easel.cli.engine:quality", "Measure how far quantised weights drift."),
    "replay": ("easel.cli.engine:replay", "Run a mixed batch from a trace file, step by step."),
    "reporting-login": ("easel.cli.reporting:reporting_login", "Let Grafana read the reporting views."),
    "rollout": ("easel.cli.models:rollout", "Canaries: start, watch, promote, roll back."),
    "statement": ("easel.cli.statements:statement", "Statements of tenants' months: draft, show, make final."),
    "storage": ("easel.cli.storage:storage", "Say which pages may read images in a bucket."),
    "tenant": ("easel.cli.tenants:tenant", "Create tenants, list, limit and suspend them, add credit."),
    "usage": ("easel.cli.usage:usage", "List jobs' usage records, correct them, rate charges again."),
    "webhook": ("easel.cli.jobs:webhook", "List, enable and disable webhooks, send messages again."),
}


@click.group(cls=LazyGroup, lazy=_ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="easel")
def cli() -> None:
    """Text-to-image for many tenants. Everything is written under EASEL_HOME (default ./var)."""


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), envvar="EASEL_PORT", default=8000, show_default=True)
@click.option("--no-worker", is_flag=True, help="Leave generating to workers started elsewhere.")
def up(port: int, no_worker: bool) -> None:
    """Run everything on this machine until Ctrl-C."""
    from easel_local.stack import StackUnavailable, serve

    def announce(url: str) -> None:  # to stderr, since stdout carries the services' log lines
        click.echo(f"Easel listens on {url} (Ctrl-C stops it)", err=True)

    try:
        serve(port=port, with_worker=not no_worker, on_ready=announce)
    except StackUnavailable as error:
        click.echo(f"easel up: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:  # before everything was started
        sys.exit(130)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), envvar="EASEL_PORT", default=8000, show_default=True)
def api(host: str, port: int) -> None:
    """Run only the HTTP API and the portal."""
    os.environ["EASEL_PORT"] = str(port)

    def serve(_stop: threading.Event) -> None:  # uvicorn handles the signals itself, then passes them on
        with loading_modules():
            from easel.api.server import serve as serve_api
            from easel.asgi import application

            import_module("easel.urls")  # which the first request would wait for
        serve_api(application, host=host, port=port)

    _run_service("api", serve)


def _process(service: str, module: str, explain: str) -> None:
    @cli.command(service, help=explain)
    def command() -> None:
        _run_service(service, lambda stop: _load(module).run(stop))


def _load(module: str) -> ModuleType:
    with loading_modules():
        return import_module(module)


_process("dispatcher", "easel.processes.dispatcher", "Run only the dispatcher, which hands out queued jobs.")
_process("completion", "easel.processes.consumer", "Run only the consumer, which applies what workers report.")
_process("scheduler", "easel.processes.scheduler", "Run only the periodic tasks, the deliverer and the feeder.")


def _run_service(service: str, run: Callable[[threading.Event], None]) -> None:
    """Run until a signal sets `stop`; exit code 0 then."""
    from easel.cli.django_ready import django_ready
    from easel.processes.loop import Pulse
    from easel_local.supervisor import signals_call

    alive_file = os.environ.get("EASEL_ALIVE_FILE")
    stop = Pulse(Path(alive_file)) if alive_file else threading.Event()
    with django_ready(service=service), signals_call(stop.set):
        run(stop)


@cli.command()
@click.option("--seed/--no-seed", default=True, help="Also add the default model, pool and prices where missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the environment of this machine's workers.")
def migrate(seed: bool, as_json: bool) -> None:
    """Bring the database to this version's schema."""
    from easel.cli.django_ready import django_ready

    with django_ready():
        from django.conf import settings

        from core.schema import schema_migrate

        schema_migrate(provider_name=settings.EASEL.provider_name)
        if seed:
            import_module("easel.seed").seed()
        if as_json:
            from easel.serving.pool_workers import local_workers

            click.echo(json.dumps({"workers": local_workers()}))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Say if the stack of EASEL_HOME is up; exit 1 if not."""
    from easel_local.home import home_of
    from easel_local.status import stack_status

    found = stack_status(home_of(os.environ))
    click.echo(json.dumps(found.as_json()) if as_json else found.as_text())
    sys.exit(0 if found.up else 1)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on Easel's database; arguments are psql's own."""
    from easel_local.environment import environment
    from easel_local.supervisor import signals_call

    with environment():
        try:
            from easel_local.postgres import psql_binary

            binary = str(psql_binary())
        except ModuleNotFoundError:  # on real servers the wheel isn't installed
            binary = "psql"
        # A child rather than an exec, for the servers may be ours to stop; Ctrl-C is psql's, to cancel a query.
        with signals_call(lambda: None):
            done = subprocess.run([binary, "-d", os.environ["DATABASE_URL"], *arguments], check=False)  # noqa: S603
    sys.exit(done.returncode)


@cli.command()
@click.option("--pool", help="The pool to work for.")
def worker(pool: str | None) -> None:
    """Run a worker of one pool, by default the default model's.

    Without --pool, and with REDIS_URL and EASEL_MODEL_VERSIONS in its environment, it serves those versions and needs
    no database.
    """
    from easel.cli.django_ready import django_ready
    from easel_local.home import home_of
    from easel_local.processes import worker_argv, worker_environment
    from easel_local.supervisor import signals_call

    argv = worker_argv()
    # Without a named pool these two are all that a worker needs, and it asks no database.
    if pool is None and os.environ.get("REDIS_URL") and os.environ.get("EASEL_MODEL_VERSIONS"):
        env = worker_environment({**os.environ, "EASEL_HOME": str(home_of(os.environ))})
        os.execve(argv[0], argv, env)  # noqa: S606
    with django_ready(service="worker"):
        from django.db import connections

        from easel.serving.pool_workers import worker_named

        env = worker_environment({**os.environ, **worker_named(pool)["env"]})
        connections.close_all()
        child = subprocess.Popen(argv, env=env)  # noqa: S603
        with signals_call(child.terminate):
            exit_code = child.wait()
    sys.exit(exit_code)


def main() -> None:
    """Entry point of the console script."""
    try:
        cli()
    except DomainError as error:
        click.echo(f"easel: {error} ({error.code})", err=True)
        sys.exit(1)
    except ServersUnavailable as error:
        click.echo(f"easel: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        # A command that called a server has imported the client, which `--help` would take a tenth of a second for.
        client = sys.modules.get("easel_client")
        if client is None or not isinstance(error, client.EaselError):
            raise
        from easel.cli.server import error_text

        click.echo(f"easel: {error_text(error)}", err=True)
        sys.exit(2 if isinstance(error, client.Unreachable) else 1)


if __name__ == "__main__":
    main()
