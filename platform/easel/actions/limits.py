"""Actions on quotas, shares of busy pools, block lists, and the days that data is retained."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms

from easel.actions import fields
from easel.actions.action import ActionForm, Done, action, tenant_of
from easel.actions.subjects import BLOCK_LIST_ENTRY, TENANT, TENANT_OR_KEY


class QuotaForm(ActionForm):
    """Begins with the limits as they are; an empty one is no limit."""

    requests_per_minute = fields.WholeOrNone()
    concurrent_jobs_max = fields.WholeOrNone("Unfinished jobs at the same time.", label="Unfinished jobs")
    queued_jobs_max = fields.WholeOrNone(
        "Without one, an account has the platform's (EASEL_QUEUED_JOBS_MAX).", label="Waiting jobs"
    )
    image_units_per_month = fields.NumberOrNone("512x512 pixels are one.", decimal_places=4)
    pixels_max = fields.WholeOrNone("Largest width x height of an image.")
    steps_max = fields.WholeOrNone("Most denoising steps of an image.")
    stored_files_max = fields.WholeOrNone("Most uploaded files of an account; without one 500.", label="Stored files")
    stored_bytes_max = fields.WholeOrNone(
        "Bytes of an account's uploaded files; without one 1 GiB.", label="Stored bytes"
    )
    uploads_per_minute = fields.WholeOrNone("Of files of an account; without one 30.")

    def prepare(self) -> None:
        tenant = tenant_of(self.row)
        quota = tenant.quotas.filter(api_key=None if self.row is tenant else self.row).first()
        self.initial = {limit: getattr(quota, limit, None) for limit in self.fields}


class ShareForm(ActionForm):
    weight = fields.whole("Share of GPU seconds where tenants wait for the same pool.", min_value=1, max_value=1000)
    running_jobs_max = fields.WholeOrNone(
        "Jobs that workers run at the same time; others wait.", min_value=1, max_value=2**31 - 1
    )

    def prepare(self) -> None:
        self.initial = {"weight": self.row.fair_share_weight, "running_jobs_max": self.row.running_jobs_max}


class RetentionForm(ActionForm):
    """Begins with the days as they are; without a number the platform's apply."""

    output_days = fields.WholeOrNone("Days that images are retained.", min_value=1, label="Days of images")
    job_days = fields.WholeOrNone(
        "Days that prompts, metadata, users and errors are retained.", min_value=1, label="Days of jobs"
    )

    def prepare(self) -> None:
        self.initial = {"output_days": self.row.output_days, "job_days": self.row.job_days}


class OriginsForm(ActionForm):
    """Begins with the origins as they are."""

    origins = fields.LinesOrNone(
        "Each is scheme://host or scheme://host:port, as https://app.example; without one no page may call."
    )

    def prepare(self) -> None:
        self.initial = {"origins": "\n".join(self.row.origins)}


def _moderations() -> Any:
    from tenants.models import Moderation

    return Moderation.choices


class ModerationForm(ActionForm):
    """Begins with the policy as it is."""

    moderation = forms.ChoiceField(choices=_moderations, label="Judged", help_text="What the classifier judges.")
    categories = fields.LinesOrNone(
        "Categories that are refused, as violence or violence=0.4; may be repeated. none: what the classifier flags."
    )

    def prepare(self) -> None:
        categories = "\n".join(self.row.moderation_categories)
        self.initial = {"moderation": self.row.moderation, "categories": categories}


def _kinds() -> Any:
    from tenants.models import BlockListEntry

    return BlockListEntry.Kind.choices


class BlockForm(ActionForm):
    pattern = fields.text("A phrase matches in any spelling; a pattern is a regular expression of RE2.", max_length=500)
    kind = forms.ChoiceField(
        choices=_kinds, initial="phrase", help_text="A regular expression of RE2, matched on the folded prompt."
    )
    tenant = fields.TenantSlug(required=False, help_text="This tenant alone; without one: everybody.")
    reason = fields.optional_text("A note for other operators.", max_length=200)


@action(
    "quota.set",
    command="tenant limit",
    label="Set limits",
    permission="tenants.change_quota",
    subject=TENANT_OR_KEY,
    form=QuotaForm,
)
def set_limits(row: Any, actor: str, now: datetime, **limits: Any) -> Done:
    """Set what a tenant may ask for. A limit is a number from 0, or none; it holds from the next request. Of the limits
    of account and key, the lower one decides.
    """
    from tenants.quotas import quota_set

    tenant = tenant_of(row)
    key = None if row is tenant else row
    quota_set(tenant=tenant, api_key=key, limits=limits, now=now)
    subject = tenant.slug if key is None else key.key_id
    return Done(
        f"The limits of {subject} hold from its next request.",
        subject=subject,
        details={
            limit: None if value is None else f"{Decimal(value).normalize():f}" for limit, value in limits.items()
        },
    )


