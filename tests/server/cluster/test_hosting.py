"""What a node holds: made and removed as metadata says, and never by an old fold of it."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_server.addresses import Address
from chronik_server.client import AsyncClient
from chronik_server.hosting import FOLDED_NAME, TOLD_NAME, Hosting, group_of
from chronik_server.metadata import METADATA_TOPIC, Metadata
from chronik_server.metadata_commands import (
    Command,
    DropTopic,
    MakeTopic,
    PlacePartition,
    SettlePartition,
)
from chronik_server.raft.node import RaftNode
from chronik_store import LogConfig, replicated
from chronik_store.aio import AsyncLogStore
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.replicated import has_partition, open_as_node, remembered
from tests.server.cluster.nodes import InProcess, free_ports, start
from tests.server.serving import QUICK, run

CLUSTER, A, B, LOG = "ee" * 16, "aa" * 16, "bb" * 16, "cc" * 16
EVENTS = MakeTopic("events", A, (LOG, "dd" * 16), 2, (("1", "2"), ("2", "3")))


class Silence:
    """A transport to nowhere."""

    def send(self, peer: str, group_id: str, message: object) -> None:
        """Lost."""


class Here:
    """Node "1" over a directory."""

    def __init__(self, store: LogStore) -> None:
        self.store = store
        self.raft = RaftNode(
            "1", boot_id="f0" * 16, transport=Silence(), on_fatal=lambda _group, error: None
        )
        self.face = AsyncLogStore(store)
        self.hosting = Hosting(
            store, self.face, self.raft, address_of=lambda _node: None, on_full=lambda _part: None
        )

    def holds(self, name: str, partition: int) -> bool:
        return has_partition(self.store, name, partition)

    def runs(self, topic_id: str, partition: int) -> bool:
        return self.raft.group(group_of(topic_id, partition)) is not None


def on_node(path: Path, *acts: Callable[[Here], Awaitable[None]]) -> None:
    """Each act in a life of its own of the same node."""

    async def live(act: Callable[[Here], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()

        def dispatch(call: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(call)

        def opener() -> LogStore:
            return open_as_node(
                path / "1", cluster_id=CLUSTER, node_id="1", env=Environment(),
                dispatch=dispatch,
                config=LogConfig(object_store=f"file://{path}/bucket", pipeline_enabled=False),
            )  # fmt: skip

        here = Here(await loop.run_in_executor(None, opener))
        try:
            await act(here)
        finally:
            here.raft.stop()
            await here.face.close()

    for act in acts:
        asyncio.run(live(act))


def fold(*commands: Command) -> Metadata:
    state = Metadata()
    for command in commands:
        state.apply(command, state.offset)
    return state


MOVED: tuple[Command, ...] = (EVENTS, PlacePartition(A, 0, ("2", "3")), SettlePartition(A, 0, 1))
"""Partition 0 was here, and has left."""
BACK: tuple[Command, ...] = (*MOVED, PlacePartition(A, 0, ("1", "2")))


def test_a_partition_runs_where_it_is_placed_and_nowhere_else(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert (True, False) == (here.holds("events", 0), here.holds("events", 1))
        assert (True, False) == (here.runs(A, 0), here.runs(A, 1))
        assert [("events", 0)] == list(here.hosting.partitions)

    on_node(tmp_path, act)


def test_it_stays_until_the_others_do_without_it(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        await here.hosting.reconcile(fold(*MOVED[:2]))
        assert here.runs(A, 0)
        await here.hosting.reconcile(fold(*MOVED))
        assert (False, False) == (here.runs(A, 0), here.holds("events", 0))

    on_node(tmp_path, act)


def test_a_restart_finds_its_copy_and_all_that_is_in_it(tmp_path: Path) -> None:
    def replica(here: Here) -> Any:
        return here.hosting.partitions["events", 0].core.replica

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        written = asyncio.get_running_loop().create_future()
        ticket = replica(here).save_hard_state(7, "2")
        replica(here).when_synced(ticket, lambda: written.set_result(None))
        await written

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert ((7, "2"), False) == (replica(here).hard_state, replica(here).suspect)

    on_node(tmp_path, first, second)


def test_an_old_fold_never_removes_the_copy_of_a_voter(tmp_path: Path) -> None:
    """After a restart the fold may begin before the moment in which the copy was made."""

    async def first(here: Here) -> None:
        for state in (fold(EVENTS), fold(*MOVED), fold(*BACK)):
            await here.hosting.reconcile(state)
        assert here.runs(A, 0)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(*MOVED))
        assert here.holds("events", 0)
        await here.hosting.reconcile(fold(*BACK))
        assert here.runs(A, 0)

    on_node(tmp_path, first, second)


def test_an_old_fold_never_lets_a_node_that_left_begin_anew(tmp_path: Path) -> None:
    """With an empty log and the group's first members it would vote for anybody."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        await here.hosting.reconcile(fold(*MOVED))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert (False, False) == (here.holds("events", 0), here.runs(A, 0))
        await here.hosting.reconcile(fold(*MOVED))
        assert not here.holds("events", 0)

    on_node(tmp_path, first, second)


