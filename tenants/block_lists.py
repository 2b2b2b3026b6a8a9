"""Block lists: what no prompt may hold, for all of the platform or for one tenant."""

import uuid
from datetime import datetime
from typing import Any

import re2
from django.db import IntegrityError, transaction

from core.errors import DomainError
from core.text import text_unstorable_at
from tenants.models import BlockListEntry, Tenant

PATTERN_CHARS_MAX = 500
# What RE2 may use for one pattern: a bounded size, as its time is linear in the text by construction.
PATTERN_BYTES_MAX = 2**20


class PatternInvalid(DomainError):
    """A block list's entry is 1 to 500 characters of text, and a regular expression one that RE2 can run."""

    code = "pattern_invalid"


class BlockListEntryExists(DomainError):
    """The block list has this entry already."""

    code, http_status = "block_list_entry_exists", 409


def block_list_add(
    *, tenant: Tenant | None, kind: BlockListEntry.Kind, pattern: str, reason: str, now: datetime
) -> BlockListEntry:
    """Adds an entry, the platform's where there is no tenant. Holds from the next request.

    Raises `PatternInvalid` with RE2's own reason, and `BlockListEntryExists`.
    """
    if not pattern.strip() or len(pattern) > PATTERN_CHARS_MAX or text_unstorable_at(pattern):
        raise PatternInvalid(param="pattern")
    if kind == BlockListEntry.Kind.REGEX:
        _check_regex(pattern)
    elif not any(char.isalnum() for char in pattern):
        raise PatternInvalid("a phrase has a letter or a digit: for signs alone add a regex", param="pattern")
    try:
        with transaction.atomic():
            return BlockListEntry.objects.create(
                id=uuid.uuid4(), tenant=tenant, kind=kind, pattern=pattern, reason=reason[:200], created_at=now
            )
    except IntegrityError as error:
        raise BlockListEntryExists(param="pattern") from error


def block_list_remove(*, entry_id: uuid.UUID) -> bool:
    """False when there is no such entry."""
    return BlockListEntry.objects.filter(pk=entry_id).delete()[0] == 1


def compiled(pattern: str) -> Any:
    """Without regard to case: prompts are matched in lower case, and a pattern may be written in any.

    Raises `re2.error` for what RE2 doesn't know (look-around, back-references) or what is too large.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    options.max_mem = PATTERN_BYTES_MAX
    return re2.compile(pattern, options)


def _check_regex(pattern: str) -> None:
    try:
        regex = compiled(pattern)
    except re2.error as error:
        text = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise PatternInvalid(f"RE2 can't run this pattern: {text}", param="pattern") from error
    if regex.search(""):
        raise PatternInvalid(
            "this pattern matches even an empty text, so it would refuse every prompt", param="pattern"
        )
