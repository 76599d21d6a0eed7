"""Worlds: the product's own code on virtual time, with everything that may befall it, and judges.

Place: on top of the test kit; `chronik simulate` and tests/simulation play them. Modules:

    store_world   one machine over its lives, its bucket, its clients
    damaged_world the same with a disk that rots between lives, and an operator who repairs it
    disk_damage   what such a disk does; rotten_bucket: what a bucket may do
    clients       what those clients do
    ledger        what they know for certain; every later answer is compared with it
    oracle        the judge at the doors of disk and bucket
    playing       worlds by seed: outcome, tallies
    repertoire    what the verb needs to know of them, and of those of a cluster

Promise: equal seeds play equal stories. Invariant: a world that ends without AssertionError
has lost nothing that was acknowledged, and left nothing behind.
"""
