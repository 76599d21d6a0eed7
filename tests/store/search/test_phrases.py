"""Phrases: what stands side by side, and what so many moves bring together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from chronik_store.model import Record
from tests.store.search.test_engine import index, offsets


def test_a_phrase_does_not_reach_from_one_list_member_into_the_next() -> None:
    search = index([Record(b'{"tags": ["disk", "full"]}'), Record(b'{"tags": ["disk full"]}')])

    assert [1] == offsets(search, 'json.tags:"disk full"')


def test_slop_lets_words_stand_apart() -> None:
    search = index([Record(b"disk is full"), Record(b"disk was not quite full")])

    assert [0] == offsets(search, '"disk full"~1')
    assert [0, 1] == offsets(search, '"disk full"~3')


def moves(text: Sequence[str], phrase: Sequence[str]) -> int:
    """The fewest that make the phrase, by trying each way to pick its words from the text."""
    found = [1000]
    for picked in itertools.permutations(range(len(text)), len(phrase)):
        if all(text[place] == word for place, word in zip(picked, phrase, strict=True)):
            apart = [place - at for at, place in enumerate(picked)]
            found.append(max(apart) - min(apart))
    return min(found)


@given(
    texts=st.lists(st.lists(st.sampled_from("abcd"), max_size=6), min_size=1, max_size=20),
    phrase=st.lists(st.sampled_from("abc"), min_size=2, max_size=4),
    slop=st.integers(0, 3),
    field=st.sampled_from(["value", "key"]),
)
def test_slop_finds_what_so_many_moves_bring_together(
    texts: list[list[str]], phrase: list[str], slop: int, field: str
) -> None:
    spoken = [" ".join(text).encode() for text in texts]
    search = index([Record(b"", text) if field == "key" else Record(text) for text in spoken])

    expected = [at for at, text in enumerate(texts) if moves(text, phrase) <= slop]
    assert expected == offsets(search, f'{field}:"{" ".join(phrase)}"~{slop}')


def test_slop_is_of_two_words_that_differ_on_a_path() -> None:
    search = index([Record(b'{"m": "disk is full"}', headers=(("m", b"full disk"),)), Record(b"")])

    assert [0] == offsets(search, 'json.m:"disk full"~1')
    assert [0] == offsets(search, 'header.m:"disk full"~2')
    assert [] == offsets(search, 'header.m:"disk full"~1')
