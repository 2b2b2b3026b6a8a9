"""Tenants, their projects, and their erasure."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings

from billing.money import to_micros
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action
from easel.actions.subjects import TENANT


class TenantForm(ActionForm):
    slug = fields.text("Lower-case letters, digits and inner hyphens; it can't be changed later.", max_length=40)
    name = fields.optional_text("The name that people use.", max_length=200)
    credit = fields.amount("Credit to begin with, in the tenant's currency.", required=False)
    projects = fields.Lines(required=False, help_text="Projects besides `default`.")
    with_key = fields.flag("Make a first API key, shown once.", initial=True)


class ProjectForm(ActionForm):
    slug = fields.text("Lower-case letters, digits and inner hyphens.", max_length=40)
    labels = fields.Labels(required=False, help_text="Labels that reports group by, as department=design.")


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
