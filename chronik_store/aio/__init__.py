"""The asyncio face: the same names, arguments, results and errors, awaited.

Place: over `partition_log` and `log_store`; the only room of the library that imports asyncio.
Promise: an append never blocks the event loop, and the loop is woken once per group that reached
the disk, not once per record. Reads of the hot tail answer inline; whatever may touch a disk or a
bucket runs in a bounded pool of the face's own. Invariant: cancelling an `await` cancels the
wait, never the write: its outcome is then unknown to the caller, and the log goes on.

One face belongs to one event loop. Everything is decided by the synchronous core; all that is done
here is to let appends of one turn of the loop travel together (see `appends`).
"""

from chronik_store.aio.cursor import AsyncCursor
from chronik_store.aio.log_store import AsyncLogStore
from chronik_store.aio.partition_log import AsyncPartitionLog

__all__ = ["AsyncCursor", "AsyncLogStore", "AsyncPartitionLog"]
