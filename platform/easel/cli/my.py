"""`easel my`: what a tenant may do, by HTTP and with a key of its own. Every other group is an operator's."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from easel.cli.server import server_options
from easel.cli.tenant_calls import KEY_HELP, connected, groups, show
from easel_client import Easel, JobFailed
from easel_client.client import FINAL, Job
from easel_client.images import generate_many

my = click.Group("my", commands=groups())


@click.command("follow", short_help="Show a job's progress until it has ended.")
@click.argument("job_id", metavar="JOB_ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job once it has ended.")
@server_options(key_help=KEY_HELP)
def follow(job_id: str, as_json: bool, server: str | None, key: str | None) -> None:
    """Show a job's progress until it has ended; exit 1 if it ends without images."""
    with connected(server, key) as client:
        job = followed(client, client.jobs.get(job_id))
    show(job, as_json=as_json)
    if job["status"] != "succeeded":
        raise JobFailed(job)


jobs: Any = my.commands["jobs"]
jobs.add_command(follow)


@my.command("generate-many", short_help="Generate an image for each line of a file, and resume.")
@click.argument("requests", type=click.File("r", encoding="utf-8"))
@click.option("-o", "--folder", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Unfinished jobs at once."
)
@click.option("--model", help="By default the platform's.")
@click.option("--size", help="WIDTHxHEIGHT.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options(key_help=KEY_HELP)
def generate_all(
    requests: Any,
    folder: Path,
    concurrency: int,
    quiet: bool,
    as_json: bool,
    server: str | None,
    key: str | None,
    **same: Any,
) -> None:
    """Generate an image for each line of the file REQUESTS (`-` is stdin) into a folder.

    A line is a prompt, or the fields of `POST /v1/jobs` as a JSON object. --model and --size hold for the lines that
    don't name one. The same command continues a run that was interrupted: what is finished is neither generated nor
    charged again. Exits 1 if a request failed.
    """
    lines = [{**_given(same), **fields} for fields in _requests(requests)]
    with connected(server, key) as client:
        results = generate_many(lines, folder=folder, client=client, concurrency=concurrency, progress=not quiet)
    rows = [
        {
            "prompt": result.request.get("prompt", ""),
            "files": ", ".join(str(file) for file in result.files),
            "seeds": ", ".join(map(str, result.seeds)),
            "cost": result.usage["cost"] if result.usage else "",
            "error": result.error.code if result.error else "",
        }
        for result in results
    ]
    show({"data": rows}, as_json=as_json)
    sys.exit(1 if any(result.error for result in results) else 0)


def _requests(file: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        text = line.strip()
        if text.startswith("{"):
            try:
                yield json.loads(text)
            except ValueError as error:
                raise click.BadParameter(f"line {number} is not JSON: {error}", param_hint="REQUESTS") from error
        elif text:
            yield {"prompt": text}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def followed(client: Easel, job: Job) -> Job:
    """Return the job once it has ended, and show its progress where a terminal does."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<11}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(job["status"], total=job["progress"]["steps_total"])
        for shown in client.jobs.follow(job):
            progress.update(bar, description=shown["status"], completed=shown["progress"]["steps_done"])
            if shown["status"] in FINAL:
                job = shown
    return job
