"""Inputs that several actions have. `from_command` turns the text of an option into what the form reads."""

import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from billing.money import AMOUNT_MICROS_MAX, from_micros
from core.clock import is_keepable
from easel.actions.subjects import tenant_named
from easel.jobs.errors import ProjectNotFound

FieldT = TypeVar("FieldT", bound=forms.Field)
REASON_HELP = "Stored with the transaction, on statements and in the audit log: an invoice's number, for example."


def _helped(field: Callable[..., FieldT]) -> Callable[..., FieldT]:
    """Make a field of which the help text is the first argument: it says what the field is."""
    return lambda help_text, **options: field(help_text=help_text, **options)


text, optional_text = _helped(forms.CharField), _helped(partial(forms.CharField, required=False))
whole, real = _helped(forms.IntegerField), _helped(forms.FloatField)
flag = _helped(partial(forms.BooleanField, required=False))
number = _helped(partial(forms.DecimalField, widget=forms.TextInput))  # stored as it is written


def amount(help_text: str, *, min_value: str = "0.000001", **options: Any) -> forms.DecimalField:
    """Make a field for an amount of money with at most six places."""
    limits: dict[str, Any] = {"min_value": Decimal(min_value), "max_value": from_micros(AMOUNT_MICROS_MAX) - 1}
    return forms.DecimalField(max_digits=16, decimal_places=6, help_text=help_text, **limits, **options)


def reason() -> forms.CharField:
    """Make a field for a reason. The verb demands and checks it, so that every surface has the same refusal."""
    widget = forms.TextInput(attrs={"required": True, "maxlength": 200})
    return forms.CharField(required=False, strip=False, widget=widget, help_text=REASON_HELP)


def token(**options: Any) -> forms.UUIDField:
    """Make a hidden field for a token made with the form: sending the form twice does it once."""
    return forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4, **options)


def instant(help_text: str, **options: Any) -> "Instant":
    """Make a field for an instant, in UTC unless the input has an offset."""
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return Instant(widget=widget, help_text=help_text, **options)


class Instant(forms.DateTimeField):
    """A moment of ISO 8601; without an offset it is in `zone`, which the form sets to the tenant's."""

    zone = "UTC"
    input_formats = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"]

    def to_python(self, value: Any) -> Any:
        with timezone.override(ZoneInfo(self.zone)):
            moment = super().to_python(value)
        if moment is not None and not is_keepable(moment):
            raise ValidationError("Give a time before the year 9999.")
        return moment


class InstantOrNone(Instant):
    """A moment, or none: the word on the command line, an empty field in the portal."""

    def from_command(self, text: str) -> str:
        if not text:
            raise ValidationError("Give a time, or none.")
        return "" if text == "none" else text


class _OrNone:
    """Adds the word `none` to a number's field; the portal leaves the field empty instead."""

    def __init__(self, help_text: str = "", *, min_value: int = 0, **options: Any) -> None:
        given = {"help_text": help_text, "min_value": min_value, **options}
        super().__init__(required=False, **given)  # type: ignore[call-arg]  # of the field

    def from_command(self, text: str) -> str:
        if not text:
            raise ValidationError("Give a number, or none.")
        return "" if text == "none" else text


class WholeOrNone(_OrNone, forms.IntegerField):
    """A whole number, or none."""


class NumberOrNone(_OrNone, forms.DecimalField):
    """A number, or none."""


class Lines(forms.CharField):
    """Several texts: one a line in the portal, an option that may be repeated on the command line."""

    widget = forms.Textarea
    is_multiple = True

    def from_command(self, texts: tuple[str, ...]) -> str:
        return "\n".join(texts)

    def clean(self, value: Any) -> list[str]:
        return [line.strip() for line in super().clean(value).splitlines() if line.strip()]


class LinesOrNone(Lines):
    """Several texts, or none: the word on the command line, an empty field in the portal."""

    def __init__(self, help_text: str) -> None:
        super().__init__(required=False, help_text=help_text)

    def from_command(self, texts: tuple[str, ...]) -> str:
        return "" if texts == ("none",) else super().from_command(texts)


class Labels(Lines):
    """Labels of a project, as `department=design`."""

    def clean(self, value: Any) -> Any:
        pairs = [line.partition("=") for line in super().clean(value)]
        if not all(name.strip() and mark and text.strip() and " " not in name.strip() for name, mark, text in pairs):
            raise ValidationError("A label is a name, an equals sign and a value: department=design")
        return {name.strip(): text.strip() for name, _, text in pairs}


class OfTenant(forms.ModelChoiceField):  # type: ignore[type-arg]  # it takes none at run time
    """A project of the row's tenant: chosen from a list in the portal, named by its slug on the command line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(queryset=None, **options)
        self.owner: Any = None

    def offer(self, tenant: Any) -> None:
        """Lets the projects of this tenant be chosen."""
        self.owner, self.queryset = tenant, tenant.projects.order_by("slug")

    def label_from_instance(self, project: Any) -> str:
        return str(project.slug)

    def from_command(self, slug: str) -> Any:
        found = self.owner.projects.filter(slug=slug).first()
        if found is None:
            raise ProjectNotFound(f"{self.owner} has no project {slug!r}")
        return found.pk


class TenantSlug(forms.SlugField):
    """A tenant by its name."""

    def clean(self, value: Any) -> Any:
        from tenants.models import Tenant

        slug = super().clean(value)
        found = Tenant.objects.filter(slug=slug).first()
        if slug and found is None:
            raise ValidationError("There is no such tenant.")
        return found

    def from_command(self, slug: str) -> str:
        return str(tenant_named(slug).slug)


class FileText(forms.CharField):
    """A text: typed in the portal, the content of a file (- is standard input) on the command line."""

    is_path = True

    def from_command(self, path: str) -> str:
        from billing.pricing.price_books import PricesInvalid

        try:
            return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise PricesInvalid("the file is not UTF-8") from error
