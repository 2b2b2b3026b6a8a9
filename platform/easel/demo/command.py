"""`easel demo`: starts everything, generates for three tenants and shows what each picture cost."""

import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from easel.cli.django_ready import django_ready
from easel.demo.contact_sheet import contact_sheet
from easel_client import Easel, EaselError
from easel_local.home import home_of, log_dir
from easel_local.stack import Stack, StackUnavailable, free_port, keep_serving, port_is_free, running_stack

SHARED_POOL = "shared"
_PORT = 8000
_START_SECONDS = 900  # loading a large checkpoint from a slow disk takes minutes
_DEATHS_MAX = 3
_LOG_LINES = 20


class DemoFailed(Exception):
    """Raised when a step of the demo did not succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A picture that a tenant orders. `caption` replaces the prompt on the sheet where the font lacks its letters."""

    tenant: str
    prompt: str
    caption: str = ""
    project: str = "default"
    size: str = "256x256"
    adapter: str = ""
    quality: str = "auto"
    seed: int = 7

    @property
    def look(self) -> str:
        """The order's adapter, or the quality that it names."""
        return self.adapter or (f"{self.quality} quality" if self.quality != "auto" else "")

    def fields(self) -> dict[str, Any]:
        same = {name: getattr(self, name) for name in ("prompt", "size", "seed", "project", "quality")}
        return {**same, "adapters": [{"name": self.adapter}] if self.adapter else [], "metadata": {"from": "demo"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A finished order: its image and its job."""

    order: Order
    image: bytes
    job: Mapping[str, Any]


ADAPTERS = {"aurora": "outline", "basalt": "mosaic"}
ORDERS = (
    Order(tenant="aurora", prompt="a red circle on a blue background"),
    Order(tenant="aurora", prompt="a red circle on a blue background", adapter="outline", project="campaign"),
    Order(tenant="aurora", prompt="a yellow star to the left of a green square on a white background"),
    Order(tenant="aurora", prompt="a purple triangle on a yellow background", project="campaign", size="384x256"),
    Order(tenant="basalt", prompt="a green square on a white background"),
    Order(tenant="basalt", prompt="a green square on a white background", adapter="mosaic", project="catalogue"),
    Order(tenant="basalt", prompt="蓝色背景上的红色圆形", caption="(in Chinese) a red circle on a blue background"),
    Order(tenant="basalt", prompt="an orange circle above a blue triangle on a black background", project="catalogue"),
    Order(tenant="cobalt", prompt="a white star on a blue background", quality="low"),
)
DEDICATED = "cobalt"  # has a pool of its own


@click.command()
@click.option("--once", is_flag=True, help="Exit when done, with status 0 only if everything worked.")
@click.option("--history", is_flag=True, help="Also generate a month of use for the reports.")
@click.option("--port", type=click.IntRange(1, 65535), envvar="EASEL_PORT", help="By default 8000, or else a free one.")
def demo(once: bool, history: bool, port: int | None) -> None:
    """Start everything, generate for three tenants, show what it cost, keep serving."""
    console = Console(highlight=False, soft_wrap=True)
    home = home_of(os.environ)
    log_path = log_dir(home) / "stack.log"
    port = port or (_PORT if port_is_free(_PORT) else free_port())
    try:
        console.print("[bold]1/6[/bold] Starting PostgreSQL, Redis and Easel's processes")
        with running_stack(port=port, log=log_path) as stack:
            with django_ready():
                if history:
                    _make_history(console, log_path)
                _show(console, stack, home, serves=not once)
            console.print(f"\n[dim]logs: {log_path}[/dim]")
            if not once:
                console.print("Serving until Ctrl-C")
                keep_serving(stack, on_ready=lambda url: None)
    except StackUnavailable as error:
        raise click.ClickException(str(error)) from error
    except (DemoFailed, EaselError) as error:
        lines = log_path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        console.print("\n".join([f"The end of {log_path}:", *lines]), markup=False)
        raise click.ClickException(f"the demo failed: {error}") from error
    except KeyboardInterrupt:
        sys.exit(130)


def _show(console: Console, stack: Stack, home: Path, *, serves: bool) -> None:
    """Run every step of the demo, and say what to try next where the stack goes on serving.

    Raises `DemoFailed` or `EaselError` for a step that does not succeed.
    """
    # Their modules need a Django that is set up.
    from easel.demo.tenants import broken_invariants, dedicated_worker, demo_tenants, worker_is_ready
    from easel.demo.versions import canary, experiment

    console.print("[bold]2/6[/bold] Three tenants: two share a pool of workers, one has its own")
    tenants = dict.fromkeys(order.tenant for order in ORDERS)
    projects = {tenant: [order.project for order in ORDERS if order.tenant == tenant] for tenant in tenants}
    clients = {tenant: Easel(stack.url, key) for tenant, key in demo_tenants(projects).items()}
    own_worker = dedicated_worker(DEDICATED)
    if own_worker["pool"] not in stack.workers:  # the stack itself starts the worker of an earlier demo
        stack.add_worker(own_worker)
    with console.status("until the API answers and the workers are warm"):
        _wait_until(stack.is_ready, stack)
        for pool in (SHARED_POOL, own_worker["pool"]):
            _wait_until(partial(worker_is_ready, pool), stack)
    console.print("[bold]3/6[/bold] Their LoRA adapters")
    for tenant, adapter in ADAPTERS.items():
        with as_file(files("inference") / "demo_model" / "adapters" / f"{adapter}.safetensors") as file:
            version = clients[tenant].adapters.upload(name=adapter, file=file)["versions"][-1]["version"]
        console.print(f"    {tenant}: adapter {adapter}, version {version}")
    console.print(f"[bold]4/6[/bold] {len(ORDERS)} pictures")
    deliveries = _deliver(console, clients)
    sheet = _write_sheet(deliveries, home)
    console.print("[bold]5/6[/bold] A canary: version 2 serves half of the callers, in half of the steps")
    canary(console, clients["aurora"])
    console.print("[bold]6/6[/bold] An experiment: does one step do as well as eight?")
    experiment(console, clients["basalt"])
    _check(deliveries)
    if broken := broken_invariants():
        raise DemoFailed("; ".join(broken))
    _print_costs(console, clients)
    console.print(f"\ncontact sheet   {sheet}", markup=False)
    if serves:
        _print_next_steps(console, stack.url, clients["aurora"].api_key)


def _make_history(console: Console, log_path: Path) -> None:
    from easel.demo.history import DAYS, history_make
    from easel.observability import logs

    logs.configure(service="history", out=log_path.open("a", buffering=1))
    with Progress(TextColumn("    a month of history"), BarColumn(12), MofNCompleteColumn(), console=console) as bars:
        bar = bars.add_task("", total=DAYS)
        made = history_make(now=datetime.now(UTC), progress=lambda done, days: bars.update(bar, completed=done))
        bars.update(bar, completed=DAYS)
    console.print(f"    {made} jobs, marked as generated" if made else "    an earlier demo made it already")


def _wait_until(ready: Callable[[], bool], stack: Stack) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        dying = [name for name, deaths in stack.supervisor.deaths().items() if deaths >= _DEATHS_MAX]
        if dying:
            raise DemoFailed(f"{', '.join(dying)} keeps dying")
        if time.monotonic() > deadline:
            raise DemoFailed(f"not ready after {_START_SECONDS} s")
        time.sleep(0.2)


def _deliver(console: Console, clients: dict[str, Easel]) -> list[Delivery]:
    columns = (TextColumn("  {task.description}"), BarColumn(12), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(ORDERS)) as threads:
        return list(threads.map(lambda order: _generate(order, clients[order.tenant], progress), ORDERS))


def _generate(order: Order, client: Easel, progress: Progress) -> Delivery:
    label = f"{order.tenant}  {order.caption or order.prompt}"
    bar = progress.add_task(f"{label[:38]:<38} {order.look:<11}", total=None)
    for job in client.jobs.follow(client.jobs.create(**order.fields())):
        progress.update(bar, total=job["progress"]["steps_total"], completed=job["progress"]["steps_done"])
    if job["status"] != "succeeded":
        raise DemoFailed(f"{order.prompt!r} {job['status']}: {job['error']}")
    return Delivery(order=order, image=client.fetch(job["images"][0]["url"]), job=job)


def _check(deliveries: list[Delivery]) -> None:
    """Check what a progress bar does not show: the sizes, the costs and the adapters' effect."""
    for delivery in deliveries:
        picture = Image.open(io.BytesIO(delivery.image))
        if f"{picture.width}x{picture.height}" != delivery.order.size:
            raise DemoFailed(f"{delivery.order.prompt!r} is {picture.size} and not {delivery.order.size}")
        if delivery.job["usage"]["cost"] <= 0:
            raise DemoFailed(f"{delivery.order.prompt!r} cost nothing")
    plain = {(d.order.prompt, d.order.seed): d.image for d in deliveries if not d.order.look}
    for delivery in deliveries:
        if delivery.order.adapter and plain[delivery.order.prompt, delivery.order.seed] == delivery.image:
            raise DemoFailed(f"the adapter {delivery.order.adapter} changed nothing")


def _write_sheet(deliveries: list[Delivery], home: Path) -> Path:
    cells = []
    for delivery in deliveries:
        order, cost = delivery.order, _money(delivery.job["usage"]["cost_details"])
        note = " · ".join(filter(None, (order.tenant, order.look, cost)))
        cells.append((delivery.image, order.caption or order.prompt, note))
    path = home / "demo" / "contact-sheet.png"
    path.parent.mkdir(exist_ok=True)
    contact_sheet(cells).save(path)
    return path


def _print_costs(console: Console, clients: dict[str, Easel]) -> None:
    table = Table("tenant", "project", "requests", "image units", "GPU seconds", "cost", title="Cost this month")
    for column in table.columns[2:]:
        column.justify = "right"
    for tenant, client in clients.items():
        costs = client.costs.get(group_by="project")
        for row in costs["data"]:
            measured = (f"{row['requests']:.0f}", f"{row['image_units']:.3f}", f"{row['gpu_seconds']:.3f}")
            table.add_row(tenant, row["group"]["project"], *measured, _money(row["cost"]))
        table.add_row(tenant, "[bold]total", "", "", "", _money(costs["total"]))
        table.add_section()
    console.print()
    console.print(table)


def _money(cost: Mapping[str, Any]) -> str:
    return f"{cost['amount']} {cost['currency']}"


def _print_next_steps(console: Console, url: str, key: str) -> None:
    text = f"""\
API             {url}/v1    (described by {url}/v1/openapi.json)
portal          {url}/admin/    (`easel operator create NAME --role operator` makes a user)
metrics         {url}/metrics

curl {url}/v1/images/generations -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"prompt": "a red circle on a blue background", "size": "256x256", "response_format": "url"}}'

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
answer = client.images.generate(
    model="z-image-demo", prompt="a red circle on a blue background", size="256x256",
    extra_body={{"seed": 11, "adapters": [{{"name": "outline"}}]}},
)
print(answer.usage, len(answer.data[0].b64_json))"""
    console.print(text, markup=False)
