"""The read cache on a machine that has no thread left."""

from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.cache import BlockCache
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.threads import SystemThreads
from tests.store.objectstore.test_cache import BLOCK, BODY, opened, wait_for


def test_without_threads_reading_goes_on():
    """And ahead of need again as soon as there are some."""

    class NoThreads(SystemThreads):
        some = False

        def spawn(self, target, *, name):
            if not self.some:
                raise RuntimeError("can't start new thread")
            return super().spawn(target, name=name)

    threads = NoThreads()
    cache = BlockCache(
        threads=threads,
        fs=PosixFileSystem(),
        directory=None,
        memory_bytes=1000 * BLOCK,
        disk_bytes=0,
        read_ahead_bytes=16 * BLOCK,
    )
    store = MemoryObjectStore()
    store.put_if_absent("k", BODY)
    source = opened(cache, store)
    for block in range(20):
        assert BODY[block * BLOCK : (block + 1) * BLOCK] == source.read_range(block * BLOCK, BLOCK)
    assert 0 == cache.stats().read_aheads
    threads.some = True
    assert BODY[20 * BLOCK :] == b"".join(
        source.read_range(block * BLOCK, BLOCK) for block in range(20, 41)
    )
    wait_for(lambda: cache.stats().read_aheads)
    cache.close()
