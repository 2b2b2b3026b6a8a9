"""Undoes how words are disguised, so that a block list finds them: encodings, look-alikes, separators and spelling.

A prompt has up to four readings: as it stands, with what is encoded in it decoded, and each with the digit 1 read as an
I and as an L. All of it takes time linear in the prompt.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from urllib.parse import unquote

from easel.jobs.look_alikes import LOOK_ALIKES, REGIONAL_INDICATORS

# Joiners, direction marks, soft hyphens and tag characters show nothing, but can disguise a word. They are removed from
# the prompt. `_IGNORED` is removed only from what is matched, because emoji need the zero-width joiner and U+FE0F.
_INVISIBLE = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_IGNORED = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e0fff]"
)
_LOOK_ALIKE = str.maketrans({sign: letter for letter, signs in LOOK_ALIKES.items() for sign in signs})
# Two of these are a flag, which separates words; three or more are letters.
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff](?: ?[\U0001f1e6-\U0001f1ff]){2,}")
_FLAGS = str.maketrans(REGIONAL_INDICATORS | {" ": ""})
# Letters that digits and signs stand for: before a letter, or at the end of a word of two letters or more.
_LEET = str.maketrans("0134578@$!|", "oieastbasii")
_LEET_L = str.maketrans("0134578@$!|", "oleastbasll")
_SIGN_IN_WORD = re.compile(r"[0134578@$!|]+(?=[a-z])|(?<=[a-z][a-z])[0134578@$]{1,2}(?![^\W_])")
_I_OR_L = re.compile(r"[1!|]")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
# Scripts without blanks between words: each character is a token, so that a phrase is found anywhere.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_TOKEN = re.compile(f"[{_UNSPACED}]|[^ {_UNSPACED}]+")
# Words are joined only where nobody separates words: over a hyphen or the like between letters, and between single
# characters. So "the pen is red" holds no other word. An apostrophe separates, as in "who're".
_CHARACTER = f"[^\\W_{_UNSPACED}]"
_JOINER = r"[-\u2010-\u2015_.\u00b7\u2022*~+|^=#]{1,3}"
# `++` gives nothing back and a word is begun at its beginning: otherwise the time would be quadratic.
_COMPOUND = re.compile(f"(?<!{_CHARACTER}){_CHARACTER}++(?:{_JOINER}{_CHARACTER}++)+")
_JOINERS = re.compile(f"(?<={_CHARACTER}){_JOINER}(?={_CHARACTER})")
_PIECES_MAX = 12
# The same separator between all characters, so that a wider one ends the word: "a  b a d  w o r d".
_SPELLED = re.compile(rf"(?<![^\W_]){_CHARACTER}(?P<gap>[\W_]{{1,3}}){_CHARACTER}(?:(?P=gap){_CHARACTER})+(?![^\W_])")
_SPELLED_ARTICLE = re.compile(r"(?<![^\W_])[ai] [^\W_] [^\W_](?![^\W_])")
_SPELLED_CHARS_MIN = 3
_ENCODED = re.compile(r"[%&\\A-Z0-9]")
_ESCAPE = re.compile(r"\\(?:u\{?|U|x)([0-9a-fA-F]{2,8})\}?")
# A word in lower case is none: most words are.
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])(?=[a-z]*[A-Z0-9+/])[A-Za-z0-9+/_-]{4,}={0,2}(?![A-Za-z0-9+/_=-])")
_HEX = re.compile(r"\b(?:0[xX])?([0-9a-fA-F]{2}(?:(?:[0-9a-fA-F]{2}){2,}|(?:[ :][0-9a-fA-F]{2}){2,}))\b")
_DECODED_ROUNDS_MAX = 3


def prompt_clean(prompt: str) -> str:
    """Return the prompt as it is stored and generated: in NFC, without invisible characters."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", prompt))