def test_a_copy_for_an_older_group_starts_without_a_vote_durably(tmp_path: Path) -> None:
    def replica(here: Here) -> Any:
        return here.hosting.partitions["events", 0].core.replica

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert not replica(here).suspect  # made with its topic: it has promised nothing before
        await here.hosting.reconcile(fold(*MOVED))
        await here.hosting.reconcile(fold(*BACK))
        assert replica(here).suspect

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(*BACK))
        assert replica(here).suspect

    on_node(tmp_path, first, second)


def test_a_log_that_is_gone_from_the_disk_begins_anew_without_a_vote(tmp_path: Path) -> None:
    """Protocol 12: it has voted and acknowledged before, and knows of nothing."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert not here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second)


def test_the_only_copy_is_never_made_anew(tmp_path: Path) -> None:
    """Its offsets would begin at 0 again, as if nothing had ever been there."""
    alone = MakeTopic("events", A, (LOG,), 1, (("1",),))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(alone))
        assert here.runs(A, 0)

    async def second(here: Here) -> None:
        for _ in range(2):
            await here.hosting.reconcile(fold(alone))
            assert (False, False) == (here.holds("events", 0), here.runs(A, 0))

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, second)


def test_26_a_lost_log_is_suspect_though_its_process_ended_before_it_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies there, empty, and has voted and acknowledged before."""

    class EndedError(Exception):
        pass

    def end(*_: object) -> None:
        raise EndedError

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Hosting, "_suspect", end)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS))
        assert here.holds("events", 0)

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, third)


def test_26_metadata_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = fold(MakeTopic(METADATA_TOPIC, B, (LOG,), 1, (("1",),))).topics[METADATA_TOPIC]

    async def first(here: Here) -> None:
        await here.hosting.open_metadata(topic)
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        await here.hosting._install(topic, 0)  # and there its process ended

    async def third(here: Here) -> None:
        meta = await here.hosting.open_metadata(topic)
        assert meta.core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / f"1/wal/{METADATA_TOPIC}/0")
    on_node(tmp_path, second, third)


def test_a_topic_that_is_made_while_others_are_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, late = (
        MakeTopic(name, id_, (LOG[:30] + id_[:2],), 1, (("1",),))
        for name, id_ in (("one", A), ("two", B), ("late", "99" * 16))
    )
    plain = replicated.install_partition

    async def act(here: Here) -> None:
        state = fold(one, two)

        def install(store: LogStore, name: str, *arguments: Any) -> None:
            if name == "one":
                for command in (late, PlacePartition(B, 0, ("1", "2"))):
                    state.apply(command, state.offset)
            plain(store, name, *arguments)

        monkeypatch.setattr(replicated, "install_partition", install)
        await here.hosting.reconcile(state)
        await here.hosting.reconcile(state)
        part = here.hosting.partitions["late", 0]
        assert not part.core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, act)


