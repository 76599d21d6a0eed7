"""Places that cannot be one: paths and URLs that no disk, no STORE file and no Tantivy takes."""

from __future__ import annotations

import errno
import os

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.threads import SystemThreads
from tests.bad_input.kept import CONFIG

BUCKETS = {
    "open_bucket": lambda url, _: chronik.open_bucket(url, topic="t"),
    "restore": chronik.restore,
    "open": lambda url, new: chronik.LogStore.open(new, object_store=url),
}


@pytest.mark.parametrize("name", BUCKETS)
@pytest.mark.parametrize(
    "url",
    ["file:///" + "a" * 5000, "file:///" + "a/" * 3000, "file:///\udcff", "file:///a\0b",
     "s3://bucket/\udcff", "memory://a/" + "b" * 5000],
    ids=["long", "deep", "not UTF-8", "NUL", "not UTF-8 in S3", "long in memory"],
)  # fmt: skip
def test_a_url_that_cannot_be_one_is_refused_and_nothing_is_made(name, url, tmp_path):
    with pytest.raises(chronik.ConfigError):
        BUCKETS[name](url, tmp_path / "new")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EACCES, chronik.AccessDeniedError), (errno.EIO, chronik.UnavailableError)],
)
def test_a_bucket_directory_that_cannot_be_looked_at_is_an_error_of_ours(code, kind):
    disk = SimulatedDisk()
    env = Environment(fs=disk, threads=MortalThreads())
    with chronik.LogStore.open("/d", object_store="file:///bucket", env=env, config=CONFIG):
        pass
    for path, call in {
        "/bucket": lambda: chronik.open_bucket("file:///bucket", topic="t", env=env),
        "bucket": lambda: chronik.restore("file:///bucket", "/new", env=env),
    }.items():
        disk.hook = fail_next("exists", code, path_end=path)
        with pytest.raises(kind, match="looked at") as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError)
    disk.hook = fail_next("exists", errno.EIO, path_end="/new")
    with pytest.raises(chronik.UnavailableError, match="/new"):
        chronik.restore("file:///bucket", "/new", env=env)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_data_directory_has_a_name_that_everything_takes(tmp_path, read_only):
    """One that did not was opened, and never uploaded or searched."""
    path = os.fsencode(tmp_path) + b"/\xff"
    with pytest.raises(chronik.ConfigError, match="not UTF-8"):
        chronik.LogStore.open(path, read_only=read_only)
    with pytest.raises(chronik.ConfigError, match="not UTF-8"):
        chronik.restore("memory://places", path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("first", ["", "/"])
def test_a_slash_at_the_end_makes_no_other_bucket(tmp_path, first):
    url = f"file://{tmp_path}/bucket"
    with chronik.LogStore.open(tmp_path / "d", object_store=url + first, config=CONFIG):
        pass
    for last in ("", "/"):
        with chronik.LogStore.open(tmp_path / "d", object_store=url + last, config=CONFIG) as store:
            assert url == store.status().object_store
    with pytest.raises(chronik.IdentityMismatchError, match="belongs to"):
        chronik.LogStore.open(tmp_path / "d", object_store=url + "2", config=CONFIG)


@pytest.mark.parametrize("url", [None, "s3://bucket/prefix"])
def test_a_store_for_which_there_is_no_thread_does_not_open_and_keeps_nothing(tmp_path, url):
    class NoThreads(SystemThreads):
        def spawn(self, target, *, name):
            raise RuntimeError("can't start new thread")

    config = CONFIG.replace(pipeline_enabled=url is None)
    for _ in range(2):
        with pytest.raises(chronik.UnavailableError, match="no thread"):
            chronik.LogStore.open(
                tmp_path / "d",
                object_store=url,
                config=config,
                env=Environment(threads=NoThreads()),
            )
    chronik.LogStore.open(tmp_path / "d", config=CONFIG).close()


OWN = ["", "/", "//", "/.", "/wal", "/segments", "/cache", "/scratch/bundles", "/quarantine/x"]


@pytest.mark.parametrize("below", OWN)
def test_a_data_directory_is_not_its_own_bucket(tmp_path, below):
    """Its segments would have the names of local copies, which go once they are in the bucket."""
    url = f"file://{tmp_path}/d{below}"
    for config in (CONFIG, CONFIG.replace(object_store=url)):
        with pytest.raises(chronik.ConfigError, match="keeps its own files"):
            chronik.LogStore.open(tmp_path / "d", object_store=url, config=config)
    assert [] == list(tmp_path.iterdir())
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        assert f"file://{tmp_path}/d/object_store" == store.status().object_store


def test_nor_by_another_name(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "d")
    with pytest.raises(chronik.ConfigError, match="is a data directory"):
        chronik.LogStore.open(tmp_path / "d", object_store=f"file://{tmp_path}/link", config=CONFIG)


@pytest.mark.parametrize("name", BUCKETS)
def test_nor_is_that_of_another_store_one(tmp_path, name):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG):
        pass
    with pytest.raises(chronik.ConfigError, match="is a data directory"):
        BUCKETS[name](f"file://{tmp_path}/d", tmp_path / "new")
    assert [tmp_path / "d"] == list(tmp_path.iterdir())


@pytest.mark.parametrize("bucket", ["", "/d2", "/d/object_store", "/d/bucket", "/wal"])
def test_a_bucket_beside_around_or_inside_is_one(tmp_path, bucket):
    url = f"file://{tmp_path}{bucket}"
    with chronik.PartitionLog.open(
        tmp_path / "d", topic="t", object_store=url, config=CONFIG.replace(indexing_enabled=False)
    ) as log:
        log.append([b"x"] * 10)
        log.seal()
        for _ in range(2):
            assert not log.run_pipeline_once().errors
        assert 10 == len(list(log.scan()))
        assert "object_store" == log.read(0).tier
        assert log.verify(bucket=True, deep=True).ok