def folded(prompt: str) -> str:
    """Return the prompt with compatibility forms and case folded and without ignorable characters."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", prompt_clean(prompt)).casefold())


@dataclass(frozen=True)
class Reading:
    """A way to read a prompt: `text` is folded; `plain` besides has no look-alikes, accents and digits for letters."""

    text: str
    plain: str

    @cached_property
    def said(self) -> str:
        """The words, each between two blanks."""
        return f" {_BETWEEN_WORDS.sub(' ', self.plain).strip()} "

    @cached_property
    def tokens(self) -> list[str]:
        return _TOKEN.findall(self.said)

    @cached_property
    def tokens_joined(self) -> list[list[str]]:
        """The tokens after spelled words and compounds were joined; "a b a d" may be the article and a word."""
        spelled = [_SPELLED.sub(lambda word: _BETWEEN_WORDS.sub("", word[0]), self.plain)]
        if spelled[0] != self.plain and _SPELLED_ARTICLE.search(self.plain):
            spelled.append(_SPELLED.sub(_article_split, self.plain))
        joined = [_JOINERS.sub("", text) for text in spelled]
        return [_TOKEN.findall(_BETWEEN_WORDS.sub(" ", text)) for text in joined if text != self.plain]

    @cached_property
    def joined(self) -> list[str]:
        """The words of spelled words, compounds and neighbouring parts of compounds, without their separators."""
        return [*self._spelled(), *self._compounds()]

    def _spelled(self) -> Iterator[str]:
        runs = [_BETWEEN_WORDS.sub("", word[0]) for word in _SPELLED.finditer(self.plain)]
        run = ""
        for token in [*self.tokens, "  "]:
            if len(token) == 1 and not _UNSPACED_CHARACTER.match(token):
                run += token
            else:
                runs.append(run)
                run = ""
        for run in runs:
            letters = _letters(run, _LEET)
            for start in range(2 if letters[:1] in ("a", "i") else 1):
                for end in range(2 if letters[-1:] in ("a", "i") else 1):
                    word = letters[start : len(letters) - end]
                    if len(word) >= _SPELLED_CHARS_MIN:
                        yield word

    def _compounds(self) -> Iterator[str]:
        for compound in _COMPOUND.finditer(self.plain):
            pieces = _BETWEEN_WORDS.sub(" ", compound[0]).split()
            # Within spelled characters no word begins or ends: g-r-a-p-e is a fruit.
            spelled = [len(left) == 1 == len(right) for left, right in pairwise(pieces)]
            for start in range(len(pieces)):
                if start and spelled[start - 1]:
                    continue
                word = pieces[start]
                for end in range(start + 1, min(start + _PIECES_MAX, len(pieces))):
                    word += pieces[end]
                    if end == len(pieces) - 1 or not spelled[end]:
                        yield word


def _article_split(spelled: re.Match[str]) -> str:
    word = _BETWEEN_WORDS.sub("", spelled[0])
    return f"{word[0]} {word[1:]}" if word[0] in "ai" and spelled["gap"] == " " else word


def readings(prompt: str) -> list[Reading]:
    """Return the ways to read a prompt, the first as it stands."""
    found: list[Reading] = []
    for text in dict.fromkeys((prompt, decoded(prompt))):
        text = folded(text)
        plain = _plain(text)
        for table in (_LEET, _LEET_L) if _I_OR_L.search(plain) else (_LEET,):
            reading = Reading(text, _letters(plain, table))
            if reading not in found:
                found.append(reading)
    return found


def phrase_tokens(phrase: str) -> list[str]:
    """Return the tokens of a phrase of a block list. It is read as it stands: nothing in it is encoded."""
    text = folded(phrase)
    return Reading(text, _letters(_plain(text), _LEET)).tokens


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = _FLAG_LETTERS.sub(lambda flags: f" {flags[0].translate(_FLAGS)} ", text)
    # Accents are removed before look-alikes are mapped: ё is е with an accent, and е looks like e.
    text = unicodedata.normalize("NFD", text)
    return "".join(char for char in text if not unicodedata.combining(char)).translate(_LOOK_ALIKE)


def _letters(text: str, table: dict[int, int]) -> str:
    return _SIGN_IN_WORD.sub(lambda sign: sign[0].translate(table), text)


def decoded(prompt: str) -> str:
    """Return a prompt with percent-encoding, HTML's entities, \\u escapes, base64 and hexadecimal text decoded."""
    for _ in range(_DECODED_ROUNDS_MAX):
        if not _ENCODED.search(prompt):
            break
        before = prompt
        if "%" in prompt:
            prompt = unquote(prompt)
        if "&" in prompt:
            prompt = html.unescape(prompt)
        if "\\" in prompt:
            prompt = _ESCAPE.sub(_escape_read, prompt)
        prompt = _BASE64.sub(_base64_read, _HEX.sub(_hex_read, prompt))
        if prompt == before:
            break
    return prompt


def _escape_read(escape: re.Match[str]) -> str:
    # \x66oo is an f and two letters.
    digits = escape[1] if escape[0][1] != "x" else escape[1][:2]
    digits = digits if escape[0].startswith(("\\u{", "\\U")) else digits[:4]
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        return escape[0]
    return chr(number) + escape[1][len(digits) :]


def _hex_read(word: re.Match[str]) -> str:
    return _text_of(bytes.fromhex(word[1].replace(":", " ")), word[0])


def _base64_read(word: re.Match[str]) -> str:
    text = word[0].rstrip("=")
    try:
        padded = text + "=" * (-len(text) % 4)
        return _text_of(base64.b64decode(padded, altchars=b"-_" if re.search("[-_]", text) else None), word[0])
    except (binascii.Error, ValueError):
        return word[0]


def _text_of(data: bytes, otherwise: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return otherwise
    return text if text.isprintable() and any(char.isalpha() for char in text) else otherwise
