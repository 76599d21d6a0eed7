from __future__ import annotations

import random

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Hasher, checksum, checksum_parts, content_hash
from chronik_store.format.compression import compress, decompress


def test_the_checksum_is_xxh3_with_its_published_values() -> None:
    assert 0x2D06800538D394C2 == checksum(b"")
    assert "2d06800538d394c2" == content_hash(b"") == Hasher().digest_hex()


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
def test_parts_hash_like_the_whole(seed: int) -> None:
    parts = (b"", b"abc", memoryview(b"def"), bytearray(300))

    assert checksum(b"".join(parts), seed) == checksum_parts(*parts, seed=seed)


def test_a_hasher_takes_pieces() -> None:
    hasher = Hasher()
    hasher.update(b"abc")
    assert content_hash(b"abc") == hasher.digest_hex()
    hasher.update(memoryview(b"def"))
    assert content_hash(b"abcdef") == hasher.digest_hex()


def test_seeds_and_order_matter() -> None:
    assert checksum(b"ab") != checksum(b"ba")
    assert checksum(b"ab", 1) != checksum(b"ab", 2)


@pytest.mark.parametrize("data", [b"", b"x", bytes(1 << 20), random.randbytes(5000)])
def test_zstd_gives_back_what_it_took(data: bytes) -> None:
    assert data == decompress(memoryview(compress(data)), len(data), what="test")


def test_a_bomb_stops_at_the_length_announced() -> None:
    bomb = compress(bytes(1 << 26))

    with pytest.raises(CorruptionError, match="does not hold the 1000 bytes"):
        decompress(bomb, 1000, what="test")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zstd at all",
        compress(b"abc")[:-1],
        compress(b"abc") + b"x",
        compress(b"abc") + compress(b""),
        compress(b"abcd"),
        compress(b"ab"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="the thing"):
        decompress(data, 3, what="the thing")
