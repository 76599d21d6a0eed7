"""A bundle that somebody else put into the bucket writes nothing, fills nothing, hides nothing."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import os
import tarfile
import tracemalloc
import zlib

import pytest

import chronik_store as chronik
from chronik_store.format.checksum import content_hash
from chronik_store.format.manifest_file import decode_manifest_object
from tests.bad_input.kept import opened, values

STORED = [b"needle", b"hay"]
MIB = 1 << 20


def archive(*members, head=b""):
    """A .tar.gz with these members: (name, content) or a TarInfo and its content."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as out:
        for name, content in (*(() if head is None else (("bundle.cbor", head),)), *members):
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if info.isreg() else 0
            out.addfile(info, io.BytesIO(content))
    return target.getvalue()


def special(kind, name, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@functools.cache
def bomb():
    """A little gzip that unpacks to half a gigabyte of one member's announced zeros."""
    info = tarfile.TarInfo("bundle.cbor")
    info.size = 512 * MIB
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(info.tobuf(tarfile.USTAR_FORMAT))]
    zeros = bytes(MIB)
    parts += [packer.compress(zeros) for _ in range(512)]
    return b"".join(parts) + packer.flush()


HOSTILE = {
    "nothing": lambda whole: b"",
    "text": lambda whole: b"<html>not found</html>",
    "gzip of nothing": lambda whole: gzip.compress(b""),
    "traversal": lambda whole: archive(("../../../../escaped", b"x")),
    "traversal first": lambda whole: archive(("../escaped", b"x"), head=None),
    "absolute": lambda whole: archive(("/tmp/chronik-escaped", b"x")),
    "link": lambda whole: archive(special(tarfile.SYMTYPE, "meta.json", "/etc/passwd")),
    "hard link": lambda whole: archive(special(tarfile.LNKTYPE, "meta.json", "/etc/passwd")),
    "device": lambda whole: archive(special(tarfile.CHRTYPE, "meta.json")),
    "fifo": lambda whole: archive(special(tarfile.FIFOTYPE, "meta.json")),
    "directory": lambda whole: archive(special(tarfile.DIRTYPE, "segments")),
    "bomb": lambda whole: bomb(),
    "two members of gzip": lambda whole: whole + gzip.compress(b"more"),
    "more behind": lambda whole: whole + b"more",
    "cut": lambda whole: whole[: len(whole) // 2],
    "unpacked": gzip.decompress,
    "a whole one of another segment": None,
}


@pytest.fixture
def where(tmp_path):
    """A directory whose first segment's bundle can be replaced; the second one's is whole."""
    with opened(tmp_path / "d") as log:
        for number in range(2):
            log.append([b"other"] if number else STORED)
            log.seal()
            for _ in range(2):
                assert not log.run_pipeline_once().errors
    return tmp_path


def replace_bundle(where, make):
    """Put it under the old key; whoever can do that can also list its hash in a manifest."""
    bucket = where / "d" / "object_store"
    first, second = sorted(bucket.rglob("*.tar.gz"))
    data = second.read_bytes() if make is None else make(first.read_bytes())
    first.write_bytes(data)
    path = max(bucket.rglob("*.cbor"))
    found = decode_manifest_object(path.read_bytes())
    segment, *others = found.manifest.segments
    bundle = dataclasses.replace(segment.bundle, size_bytes=len(data), hash=content_hash(data))
    segment = dataclasses.replace(segment, bundle=bundle)
    manifest = dataclasses.replace(found.manifest, segments=(segment, *others))
    return path, dataclasses.replace(found, manifest=manifest).encode()


@pytest.mark.parametrize("listed", [False, True], ids=["found by its hash", "listed with its hash"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle(where, name, listed):
    path, manifest = replace_bundle(where, HOSTILE[name])
    if listed:
        path.write_bytes(manifest)
    outside = files_outside(where)
    with chronik.open_bucket(f"file://{where}/d/object_store", topic="t") as log:
        tracemalloc.start()
        found = log.search("needle")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * MIB
        if found.complete:  # by the records themselves
            assert [b"needle"] == [hit.record.value for hit in found]
        else:
            assert [(0, 2)] == [span for part in found.coverage for span in part.missing]
        assert 1 == log.search("other").total
        assert [*STORED, b"other"] == values(log)
    assert outside == files_outside(where)


def files_outside(where):
    """What an archive could have written to beside its scratch directory."""
    names = [path for path in where.rglob("*") if "scratch" not in path.parts]
    return sorted(map(str, names)), os.path.exists("/tmp/chronik-escaped")


def test_the_owner_searches_on_and_builds_it_anew(where):
    replace_bundle(where, HOSTILE["traversal"])
    with chronik.LogStore.open(
        where / "d", config=chronik.LogConfig(pipeline_enabled=False)
    ) as store:
        log = store.partition("t")
        found = log.search("needle")
        assert not found.complete or 1 == found.total
        bad = [
            each for each in log.verify(bucket=True, deep=True).findings if each.severity != "note"
        ]
        assert bad
        assert 1 == store.rebuild_indexes("t", keys=[bad[0].where])
        for _ in range(3):
            assert () == log.run_pipeline_once().errors
        assert 1 == log.search("needle", require_complete=True).total
        assert log.verify(bucket=True, deep=True).ok
        assert [*STORED, b"other"] == values(log)
