"""The write-ahead log of one partition: what is acknowledged stands in here first.

Place: a room beside `segment`, `objectstore` and `search`, which it does not know; above `commit`,
`format` and `fs`. It carries entries, hard states and truncations in one order; what they mean is
the partition core's business. Promise: whatever `lead` has returned for survives any crash, and
comes back in the same order; what did not survive was never acknowledged; what may have been
damaged is named, never silently cut. Invariant: bytes are never rewritten; one group is in flight
per WAL; a failed write or sync ends the WAL for good.

    wal            the face: recover, start, lead, prune, close; stageable, readable: its halves
    staging        what is to be written next, in `seq` order
    group_commit   who writes, who waits; group: a group's bytes; durable: what that makes durable
    active_file    the file being written, and the zeros ahead of it
    entry_table    where each live entry stands; tail: the newest in memory; reading: from files
    recovery       all files, in order; chain: which; replay: what they mean; verdict: if damaged
    pruning        old files go; hands: who is at work; descriptors, services: what all WALs share
"""
