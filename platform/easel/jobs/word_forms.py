"""English inflections, which block lists match with the word that is listed: plurals, and -ed and -ing of verbs.

Derivations are words of their own and don't match: a butter is no butt. Other languages' forms have to be listed.
"""

import re
from collections.abc import Iterable, Iterator

_WORD = re.compile(r"[a-z]{3,}")
_SYLLABLE = re.compile(r"[aeiouy]+")


def word_forms(word: str) -> Iterator[str]:
    """Yield the inflected forms of a word, right ones and harmless wrong ones: nothing is known of what kind it is."""
    if not _WORD.fullmatch(word):
        return
    ends_in_consonant_y = word[-1] == "y" and word[-2] not in "aeiou"
    # The plural, and the verb's third person.
    if ends_in_consonant_y:
        yield word[:-1] + "ies"
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        yield word + "es"
    else:
        yield word + "s"
        if word.endswith("o"):
            yield word + "es"
        elif word.endswith("fe"):
            yield word[:-2] + "ves"
        elif word.endswith("f") and not word.endswith("ff"):
            yield word[:-1] + "ves"
    # The past and the participle.
    if word.endswith("ie"):
        yield from (word + "d", word[:-2] + "ying")
    elif word.endswith("ee"):
        yield from (word + "d", word + "ing")
    elif word.endswith("e"):
        yield from (word + "d", word[:-1] + "ing")
    elif ends_in_consonant_y:
        yield from (word[:-1] + "ied", word + "ing")
    else:
        doubles = re.search(r"(^|[^aeiou]|qu)[aeiouy][^aeiouwxy]$", word) is not None
        if doubles:
            yield from (word + word[-1] + "ed", word + word[-1] + "ing")
        # A short word doubles its consonant, so that caring is no form of car.
        if not doubles or len(_SYLLABLE.findall(word)) > 1:
            yield from (word + "ed", word + "ing")


def canonical_forms(words: Iterable[str]) -> dict[str, str]:
    """Map each word and its forms to one of the words. Words that share a form count as one word."""
    parents: dict[str, str] = {}

    def root(word: str) -> str:
        while (parent := parents[word]) != word:
            word = parents[word] = parents[parent]
        return word

    for word in words:
        parents.setdefault(word, word)
        for form in word_forms(word):
            if form in parents:
                parents[root(form)] = root(word)
            else:
                parents[form] = root(word)
    return {form: root(form) for form in parents}
