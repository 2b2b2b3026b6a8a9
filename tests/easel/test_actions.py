"""Every action is in the portal and on the command line, and leaves the same record from both."""

import getpass
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from django.apps import apps

from billing.invoices.statements import statement_draft
from billing.ledger.postings import balance_adjust
from billing.models import UsageRecord
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import price_book_seed
from core.models import AuditEvent
from easel.actions.action import Action
from easel.actions.declared import ACTIONS
from easel.actions.roles import operator_create
from easel.batches.models import Batch, File
from easel.catalog.models import Adapter, Model, Pool
from easel.catalog.versions import model_make_default
from easel.cli.main import cli
from easel.jobs.budgets import budget_set
from easel.portal.urls import portal
from easel.seed import DEMO_LIMITS, PRICES
from easel.serving.aliases import alias_set
from easel.serving.rollouts import rollout_start
from easel.serving.versions import version_register
from easel.webhooks.endpoints import endpoint_change, endpoint_create
from easel.webhooks.outbox import webhook_test
from tenants.accounts import tenant_suspend
from tenants.block_lists import block_list_add
from tenants.models import ApiKey
from tests.conftest import NOW
from tests.easel.portal.conftest import PASSWORD, Browser

BY_NAME = {action.name: action for action in ACTIONS}
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).replace(second=0, microsecond=0)


@dataclass
class World:
    """The rows of one surface: a tenant, a model with a second version, a book of a currency of its own."""

    customer: Any
    version: Any
    plan: Any
    submit: Callable[..., Any]
    end: Callable[..., Any]
    tmp_path: Path
    new: str = field(default_factory=lambda: f"new-{uuid.uuid4().hex[:10]}")

    @property
    def tenant(self) -> Any:
        return self.customer.tenant

    @property
    def slug(self) -> str:
        return str(self.tenant.slug)

    @property
    def key(self) -> Any:
        return self.customer.key

    def suspended(self) -> Any:
        tenant_suspend(tenant=self.tenant, now=NOW)
        self.tenant.refresh_from_db()
        return self.tenant

    def indebted(self) -> Any:
        balance_adjust(tenant=self.tenant, amount_micros=13_000_000, reference=uuid.uuid4(), now=NOW)
        return self.tenant

    def contracted(self) -> Any:
        contract_make(tenant=self.tenant, now=datetime.now(UTC) - timedelta(seconds=1))
        return self.tenant

    def budget(self) -> Any:
        return budget_set(tenant=self.tenant, amount_micros=5_000_000, hard_stop=False, now=NOW)

    def model(self) -> Any:
        return Model.objects.get(pk=self.version.model_id)

    def second(self) -> Any:
        made = version_register(
            model_name=self.version.model.name,
            checkpoint=self.version.checkpoint,
            pool=self.version.pool,
            limits=replace(DEMO_LIMITS, steps_default=4),
            now=NOW,
        )
        assert made.number == 2
        return made

    def rollout(self) -> Any:
        return rollout_start(candidate=self.second(), plan=self.plan, now=NOW)

    def adapter(self) -> Any:
        return Adapter.objects.create(tenant=self.tenant, model=self.version.model, name="outline", created_at=NOW)

    def entry(self) -> Any:
        return block_list_add(tenant=self.tenant, kind="phrase", pattern="word", reason="", now=NOW)

    def alias(self) -> Any:
        terms: dict[str, Any] = {"defaults": {}, "ignored": (), "is_lenient": False}
        return alias_set(name="gpt-image-1", model=self.model(), tenant=self.tenant, **terms, now=NOW)

    def hook(self, *, is_enabled: bool = True) -> Any:
        url = "https://hooks.example/easel"
        hook, _ = endpoint_create(tenant=self.tenant, url=url, events=(), endpoint_id=uuid.uuid4(), now=NOW)
        return hook if is_enabled else endpoint_change(hook, changes={"enabled": False}, now=NOW)

    def batch(self) -> Any:
        day = NOW + timedelta(days=9999)  # the scheduler of no test ends it meanwhile
        owner = {"tenant": self.tenant, "created_at": NOW, "expires_at": day}
        file = File.objects.create(**owner, purpose="batch", filename="a.jsonl", storage_key=f"{self.slug}/batches/a")
        terms = {"endpoint": "/v1/images/generations", "window_hours": 24, "status": "in_progress"}
        return Batch.objects.create(**owner, **terms, api_key=self.key, input_file=file)

    def ended_job(self) -> Any:
        return self.end(self.submit(self.customer, model=self.version.model.name))

    def book(self) -> Any:
        self.currency = "".join(chr(65 + int(digit, 16)) for digit in uuid.uuid4().hex[:3])
        return price_book_seed(currency=self.currency, version=1, rates=PRICES, effective_at=NOW, now=NOW)

    def price_file(self) -> str:
        rates = [
            {
                "meter": str(rate.meter),
                "price": f"{rate.unit_price:f}",
                **{name: getattr(rate, name) for name in ("model", "gpu_class", "tier") if getattr(rate, name)},
            }
            for rate in PRICES
        ]
        path = self.tmp_path / "prices.json"
        file = {"currency": self.currency, "effective_at": TOMORROW.isoformat(), "rates": rates, "batch_discount": 0.5}
        path.write_text(json.dumps(file))
        return str(path)

    def own_prices(self) -> str:
        path = self.tmp_path / "own.yaml"
        path.write_text("rates:\n  - {meter: image_unit, price: 0.001}\n")
        return str(path)

    def usage_record(self, job: Any) -> Any:
        return UsageRecord.objects.get(job_id=job.id, meter="image_unit")


