"""Tenants, their projects, their API keys, and their erasure."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings

from billing.money import to_micros
from core.errors import DomainError
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action
from easel.actions.subjects import KEY, TENANT


class SentBefore(DomainError, code="sent_before", http_status=409):
    """This form was sent before and made a key, whose text is shown only once: make another if needed.

    Open the form again to make another key.
    """


class TenantForm(ActionForm):
    slug = fields.text("Lower-case letters, digits and inner hyphens; it can't be changed later.", max_length=40)
    name = fields.optional_text("The name that people use.", max_length=200)
    credit = fields.amount("Credit to begin with, in the tenant's currency.", required=False)
    projects = fields.Lines(required=False, help_text="Projects besides `default`.")
    with_key = fields.flag("Make a first API key, shown once.", initial=True)


class ProjectForm(ActionForm):
    slug = fields.text("Lower-case letters, digits and inner hyphens.", max_length=40)
    labels = fields.Labels(required=False, help_text="Labels that reports group by, as department=design.")


SCOPES_HELP = "What the key may do: read, generate, adapters, usage, billing, webhooks; may be repeated."


def _scopes() -> Any:
    from tenants.models import Scope

    return Scope.choices


_UNCHANGED = "none: {}. A command without this option leaves it as it is."


def _expires(without: str) -> fields.InstantOrNone:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    help_text = f"The key is refused from then on; {without}"
    return fields.InstantOrNone(widget=widget, help_text=help_text, label="Expires (UTC)", required=False)


def _addresses(without: str) -> fields.LinesOrNone:
    return fields.LinesOrNone(
        f"Networks from which the key may be used, as 10.1.0.0/16, 2001:db8::/32 or an address; {without}"
    )


class KeyForm(ActionForm):
    project = fields.OfTenant(help_text="The project that the key's requests are charged to.")
    name = fields.optional_text("What the key is for.", max_length=100)
    scopes = forms.MultipleChoiceField(choices=_scopes, widget=forms.CheckboxSelectMultiple, help_text=SCOPES_HELP)
    expires = _expires("without it, it never expires.")
    addresses = _addresses("may be repeated; without one, all.")
    lenient = fields.flag("Ignore fields of requests that Easel doesn't know or can't obey, with a warning.")
    token = fields.token()

    def prepare(self) -> None:
        project = self.fields["project"]
        project.offer(self.row)
        project.initial = project.queryset.filter(slug="default").first() or project.queryset.first()
        self.fields["scopes"].initial = [scope for scope, _ in _scopes()]


class AccessForm(ActionForm):
    """Begins with what the key may do now."""

    scopes = forms.MultipleChoiceField(choices=_scopes, widget=forms.CheckboxSelectMultiple, help_text=SCOPES_HELP)
    expires = _expires(_UNCHANGED.format("never"))
    addresses = _addresses(f"may be repeated; {_UNCHANGED.format('all')}")

    def prepare(self) -> None:
        if self.row is not None:
            row = self.row
            self.initial = {
                "scopes": row.scopes,
                "expires": row.expires_at,
                "addresses": "\n".join(row.addresses),
            }


class ImageUrlsForm(ActionForm):
    minutes = fields.WholeOrNone(
        "Minutes that a URL is valid, up to a day; without a number the platform's 15.", min_value=1, max_value=1440
    )

    def prepare(self) -> None:
        self.initial = {"minutes": self.row.image_url_minutes}


class ListedModelsForm(ActionForm):
    listed = forms.ChoiceField(
        choices=[("models", "models"), ("aliases", "aliases"), ("all", "all")],
        help_text="The names that GET /v1/models lists; requests may give the others too.",
    )

    def prepare(self) -> None:
        if self.row is not None:
            self.fields["listed"].initial = self.row.listed_models


class LeniencyForm(ActionForm):
    leniency = forms.ChoiceField(
        choices=[("on", "on"), ("off", "off")],
        label="on|off",
        help_text="On: fields that Easel doesn't know or can't obey are ignored with a warning. Off: they are refused.",
    )

    def prepare(self) -> None:
        self.fields["leniency"].initial = "off" if self.row is not None and self.row.is_lenient else "on"


class EraseForm(ActionForm):
    slug = fields.text("The tenant's name, typed again.", max_length=40)
    cancel_jobs = fields.flag("Cancel its unfinished jobs; otherwise the command is refused while it has some.")

    def clean_slug(self) -> str:
        if self.cleaned_data["slug"] != self.row.slug:
            raise forms.ValidationError("This is not the tenant's name.")
        return str(self.row.slug)


@action(
    "tenant.create",
    label="New tenant",
    permission="tenants.add_tenant",
    form=TenantForm,
    arguments=("slug",),
    options={"projects": "--project", "with_key": "--key/--no-key"},
)
def create(
    row: None,
    actor: str,
    now: datetime,
    *,
    slug: str,
    name: str,
    credit: Decimal | None,
    projects: list[str],
    with_key: bool,
) -> Done:
    """Create a tenant with the project `default`."""
    from billing.ledger.postings import credit_grant
    from tenants.accounts import project_create, tenant_create
    from tenants.keys import key_issue

    tenant, first = tenant_create(slug=slug, name=name, now=now)
    for project in projects:
        project_create(tenant=tenant, slug=project, now=now)
    if credit is not None:
        credit_grant(tenant=tenant, amount_micros=to_micros(credit), reference=uuid.uuid4(), now=now)
    secret = ""
    if with_key:
        _, secret = key_issue(project=first, pepper=settings.EASEL.secret_key, now=now, name="first")
    return Done(
        f"{slug} is made, with {'projects' if projects else 'the project'} {', '.join([first.slug, *projects])}.",
        subject=slug,
        tenant=tenant,
        details={
            "name": tenant.name,
            "credit": f"{(credit or Decimal(0)).normalize():f}",
            "currency": tenant.currency,
            "projects": projects,
            "with_key": with_key,
        },
        secret=secret,
        answer={"tenant": slug, "api_key": secret},
        show=tenant,
    )


@action("tenant.suspend", subject=TENANT, applies=lambda tenant: tenant.suspended_at is None, is_dangerous=True)
def suspend(tenant: Any, actor: str, now: datetime) -> Done:
    """Refuse a tenant's keys from now on; its running jobs finish."""
    from tenants.accounts import tenant_suspend

    changed = tenant_suspend(tenant=tenant, now=now)
    message = f"{tenant.slug} is suspended: its keys are refused, its running jobs finish."
    return Done(message, needs_record=changed)


