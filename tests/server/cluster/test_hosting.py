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
from chronik_server.hosting_notes import FOLDED_NAME
from chronik_server.metadata_commands import (
    DropTopic,
    MakeTopic,
)
from chronik_store.aio.offloop import POOL_THREADS
from chronik_store.errors import UnavailableError
from chronik_store.replicated import local_partitions, remembered
from tests.server.cluster.nodes import InProcess, free_ports, start
from tests.server.cluster.one_hosting import BACK, EVENTS, LOG, MOVED, A, B, Here, fold, on_node
from tests.server.serving import QUICK, run


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


def test_the_newest_fold_that_was_acted_on_is_kept(tmp_path: Path) -> None:
    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert 1 == remembered(here.store, FOLDED_NAME)
        await here.hosting.reconcile(fold(*BACK[:2]))
        assert 1 == remembered(here.store, FOLDED_NAME)  # nothing was made, and none removed
        await here.hosting.reconcile(fold(*MOVED))
        assert len(MOVED) == remembered(here.store, FOLDED_NAME)
        await here.hosting.reconcile(fold(*BACK))
        assert len(BACK) == remembered(here.store, FOLDED_NAME)

    async def second(here: Here) -> None:
        assert len(BACK) == remembered(here.store, FOLDED_NAME)

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
        assert (A,) == await here.hosting.stopped(state) == here.hosting.cleared(state)

    on_node(tmp_path, act)


def test_a_copy_whose_topic_is_being_deleted_by_now_is_not_said_to_belong_to_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fold goes on between the look at the disk and that at the metadata."""

    async def act(here: Here) -> None:
        state = fold(EVENTS)
        await here.hosting.reconcile(state)
        (found,) = await asyncio.to_thread(local_partitions, here.store)
        state.apply(DropTopic(A), state.offset)
        await here.hosting._leave(state, found)
        assert "names no such topic" not in caplog.text
        assert here.holds("events", 0)

        await here.hosting._leave(fold(MakeTopic("others", B, (LOG,), 1, (("2",),))), found)
        assert "events/0" in caplog.text
        assert "names no such topic" in caplog.text

    on_node(tmp_path, act)


def test_a_partition_that_could_not_be_opened_is_opened_at_the_next_look(tmp_path: Path) -> None:
    """Its group was there already, half made: nothing was opened, removed or ended any more."""

    async def act(here: Here) -> None:
        plain, failed = here.face.face_of, list[object]()

        def fails_once(*given: Any) -> Any:
            if not failed:
                failed.append(given)
                raise UnavailableError("not now")
            return plain(*given)

        here.face.face_of = fails_once  # type: ignore[method-assign]
        for runs in (False, True):
            await here.hosting.reconcile(fold(EVENTS))
            assert runs == here.runs(A, 0) == (("events", 0) in here.hosting.partitions)

    on_node(tmp_path, act)


def test_a_topic_that_is_made_costs_no_look_at_all_the_others(tmp_path: Path) -> None:
    """Each of a thousand that are made one after the other cost a look at each before it."""

    async def act(here: Here) -> None:
        state, looks = fold(EVENTS), list[object]()
        await here.hosting.reconcile(state)
        place_here = here.hosting._may_go_on

        def counted(*given: Any) -> Any:
            looks.append(given)
            return place_here(*given)

        here.hosting._may_go_on = counted  # type: ignore[method-assign]
        for number in range(3):
            made = dataclasses.replace(EVENTS, name=f"t{number}", topic_id=f"{number:032x}")
            state.apply(made, state.offset)
            here.hosting.close_stale(state)
        assert [] == looks
        state.apply(DropTopic(A), state.offset)
        here.hosting.close_stale(state)
        assert (1, False) == (len(looks), here.runs(A, 0))

    on_node(tmp_path, act)


def test_a_partition_runs_also_while_readers_wait_for_the_bucket(tmp_path: Path) -> None:
    """As many as there are threads for calls kept it closed for as long as the bucket was away."""

    async def act(here: Here) -> None:
        is_back = threading.Event()
        pool = here.face._pool
        readers = [asyncio.ensure_future(pool.run(is_back.wait)) for _ in range(POOL_THREADS)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(10):
                await here.hosting.reconcile(fold(EVENTS))
        finally:
            is_back.set()
            await asyncio.gather(*readers)
        assert here.runs(A, 0)

    on_node(tmp_path, act)


def test_what_is_amiss_is_told_also_while_readers_wait_for_the_bucket(tmp_path: Path) -> None:
    """/ready said that the server gives no answer, and the metrics of partitions were not there."""
    peers = (("1", Address("127.0.0.1", free_ports(1)[0])),)

    async def main() -> None:
        node = await start(tmp_path, "1", peers)
        is_back = threading.Event()
        pool = node.backend._face._pool
        readers = [asyncio.ensure_future(pool.run(is_back.wait)) for _ in range(POOL_THREADS)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                assert {"log", "metadata", "leaders"} == {
                    check.name for check in await node.backend.checks()
                }
                assert "1" == (await node.backend.status(None)).node_id
        finally:
            is_back.set()
            await asyncio.gather(*readers)
            await node.server.stop()

    run(main())


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
