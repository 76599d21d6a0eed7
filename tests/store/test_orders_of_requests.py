"""Every order, with one surprise, in which owners and restores reach a bucket (protocol 5).

Each actor is a greenlet that stops before each of its requests about manifests. One after the other
runs to its end, but for one surprise: at some request another one goes first from there on, or the
actor dies before it or behind it, or the answer is lost. All come back then, and go on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import greenlet
import pytest

from chronik_store import LogStore, open_bucket
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, FencedError, UnavailableError
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.restore import restore
from chronik_store.testing.called_bucket import CalledBucket
from chronik_store.testing.crash import CrashError
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.worlds.store_world import buckets_of
from tests.store.on_simulated_disk import CONFIG, env_of

URL = "memory://world"
Work = Callable[["Actor"], object]


class Actor(CalledBucket):
    """Who works on a machine of its own, and its way to the bucket."""

    def __init__(self, name: str, disk: SimulatedDisk, bucket: ObjectStore, work: Work) -> None:
        super().__init__(bucket)
        self.name, self.work = name, work
        self.env = env_of(disk)
        self.turn = greenlet.greenlet(self._works)
        self.stops = False
        self.request = ""
        """What it is about to ask for; nothing when it has ended."""

    def _works(self, *_: object) -> None:
        with suppress(ChronikError, CrashError):
            self.work(self)
        self.request = ""

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], Any]) -> Any:
        surprise = ""
        if self.stops and keys[0].startswith("manifests/"):
            self.request = name
            surprise = self.turn.parent.switch()
        if surprise == "dies before":
            self._die()
        result = effect()
        if surprise == "dies behind":
            self._die()
        if surprise == "is not told":
            raise UnavailableError("no answer", durability="unknown")
        return result

    def _die(self) -> None:
        self.env = env_of(self.env.fs.kill())  # type: ignore[attr-defined]
        raise CrashError(self.name)

    def open(self) -> LogStore:
        return LogStore.open("/data", object_store=URL, config=CONFIG, env=self.env)


def restores(actor: Actor) -> None:
    restore(URL, "/data", config=CONFIG, env=actor.env)


def publishes(actor: Actor) -> None:
    with actor.open() as store:
        for _ in range(2):
            store.run_pipeline_once()


def appended(store: LogStore, topic: str, partition: int, value: bytes) -> None:
    log = store.partition(topic, partition)
    log.append(value)
    log.seal()


class Scene(NamedTuple):
    """A bucket, and who is about to do what on which disk; `topic` is what they may quarrel for."""

    topic: str
    bucket: MemoryObjectStore
    actors: list[tuple[SimulatedDisk, Work]]


def owned(bucket: MemoryObjectStore) -> SimulatedDisk:
    """A store with two partitions, of which the bucket has one."""
    owner = Actor("", SimulatedDisk(), bucket, publishes)
    with playing([owner], bucket), owner.open() as store:
        store.create_topic("t", partitions=2)
        appended(store, "t", 1, b"tiered")
        store.run_pipeline_once()
        appended(store, "t", 0, b"on disk")
    return owner.env.fs  # type: ignore[return-value]


def two_restores() -> Scene:
    bucket = MemoryObjectStore()
    owned(bucket)
    return Scene("t", bucket, [(SimulatedDisk(), restores), (SimulatedDisk(), restores)])


def an_owner_that_publishes_while_it_is_taken_over() -> Scene:
    bucket = MemoryObjectStore()
    return Scene("t", bucket, [(owned(bucket), publishes), (SimulatedDisk(), restores)])


def two_owners_that_have_made_a_topic() -> Scene:
    bucket = MemoryObjectStore()
    disks = [owned(bucket), SimulatedDisk()]
    for number, disk in enumerate(disks):
        each = Actor("", disk, bucket, publishes)
        with playing([each], bucket):
            if number:
                restores(each)
            with each.open() as store:
                store.create_topic("young")
                appended(store, "young", 0, b"young")
    return Scene("young", bucket, [(disk, publishes) for disk in disks])


@contextmanager
def playing(actors: Sequence[Actor], bucket: ObjectStore) -> Iterator[None]:
    def bucket_for(env: Environment) -> ObjectStore:
        return next((each for each in actors if each.env is env), bucket)

    with buckets_of(bucket_for):
        yield


def played(actors: Sequence[Actor], at: int, surprise: str) -> int:
    """All to their ends, with the surprise at request number `at`. How many there were."""
    count, order = 0, list(actors)
    for each in order:
        each.stops = True
        each.turn.switch()
    while order := [each for each in order if each.request]:
        is_now, count = count == at, count + 1
        if is_now and surprise == "waits":
            order.append(order.pop(0))
        order[0].turn.switch(surprise if is_now else "")
    for each in actors:
        each.stops = False
    return count


def come_back(actors: Sequence[Actor]) -> list[LogStore]:
    """All that can: a restore that did not end is run again, and may be told that it has lost."""
    stores = []
    for each in actors:
        try:
            if each.work is restores and not each.env.fs.exists("/data/STORE"):
                restores(each)
            stores.append(each.open())
        except FencedError:
            continue
    return stores


def contents(store: LogStore, topic: str) -> dict[int, list[bytes]]:
    """Of the partitions that are this store's in the bucket."""
    logs = [
        store.partition(each.name, number)
        for each in store.topics()
        if each.name == topic
        for number in range(each.partitions)
    ]
    return {
        number: [record.value for record in log.scan()]
        for number, log in enumerate(logs)
        if not log.status().fenced
    }


def judge(scene: Scene, actors: Sequence[Actor], where: object) -> None:
    """One owner has all partitions, and the bucket shows what that one has."""
    stores = come_back(actors)
    for round_of in range(4):
        for store in stores:
            for number in contents(store, scene.topic) if round_of == 2 else ():
                appended(store, scene.topic, number, b"later")
            store.run_pipeline_once()
    going_on = [found for store in stores if (found := contents(store, scene.topic))]
    assert len(going_on) == 1, where
    for number, values in going_on[0].items():
        with open_bucket(
            URL, topic=scene.topic, partition=number, config=CONFIG, env=env_of(SimulatedDisk())
        ) as log:
            assert values == [each.value for each in log.scan()], where
        assert number == 0 or b"tiered" in values, where
    assert len(going_on[0]) == (2 if scene.topic == "t" else 1), where
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    "scene_of",
    [
        two_restores,
        an_owner_that_publishes_while_it_is_taken_over,
        two_owners_that_have_made_a_topic,
    ],
)
@pytest.mark.parametrize("surprise", ["waits", "dies before", "dies behind", "is not told"])
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_one_owner_is_left_and_has_all(
    scene_of: Callable[[], Scene], surprise: str, every: int
) -> None:
    scene = scene_of()
    for at in itertools.count(step=every):
        bucket = MemoryObjectStore()
        bucket._objects.update(scene.bucket._objects)
        actors = [
            Actor(f"{number}", disk.crashed("kept", random.Random(at)), bucket, work)
            for number, (disk, work) in enumerate(scene.actors)
        ]
        with playing(actors, bucket):
            count = played(actors, at, surprise)
            judge(scene, actors, (at, surprise))
        for each in actors:
            each.env.threads.end()  # type: ignore[attr-defined]
        if at >= count:
            break
    assert at > 10