@dataclass(frozen=True)
class Case:
    """The same action by both surfaces: the row, what is filled in on its page, and the command's arguments."""

    row: Callable[[World], Any]
    arguments: Callable[[World, Any], list[str]]
    fields: Callable[[World, Any], dict[str, Any]] = field(default=lambda world, row: {})


def of_tenant(*arguments: str, row: Callable[[World], Any] = lambda world: world.tenant, **fields: Any) -> Case:
    """The tenant's name is the first argument, and the input doesn't depend on the rows."""
    return Case(row, lambda world, _: [world.slug, *arguments], lambda world, _: fields)


def by_id(row: Callable[[World], Any]) -> Case:
    return Case(row, lambda world, found: [str(found.pk)])


CASES = {
    "tenant.create": Case(
        lambda world: None,
        lambda world, _: [world.new, "--name", "New & Co", "--credit", "5", "--project", "design"],
        lambda world, _: {"slug": world.new, "name": "New & Co", "credit": "5", "projects": "design"},
    ),
    "tenant.suspend": of_tenant(),
    "tenant.resume": of_tenant(row=World.suspended),
    "tenant.erase": Case(
        lambda world: world.tenant, lambda world, _: [world.slug, "--yes"], lambda world, _: {"slug": world.slug}
    ),
    "project.create": of_tenant("spring", "--label", "department=design", slug="spring", labels="department=design"),
    "key.create": of_tenant("--scope", "webhooks", "--name", "site", scopes=["webhooks"], name="site"),
    "key.access": Case(
        lambda world: world.key,
        lambda world, key: [
            *(key.key_id, "--scope", "read", "--expires", "2099-01-01"),
            *("--address", "10.1.0.0/16", "--address", "2001:db8::1"),
        ],
        lambda world, _: {"scopes": ["read"], "expires": "2099-01-01", "addresses": "10.1.0.0/16\n2001:db8::1"},
    ),
    "key.lenient": Case(
        lambda world: world.key, lambda world, key: [key.key_id, "on"], lambda world, _: {"leniency": "on"}
    ),
    "key.revoke": Case(lambda world: world.key, lambda world, key: [key.key_id]),
    "key.rotate": Case(lambda world: world.key, lambda world, key: [key.key_id]),
    "credit.grant": of_tenant(
        *("2.50", "--expires", "2099-01-01", "--priority", "10", "--promotional", "--reason", "welcome"),
        amount="2.50",
        expires="2099-01-01",
        priority="10",
        promotional="on",
        reason="welcome",
    ),
    "credit.adjust": Case(
        lambda world: world.tenant,
        lambda world, _: [world.slug, "-2", "--reason", "ticket 7", "--project", "default"],
        lambda world, _: {
            "direction": "credit",
            "amount": "2",
            "reason": "ticket 7",
            "project": str(world.customer.project.pk),
        },
    ),
    "credit.limit": of_tenant("5", "--reason", "invoice 7", amount="5", reason="invoice 7"),
    "credit.write_off": of_tenant("--reason", "bankrupt", row=World.indebted, reason="bankrupt"),
    "budget.set": of_tenant("--amount", "7", "--hard-stop", amount="7", hard_stop="on"),
    "budget.remove": Case(
        lambda world: world.budget().tenant,
        lambda world, _: [world.slug, "--remove"],
        lambda world, tenant: {"budget": str(tenant.budgets.get().pk)},
    ),
    "billing_profile.set": of_tenant(
        "--tax-rate", "0.19", "--legal-name", "A & B", tax_rate="0.19", legal_name="A & B"
    ),
    "quota.set": of_tenant(
        "--requests-per-minute", "60", "--pixels-max", "none", requests_per_minute="60", pixels_max=""
    ),
    "tenant.image_urls": of_tenant("--minutes", "5", minutes="5"),
    "tenant.models": of_tenant("--listed", "aliases", listed="aliases"),
    "tenant.share": of_tenant("--weight", "3", "--running-jobs-max", "2", weight="3", running_jobs_max="2"),
    "retention.set": of_tenant("--output-days", "3", output_days="3"),
    "tenant.origins": of_tenant(
        "https://app.example", "http://localhost:5173", origins="https://app.example\nhttp://localhost:5173"
    ),
    "tenant.moderation": of_tenant("all", "--categories", "violence=0.4", moderation="all", categories="violence=0.4"),
    "block_list.add": Case(
        lambda world: None,
        lambda world, _: ["w.rd", "--regex", "--tenant", world.slug, "--reason", "rude"],
        lambda world, _: {"pattern": "w.rd", "kind": "regex", "tenant": world.slug, "reason": "rude"},
    ),
    "block_list.remove": by_id(World.entry),
    "price_book.publish": Case(
        World.book,
        lambda world, _: [world.price_file()],
        lambda world, _: {"effective_at": f"{TOMORROW:%Y-%m-%dT%H:%M}", "batch_discount": "50"},
    ),
    "contract.make": Case(
        lambda world: world.tenant,
        lambda world, _: [world.slug, "--discount", "0.125", "--minimum", "100", "--prices", world.own_prices()],
        lambda world, _: {"discount": "12.5", "minimum": "100", "prices": "- {meter: image_unit, price: 0.001}"},
    ),
    "contract.end": of_tenant(row=lambda world: world.contracted()),
    "statement.draft": of_tenant(),
    "statement.final": by_id(lambda world: statement_draft(world.tenant, now=NOW + timedelta(days=40))),
    "usage.correct": Case(
        World.ended_job,
        lambda world, job: [str(world.usage_record(job).pk), "--quantity", "0.1", "--reason", "cropped"],
        lambda world, job: {"record": str(world.usage_record(job).pk), "quantity": "0.1", "reason": "cropped"},
    ),
    "routes.set": Case(
        lambda world: world.second().model,
        lambda world, model: [model.name, "1=30", "2=70"],
        lambda world, model: {"version_1": "30", "version_2": "70"},
    ),
    "model.make_default": Case(World.model, lambda world, model: [model.name]),
    "version.register": Case(
        World.model,
        lambda world, model: [model.name, "--steps", "3"],
        lambda world, model: {"steps": "3"},
    ),
    "alias.set": Case(
        lambda world: None,
        lambda world, _: [world.new, world.version.model.name, "--size", "256x256", "--ignore", "style,user"],
        lambda world, _: {
            "name": world.new,
            "model": world.version.model.name,
            "size": "256x256",
            "ignore": "style, user",
        },
    ),
    "alias.remove": Case(World.alias, lambda world, alias: [alias.name, "--tenant", world.slug]),
    "version.retire": Case(World.second, lambda world, version: [version.label]),
    "rollout.start": Case(
        World.second,
        lambda world, version: [version.label, "--stages", "10,100", "--jobs-min", "3"],
        lambda world, version: {"stages": "10,100", "jobs_min": "3"},
    ),
    "rollout.promote": Case(World.rollout, lambda world, rollout: [rollout.model.name]),
    "rollout.roll_back": Case(World.rollout, lambda world, rollout: [rollout.model.name]),
    "pool.create": Case(
        lambda world: None,
        lambda world, _: [world.new, "--gpu-class", "l4", "--gpu-hour-cost", "1.5"],
        lambda world, _: {"slug": world.new, "gpu_class": "l4", "gpu_hour_cost": "1.5"},
    ),
    "pool.dedicate": Case(
        lambda world: world.tenant,
        lambda world, _: [world.slug, "--model", world.version.model.name],
        lambda world, _: {"model": world.version.model.name},
    ),
    "pool.set_cost": Case(
        lambda world: world.version.pool,
        lambda world, pool: [pool.slug, "2.5"],
        lambda world, _: {"gpu_hour_cost": "2.5"},
    ),
    "adapter.retire": Case(World.adapter, lambda world, adapter: [world.slug, adapter.name]),
    "job.cancel": by_id(lambda world: world.submit(world.customer, model=world.version.model.name)),
    "batch.cancel": Case(World.batch, lambda world, batch: [str(batch)]),
    "webhook.enable": by_id(lambda world: world.hook(is_enabled=False)),
    "webhook.disable": by_id(World.hook),
    "webhook.replay": by_id(lambda world: webhook_test(world.hook(), now=NOW)),
}