def test_metadata_that_is_gone_from_the_disk_begins_anew_without_a_vote(tmp_path: Path) -> None:
    topic = fold(MakeTopic(METADATA_TOPIC, B, (LOG,), 1, (("1",),))).topics[METADATA_TOPIC]

    def act(*, suspect: bool) -> Callable[[Here], Awaitable[None]]:
        async def act(here: Here) -> None:
            meta = await here.hosting.open_metadata(topic)
            replica = meta.core.replica
            assert replica is not None
            assert suspect == replica.suspect
            if not replica.hard_state[0]:
                replica.save_hard_state(1, "1")  # who has folded records has had a term
            await here.hosting.reconcile(fold(EVENTS))

        return act

    on_node(tmp_path, act(suspect=False), act(suspect=False))
    shutil.rmtree(tmp_path / f"1/wal/{METADATA_TOPIC}/0")
    on_node(tmp_path, act(suspect=True))


def test_6_a_namesake_waits_until_the_old_topic_has_left_and_takes_nothing_over(
    tmp_path: Path,
) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        state = fold(EVENTS, DropTopic(A), namesake)
        await here.hosting.reconcile(state)
        assert (False, True) == (here.runs(A, 0), here.runs(B, 0))
        part = here.hosting.partitions["events", 0]
        assert (B, "11" * 16) == (part.core.identity.topic_id, part.core.identity.log_id)
        assert (A,) == here.hosting.cleared(state)

    on_node(tmp_path, act)


def test_6_a_namesake_never_begins_in_the_log_of_the_topic_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    def away(*_: object) -> None:
        raise UnavailableError("not now")

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        state = fold(EVENTS, DropTopic(A), namesake)
        with monkeypatch.context() as patch:
            patch.setattr("chronik_store.replicated.delete_topic_here", away)
            await here.hosting.reconcile(state)
        assert (False, False) == (here.runs(A, 0), here.runs(B, 0))
        assert here.hosting.running(state.topics["events"], 0) is None
        await here.hosting.reconcile(state)
        assert here.runs(B, 0)

    on_node(tmp_path, act)


def test_6_a_partition_is_found_by_its_topics_id(tmp_path: Path) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    async def act(here: Here) -> None:
        old, new = fold(EVENTS), fold(EVENTS, DropTopic(A), namesake)
        await here.hosting.reconcile(old)
        assert here.hosting.running(old.topics["events"], 0) is not None
        assert here.hosting.running(old.topics["events"], 1) is None
        assert here.hosting.running(new.topics["events"], 0) is None
        here.hosting.close_stale(old)
        assert here.runs(A, 0)
        here.hosting.close_stale(new)
        assert not here.runs(A, 0)

    on_node(tmp_path, act)


def test_6_what_a_node_said_is_stopped_stays_stopped_over_a_restart(tmp_path: Path) -> None:
    """A fold that begins anew may have the topic once more, and others count on its end."""
    dropped = (EVENTS, DropTopic(A))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert () == await here.hosting.stopped(fold(*dropped))  # it runs
        here.hosting.close_stale(fold(*dropped))
        assert (A,) == await here.hosting.stopped(fold(*dropped))
        assert 2 == remembered(here.store, TOLD_NAME)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert (False, True) == (here.runs(A, 0), here.holds("events", 0))
        await here.hosting.reconcile(fold(*dropped))
        assert not here.holds("events", 0)

    on_node(tmp_path, first, second)


def test_6_what_metadata_does_not_name_is_never_removed(tmp_path: Path) -> None:
    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold())
        state = fold(MakeTopic("other", B, (LOG,), 1, (("2",),)), DropTopic(B), DropTopic(B))
        await here.hosting.reconcile(state)
        assert here.holds("events", 0)
        assert not here.runs(A, 0)

    on_node(tmp_path, first, second)


