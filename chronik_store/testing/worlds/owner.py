"""One owner of a bucket among several: a data directory on a machine of its own, over its lives.

Place: under `moved_world`. Promise: it lives as any `StoreWorld` does, its directory made by a
restore or by itself; besides, its topics come and go. Invariant: what it acknowledged stays
readable in its directory whoever owns the bucket; a topic that it deleted, or whose creation was
never answered, comes back with no record.
"""

from __future__ import annotations

import contextlib
from typing import Any

from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    FencedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.log_store import LogStore
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.crash import CrashError
from chronik_store.testing.worlds.clients import Clients
from chronik_store.testing.worlds.heritage import Heritage
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.owned_topics import (
    CREATING,
    DELETING,
    LIVE,
    NEVER,
    OwnersOracle,
    Topic,
)
from chronik_store.testing.worlds.store_world import CONFIG, StoreWorld


class Owner(StoreWorld):
    """`heritage`: of all owners. The first one has nobody `beside` it when it is made."""

    def __init__(self, seed: int, number: int, beside: Owner | None = None) -> None:
        self.number = number
        self.name = "ABC"[number]
        super().__init__(
            seed + (number << 48), config=CONFIG, name=f"owner-{self.name}", beside=beside
        )
        self.config = self.config.replace(on_fenced=self.rng.choice(("append", "append", "stop")))
        if beside is None:
            self.heritage, self.owners = Heritage(self.bucket), list[Owner]()
        else:
            self.heritage, self.owners = beside.heritage, beside.owners
            self.events = beside.events
        self.owners.append(self)
        self.served = self.heritage.witness.door(self.name)
        self.ledger.name = f"{self.name}.t.".encode()
        self.oracle = OwnersOracle(self.heritage)
        self.clients.producer_id += number
        self.main = Topic("t", ledger=self.ledger)
        self.topics = {"t": self.main}
        mine = f"x{number}"
        self.topics[mine] = Topic(mine)
        self.gone: set[str] = set()
        """Ids of topics that it deleted."""
        self.incarnations = 0
        self.held = False
        """It must not come back yet."""
        self.has_directory = number == 0
        self.is_taking_over = False
        self.disk_failed = False
        """A call of the disk has failed: a WAL file may be torn, or back although it was pruned."""
        self.heritage.superseded[self.name] = self.is_superseded

    def is_superseded(self) -> None:
        """What it has in the bucket alone may go from now on."""
        self.clients.bucket_failed = True

    # --- lives -----------------------------------------------------------------------------------

    def lives_on(self) -> None:
        """Its story, from its first open to its last end."""
        self.boot()
        for _ in range(self.lives):
            self.live()
            self.simulation.sleep(self.rng.choice((0.0, self.rng.expovariate(0.5))))
            self.boot()
            self.check()
        if self.rng.random() < 0.25:
            self.leave()
        self.end_life()

    def boot(self) -> None:
        while self.held:
            self.simulation.sleep(0.5)
        super().boot()

    def let_go(self) -> None:
        self.held = False

    def make_topics(self, store: LogStore) -> None:
        if self.number == 0 and self.main.state in (NEVER, CREATING) and not self.main.topic_id:
            self.main.state = CREATING
            store.create_topic("t", exist_ok=True)

    def opened(self, store: LogStore) -> None:
        listed = {each.name: each.topic_id for each in store.topics()}
        for topic in self.topics.values():
            topic.is_found(listed.pop(topic.name, None), self.gone)
        assert not listed, f"nobody made {listed}"
        if self.main.state == LIVE:
            super().opened(store)
            assert self.log is not None
            self.of(self.log, self.main)
        else:
            self.log = self.oracle.log = None
            self.clients.opened(None)
            self.events["opens"] += 1

    def of(self, log: PartitionLog, topic: Topic) -> PartitionLog:
        """The log of a topic is open: what is known of the topic is known of it."""
        assert log._core is not None
        manifest = log._core.manifest
        assert manifest.topic_id == topic.topic_id, (manifest, topic)
        known = self.heritage.knows(manifest.log_id, topic.ledger)
        assert known is topic.ledger, f"{topic.name} of {self.name} has the facts of another log"
        return log

    def disk_fails(self) -> None:
        """Not the sync of directories that topics come and go in: a name that could not be synced
        is believed by the next try, or the next open, and a power loss after that undoes it.
        """
        super().disk_fails()
        fails = self.node.disk.hook
        assert fails is not None

        def hook(number: int, called: str, path: str) -> None:
            if called == "sync_directory" and not path.endswith("/t/0"):
                self.before_disk_call(number, called, path)
                return
            try:
                fails(number, called, path)
            except OSError:
                self.disk_failed = True
                raise

        self.node.disk.hook = hook

    def start_clients(self) -> None:
        if self.log is not None:
            super().start_clients()
        if self.rng.random() < 0.8:
            self.node.spawn(self.changes_topics, name="changes-topics")

    # --- topics ----------------------------------------------------------------------------------

    def changes_topics(self) -> None:
        """Topics besides its own come, are used, and go; namesakes come behind them."""
        store, clock = self.store, self.node.environment.clock
        assert store is not None
        for _ in range(self.rng.randint(3, 15)):
            clock.sleep(self.rng.expovariate(6.0))
            topic = self.rng.choice([each for each in self.topics.values() if each.name != "t"])
            try:
                self.change(store, topic)
            except (CorruptionError, OffsetOutOfRangeError):
                raise
            except ChronikError:
                return

    def change(self, store: LogStore, topic: Topic) -> None:
        if topic.state == NEVER:
            if self.is_alone():
                self.create(store, topic)
            return
        if topic.state != LIVE:
            return  # nobody knows before the next open
        log = self.of(store.partition(topic.name), topic)
        act = self.rng.random()
        if act < 0.5:
            batch = topic.ledger.offer(self.rng.choice((1, 3, 8)))
            try:
                result = log.append(batch)
            except ChronikError as error:
                if error.durability == "not_durable":
                    topic.ledger.refused(batch)
                raise
            topic.ledger.acked(result.base_offset, batch)
        elif act < 0.7:
            log.seal()
        elif act < 0.85:
            log.run_pipeline_once()
        else:
            self.delete(store, topic)

    def is_alone(self) -> bool:
        """Nobody takes over now, or has taken over from it.

        A topic that the bucket knows nothing of is not fenced: an old owner must make none.
        """
        taken = any(
            log.owner == self.name and log.successor is not None
            for log in self.heritage.witness.logs.values()
        )
        return not taken and not any(each.is_taking_over for each in self.owners)

    def create(self, store: LogStore, topic: Topic) -> None:
        self.incarnations += 1
        topic.ledger = Ledger(f"{self.seed}/{self.incarnations}")
        topic.ledger.name = f"{self.name}.{topic.name}.{self.incarnations}.".encode()
        topic.state = CREATING
        topic.topic_id = store.create_topic(topic.name).topic_id
        assert topic.topic_id not in self.gone
        topic.state = LIVE
        self.events["topics created"] += 1

    def delete(self, store: LogStore, topic: Topic) -> None:
        topic.state = DELETING
        store.delete_topic(topic.name)
        topic.state = NEVER
        self.gone.add(topic.topic_id)
        self.events["topics deleted"] += 1

    def leave(self) -> None:
        """The log itself is deleted, however often that is cut off."""
        while self.main.state == LIVE:
            self.simulation.later(self.rng.expovariate(2.0), self.interrupt)
            self.oracle.log = None
            self.opening = True
            with contextlib.suppress(ChronikError, CrashError):
                self.node.call(self.delete_main)
            self.opening = False
            self.end_life()
            self.boot()

    def delete_main(self) -> None:
        assert self.store is not None
        self.delete(self.store, self.main)

    def after_bucket_call(self, number: int, operation: str, key: str) -> None:
        super().after_bucket_call(number, operation, key)
        run = parse_segment_key(key)
        if operation == "bucket.put_if_absent" and run is not None:
            self.may_be_dropped(self.topics[run.topic], run.end_offset)

    def may_be_dropped(self, topic: Topic, offset: int) -> None:
        """It is in the bucket up to there: retention by size may go so far."""
        if topic is self.main:
            self.oracle.uploaded_end = max(self.oracle.uploaded_end, offset)
        if self.config.retention_bytes is not None:
            topic.ledger.wish_start(offset)

    # --- checks ----------------------------------------------------------------------------------

    def check(self) -> None:
        with contextlib.suppress(CrashError):
            self.node.call(self.compare_topics)

    def compare_topics(self) -> None:
        store = self.store
        assert store is not None
        for topic in self.topics.values():
            if topic.state == LIVE:
                log = self.of(store.partition(topic.name), topic)
                self.compare(log, topic.ledger)

    def check_image(self, store: LogStore) -> None:
        """What a power loss now would leave: no topic that was deleted, all of those that live."""
        listed = {each.name: each.topic_id for each in store.topics()}
        for topic in self.topics.values():
            found = listed.get(topic.name)
            assert found not in self.gone, f"{topic.name} was deleted, and is there"
            if topic.state == LIVE:
                assert found == topic.topic_id, f"{topic} is {found}"
                self.compare(store.partition(topic.name), topic.ledger, learn=False)

    def compare(self, log: Any, ledger: Ledger, *, learn: bool = True) -> None:
        """All that its bucket's owner cannot have dropped is there; the rest, or an error."""
        log_id = log._core.manifest.log_id
        while True:
            floor = self.heritage.floor(log_id)
            try:
                ledger.check(log, learn=learn, first=floor)
            except UnavailableError:
                if self.heritage.floor(log_id) == floor:
                    raise
            else:
                break
        start = log.watermarks.start
        if start < floor:
            with contextlib.suppress(UnavailableError, OffsetOutOfRangeError):
                for record in log.scan(start, floor):
                    assert ledger.agrees(record.offset, record.value), record

    # --- the end ---------------------------------------------------------------------------------

    def settle(self) -> None:
        store = self.store
        assert store is not None
        self.finish_deletions(store)
        self.compare_topics()
        for topic in self.topics.values():
            if topic.state == LIVE:
                log = self.of(store.partition(topic.name), topic)
                assert log._core is not None
                if self.heritage.is_superseded(log._core.manifest.log_id):
                    self.is_fenced(log, topic.ledger)
                else:
                    clients = Clients(self.rng, self.node, topic.ledger)
                    self.come_to_rest(log, clients)
        for topic in self.topics.values():
            if topic.state == LIVE and topic.name != "t" and self.rng.random() < 0.5:
                self.delete(store, topic)
        self.finish_deletions(store)
        store.close()
        left = [
            path
            for topic in self.topics.values()
            if topic.state == NEVER and topic.topic_id in self.gone
            for folder in ("wal", "segments", "scratch/partitions")
            for path in self.node.disk.paths(f"/data/{folder}/{topic.name}")
        ]
        assert not left, f"of deleted topics there is still {left}"

    def finish_deletions(self, store: LogStore) -> None:
        """The bucket answers: nothing waits."""
        waits = store._ticker._deletions()
        assert not waits, f"a deletion waits: {waits}"

    def is_fenced(self, log: PartitionLog, ledger: Ledger) -> None:
        """It finds out, uploads nothing more, and keeps all that it has."""
        assert log._core is not None
        clock = self.node.environment.clock
        for _ in range(4):
            batch = ledger.offer(2)
            try:
                ledger.acked(log.append(batch).base_offset, batch)
            except FencedError:
                assert self.config.on_fenced == "stop"
                ledger.refused(batch)
            log.seal()
            log.run_pipeline_once()
            clock.sleep(1200.0)
        # Where the new owner has deleted the topic there is no claim any more to be seen.
        is_deleted = log._core.manifest.topic_id in self.heritage.witness.deleted
        assert log.status().fenced or is_deleted, log.status()
        self.compare(log, ledger)
        findings = log.verify(deep=True).findings
        left = [each for each in findings if "last good frame" in each.message]
        assert findings == () or (self.disk_failed and len(left) == len(findings)), findings

    def check_bucket(self, log: PartitionLog) -> None:
        """Beside what is named there are strays of lost races, and `verify` tells of each."""
        assert log._core is not None
        findings = log.verify(bucket=True, deep=True).findings
        found = {each.where for each in findings if each.severity == "note"}
        assert len(found) == len(findings), findings
        strays = self.heritage.witness.unnamed(log._core.manifest.topic)
        assert found == strays, f"strays are {strays}, found are {found}"
        self.events["strays found"] += len(strays)
