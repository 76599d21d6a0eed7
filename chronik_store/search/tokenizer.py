"""What a word is: the same answer for records and for queries.

Place: at the bottom of `search`; it imports nothing of Tantivy. The scheme, `WORDS`: text is split
at every character that is not a letter or a digit (Unicode; `_`, `-`, `.` split), and lower-cased;
no stemming, no stop words; a word of more than WORD_BYTES_MAX bytes is cut to its longest prefix of
whole characters within it. Bytes that are not UTF-8 become U+FFFD, which splits, so the ASCII words
around them stay findable. Promise: no word is ever lost for its length: Tantivy's default analyzer
drops all of 40 bytes and more (every sha256), and any analyzer those above 65,530 (measured).
Invariant: Tantivy cannot cut, only drop, so both sides pass their text through `cut_long_words`
before it is analyzed; whoever changes this file's effect changes `WORDS`, or old bundles lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

WORDS: Final = "chronik-words-1"
"""Name and version of the scheme. Recorded in each bundle; another one counts as not indexed."""

WORD_BYTES_MAX: Final = 255
"""UTF-8 bytes of a lower-cased word."""

Splitter = Callable[[str], list[str]]
"""Splits a text into its words without changing their case (`engine.split`)."""

# A run of so few bytes cannot be too long: lower-casing makes at most 3 bytes of 2 (Ⱥ -> ⱥ).
_RUN_BYTES_SAFE: Final = 128
_RUN_CHARACTERS_SAFE: Final = _RUN_BYTES_SAFE // 4

# Every byte of a character that may be part of a word becomes "a". Bytes from 0x80 on may be.
_CLASSES: Final = bytes(
    ord("a") if byte >= 0x80 or chr(byte).isalnum() else ord(" ") for byte in range(256)
)
_LONG: Final = b"a" * _RUN_BYTES_SAFE
_RUN: Final = re.compile(rf"[0-9A-Za-z\x80-\U0010ffff]{{{_RUN_CHARACTERS_SAFE},}}")


def may_hold_long_words(data: bytes) -> bool:
    """False: no word in this text (or in its Latin-1 misreading) needs cutting. About 1 ns a byte.

    True says nothing. It lets the indexer look at a whole batch at once.
    """
    return _LONG in data.translate(_CLASSES)


def cut_long_words(text: str, split: Splitter) -> str:
    """The text with every word cut to WORD_BYTES_MAX bytes; the order of words is unchanged."""

    def cut(run: re.Match[str]) -> str:
        # Runs end at ASCII separators, so the words of the run are the words of the text.
        return " ".join(_cut_word(word) for word in split(run.group()))

    if len(text) < _RUN_CHARACTERS_SAFE or not may_hold_long_words(text.encode("utf-8", "replace")):
        return text
    return _RUN.sub(cut, text)


def _cut_word(word: str) -> str:
    if word.isascii():
        return word[:WORD_BYTES_MAX]
    size = 0
    for place, character in enumerate(word):
        size += len(character.lower().encode())
        if size > WORD_BYTES_MAX:
            return word[:place]
    return word
