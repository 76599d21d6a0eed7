"""Who may have a vote in the groups of this node, as it was before a log of theirs was damaged.

Place: under `hosting`, in a file beside the logs. Promise: a roll call of suspect nodes is answered
by everybody who may be a voter, not only by those whom a log names that may have been cut, or made
anew (protocol 9). Invariant: what was noted of a group stays until a log of it that is whole says
something else, or its topic is gone; what cannot be read is unknown, and then no roll is called.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from chronik_server.addresses import Address, parse_address
from chronik_server.metadata import Metadata, group_of
from chronik_server.raft_partition import RaftPartition
from chronik_store import replicated
from chronik_store.errors import ConfigError, CorruptionError
from chronik_store.format.shape import NAME, Fixed, Row, ShapeError, TupleOf
from chronik_store.log_store import LogStore
from chronik_store.replica import Replica

logger = logging.getLogger("chronik_server.cluster")

ROLLS_NAME = "ROLLS"


class Noted(NamedTuple):
    """What the file holds: (group id, its voters), and (node id, HOST:PORT), each sorted."""

    voters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()


_NOTED: Final = Row(
    Noted,
    {
        "voters": TupleOf(Fixed(NAME, TupleOf(NAME, 1 << 10)), 1 << 20),
        "addresses": TupleOf(Fixed(NAME, NAME), 1 << 16),
    },
)


class Rolls:
    """See the module. Belongs to the event loop, but for `load` and `keep`, which touch the disk:
    one after the other, in a worker.

    state: the metadata as it was followed last.
    """

    def __init__(self, store: LogStore) -> None:
        self.state = Metadata()
        self._store = store
        self._noted: Noted | None = None

    def load(self) -> None:
        """Read what was noted, before any group of this node runs."""
        try:
            self._noted = _noted_in(replicated.remembered_value(self._store, ROLLS_NAME))
        except CorruptionError as error:
            said = "%s; until all logs here are whole, none that is not elects"
            logger.warning(said, error.finding)

    @property
    def is_known(self) -> bool:
        """What was noted could be read, or was noted anew since."""
        return self._noted is not None

    @property
    def addresses(self) -> dict[str, Address]:
        """Where nodes were when that was noted: a log that was cut may not name them."""
        found = {}
        for node_id, address in () if self._noted is None else self._noted.addresses:
            with contextlib.suppress(ConfigError):  # recorded by an older version: nobody can
                found[node_id] = parse_address(address)  # connect to it
        return found

    def may_vote(self, topic_id: str, partition: int) -> frozenset[str] | None:
        """Whoever may: as it was noted, and who may hold the partition as the metadata has it. None
        when nobody can tell.
        """
        if self._noted is None:
            return None
        noted = frozenset(dict(self._noted.voters).get(group_of(topic_id, partition), ()))
        topic = self.state.topic_of(topic_id)
        return noted if topic is None else noted | topic.places[partition].holders

    def news(self, parts: Sequence[RaftPartition], *, is_newest: bool) -> Noted | None:
        """The voters of these, and where nodes are, beside what was noted; None: that is the same.

        is_newest: no newer metadata was followed before, so what it has no topic of is gone.
        """
        found = {part.consensus.group_id: _voters_of(part.core.replica) for part in parts}
        known = self._noted
        if known is None:
            if None in found.values():
                return None
            known = Noted()
        voters = dict(known.voters)
        voters.update((group_id, named) for group_id, named in found.items() if named)
        addresses = dict(known.addresses)
        if is_newest:
            here = found.keys()
            voters = {each: voters[each] for each in voters if each in here or self._has(each)}
            nodes = self.state.nodes.values()
            addresses = {node.node_id: node.address for node in nodes if node.state != "removed"}
        noted = Noted(tuple(sorted(voters.items())), tuple(sorted(addresses.items())))
        return None if noted == self._noted else noted

    def keep(self, noted: Noted) -> None:
        """Remember it, durably."""
        replicated.remember_value(self._store, ROLLS_NAME, _NOTED.pack(noted))
        self._noted = noted

    def _has(self, group_id: str) -> bool:
        return self.state.topic_of(group_id.partition("/")[0]) is not None


def _voters_of(replica: Replica | None) -> tuple[str, ...] | None:
    """By the last entry, and by the last one that is committed: a truncation brings that back.
    None of a log that may have been cut.
    """
    if replica is None or replica.suspect:
        return None
    found = (replica.members, replica.committed_members)
    voters = {voter for named in found if named is not None for voter in named[1].voters}
    return tuple(sorted(voters))


def _noted_in(value: object) -> Noted:
    try:
        return Noted() if value is None else _NOTED.unpack(value, f"the file {ROLLS_NAME}")
    except ShapeError as error:
        raise CorruptionError(str(error)) from error
