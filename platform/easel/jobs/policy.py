"""Cleans prompts, and refuses those that match a block list or contain an injection.

`prompt_clean` gives the prompt that is stored and generated: in NFC, without invisible characters. `prompt_check`
matches it in forms that undo how words are disguised: compatibility forms and case are folded, look-alike letters are
mapped to Latin ones, and one blank stands for everything between two words. Patterns are RE2's, whose time is linear in
the text, so that no pattern has to be trusted.
"""

import re
import threading
import unicodedata
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
from tenants.block_lists import compiled
from tenants.models import BlockListEntry, BlockListRevision, Tenant

log = structlog.get_logger()
BLOCKED = Counter("easel_prompts_blocked_total", "Prompts refused by policy.", ["reason"])

# Joiners, direction marks, soft hyphens and tag characters show nothing, but can disguise a word. They are removed from
# the prompt. `_IGNORED` is removed only from what is matched, because emoji need the zero-width joiner and U+FE0F.
_INVISIBLE = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_IGNORED = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Letters of other scripts that look like Latin ones; and the letters that digits and signs stand for within a word.
_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁһкмтвнгӏαοριντυχκβεηζμߋ", "aeopcyxijsdhkmtbhrlaopivtuxkbehzmo")
_LEET = str.maketrans("0134578@$!|", "oieastbasii")
_SIGN_IN_WORD = re.compile(r"[0134578@$!|]+(?=[a-z])")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
# Scripts without blanks between words: each character is a token, so that a phrase is found anywhere.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(f"[{_UNSPACED}]|[^ {_UNSPACED}]+")

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


def prompt_clean(prompt: str) -> str:
    """Return the prompt as it is stored and generated: in NFC, without invisible characters."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", prompt))


def prompt_check(prompt: str, *, tenant: Tenant) -> None:
    """Raise `PromptBlocked` if an injection pattern, the platform's list or the tenant's list refuses the prompt."""
    text = folded(prompt)
    said = words(text)
    for name, regex in _injections().items():
        if regex.search(text) or (name in SAID_IN_WORDS and regex.search(said)):
            raise _blocked(tenant, "injection", name)
    for owner, revision in _revisions(tenant):
        entry = _compiled(owner, revision).find(text, said)
        if entry is not None:
            raise _blocked(tenant, "block_list" if owner is None else "tenant_block_list", str(entry))


def _blocked(tenant: Tenant, reason: str, rule: str) -> PromptBlocked:
    """Record a refusal. `rule` is an entry's id or the name of an injection pattern; the log never has the prompt."""
    BLOCKED.labels(reason).inc()
    log.info("prompt_blocked", tenant=tenant.slug, reason=reason, rule=rule)
    return PromptBlocked(param="prompt")


def folded(prompt: str) -> str:
    """Return the prompt with compatibility forms and case folded and without ignorable characters."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", prompt_clean(prompt)).casefold())


def words(text: str) -> str:
    """Return the words of a folded text without look-alikes and accents, each between two blanks."""
    if not text.isascii():
        # Accents are removed before look-alikes are mapped: ё is е with an accent, and е looks like e.
        text = unicodedata.normalize("NFD", text)
        text = "".join(char for char in text if not unicodedata.combining(char)).translate(_LOOK_ALIKE)
    text = _SIGN_IN_WORD.sub(lambda sign: sign[0].translate(_LEET), text)
    return f" {_BETWEEN_WORDS.sub(' ', text).strip()} "


class BlockList:
    """A compiled block list. Phrases are matched against the tokens of a prompt, regexes against its folded text.

    Phrases are looked up instead of searched for: at each token with which a phrase begins, as many tokens as that
    phrase has. The memory is proportional to the list's text. Ten thousand phrases take 0.1 s to compile, and then
    0.05 ms for a prompt of 100 characters, 0.4 ms for 1,000, and 1 ms for the longest, of 4,000.
    """

    def __init__(self, entries: Iterable[BlockListEntry]) -> None:
        self._phrases: dict[str, UUID] = {}
        self._lengths: dict[str, set[int]] = {}
        self._regexes: list[tuple[UUID, Any]] = []
        for entry in entries:
            if entry.kind == BlockListEntry.Kind.REGEX:
                self._regexes.append((entry.pk, compiled(entry.pattern)))
            elif found := _TOKEN.findall(words(folded(entry.pattern))):
                self._phrases[" ".join(found)] = entry.pk
                self._lengths.setdefault(found[0], set()).add(len(found))

    def find(self, text: str, said: str) -> UUID | None:
        """Return the id of an entry that a prompt matches, if there is one: `folded(prompt)` is its text, `words(text)`
        what is said in it."""
        found = _TOKEN.findall(said) if self._phrases else []
        spaced = " ".join(found)
        ends = list(accumulate(len(token) + 1 for token in found))
        for start, token in enumerate(found):
            for length in self._lengths.get(token, ()):
                if start + length > len(found):
                    continue
                phrase = spaced[ends[start] - len(token) - 1 : ends[start + length - 1] - 1]
                if entry := self._phrases.get(phrase):
                    return entry
        return next((entry for entry, regex in self._regexes if regex.search(text)), None)


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
