"""What a prompt may hold: one form of Unicode, none of the block lists' entries, no markers meant for the machine.

The prompt that is stored and drawn is cleaned (NFC, without characters that no reader sees). It is matched in forms
that undo how words are disguised: compatibility forms and case folded, look-alike letters mapped to Latin ones,
everything between words one blank. Patterns are RE2's, whose time is linear in the text.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import re2
import structlog
from django.db.models import Count, Max, Q
from prometheus_client import Counter

from easel.generation.errors import PromptBlocked
from tenants.block_lists import compiled
from tenants.models import BlockListEntry, Tenant

log = structlog.get_logger()
BLOCKED = Counter("easel_prompts_blocked_total", "Prompts refused by policy.", ["reason"])

# Joiners, direction marks, soft hyphens, tag characters, variation selectors: nothing to draw, much to hide behind.
# The zero-width joiner and U+FE0F stay where emoji need them: `_IGNORED` goes from what is matched, not from what is
# drawn.
_INVISIBLE = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_IGNORED = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Letters of other scripts that look like Latin ones, and what digits and signs stand for inside of words.
_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁһкмтвαοριντυχκӏߋ", "aeopcyxijsdhkmtbaopivtuxklo")
_LEET = str.maketrans("0134578@$!|", "oieastbasii")
_SIGN_IN_WORD = re.compile(r"[0134578@$!|](?=[a-z])")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
# Scripts that put no blanks between words: a phrase in them is found anywhere.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")

# A text-to-image model has no instructions to override; what reaches its text encoder can still carry the encoder's
# control tokens, or the directives that common front ends act on (loading a LoRA, a file or an address), and prompts
# that address a rewriting model in front of this one. Each has its rule; matched on the folded text.
INJECTIONS = {
    "control_token": r"<\|[a-z0-9_]{1,40}\|>|</?s>|\[/?inst\]|<</?sys>>|<start_of_turn>|<end_of_turn>",
    "chat_role": r"(?m)^\s*#{0,3}\s*(system|assistant|developer)\s*(prompt|message)?\s*:",
    "override": r"\b(ignore|disregard|forget|override|bypass)\s+(all\s+|any\s+|the\s+|your\s+|my\s+|of\s+)*"
    r"(previous|prior|above|earlier|preceding|system|safety|content)\s+"
    r"(instruction|prompt|rule|polic|filter|guideline|message|restriction)",
    "jailbreak": r"\b(jailbreak|dan)\s+mode\b|\bdo anything now\b"
    r"|\b(without|no|disable|remove|turn off)\s+(the\s+|any\s+|all\s+|your\s+)*"
    r"(safety|content|nsfw)\s+(filter|check|polic|restriction)",
    "directive": r"<(lora|lyco|hypernet|embedding):[^>]*>|\b(file|ftp|data|javascript)://?\S|\{\{.*\}\}|\$\{[^}]*\}",
}


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that a prompt broke: an entry's id, or the name of an injection pattern."""

    reason: str
    rule: str


def prompt_clean(prompt: str) -> str:
    """The prompt as it is stored and drawn: NFC, without invisible characters."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", prompt))


def prompt_check(prompt: str, *, tenant: Tenant) -> None:
    """Raises `PromptBlocked` for what policy refuses. Logs which rule it was and never the prompt."""
    found = _injection(prompt) or _listed(prompt, tenant)
    if found is None:
        return
    BLOCKED.labels(found.reason).inc()
    log.info("prompt_blocked", tenant=tenant.slug, reason=found.reason, rule=found.rule)
    raise PromptBlocked(param="prompt")


def folded(prompt: str) -> str:
    """Compatibility forms, case and ignorable characters undone."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", prompt_clean(prompt)).casefold())


def words(prompt: str) -> str:
    """The folded words with look-alikes and accents undone, each between two blanks."""
    text = unicodedata.normalize("NFD", folded(prompt).translate(_LOOK_ALIKE))
    text = "".join(char for char in text if not unicodedata.combining(char))
    text = _SIGN_IN_WORD.sub(lambda sign: sign[0].translate(_LEET), text)
    return f" {_BETWEEN_WORDS.sub(' ', text).strip()} "


class BlockList:
    """Entries, compiled: of a phrase its words as `words` gives them, of a regex the folded text."""

    def __init__(self, entries: Iterable[BlockListEntry]) -> None:
        self._phrases: list[UUID] = []
        self._regexes: list[tuple[UUID, Any]] = []
        options = re2.Options()
        options.log_errors = False
        options.max_mem = 2**28  # enough for ten thousand phrases: 0.1 s to compile, 3 µs for a prompt of 1,000
        self._set = re2.Set.SearchSet(options)
        for entry in entries:
            if entry.kind == BlockListEntry.Kind.REGEX:
                self._regexes.append((entry.pk, compiled(entry.pattern)))
            elif text := words(entry.pattern).strip():
                self._set.Add(_bounded(text))
                self._phrases.append(entry.pk)
        if self._phrases:
            self._set.Compile()

    def find(self, prompt: str) -> UUID | None:
        """The id of an entry that the prompt holds."""
        if self._phrases and (found := self._set.Match(words(prompt))):
            first: int = found[0]
            return self._phrases[first]
        text = folded(prompt)
        hits = (entry for entry, regex in self._regexes if regex.search(text))
        return next(hits, None)


def _bounded(text: str) -> str:
    start, end = ("" if _UNSPACED.match(char) else " " for char in (text[0], text[-1]))
    return f"{start}{re2.escape(text)}{end}"


def _injection(prompt: str) -> Match | None:
    text = folded(prompt)
    for name, regex in _injections().items():
        if regex.search(text):
            return Match("injection", name)
    return None


@lru_cache(maxsize=1)
def _injections() -> dict[str, Any]:
    return {name: compiled(pattern) for name, pattern in INJECTIONS.items()}


def _listed(prompt: str, tenant: Tenant) -> Match | None:
    """One small query says whether the lists that were compiled are still those in force."""
    both = BlockListEntry.objects.filter(Q(tenant=None) | Q(tenant=tenant))
    stamps = {
        owner: (count, last)
        for owner, count, last in both.order_by()
        .values_list("tenant_id")
        .annotate(count=Count("id"), last=Max("created_at"))
    }
    for owner, stamp in stamps.items():
        entry = _compiled(owner, stamp).find(prompt)
        if entry is not None:
            return Match("block_list" if owner is None else "tenant_block_list", str(entry))
    return None


_lists: dict[UUID | None, tuple[tuple[int, datetime], BlockList]] = {}
_lists_lock = threading.Lock()
_LISTS_MAX = 1000


def _compiled(owner: UUID | None, stamp: tuple[int, datetime]) -> BlockList:
    """The list of the platform (None) or of a tenant, compiled once for each change of it."""
    with _lists_lock:
        known = _lists.get(owner)
        if known is None or known[0] != stamp:
            if len(_lists) >= _LISTS_MAX:
                _lists.clear()
            known = _lists[owner] = (stamp, BlockList(BlockListEntry.objects.filter(tenant=owner)))
        return known[1]
