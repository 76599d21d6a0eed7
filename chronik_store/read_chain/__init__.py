"""The read chain: one log over four tiers.

Place: the only reader-side code that knows several rooms:

    WAL tail (memory)  >  WAL files  >  local segments  >  object store

`planner` finds the first tier that has a place and reads whole entries there; `chain` turns them
into batches, records, scans and time lookups. Promise: what is answered is contiguous, verified
and committed; a tier that fails is passed over for a healthy copy, and when there is none the range
is *unavailable*, never absent and never skipped. Invariant: nothing is pinned between calls; a
reader holds a `Place`, which retention can overtake (a typed error) but never falsify.
"""

from chronik_store.read_chain.chain import BatchRun, EntryRun, ReadChain
from chronik_store.read_chain.objects import CachedObjects, ObjectTier
from chronik_store.read_chain.views import WalView
from chronik_store.segment.reader import Place

__all__ = [
    "BatchRun",
    "CachedObjects",
    "EntryRun",
    "ObjectTier",
    "Place",
    "ReadChain",
    "WalView",
]
