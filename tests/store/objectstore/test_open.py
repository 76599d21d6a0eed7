import sys

import pytest

from chronik_store.config import S3Options
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.open import open_object_store
from chronik_store.objectstore.retry import RetryingObjectStore


def opened(url, **options):
    return open_object_store(url, env=Environment(), **options)


def test_no_url_is_the_default_directory(tmp_path):
    store = opened(None, default_path=f"{tmp_path}/object_store")
    assert isinstance(store, LocalObjectStore)
    assert store.url == f"file://{tmp_path}/object_store"


def test_a_file_url_is_taken_literally(tmp_path):
    store = opened(f"file://{tmp_path}/with space/100%#?")
    assert store.put_if_absent("k", b"v")
    assert (tmp_path / "with space" / "100%#?" / "k").read_bytes() == b"v"


def test_memory_urls_share_by_name():
    opened("memory://test-open/a/b").put_if_absent("k", b"v")
    store = opened("memory://test-open/a/b")
    assert isinstance(store, MemoryObjectStore)
    assert store.get("k") == b"v"
    assert opened("memory://test-open").get("a/b/k") == b"v"


def test_s3_comes_with_the_retry_policy_and_touches_no_network():
    store = opened("s3://bucket/a/prefix/", s3=S3Options(endpoint="http://127.0.0.1:9"))
    assert isinstance(store, RetryingObjectStore)
    assert store.url == "s3://bucket/a/prefix"
    store.close()


def test_s3_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for module in ("fsspec_s3", "fsspec_s3_requests"):
        monkeypatch.delitem(sys.modules, f"chronik_store.objectstore.{module}", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'chronik\[s3\]'"):
        opened("s3://bucket")


@pytest.mark.parametrize(
    "url",
    ["", "bucket", "/var/lib", "ftp://x/y", "S3://bucket", "file://relative", "file://", "s3://",
     "s3:///prefix", "s3://buc ket", "s3://bucket/../x", "memory://", "memory://a/b//c",
     "file:///a/../b", "s3://bucket/" + "x" * 130],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_config_error(url):
    with pytest.raises(ConfigError):
        opened(url)


@pytest.mark.parametrize("url", ["bucket", "ftp://x/y", None])
def test_the_error_lists_what_can_be_used(url):
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        opened(url)


@pytest.mark.parametrize(
    "url",
    ["s3://key:hunter2@bucket", "s3://bucket?secret=hunter2", "memory://u:hunter2@x", "hunter2@x"],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError) as caught:
        opened(url)
    assert "hunter2" not in str(caught.value)


def test_a_read_only_open_makes_no_directory(tmp_path):
    opened(None, default_path=f"{tmp_path}/absent", read_only=True)
    assert not (tmp_path / "absent").exists()
