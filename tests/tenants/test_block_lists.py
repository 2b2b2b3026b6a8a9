import uuid

import pytest

from tenants.block_lists import BlockListEntryExists, PatternInvalid, block_list_add, block_list_remove
from tests.conftest import NOW


def add(customer, pattern, kind="regex"):
    return block_list_add(tenant=customer.tenant, kind=kind, pattern=pattern, reason="", now=NOW)


@pytest.mark.parametrize(
    "pattern", ["", "   ", "(", "a{9999}", "(?=look)", r"(a)\1", "x" * 501, "x" * 10**6, "a\0b", r"(\pL{900}){900}"]
)
def test_a_pattern_that_re2_can_not_run_is_refused(alice, pattern):
    with pytest.raises(PatternInvalid):
        add(alice, pattern)


@pytest.mark.parametrize("pattern", ["a*", ".*", "x|", "^", "(a|b)?"])
def test_a_pattern_that_every_prompt_matches_is_refused(alice, pattern):
    with pytest.raises(PatternInvalid, match="every prompt"):
        add(alice, pattern)


@pytest.mark.parametrize("pattern", ["!!!", "\u200b\u200b", "🔫", "--", "…"])
def test_a_phrase_without_a_word_which_no_prompt_would_match_is_refused(alice, pattern):
    with pytest.raises(PatternInvalid, match="add a regex"):
        add(alice, pattern, kind="phrase")
    add(alice, pattern.replace("-", "[-]"))


@pytest.mark.parametrize("kind", ["phrase", "regex"])
def test_what_is_no_text_is_refused(alice, kind):
    with pytest.raises(PatternInvalid):
        add(alice, "a\udce9b", kind=kind)


def test_a_refusal_gives_re2s_reason(alice):
    with pytest.raises(PatternInvalid, match="missing"):
        add(alice, "(unclosed")


def test_a_pattern_that_takes_other_engines_forever_is_fine(alice):
    add(alice, "(a+)+$")


def test_an_entry_is_there_once(alice, bob):
    add(alice, "word", kind="phrase")
    with pytest.raises(BlockListEntryExists):
        add(alice, "word", kind="phrase")
    add(bob, "word", kind="phrase")


def test_an_entry_is_removed_once(alice):
    entry = add(alice, "word", kind="phrase")
    assert block_list_remove(entry_id=entry.pk)
    assert not block_list_remove(entry_id=entry.pk)
    assert not block_list_remove(entry_id=uuid.uuid4())
