import pytest

from chronik_store.objectstore.memory import MemoryObjectStore, forget_memory_bucket
from chronik_store.testing.object_store_kit import ObjectStoreTests


class TestMemoryObjectStore(ObjectStoreTests):
    @pytest.fixture
    def store(self):
        return MemoryObjectStore(prefix="some/prefix")


def test_stores_of_one_name_share_objects_and_prefixes_part_them():
    forget_memory_bucket("shared")
    MemoryObjectStore("shared", "p").put_if_absent("k", b"v")
    assert MemoryObjectStore("shared", "p").get("k") == b"v"
    assert MemoryObjectStore("shared").get("p/k") == b"v"
    assert MemoryObjectStore("shared", "q").head("k") is None
    assert MemoryObjectStore("other", "p").head("k") is None
    forget_memory_bucket("shared")
    assert MemoryObjectStore("shared", "p").head("k") is None


def test_private_stores_share_nothing():
    MemoryObjectStore().put_if_absent("k", b"v")
    assert MemoryObjectStore().head("k") is None