def test_what_a_thread_still_does_is_waited_for_though_its_task_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes the files of a log that the end of this process would write to."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)
        ended.set()

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        monkeypatch.setattr("chronik_store.replicated.delete_topic_here", slowly)
        task = asyncio.ensure_future(here.hosting.reconcile(fold(EVENTS, DropTopic(A))))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().call_soon(go_on.set)
        await here.hosting.settle()
        assert ended.is_set()

    on_node(tmp_path, act)


def test_the_newest_fold_that_was_acted_on_is_kept(tmp_path: Path) -> None:
    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert 1 == remembered(here.store, FOLDED_NAME)
        await here.hosting.reconcile(fold(*BACK[:2]))
        assert 2 == remembered(here.store, FOLDED_NAME)

    async def second(here: Here) -> None:
        assert 2 == remembered(here.store, FOLDED_NAME)

    on_node(tmp_path, first, second)


def test_the_fold_may_go_on_while_a_partition_is_made(tmp_path: Path) -> None:
    """What was decided on an older fold is taken back by the next step, and confirmed then only."""

    async def act(here: Here) -> None:
        state = fold(EVENTS)
        making = asyncio.ensure_future(here.hosting.reconcile(state))
        for _ in range(100_000):
            if here.hosting._making:
                break
            await asyncio.sleep(0)
        assert A == here.hosting._making
        state.apply(DropTopic(A), state.offset)
        assert () == here.hosting.cleared(state)
        await making
        await here.hosting.reconcile(state)
        assert (False, False) == (here.runs(A, 0), here.holds("events", 0))
        assert (A,) == here.hosting.cleared(state)

    on_node(tmp_path, act)


def test_a_topic_that_is_made_costs_no_look_at_all_the_others(tmp_path: Path) -> None:
    """Each of a thousand that are made one after the other cost a look at each before it."""

    async def act(here: Here) -> None:
        state, looks = fold(EVENTS), list[object]()
        await here.hosting.reconcile(state)
        place_here = here.hosting._place_here

        def counted(*given: Any) -> Any:
            looks.append(given)
            return place_here(*given)

        here.hosting._place_here = counted  # type: ignore[method-assign]
        for number in range(3):
            made = dataclasses.replace(EVENTS, name=f"t{number}", topic_id=f"{number:032x}")
            state.apply(made, state.offset)
            here.hosting.close_stale(state)
        assert [] == looks
        state.apply(DropTopic(A), state.offset)
        here.hosting.close_stale(state)
        assert (1, False) == (len(looks), here.runs(A, 0))

    on_node(tmp_path, act)


def test_a_partition_that_cannot_be_opened_is_said_where_people_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """/ready, the metrics, and whoever asks for its records: not "is being opened" for ever."""
    peers = (("1", Address("127.0.0.1", free_ports(1)[0])),)

    async def live(act: Callable[[InProcess, AsyncClient], Awaitable[None]]) -> None:
        node = await start(tmp_path, "1", peers)
        async with AsyncClient(node.address, options=QUICK) as client:
            await act(node, client)
        await node.server.stop()

    async def store(_: InProcess, client: AsyncClient) -> None:
        await client.create_topic("events")
        await client.append("events", b"x")

    async def look(node: InProcess, client: AsyncClient) -> None:
        with pytest.raises(UnavailableError, match=r"cannot be opened here.* bring wal/events/0"):
            await client.read("events", 0)
        faults = {check.name: check.fault for check in await node.backend.checks()}
        assert "events/0 is gone" in faults["log"]
        found = (await client.status()).store
        (said,) = found.unavailable
        assert "events/0 is gone" in said
        assert () == found.damaged, "a copy may be brought back"
        logged = [each for each in caplog.messages if "events/0 is gone" in each]
        assert 1 == len(logged), "once, not at every look"
        await client.delete_topic("events")
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not (await client.status()).store.unavailable:
                break
        assert "" == {check.name: check.fault for check in await node.backend.checks()}["log"]

    run(live(store))
    shutil.rmtree(tmp_path / "1" / "wal" / "events")
    run(live(look))
