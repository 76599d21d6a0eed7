"""A bundle: what is opened is what was built, or it is an error; never wrong, never empty."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import ChronikError, CorruptionError, DiskFullError, UnavailableError
from chronik_store.format.checksum import content_hash
from chronik_store.format.segment_info import BUNDLE, BundleInfo
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.model import Record
from chronik_store.search import bundle, engine
from chronik_store.search.bundle import BuiltBundle, build_bundle, is_readable, open_bundle
from chronik_store.search.engine import IndexSearch, UnreadableIndexError
from chronik_store.search.query import check_query
from tests.store.search import reference
from tests.store.search.reference import Clause

LOG = [
    Record(b'{"level": "error", "user": {"id": 7}}', key=b"k1", timestamp_us=-5),
    Record(b"disk full", timestamp_us=99, headers=(("trace", b"abc"),)),
    Record(b"nothing here", timestamp_us=3),
]
BASE = 1000


def build(fs: PosixFileSystem, directory: Path, log: list[Record] = LOG) -> BuiltBundle:
    batches = reference.batches_of(log, BASE)
    end = BASE + len(log)
    return build_bundle(
        batches, fs=fs, directory=f"{directory}/b", base_offset=BASE, end_offset=end
    )


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: data[start : start + length]


def admitted(_size_bytes: int) -> None:
    """There is always room."""


def opened(
    fs: PosixFileSystem, data: bytes, info: BundleInfo, directory: Path, base: int = BASE
) -> IndexSearch:
    end = base + info.document_count
    return open_bundle(
        reader(data),
        info,
        fs=fs,
        directory=f"{directory}/o",
        base_offset=base,
        end_offset=end,
        admit=admitted,
    )


def offsets(search: IndexSearch, query: str) -> list[int]:
    tree = check_query(query).tree
    found = search.search(tree, start=0, stop=1 << 60, limit=1000, order="oldest")
    return [offset for offset, _ in found.hits]


def test_a_bundle_is_built_and_opened(fs: PosixFileSystem, tmp_path: Path) -> None:
    built = build(fs, tmp_path)
    data = Path(built.path).read_bytes()

    info = built.info
    assert (len(data), content_hash(data), "") == (info.size_bytes, info.hash, info.key)
    assert (3, -5, 99) == (info.document_count, info.min_timestamp_us, info.max_timestamp_us)
    assert (("header.trace", "json.level", "json.user.id"), False) == (
        info.json_paths,
        info.json_paths_truncated,
    )
    assert info == BUNDLE.unpack(BUNDLE.pack(info), "bundle")
    assert is_readable(info)
    search = opened(fs, data, info, tmp_path)
    assert [1000] == offsets(search, "json.level:error")
    assert [1001] == offsets(search, "disk")
    built.discard()
    assert not Path(built.directory).exists()


@given(log=reference.logs, clause=reference.queries)
def test_a_bundle_finds_what_a_scan_finds(
    log: list[Record], clause: Clause, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fs, directory = PosixFileSystem(), tmp_path_factory.mktemp("bundle")
    built = build(fs, directory, log)
    stored = reference.stored(log, BASE)

    search = opened(fs, Path(built.path).read_bytes(), built.info, directory)

    assert reference.expected_offsets(stored, clause) == offsets(search, clause.text)
    assert set(reference.every_leaf_path(stored)) == set(built.info.json_paths)


def test_a_directory_with_leftovers_is_emptied_first(fs: PosixFileSystem, tmp_path: Path) -> None:
    for place in ("b", "b/index", "o", "o/sub"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "left.idx").write_bytes(b"junk")
    built = build(fs, tmp_path)

    assert ["bundle.tar.gz"] == os.listdir(tmp_path / "b")
    assert 3 == opened(fs, Path(built.path).read_bytes(), built.info, tmp_path).document_count


def test_an_opened_bundle_outlives_its_files(fs: PosixFileSystem, tmp_path: Path) -> None:
    """What the cache relies on when it removes a bundle that a search still uses."""
    built = build(fs, tmp_path, [Record(b"word%d disk" % n) for n in range(500)])
    search = opened(fs, Path(built.path).read_bytes(), built.info, tmp_path)
    bundle.remove_tree(fs, f"{tmp_path}/o")

    assert 500 == len(offsets(search, '"word7 disk" OR value:/word.*/'))


@pytest.mark.parametrize(("base", "end"), [(999, 1003), (1000, 1002), (1000, 1004), (1001, 1003)])
def test_batches_must_be_the_range(
    base: int, end: int, fs: PosixFileSystem, tmp_path: Path
) -> None:
    with pytest.raises(CorruptionError):
        build_bundle(
            reference.batches_of(LOG, BASE),
            fs=fs,
            directory=f"{tmp_path}/b",
            base_offset=base,
            end_offset=end,
        )

    assert not (tmp_path / "b").exists()


def test_a_gap_between_batches_is_refused(fs: PosixFileSystem, tmp_path: Path) -> None:
    batches = reference.batches_of(LOG, BASE, size=1)
    with pytest.raises(CorruptionError, match="1001 comes next"):
        build_bundle(
            [batches[0], batches[2]],
            fs=fs,
            directory=f"{tmp_path}/b",
            base_offset=1000,
            end_offset=1003,
        )


def test_every_flipped_byte_is_noticed(fs: PosixFileSystem, tmp_path: Path) -> None:
    built = build(fs, tmp_path)
    data = Path(built.path).read_bytes()
    chance = random.Random(7)
    for place in {*range(40), *chance.sample(range(len(data)), 150), len(data) - 1}:
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        with pytest.raises(CorruptionError):
            opened(fs, bytes(flipped), built.info, tmp_path)

    assert not (tmp_path / "o").exists()


def test_a_flip_is_noticed_even_if_the_manifest_had_the_hash_of_it(
    fs: PosixFileSystem, tmp_path: Path
) -> None:
    """The members have checksums of their own: a bundle damaged while it was packed."""
    built = build(fs, tmp_path)
    data = Path(built.path).read_bytes()
    chance = random.Random(8)
    for place in chance.sample(range(10, len(data)), 150):
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        info = dataclasses.replace(built.info, hash=content_hash(bytes(flipped)))
        try:
            search = opened(fs, bytes(flipped), info, tmp_path)
        except CorruptionError:
            continue
        assert [1000] == offsets(search, "json.level:error"), f"byte {place}"


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_object_is_noticed(keep: int, fs: PosixFileSystem, tmp_path: Path) -> None:
    built = build(fs, tmp_path)
    data = Path(built.path).read_bytes()

    with pytest.raises(CorruptionError, match="ends at byte"):
        opened(fs, data[:keep], built.info, tmp_path)


def test_an_index_of_other_offsets_is_not_taken(fs: PosixFileSystem, tmp_path: Path) -> None:
    built = build(fs, tmp_path)
    data = Path(built.path).read_bytes()

    with pytest.raises(CorruptionError, match="offsets"):
        opened(fs, data, built.info, tmp_path, base=2000)
    short = dataclasses.replace(built.info, document_count=2)
    with pytest.raises(CorruptionError):
        open_bundle(
            reader(data),
            short,
            fs=fs,
            directory=f"{tmp_path}/o",
            base_offset=1000,
            end_offset=1003,
            admit=admitted,
        )


def test_another_engine_counts_as_not_indexed_and_nothing_is_read(
    fs: PosixFileSystem, tmp_path: Path
) -> None:
    built = build(fs, tmp_path)
    info = dataclasses.replace(built.info, engine="tantivy 0.99.0 format 99 chronik-words-1")

    def never(start: int, length: int) -> bytes:
        raise AssertionError("an unreadable bundle was fetched")

    assert not is_readable(info)
    with pytest.raises(UnreadableIndexError, match="counts as not indexed"):
        open_bundle(
            never,
            info,
            fs=fs,
            directory=f"{tmp_path}/o",
            base_offset=1000,
            end_offset=1003,
            admit=admitted,
        )


def test_a_manifest_that_lies_about_the_engine_is_noticed(
    fs: PosixFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = engine.identity().replace("words-1", "words-0")
    with monkeypatch.context() as patched:
        patched.setattr(engine, "identity", lambda: old)
        built = build(fs, tmp_path)
    info = dataclasses.replace(built.info, engine=engine.identity())

    with pytest.raises(CorruptionError, match="not the one"):
        opened(fs, Path(built.path).read_bytes(), info, tmp_path)


def test_an_index_that_tantivy_calls_incompatible_counts_as_not_indexed(
    fs: PosixFileSystem, tmp_path: Path
) -> None:
    built = build(fs, tmp_path)
    opened(fs, Path(built.path).read_bytes(), built.info, tmp_path)
    for name in os.listdir(tmp_path / "o"):
        if name.endswith(".idx"):
            data = bytearray((tmp_path / "o" / name).read_bytes())
            place = data.index(b'"index_format_version":')
            data[place + 23 : place + 24] = b"3"
            (tmp_path / "o" / name).write_bytes(data)

    with pytest.raises(ChronikError) as refused:
        engine.open_index(f"{tmp_path}/o")
    assert isinstance(refused.value, UnavailableError)


def test_what_reading_raises_comes_out(fs: PosixFileSystem, tmp_path: Path) -> None:
    built = build(fs, tmp_path)

    def down(start: int, length: int) -> bytes:
        raise UnavailableError("the bucket is down")

    with pytest.raises(UnavailableError, match="bucket is down"):
        open_bundle(
            down,
            built.info,
            fs=fs,
            directory=f"{tmp_path}/o",
            base_offset=1000,
            end_offset=1003,
            admit=admitted,
        )
    assert not (tmp_path / "o").exists()


def test_what_it_takes_is_said_before_anything_is_written(
    fs: PosixFileSystem, tmp_path: Path
) -> None:
    built, asked = build(fs, tmp_path), []

    def admit(size_bytes: int) -> None:
        asked.append((size_bytes, os.listdir(tmp_path / "o")))
        raise DiskFullError("no room")

    data = Path(built.path).read_bytes()
    opened(fs, data, built.info, tmp_path)
    size_bytes = sum(each.stat().st_size for each in (tmp_path / "o").iterdir())
    with pytest.raises(DiskFullError):
        open_bundle(
            reader(data),
            built.info,
            fs=fs,
            directory=f"{tmp_path}/o",
            base_offset=1000,
            end_offset=1003,
            admit=admit,
        )

    assert [(size_bytes, [])] == asked
    assert not (tmp_path / "o").exists()


def test_a_full_disk_is_typed(fs: PosixFileSystem, tmp_path: Path) -> None:
    class Full(PosixFileSystem):
        def create(self, path: str):  # type: ignore[no-untyped-def]
            raise OSError(28, "No space left on device", path)

    with pytest.raises(DiskFullError):
        build_bundle(
            reference.batches_of(LOG, BASE),
            fs=Full(),
            directory=f"{tmp_path}/b",
            base_offset=1000,
            end_offset=1003,
        )
    assert not (tmp_path / "b").exists()


def test_the_path_list_is_bounded_and_says_so(fs: PosixFileSystem, tmp_path: Path) -> None:
    log = [Record(b'{"key%d": 1}' % number) for number in range(2000)]
    built = build(fs, tmp_path, log)

    assert built.info.json_paths_truncated
    assert len(built.info.json_paths) <= 512
    assert sum(map(len, built.info.json_paths)) <= 16 << 10


@given(data=st.binary(max_size=60))
def test_no_bytes_open(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    info = BundleInfo("k", len(data), content_hash(data), engine.identity(), 1, 0, 0, (), False)
    with pytest.raises(CorruptionError):
        opened(PosixFileSystem(), data, info, tmp_path_factory.getbasetemp() / "x", base=0)
