"""Block lists: phrases and patterns that no prompt may contain, on the platform or for one tenant.

Patterns are RE2's: none can take more than linear time, so that none has to be trusted.
"""

import uuid
from datetime import datetime
from typing import Any

import re2
from django.db import IntegrityError, transaction

from core.errors import DomainError
from core.text import text_unstorable_at
from tenants.models import BlockListEntry, Tenant

PATTERN_CHARS_MAX = 500
# Memory limit of one pattern. Its time needs no limit: RE2's is linear in the text.
PATTERN_BYTES_MAX = 2**20


class PatternInvalid(DomainError, code="pattern_invalid"):
    """A pattern must be 1 to 500 characters of text, and a regular expression one that RE2 can run.

    Write 1 to 500 characters, and a regular expression without look-around and back references.
    """


class BlockListEntryExists(DomainError, code="block_list_entry_exists", http_status=409):
    """The block list already has this entry.

    Nothing is to be done: the entry applies already.
    """


def block_list_add(
    *, tenant: Tenant | None, kind: BlockListEntry.Kind, pattern: str, reason: str, now: datetime
) -> BlockListEntry:
    """Add an entry to a tenant's list, or to the platform's without a tenant. It applies from the next request on.

    Raises `PatternInvalid` with RE2's own reason, and `BlockListEntryExists`.
    """
    if not pattern.strip() or len(pattern) > PATTERN_CHARS_MAX or text_unstorable_at(pattern):
        raise PatternInvalid(param="pattern")
    if kind == BlockListEntry.Kind.REGEX:
        _check_regex(pattern)
    elif not any(char.isalnum() for char in pattern):
        raise PatternInvalid("a phrase must have a letter or a digit: to block signs, add a regex", param="pattern")
    try:
        with transaction.atomic():
            return BlockListEntry.objects.create(
                id=uuid.uuid4(), tenant=tenant, kind=kind, pattern=pattern, reason=reason[:200], created_at=now
            )
    except IntegrityError as error:
        raise BlockListEntryExists(param="pattern") from error


def block_list_remove(*, entry_id: uuid.UUID) -> bool:
    """Remove an entry; False if there is none with this id."""
    return BlockListEntry.objects.filter(pk=entry_id).delete()[0] == 1


def compiled(pattern: str) -> Any:
    """Compile a pattern that ignores case, because prompts are matched in lower case.

    Raises `re2.error` for syntax that RE2 lacks (look-around, back-references) and for patterns that are too large.
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
        raise PatternInvalid("this pattern matches the empty text, so it would refuse every prompt", param="pattern")
