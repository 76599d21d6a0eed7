"""What an owner of a bucket knows of its topics, and what may go from its disk.

Place: under `owner`. Promise: after a crash a topic whose change was on its way is there whole or
not at all, and one that was deleted is never there again. Invariant: an id is given once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from chronik_store.format.manifest_file import Manifest
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.testing.worlds.heritage import Heritage
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.oracle import Oracle

NEVER, CREATING, LIVE, DELETING = "never", "creating", "live", "deleting"


@dataclass
class Topic:
    """A name, and what is known of the topic that has it. NEVER: none, or it was deleted."""

    name: str
    state: str = NEVER
    topic_id: str = ""
    ledger: Ledger = field(default_factory=Ledger)

    def is_found(self, found: str | None, gone: set[str]) -> None:
        """A store is opened, and lists the topic of this id: which state it is in is certain now.
        `gone`: the ids of what was deleted.
        """
        assert found not in gone, f"{self.name} was deleted, and is there"
        if self.state == NEVER:
            assert found is None, f"nobody has made {self.name}, and it is there"
        elif self.state == CREATING:
            self.state, self.topic_id = (NEVER, "") if found is None else (LIVE, found)
        elif self.state == DELETING and found is None:
            self.state = NEVER
            gone.add(self.topic_id)
        else:
            assert found == self.topic_id, f"{self} is {found}"
            self.state = LIVE


class OwnersOracle(Oracle):
    """Deletions and manifests are judged at the bucket's doors, where they take effect. What a
    successor dropped may go here, too.
    """

    def __init__(self, heritage: Heritage) -> None:
        super().__init__(heritage.bucket)
        self._heritage = heritage

    def before_bucket_call(self, number: int, operation: str, key: str) -> None:
        if operation != "bucket.delete":
            super().before_bucket_call(number, operation, key)

    def after_bucket_call(self, number: int, operation: str, key: str) -> None:
        if parse_manifest_key(key) is None:
            super().after_bucket_call(number, operation, key)

    def _published(self) -> Manifest | None:
        found = super()._published()
        if found is None:
            return None
        floor = self._heritage.floor(found.log_id)
        return dataclasses.replace(found, start_offset=max(found.start_offset, floor))
