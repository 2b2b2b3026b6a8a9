"""Formats of single values in tables."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Model
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.money import format_micros

NOTHING = "–"
_TONES = {
    "success": ("succeeded", "active", "live", "promoted"),
    "info": ("running", "dispatched", "queued"),
    "danger": ("failed", "suspended", "erased", "being erased", "revoked"),
    "warning": ("rolled back", "lost", "expired"),
}
_TONE_OF = {words: tone for tone, states in _TONES.items() for words in states}


def money(amount_micros: int, currency: str) -> SafeString:
    """Format an amount as `1.234567 USD`, in digits of one width."""
    return number(format_micros(amount_micros, currency))


def number(value: object) -> SafeString:
    return format_html('<span class="portal-number">{}</span>', value)


def quantity(value: Decimal | None, unit: str = "") -> SafeString:
    """Format an exact number without trailing zeros, with its unit."""
    return number(NOTHING if value is None else f"{value.normalize():f} {unit}".rstrip())


def seconds(value: Any) -> str:
    return NOTHING if value is None else f"{float(value):.3f} s"


def when(moment: datetime | None) -> str:
    return NOTHING if moment is None else date_format(moment, "DATETIME_FORMAT")


def code(text: object) -> SafeString:
    return format_html('<span class="portal-code">{}</span>', text)


def state(text: str) -> SafeString:
    words = text.replace("_", " ")
    return format_html('<span class="portal-state portal-{}">{}</span>', _TONE_OF.get(words, "plain"), words)


def pairs(values: dict[str, Any]) -> str:
    """Format labels as `department: design, region: eu`."""
    return ", ".join(f"{name}: {value}" for name, value in values.items()) or NOTHING


def page_of(row: Model) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def link(row: Model | None, text: object = None) -> SafeString | str:
    if row is None:
        return NOTHING
    return format_html('<a class="portal-link" href="{}">{}</a>', page_of(row), text or row)


def size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"
