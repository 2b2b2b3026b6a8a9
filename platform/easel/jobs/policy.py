"""Refuses prompts that match a block list or contain an injection.

A prompt is matched in each of its readings (`jobs/readings.py`), which undo how words are disguised, and phrases in
the forms of their words (`jobs/word_forms.py`). Patterns are RE2's, whose time is linear in the text: none
has to be trusted.
"""

import threading
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from typing import Any
from uuid import UUID

import structlog
from django.db.models import Q
from prometheus_client import Counter

from core.revision import cached_by_revision
from easel.jobs.errors import PromptBlocked
from easel.jobs.readings import Reading, phrase_tokens, readings
from easel.jobs.word_forms import canonical_forms
from tenants.block_lists import compiled
from tenants.models import BlockListEntry, BlockListRevision, Tenant

log = structlog.get_logger()
BLOCKED = Counter("easel_prompts_blocked_total", "Prompts refused by policy.", ["reason"])

# A text-to-image model has no instructions to override. A prompt can still contain control tokens of the text encoder,
# directives that common front ends act on (loading a LoRA, a file or an address), or instructions for a model that
# rewrites prompts in front of this one. Each rule is matched against the folded text, and those in `SAID_IN_WORDS`
# against its words too. A chat role at the start is no injection: "System: a poster of the planets" is a caption.
INJECTIONS = {
    "control_token": r"<\|[a-z0-9_]{1,40}\|>|</?(think|tool_call|tool_response|pad|unk)>"
    r"|\[/?inst\]|<</?sys>>|<start_of_turn>|<end_of_turn>",
    "chat_role": r"\n\s*#{0,3}\s*(system|assistant|developer)\s*(prompt|message)?\s*:",
    "override": r"\b(ignore|disregard|forget|override|bypass)\s+(all\s+|any\s+|the\s+|your\s+|my\s+|of\s+)*"
    r"(previous|prior|above|earlier|preceding|system|safety|content)\s+"
    r"(instruction|prompt|rule|polic|filter|guideline|message|restriction)",
    "jailbreak": r"\b(jailbreak|dan)\s+mode\b|\bdo anything now\b"
    r"|\b(disable|remove|turn off)\s+(the\s+|any\s+|all\s+|your\s+)*"
    r"(safety|content|nsfw)\s+(filter|check|polic|restriction)"
    r"|\b(without|no)\s+(any\s+)?nsfw\s+(filter|check|polic|restriction)",
    "directive": r"<(lora|lyco|hypernet|embedding):[^>]*>|\b(file|ftp|data|javascript)://?\S|\{\{.*\}\}|\$\{[^}]*\}",
}
SAID_IN_WORDS = ("override", "jailbreak")


def prompt_check(prompt: str, *, tenant: Tenant) -> None:
    """Raise `PromptBlocked` if an injection pattern, the platform's list or the tenant's list refuses the prompt."""
    ways = readings(prompt)
    texts, said = {way.text for way in ways}, {way.said for way in ways}
    for name, regex in _injections().items():
        if any(map(regex.search, texts | said if name in SAID_IN_WORDS else texts)):
            raise _blocked(tenant, "injection", name)
    for owner, revision in _revisions(tenant):
        block_list = _compiled(owner, revision)
        entry = next(filter(None, map(block_list.find, ways)), None)
        if entry is not None:
            raise _blocked(tenant, "block_list" if owner is None else "tenant_block_list", str(entry))


def _blocked(tenant: Tenant, reason: str, rule: str) -> PromptBlocked:
    """Record a refusal. `rule` is an entry's id or the name of an injection pattern; the log never has the prompt."""
    BLOCKED.labels(reason).inc()
    log.info("prompt_blocked", tenant=tenant.slug, reason=reason, rule=rule)
    return PromptBlocked(param="prompt")


class BlockList:
    """A compiled block list. Phrases are matched against the tokens of a prompt, regexes against its folded text.

    Phrases are looked up instead of searched for: at each token with which a phrase begins, as many tokens as that
    phrase has. The memory is proportional to the list's text, with the forms of its words. Ten thousand
    phrases take 0.4 s to compile, and then 0.1 ms for a prompt of 100 characters, 1 ms for 1,000, and 4 ms for 4,000.
    """

    def __init__(self, entries: Iterable[BlockListEntry]) -> None:
        self._phrases: dict[str, UUID] = {}
        self._lengths: dict[str, set[int]] = {}
        self._joined: dict[str, UUID] = {}
        self._regexes: list[tuple[UUID, Any]] = []
        phrases: list[tuple[UUID, list[str]]] = []
        for entry in entries:
            if entry.kind == BlockListEntry.Kind.REGEX:
                self._regexes.append((entry.pk, compiled(entry.pattern)))
            elif found := phrase_tokens(entry.pattern):
                phrases.append((entry.pk, found))
        self._canonical = canonical_forms(token for _, found in phrases for token in found)
        for pk, found in phrases:
            words = [self._canonical[token] for token in found]
            self._phrases[" ".join(words)] = pk
            self._joined["".join(found)] = pk
            self._lengths.setdefault(words[0], set()).add(len(words))

    def find(self, reading: Reading) -> UUID | None:
        """Return the id of an entry that a prompt matches in this reading, if there is one."""
        if self._phrases:
            for tokens in (reading.tokens, *reading.tokens_joined):
                if entry := self._find_phrase(tokens):
                    return entry
            for word in reading.joined:
                if entry := self._joined.get(word) or self._phrases.get(self._canonical.get(word, word)):
                    return entry
        return next((entry for entry, regex in self._regexes if regex.search(reading.text)), None)

    def _find_phrase(self, tokens: list[str]) -> UUID | None:
        found = [self._canonical.get(token, token) for token in tokens]
        spaced = " ".join(found)
        ends = list(accumulate(len(token) + 1 for token in found))
        for start, token in enumerate(found):
            for length in self._lengths.get(token, ()):
                if start + length > len(found):
                    continue
                phrase = spaced[ends[start] - len(token) - 1 : ends[start + length - 1] - 1]
                if entry := self._phrases.get(phrase):
                    return entry
        return None


@lru_cache(maxsize=1)
def _injections() -> dict[str, Any]:
    return {name: compiled(pattern) for name, pattern in INJECTIONS.items()}


@cached_by_revision
def _revisions(tenant: Tenant) -> list[tuple[UUID | None, int]]:
    """Return the lists that ever had an entry, with their revisions: the platform's under None, and the tenant's."""
    both = BlockListRevision.objects.filter(Q(tenant=None) | Q(tenant=tenant), revision__gt=0)
    return list(both.values_list("tenant_id", "revision"))


_lists: dict[UUID | None, tuple[int, BlockList]] = {}
_lists_lock = threading.Lock()
_LISTS_MAX = 1000


def _compiled(owner: UUID | None, revision: int) -> BlockList:
    """Return the compiled list of the platform (None) or of a tenant, from the cache unless it has changed.

    The revision was read before the entries, so a change in between is at worst compiled twice.
    """
    with _lists_lock:
        known = _lists.get(owner)
        if known is None or known[0] != revision:
            if len(_lists) >= _LISTS_MAX:
                _lists.clear()
            known = _lists[owner] = (revision, BlockList(BlockListEntry.objects.filter(tenant=owner)))
        return known[1]