def command_named(action: Action) -> click.Command:
    group, name = action.command.split()
    context = click.Context(cli)
    found = cli.get_command(context, group)
    assert isinstance(found, click.Group)
    command = found.get_command(context, name)
    assert command is not None
    return command


def path_of(action: Action, row: Any) -> str:
    """The address of an action's form in the portal, of a row or of a list."""
    if row is not None:
        return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/action/{action.name}"
    [model] = [model for model, page in portal._registry.items() if action in page.list_actions]
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/action/{action.name}"


@pytest.fixture(scope="module")
def operator() -> Browser:
    """A browser that is signed in for all of these tests."""
    user = operator_create(name=f"operator-{uuid.uuid4().hex[:10]}", password=PASSWORD, role="operator")
    browser = Browser()
    browser.sign_in(user.username)
    return browser


@pytest.fixture
def worlds(customer, prices, plan, submit, end, version, tmp_path) -> Iterator[tuple[World, World]]:
    """Two of everything: what one surface does must not be in the way of the other."""
    default = Model.objects.filter(is_default=True).first()

    def make(found: Any, name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        return World(customer(name=name), found, plan, submit, end, folder)

    slug = f"pool-{uuid.uuid4().hex[:12]}"
    pool = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="cpu", created_at=NOW)
    other = version_register(
        model_name=f"model-{uuid.uuid4().hex[:12]}",
        checkpoint=version.checkpoint,
        pool=pool,
        limits=DEMO_LIMITS,
        now=NOW,
    )
    yield make(version, "portal"), make(other, "command")
    if default is not None:
        model_make_default(default)


