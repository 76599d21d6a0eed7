"""What a log says of itself, against what the disk says."""

import dataclasses

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.fs.posix import PosixFileSystem


class Sparse(PosixFileSystem):
    """A disk on which each file takes so much, whatever its size is."""

    def __init__(self, blocks_bytes):
        super().__init__()
        self.blocks_bytes = blocks_bytes

    def stat(self, path):
        return dataclasses.replace(super().stat(path), blocks_bytes=self.blocks_bytes)


@pytest.mark.parametrize(
    ("blocks_bytes", "each_says"),
    [
        (4096, lambda _: 4096),
        (0, lambda size: size),  # not known
        (1 << 40, lambda size: size),  # of a last block that is not full
    ],
)
def test_the_bytes_of_a_wal_are_those_that_its_files_take(tmp_path, blocks_bytes, each_says):
    """A file that was left keeps the size that was reserved for it, as a hole: a log of small
    segments was said to take four times its place.
    """
    with LogStore.open(tmp_path / "data", config=LogConfig(pipeline_enabled=False)) as store:
        store.create_topic("a")
        for _ in range(3):
            store.partition("a").append([b"x" * 1000] * 20)
            store.partition("a").seal()

    env = Environment(fs=Sparse(blocks_bytes))
    with LogStore.open(tmp_path / "data", env=env, read_only=True) as store:
        said = store.partition("a").status().wal_bytes

    sizes = [each.stat().st_size for each in (tmp_path / "data/wal/a/0").iterdir()]
    assert said == sum(map(each_says, sizes))
    assert len(sizes) >= 3
