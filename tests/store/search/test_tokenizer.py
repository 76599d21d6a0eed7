"""Words: split, lower case, cut, never dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.search.engine import split, words
from chronik_store.search.tokenizer import WORD_BYTES_MAX, cut_long_words, may_hold_long_words

LONG = st.text(st.sampled_from("aBⱥȺİßΣ中\u0301é9"), min_size=60, max_size=400)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World", ["hello", "world"]),
        ("foo_bar-baz.qux", ["foo", "bar", "baz", "qux"]),
        ("été 中文 ٣ x²", ["été", "中文", "٣", "x²"]),
        ("a\ufffdb", ["a", "b"]),
        ("running runs", ["running", "runs"]),
        ("the a of", ["the", "a", "of"]),
        ("--- ...", []),
    ],
)
def test_a_text_is_split_and_lowered_and_nothing_else(text: str, expected: list[str]) -> None:
    assert expected == words(text)


@pytest.mark.parametrize("length", [1, 40, 64, 200, 254, 255])
def test_words_within_the_limit_stay_whole(length: int) -> None:
    assert ["a" * length] == words("A" * length)


@pytest.mark.parametrize(
    ("word", "kept"),
    [("a" * 256, 255), ("a" * 70_000, 255), ("é" * 128, 127), ("中" * 86, 85), ("Ⱥ" * 128, 85)],
)
def test_longer_words_are_cut_to_whole_characters(word: str, kept: int) -> None:
    (found,) = words(word)

    assert kept == len(found)
    assert len(found.encode()) <= WORD_BYTES_MAX


@given(st.lists(st.one_of(LONG, st.sampled_from(["a", "B c", "\x00", "é"])), max_size=5))
def test_cutting_keeps_the_number_and_order_of_words(parts: list[str]) -> None:
    text = "-".join(parts)
    uncut, cut = split(text), words(text)

    assert len(uncut) == len(cut)
    for whole, part in zip(uncut, cut, strict=True):
        assert len(part.encode()) <= WORD_BYTES_MAX
        assert "".join(c.lower() for c in whole).startswith(part)


@given(LONG)
def test_cutting_twice_is_cutting_once(text: str) -> None:
    once = cut_long_words(text, split)

    assert words(text) == words(once)


@given(st.text(st.sampled_from("aBȺİ中é- 0"), max_size=600))
def test_case_does_not_change_where_a_word_is_cut(text: str) -> None:
    lower = "".join(character.lower() for character in text if character != "İ")
    upper = "".join(character for character in text if character != "İ")

    assert words(upper) == words(lower)


@given(st.text(max_size=400))
def test_the_quick_look_never_overlooks_a_long_word(text: str) -> None:
    if any(len(word.lower().encode()) > WORD_BYTES_MAX for word in split(text)):
        assert may_hold_long_words(text.encode("utf-8", "replace"))
