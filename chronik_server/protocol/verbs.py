"""Which verbs there are: the number in a frame's head.

Place: in `protocol`, below the tables of messages. Invariant: a number is never reused.
"""

from __future__ import annotations

from enum import IntEnum


class Verb(IntEnum):
    """What a frame asks for, answers or tells."""

    HELLO = 1
    PING = 2
    CREATE_TOPIC = 16
    DELETE_TOPIC = 17
    LIST_TOPICS = 18
    DESCRIBE_TOPIC = 19
    PRODUCE = 32
    FETCH = 33
    OFFSETS = 34
    SEARCH = 35
    GET_CURSOR = 48
    COMMIT_CURSOR = 49
    DELETE_CURSOR = 50
    STATUS = 64
    SEAL = 65
    DROP_BEFORE = 66
    RUN_PIPELINE = 67
    FIND_BUNDLES = 68
    REBUILD_BUNDLES = 69
    DESCRIBE_CLUSTER = 80
    ADD_NODE = 81
    REMOVE_NODE = 82
    TRANSFER_LEADER = 83
    RAFT = 96
    """One way, between nodes."""
    REPORT = 97
    """One way, from a node to the one that leads the metadata."""
