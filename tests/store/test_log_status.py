"""What a log says of itself, against what the disk says."""

import os

from chronik_store import LogConfig, PartitionLog


def test_the_bytes_of_a_wal_are_those_that_its_files_take(tmp_path):
    """A file that was left keeps the size that was reserved for it, as a hole: a log of small
    segments was said to take four times its place.
    """
    config = LogConfig(pipeline_enabled=False)
    with PartitionLog.open(tmp_path / "data", topic="a", config=config) as log:
        log.append([b"x" * 1000] * 300)
        log.seal()
    files = sorted((tmp_path / "data/wal/a/0").iterdir())
    os.truncate(files[0], 32 << 20)  # so that there is a hole, whatever the file system can

    with PartitionLog.open(tmp_path / "data", topic="a", read_only=True) as log:
        said = log.status().wal_bytes

    found = [each.stat() for each in files]
    assert sum(each.st_size for each in found) > said + (8 << 20)
    assert said == sum(min(each.st_size, each.st_blocks * 512) for each in found)
    assert said > 300_000