@action(
    "tenant.resume",
    subject=TENANT,
    applies=lambda tenant: tenant.suspended_at is not None and tenant.erase_requested_at is None,
)
def resume(tenant: Any, actor: str, now: datetime) -> Done:
    """Accept a suspended tenant's keys again."""
    from tenants.accounts import tenant_resume

    changed = tenant_resume(tenant=tenant)
    return Done(f"{tenant.slug} may call again.", needs_record=changed)


@action("tenant.image_urls", label="Set image URLs", subject=TENANT, form=ImageUrlsForm)
def set_image_urls(tenant: Any, actor: str, now: datetime, *, minutes: int | None) -> Done:
    """Set how long the URLs of a tenant's images are valid; it holds from the next URL."""
    from tenants.accounts import tenant_image_urls
    from tenants.models import IMAGE_URL_MINUTES

    changed = tenant_image_urls(tenant=tenant, minutes=minutes)
    return Done(
        f"URLs of images of {tenant.slug} are valid for {minutes or IMAGE_URL_MINUTES} minutes.",
        details={"minutes": minutes},
        needs_record=changed,
    )


@action("tenant.models", label="Set listed models", subject=TENANT, form=ListedModelsForm)
def set_listed_models(tenant: Any, actor: str, now: datetime, *, listed: str) -> Done:
    """Set whether a tenant's list of models shows models, aliases or both."""
    from tenants.accounts import tenant_list_models
    from tenants.models import ListedModels

    changed = tenant_list_models(tenant=tenant, listed=ListedModels(listed))
    shown = "models and aliases" if listed == "all" else f"{listed} alone"
    return Done(f"{tenant.slug} is shown {shown}.", details={"listed": listed}, needs_record=changed)


@action(
    "project.create",
    label="New project",
    permission="tenants.add_project",
    subject=TENANT,
    form=ProjectForm,
    arguments=("slug",),
    options={"labels": "--label"},
)
def add_project(tenant: Any, actor: str, now: datetime, *, slug: str, labels: dict[str, str]) -> Done:
    """Add a project, to which keys and costs are assigned."""
    from tenants.accounts import project_create

    project_create(tenant=tenant, slug=slug, labels=labels, now=now)
    return Done(f"{tenant.slug} has the project {slug}.", subject=slug, details={"labels": labels})


