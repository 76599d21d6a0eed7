"""The test kit, shipped in the wheel: what Chronik is tested with, for those who build on it.

Place: beside the rooms, above all of them; no room of the product imports it
(one verb does: docs/decisions/0015). Modules are imported
by name, so that none of their needs (greenlet, hypothesis, pytest) is a need of the others:

    simulated_disk       a file system in memory that loses, tears and refuses on purpose
    disk_faults          ready-made hooks for it: crash or fail at call N, hold a call in flight
    virtual_time         plain synchronous code on virtual time, seeded, each thread a greenlet
    simulated_machine    a machine in it: disk, clock, threads, bucket; crashes, pauses, restarts
    faulty_object_store  a bucket that fails before or after the effect, on demand
    file_system_kit      the conformance tests that any `fs.base.FileSystem` must pass
    object_store_kit     the same for any `objectstore.base.ObjectStore`
    worlds               whole stories on virtual time, their judges, and how they are played
    planted              known bugs, to put back: whatever judges must find them

Promise: everything here is deterministic under its seed. Invariant: a simulation never uses the
wall clock, the system's randomness, real threads or the real disk.
"""
