"""The server's test kit: a cluster in one process, on virtual time, and judges.

Place: above everything of the server; `chronik simulate --cluster` and tests/server/raft play it.
Promise: equal seeds play equal stories, message by message. Invariant: nothing here runs in a
server: production imports none of it, and `import chronik_store` never comes this far.

    virtual_loop   an event loop that never sleeps
    network        what becomes of a message
    node           one life of one node: the real roles over the real log, on a simulated disk
    judge          what must hold, looked at with every message, every sync, every start
    world          the nodes, their network and disks, and the ways to ruin them
    blocking       code of the product that waits in place, as a greenlet
    tiering        the pipeline of a node, over its log and towards the shared bucket
    node_bucket    the bucket as one node reaches it
    witness        what must hold between the cluster and its bucket
    story          clients, members that change, and a nemesis: a world from boot to healing
    planted        known bugs of the roles, to put back
    playing        stories by seed: outcome, tallies
"""