@action(
    "key.create",
    label="New key",
    permission="tenants.add_apikey",
    subject=TENANT,
    form=KeyForm,
    options={"scopes": "--scope", "addresses": "--address"},
)
def add_key(
    tenant: Any,
    actor: str,
    now: datetime,
    *,
    project: Any,
    name: str,
    scopes: list[str],
    expires: datetime | None,
    addresses: list[str],
    lenient: bool,
    token: uuid.UUID,
) -> Done:
    """Create an API key; its text is shown this once."""
    from core.models import AuditEvent
    from tenants.keys import key_issue
    from tenants.models import Tenant

    # The lock makes two of the same form queue here, so that the second finds the first's record.
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    if AuditEvent.objects.filter(tenant=tenant, action="key.create", details__token=str(token)).exists():
        raise SentBefore
    rights: dict[str, Any] = {
        "scopes": scopes,
        "expires_at": expires,
        "addresses": addresses,
        "is_lenient": lenient,
    }
    key, secret = key_issue(project=project, pepper=settings.EASEL.secret_key, name=name, now=now, **rights)
    return Done(
        f"A key of {tenant.slug} for the project {project.slug}:",
        subject=key.key_id,
        details={
            "name": name,
            "project": project.slug,
            "lenient": lenient,
            "token": str(token),
            **_access_of(key),
        },
        secret=secret,
        answer={"key_id": key.key_id, "api_key": secret},
    )


@action("key.revoke", subject=KEY, applies=lambda key: key.revoked_at is None, is_dangerous=True)
def revoke(key: Any, actor: str, now: datetime) -> Done:
    """Revoke a key for good."""
    from tenants.keys import key_revoke

    changed = key_revoke(key_id=key.key_id, now=now)
    return Done(f"{key.key_id} is revoked", subject=key.key_id, needs_record=changed)


def _access_of(key: Any) -> dict[str, Any]:
    expires_at = None if key.expires_at is None else key.expires_at.isoformat()
    return {"scopes": key.scopes, "expires_at": expires_at, "addresses": key.addresses}


@action(
    "key.access",
    label="Set access",
    subject=KEY,
    form=AccessForm,
    applies=lambda key: key.revoked_at is None,
    options={"scopes": "--scope", "addresses": "--address"},
)
def set_access(
    key: Any, actor: str, now: datetime, *, scopes: list[str], expires: datetime | None, addresses: list[str]
) -> Done:
    """Set what a key may do, until when, and from which networks. What it is being answered ends if that is no longer
    allowed.
    """
    from tenants.keys import key_set_access

    changed = key_set_access(key=key, scopes=scopes, expires_at=expires, addresses=addresses, now=now)
    key.refresh_from_db(fields=["scopes", "expires_at", "addresses"])
    until = "" if key.expires_at is None else f" until {key.expires_at.isoformat()}"
    where = f" from {', '.join(key.addresses)}" if key.addresses else ""
    return Done(
        f"{key.key_id} may {', '.join(key.scopes)}{until}{where}.",
        subject=key.key_id,
        details=_access_of(key),
        needs_record=changed,
    )


@action(
    "key.lenient",
    label="Set leniency",
    subject=KEY,
    form=LeniencyForm,
    applies=lambda key: key.revoked_at is None,
    arguments=("leniency",),
)
def set_leniency(key: Any, actor: str, now: datetime, *, leniency: str) -> Done:
    """Ignore the fields of a key's requests that Easel doesn't know or can't obey, with a warning, or refuse them."""
    from tenants.keys import key_set_leniency

    changed = key_set_leniency(key=key, is_lenient=leniency == "on")
    what = "ignored, with a warning" if leniency == "on" else "refused"
    return Done(
        f"What {key.key_id} asks for and Easel can't do is {what}.",
        subject=key.key_id,
        details={"leniency": leniency},
        needs_record=changed,
    )


@action("key.rotate", subject=KEY, applies=lambda key: key.revoked_at is None)
def rotate(key: Any, actor: str, now: datetime) -> Done:
    """Replace a key by a new one of the same scopes, expiry, networks, project, limits and budget; the old one ends at
    once. What the month has used of them goes on, and so do batches that it made.
    """
    from billing.budgets.budgets import budgets_follow
    from tenants.keys import key_rotate

    made, secret = key_rotate(key=key, pepper=settings.EASEL.secret_key, now=now)
    budgets_follow(key, successor=made)
    return Done(
        f"The key that replaces {key.key_id}, which ended now:",
        subject=key.key_id,
        details={"new": made.key_id},
        secret=secret,
        answer={"key_id": made.key_id, "api_key": secret},
        show=made,
    )


@action(
    "tenant.erase",
    permission="tenants.delete_tenant",
    subject=TENANT,
    form=EraseForm,
    applies=lambda tenant: tenant.erase_requested_at is None,
    is_dangerous=True,
)
def erase(tenant: Any, actor: str, now: datetime, *, slug: str, cancel_jobs: bool) -> Done:
    """Delete images, adapters, prompts, users and names for good and revoke the keys. The charges stay."""
    from easel.privacy.erasure import erase_request

    # `erase_request` writes the audit record itself, with the number of jobs that it canceled.
    erase_request(tenant=tenant, cancel_jobs=cancel_jobs, actor=actor, now=now)
    return Done(f"{slug} is closed and being erased: its page says when that is done.", needs_record=False)