def by_portal(operator: Browser, action: Action, world: World) -> str:
    row = CASES[action.name].row(world)
    path = path_of(action, row)
    # The form as it opens, as a browser would send it.
    opened = {one.name: one.value() for one in action.form(row=row)}
    fields = {name: value for name, value in opened.items() if value is not None and value is not False}
    page = operator.get(path)
    assert (page.status_code, action.label in page.text) == (200, True)
    answer = operator.post(path, **{**fields, **CASES[action.name].fields(world, row)})
    has_secret = 'id="secret"' in answer.text
    assert answer.status_code == 302 or has_secret, re.findall(r"(?s)<ul class=.errorlist.*?</ul>", answer.text)
    return f"operator:{operator.name}"


def by_command(action: Action, world: World) -> str:
    case = CASES[action.name]
    row = case.row(world)
    done = CliRunner().invoke(command_named(action), case.arguments(world, row), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return f"command:{getpass.getuser()}"


def records(actor: str, world: World, seen: set[uuid.UUID]) -> list[dict[str, Any]]:
    """The actor's records beyond those `seen`, without what differs of itself: ids, times, names of rows."""
    names = {
        world.new: "<new>",
        world.slug: "<tenant>",
        world.version.model.name: "<model>",
        world.version.pool.slug: "<pool>",
        getattr(world, "currency", "-"): "<currency>",
    }
    names |= dict.fromkeys(ApiKey.objects.filter(tenant=world.tenant).values_list("key_id", flat=True), "<key>")
    found = AuditEvent.objects.filter(actor=actor).exclude(pk__in=seen).select_related("tenant")
    text = json.dumps(
        sorted(
            (
                {
                    "action": event.action,
                    "tenant": event.tenant and event.tenant.slug,
                    "subject": event.subject,
                    "details": event.details,
                }
                for event in found
            ),
            key=lambda event: event["action"],
        )
    )
    for name, placeholder in names.items():
        if name != "-":
            text = text.replace(name, placeholder)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?", "<time>", text)
    text = re.sub(r'"number": \d+', '"number": 0', text)
    shown: list[dict[str, Any]] = json.loads(text)
    return shown


def test_every_action_is_tried_below():
    assert set(CASES) == set(BY_NAME)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_an_action_has_a_form_in_the_portal_and_a_command(action):
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", action.name)
    if action.subject is None:
        assert any(action in page.list_actions for page in portal._registry.values())
    else:
        assert action in portal._registry[apps.get_model(action.subject.model)].row_actions
    assert command_named(action).name == action.command.split()[-1]


def test_a_command_needs_no_database_to_be_explained():
    shown = CliRunner().invoke(cli, ["tenant", "grant", "--help"])
    assert "--expires" in shown.output
    assert "in the tenant's time zone" in " ".join(shown.output.split())


@pytest.mark.parametrize("name", CASES)
def test_an_action_leaves_the_same_record_from_portal_and_command(operator, worlds, name):
    action, (at_portal, at_command) = BY_NAME[name], worlds
    seen = set(AuditEvent.objects.values_list("pk", flat=True))
    portals = records(by_portal(operator, action, at_portal), at_portal, seen)
    commands = records(by_command(action, at_command), at_command, seen)
    assert name in [event["action"] for event in portals]
    # The command waits for the end of an erasure, which the scheduler records as the platform's after a form.
    assert portals == [event for event in commands if event["action"] != "tenant.erased"]
