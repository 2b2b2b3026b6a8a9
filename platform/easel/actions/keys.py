"""API keys: what each may do, until when, and from where."""

import uuid
from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings

from core.errors import DomainError
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action
from easel.actions.subjects import KEY, TENANT


class SentBefore(DomainError, code="sent_before", http_status=409):
    """This form was sent before and made a key, whose text is shown only once: make another if needed.

    Open the form again to make another key.
    """


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


class LeniencyForm(ActionForm):
    leniency = forms.ChoiceField(
        choices=[("on", "on"), ("off", "off")],
        label="on|off",
        help_text="On: fields that Easel doesn't know or can't obey are ignored with a warning. Off: they are refused.",
    )

    def prepare(self) -> None:
        self.fields["leniency"].initial = "off" if self.row is not None and self.row.is_lenient else "on"


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