@action("tenant.share", label="Set share", subject=TENANT, form=ShareForm)
def set_share(tenant: Any, actor: str, now: datetime, *, weight: int, running_jobs_max: int | None) -> Done:
    """Set a tenant's share of busy pools; it holds from the next job that is released."""
    from tenants.accounts import tenant_share

    changes = {"fair_share_weight": weight, "running_jobs_max": running_jobs_max}
    tenant_share(tenant=tenant, changes=changes)
    return Done(f"The share of {tenant.slug} holds from the next job that is released.", details=changes)


@action("retention.set", command="tenant retention", label="Set retention", subject=TENANT, form=RetentionForm)
def set_retention(tenant: Any, actor: str, now: datetime, **days: int | None) -> Done:
    """Set how long a tenant's images and jobs are retained; what is older is deleted within seconds, for good. A job's
    row stays without its texts: what it did and what it cost.
    """
    from django.conf import settings

    from tenants.retention import retention_set

    holds = retention_set(tenant=tenant, changes=days, default=settings.EASEL)
    return Done(
        f"Images of {tenant.slug} are retained for {holds.output_days} days, its jobs for {holds.job_days}.",
        details=days,
    )


@action("tenant.origins", label="Set origins", subject=TENANT, form=OriginsForm, arguments=("origins",))
def set_origins(tenant: Any, actor: str, now: datetime, *, origins: list[str]) -> Done:
    """Set the web origins whose pages may call the API with a tenant's keys, from a browser. They replace those before;
    the word none ends all. Whoever opens such a page can read the key in it.
    """
    from tenants.origins import origins_set

    found = origins_set(tenant=tenant, origins=origins)
    message = f"Pages of {', '.join(found) or 'no origin'} may call with the keys of {tenant.slug}."
    return Done(message, details={"origins": found})


@action("tenant.moderation", label="Set moderation", subject=TENANT, form=ModerationForm, arguments=("moderation",))
def set_moderation(tenant: Any, actor: str, now: datetime, *, moderation: str, categories: list[str]) -> Done:
    """Set what of a tenant's requests the classifier (EASEL_MODERATION_URL) judges: off, prompts, or all with images.
    It holds from the next request.
    """
    from django.conf import settings

    from tenants.models import Moderation
    from tenants.moderation import moderation_set

    found = moderation_set(tenant=tenant, moderation=Moderation(moderation), categories=categories)
    judged = Moderation(moderation).label
    missing = moderation != Moderation.OFF and not settings.EASEL.moderation_url
    warning = " EASEL_MODERATION_URL is not set here: where it is missing, there is no verdict." if missing else ""
    return Done(
        f"The classifier judges {judged} of {tenant.slug}.{warning}",
        details={"moderation": moderation, "categories": found},
    )


@action(
    "block_list.add",
    label="New entry",
    permission="tenants.add_blocklistentry",
    form=BlockForm,
    arguments=("pattern",),
    options={"kind": ("--regex", "regex")},
)
def block(row: None, actor: str, now: datetime, *, pattern: str, kind: str, tenant: Any, reason: str) -> Done:
    """Add a phrase, which is found in other spellings and forms of its words too, or a pattern."""
    from tenants.block_lists import block_list_add
    from tenants.models import BlockListEntry

    entry = block_list_add(tenant=tenant, kind=BlockListEntry.Kind(kind), pattern=pattern, reason=reason, now=now)
    return Done(
        f"{entry.pk} is added: no prompt may contain it from now on.",
        subject=entry.pk,
        tenant=tenant,
        details={"kind": kind, "pattern": pattern, "reason": reason},
        answer={"id": str(entry.pk)},
        show=entry,
    )


@action("block_list.remove", permission="tenants.delete_blocklistentry", subject=BLOCK_LIST_ENTRY, is_dangerous=True)
def unblock(entry: Any, actor: str, now: datetime) -> Done:
    """Remove an entry: prompts may contain it again."""
    from tenants.block_lists import block_list_remove

    entry_id, details = entry.pk, {"kind": entry.kind, "pattern": entry.pattern}
    changed = block_list_remove(entry_id=entry_id)
    return Done(f"{entry_id} is removed", subject=entry_id, details=details, needs_record=changed, is_gone=True)
