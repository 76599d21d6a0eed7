"""Out of an archive comes what was announced, and nothing else, whoever packed it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import content_hash
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.search.archive import HEAD_BYTES_MAX, Member, Unpacker, describe, pack

Add = Callable[[tarfile.TarFile], None]


def packed(*members: Add, compress: bool = True) -> bytes:
    """An archive as an attacker writes it: through tarfile, with all its types."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for add in members:
            add(archive)
    return gzip.compress(raw.getvalue()) if compress else raw.getvalue()


def regular(name: str, data: bytes = b"data") -> Add:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    return add


def special(name: str, kind: bytes, target: str = "") -> Add:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)

    return add


def member(name: str, data: bytes = b"data") -> Member:
    return Member(name, len(data), content_hash(data))


def unpack(data: bytes, directory: Path, *members: Member) -> list[str]:
    unpacker = Unpacker([data], path="test")
    assert b"head" == unpacker.head("head.cbor")
    unpacker.extract(PosixFileSystem(), str(directory), members)
    return sorted(os.listdir(directory))


HEAD = regular("head.cbor", b"head")


def test_what_was_packed_comes_out_again(tmp_path: Path, fs: PosixFileSystem) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    contents = {"a.idx": b"", "b.idx": b"x" * 512, "c.idx": os.urandom(3_000_000), "d.idx": b"y"}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    members = describe(fs, str(source), sorted(contents))
    archive = f"{tmp_path}/out.tar.gz"

    size, content = pack(fs, str(source), ("head.cbor", b"head"), members, archive)

    data = Path(archive).read_bytes()
    assert (len(data), content_hash(data)) == (size, content)
    unpacker = Unpacker((data[at : at + 1000] for at in range(0, size, 1000)), path="test")
    assert b"head" == unpacker.head("head.cbor")
    unpacker.extract(fs, str(target), members)
    assert contents == {path.name: path.read_bytes() for path in target.iterdir()}


def test_the_archive_is_one_that_tar_reads(tmp_path: Path, fs: PosixFileSystem) -> None:
    (tmp_path / "a.idx").write_bytes(b"data")
    members = describe(fs, str(tmp_path), ["a.idx"])
    pack(fs, str(tmp_path), ("head.cbor", b"head"), members, f"{tmp_path}/out.tar.gz")

    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        assert ["head.cbor", "a.idx"] == archive.getnames()
        assert {0} == {info.mtime for info in archive.getmembers()}


def test_a_well_formed_archive_of_another_packer_is_taken(tmp_path: Path) -> None:
    data = packed(HEAD, regular("a.idx"))
    # tarfile pads its archives to 10,240 bytes: more than the two zero blocks that we write.
    with pytest.raises(CorruptionError, match="more follows"):
        unpack(data, tmp_path, member("a.idx"))


@pytest.mark.parametrize(
    "name",
    ["../evil", "/tmp/evil", "a/b", "..", ".", "", "a\\b", "a\nb", "é", "a" * 95, "~", "-rf"],
)
def test_no_name_leaves_the_directory(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(CorruptionError):
        unpack(packed(HEAD, regular(name)), inside, member(name))

    assert ["inside"] == os.listdir(tmp_path)
    assert [] == os.listdir(inside)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "head.cbor"),
        (tarfile.DIRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.AREGTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_only_regular_files_come_out(kind: bytes, target: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptionError):
        unpack(packed(HEAD, special("a.idx", kind, target)), tmp_path, member("a.idx", b""))

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("size", [1 << 20, 1 << 33])
def test_extended_headers_are_refused_unread(size: int, tmp_path: Path) -> None:
    """tarfile would read them whole into memory before anybody sees a member."""

    def pax(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, size
        assert archive.fileobj is not None
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))

    with pytest.raises(CorruptionError, match="instead of the file"):
        unpack(packed(HEAD, pax, regular("a.idx")), tmp_path, member("a.idx"))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    data = packed(HEAD, regular("a.idx"), regular("a.idx"))

    with pytest.raises(CorruptionError, match="two members"):
        unpack(data, tmp_path, member("a.idx"), member("a.idx"))
    with pytest.raises(CorruptionError, match="more follows"):
        unpack(data, tmp_path, member("a.idx"))


def test_members_come_in_the_order_and_number_announced(tmp_path: Path) -> None:
    with pytest.raises(CorruptionError, match="instead of the file"):
        unpack(packed(HEAD, regular("b.idx")), tmp_path, member("a.idx"))
    with pytest.raises(CorruptionError):
        unpack(packed(HEAD), tmp_path, member("a.idx"))


def test_sizes_and_contents_are_those_announced(tmp_path: Path) -> None:
    data = packed(HEAD, regular("a.idx", b"data"))
    with pytest.raises(CorruptionError, match="another size"):
        unpack(data, tmp_path, member("a.idx", b"dat"))
    with pytest.raises(CorruptionError, match="checksum"):
        unpack(data, tmp_path, member("a.idx", b"daTa"))


def test_a_head_that_says_it_is_huge_is_not_read() -> None:
    def huge(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("head.cbor")
        info.size = HEAD_BYTES_MAX + 1
        assert archive.fileobj is not None
        archive.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))

    with pytest.raises(CorruptionError, match="says"):
        Unpacker([packed(huge)], path="test").head("head.cbor")


def test_a_bomb_is_inflated_as_far_as_announced_and_no_further(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    raw = packed(HEAD, regular("a.idx"), compress=False)[:2048]
    bomb = packer.compress(raw) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200))
    bomb += packer.flush()
    pulled = []

    def chunks() -> object:
        for at in range(0, len(bomb), 512):
            pulled.append(at)
            yield bomb[at : at + 512]

    unpacker = Unpacker(chunks(), path="test")  # type: ignore[arg-type]
    unpacker.head("head.cbor")
    with pytest.raises(CorruptionError, match="more follows"):
        unpacker.extract(PosixFileSystem(), str(tmp_path), [member("a.idx")])

    assert len(pulled) * 512 < len(bomb) / 10


@pytest.mark.parametrize("cut", [0, 1, 10, 300, -1, -8])
def test_a_short_archive_is_refused(cut: int, tmp_path: Path, fs: PosixFileSystem) -> None:
    (tmp_path / "a.idx").write_bytes(os.urandom(2000))
    members = describe(fs, str(tmp_path), ["a.idx"])
    pack(fs, str(tmp_path), ("head.cbor", b"head"), members, f"{tmp_path}/out")
    data = (tmp_path / "out").read_bytes()
    target = tmp_path / "target"
    target.mkdir()

    with pytest.raises(CorruptionError):
        unpack(data[:cut], target, *members)


@pytest.mark.parametrize(
    "extra", [b"x", gzip.compress(b"more", mtime=0), bytes(512)], ids=["byte", "member", "zeros"]
)
def test_nothing_may_follow(extra: bytes, tmp_path: Path, fs: PosixFileSystem) -> None:
    (tmp_path / "a.idx").write_bytes(b"data")
    members = describe(fs, str(tmp_path), ["a.idx"])
    pack(fs, str(tmp_path), ("head.cbor", b"head"), members, f"{tmp_path}/out")
    target = tmp_path / "target"
    target.mkdir()

    with pytest.raises(CorruptionError, match="behind the gzip member"):
        unpack((tmp_path / "out").read_bytes() + extra, target, *members)
