"""Topics of a cluster: what a second `create` means, and who is said to lead."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import pytest

from chronik_server import calling
from chronik_server.cli_remote import _partitions
from chronik_server.client import AsyncClient, Client
from chronik_server.cluster_topics import OFFSET_MAX, ClusterTopics
from chronik_server.errors import CertificateError, NotLeaderError
from chronik_server.metadata import Metadata, group_of
from chronik_server.metadata_commands import AdmitNode, DropTopic, MakeTopic
from chronik_server.protocol.data import Search
from chronik_server.protocol.topics import CreateTopic
from chronik_server.raft.liveness import NodeLiveness
from chronik_server.raft.messages import Beat
from chronik_store.environment import Environment
from chronik_store.errors import TopicExistsError, TopicNotFoundError, UnavailableError
from tests.server.cluster.nodes import clustered, servers
from tests.server.serving import ONCE, QUICK, run

A, B, LOG = "aa" * 16, "bb" * 16, "cc" * 16
Ask = Callable[[ClusterTopics], Coroutine[Any, Any, object]]


class Time:
    """A loop that only tells the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now


def topics(liveness: object = None, **parts: Any) -> ClusterTopics:
    """On node "1", which leads the metadata; `events` has two partitions."""
    state = Metadata()
    state.apply(AdmitNode("1", "h:1", "member"), 0)
    state.apply(MakeTopic("events", A, (LOG, LOG), 1, (("1",), ("2",))), 1)
    leads = types.SimpleNamespace(consensus=types.SimpleNamespace(is_ready=True))
    meta = parts.get("meta", leads)
    group: Any = types.SimpleNamespace(part=meta, is_current=True, state=state)
    hosted = parts.get("hosted", {})
    hosting: Any = types.SimpleNamespace(running=lambda topic, part: hosted.get((topic.name, part)))

    async def is_free(_name: str) -> None:
        pass

    async def commit(command: Any) -> None:
        state.apply(command, 2)

    group.command = commit
    raft: Any = types.SimpleNamespace(node_id="1", liveness=liveness)
    return ClusterTopics(
        group, hosting, raft, env=Environment(), address_of=lambda node: f"h:{node}",
        is_connected=lambda node: node not in parts.get("away", ()),
        name_is_free=parts.get("is_free", is_free), options=None,  # type: ignore[arg-type]
    )  # fmt: skip


class Meta:
    """The metadata's own group, on a node that leads it or believes so."""

    def __init__(self, *, is_ready: bool = True, is_cut_off: bool = False) -> None:
        self.consensus = self
        self.is_ready = is_ready
        self.barriers = 0
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while a barrier is waited for."""
        self._is_cut_off = is_cut_off

    async def read_barrier(self) -> int:
        self.barriers += 1
        self.meanwhile()
        if self._is_cut_off:
            raise UnavailableError("leadership has ended", durability="unknown")
        return 0

    def not_leader(self) -> NotLeaderError:
        return NotLeaderError("led by nobody that this node knows of")


def nameless(found: ClusterTopics) -> Coroutine[Any, Any, object]:
    return found.topic("other")


def numberless(found: ClusterTopics) -> Coroutine[Any, Any, object]:
    return found.partition("events", 2)


def of_another(found: ClusterTopics) -> Coroutine[Any, Any, object]:
    return found.partition("events", 0, B)


def searched(found: ClusterTopics) -> Coroutine[Any, Any, object]:
    return found.search(Search("events", "x", partition=2))


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_topic_that_has_enough_partitions_is_accepted(partitions: int) -> None:
    liveness = types.SimpleNamespace(claimant=lambda _group: None)
    request = CreateTopic("events", partitions, exist_ok=True)
    assert len(asyncio.run(topics(liveness).create(request)).partitions) == 2


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_a_topic_that_is_not_to_exist_is_refused_by_name(partitions: int) -> None:
    with pytest.raises(TopicExistsError, match="exists with 2 partitions"):
        asyncio.run(topics().create(CreateTopic("events", partitions)))


def test_a_topic_that_is_made_is_said_to_be_when_its_name_is_still_free() -> None:
    """A namesake may have been made and dropped since the first look, and its copies be there yet:
    who asks is told to ask again, and then gets the topic.
    """
    asked = []

    async def is_free(name: str) -> None:
        asked.append(name in created._group.state.topics)
        if len(asked) == 2:
            raise UnavailableError("the namesake that was deleted is still on node 2")

    nobody_leads: Any = types.SimpleNamespace(claimant=lambda _group: None)
    created = topics(nobody_leads, is_free=is_free)
    with pytest.raises(UnavailableError, match="namesake"):
        asyncio.run(created.create(CreateTopic("new")))
    assert asked == [False, True]

    made = asyncio.run(created.create(CreateTopic("new", exist_ok=True)))
    assert made.topic_id == asyncio.run(created.topic("new")).topic_id


@pytest.mark.parametrize("away", ["23", "24", "45"])
def test_a_new_topic_has_a_majority_that_is_there_if_there_is_one(away: str) -> None:
    """More copies were asked for than nodes are there: both that are away were taken, and nothing
    could be appended.
    """
    found = topics(types.SimpleNamespace(claimant=lambda _group: None), away=away)
    for node in "2345":
        found._group.state.apply(AdmitNode(node, f"h:{node}", "member"), 1)
    made = asyncio.run(found.create(CreateTopic("new", 2, replicas=4)))

    for place in made.partitions:
        assert set("12345") - set(away) < set(place.replicas)
        assert len(place.replicas) == 4


def test_who_does_not_lead_the_metadata_does_not_say_that_a_partition_is_not_there() -> None:
    """A namesake with more of them may just have been created."""
    meta = Meta(is_ready=False)
    with pytest.raises(NotLeaderError):
        asyncio.run(numberless(topics(meta=meta)))
    assert 0 == meta.barriers


@pytest.mark.parametrize("ask", [nameless, numberless, of_another])
def test_a_leader_that_was_cut_off_does_not_say_what_there_is_not(ask: Ask) -> None:
    """Another leads, perhaps, and has created it."""
    with pytest.raises(NotLeaderError, match="nobody"):
        asyncio.run(ask(topics(meta=Meta(is_cut_off=True))))


@pytest.mark.parametrize("ask", [nameless, numberless, of_another, searched])
def test_what_is_not_there_is_said_when_a_quorum_has_confirmed_the_leader(ask: Ask) -> None:
    meta = Meta()
    with pytest.raises(TopicNotFoundError):
        asyncio.run(ask(topics(meta=meta)))
    assert 1 == meta.barriers


@pytest.mark.parametrize("what", ["nothing is read", "a part is read"])
def test_a_node_that_reads_the_metadata_does_not_say_what_there_is_not(what: str) -> None:
    """Of a directory that was converted the topics were "none" for more than a second."""
    known = topics(meta=Meta())
    assert ["events"] == [info.name for info in known.list_all()]
    group: Any = known._group
    if what == "nothing is read":
        group.state = Metadata()
    else:
        group.is_current = False

    with pytest.raises(UnavailableError, match="not known here yet"):
        known.list_all()
    with pytest.raises(UnavailableError, match="not known here yet"):
        asyncio.run(known.topic("nobody"))


def test_what_is_created_while_the_leader_is_confirmed_is_there() -> None:
    part, meta = object(), Meta()
    found = topics(meta=meta)
    state = found._group.state
    bigger = MakeTopic("events", B, (LOG,) * 3, 1, (("1",),) * 3)
    other = MakeTopic("other", "dd" * 16, (LOG,), 1, (("1",),))

    def namesake() -> None:
        state.apply(DropTopic(A), 3)
        state.apply(bigger, 4)

    meta.meanwhile = lambda: state.apply(other, 2)
    assert other.topic_id == asyncio.run(found.topic("other")).topic_id

    hosting: Any = found._hosting
    hosting.running = lambda topic, _: part if topic.topic_id == B else None
    meta.meanwhile = namesake
    assert part is asyncio.run(found.partition("events", 2, B))


def test_who_asks_for_one_topic_is_not_given_another_of_its_name() -> None:
    found = topics(meta=(meta := Meta()), hosted={("events", 0): (part := object())})
    assert part is asyncio.run(found.partition("events", 0, A))
    assert 0 == meta.barriers
    with pytest.raises(TopicNotFoundError, match="another one was made under its name"):
        asyncio.run(found.partition("events", 0, B))
    found._group.state.apply(DropTopic(A), 2)
    with pytest.raises(TopicNotFoundError, match="no topic 'events' here"):
        asyncio.run(found.partition("events", 0, A))


def test_a_search_of_a_partition_that_is_not_there_says_so(tmp_path: Path) -> None:
    """It said that the server had failed."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("x", partitions=2)
            with pytest.raises(TopicNotFoundError, match="partitions 0 to 1, not 2"):
                await client.search("x", "found", partition=2)

    run(main())


def test_a_node_that_has_fallen_silent_is_no_leader_any_more() -> None:
    clock: Any = Time()
    liveness = NodeLiveness(
        loop=clock, boot_id="f0" * 16, beat_seconds=0.1, patience_seconds=1.5,
        send=lambda _peer, _message: None, on_up=lambda _peer: None, on_down=lambda _peer: None,
    )  # fmt: skip
    claims = tuple((group_of(A, number), 7) for number in range(2))
    liveness.on_beat("2", Beat("f1" * 16, 1, 1, 0, claims))
    learner = types.SimpleNamespace(consensus=types.SimpleNamespace(leader="2", term=7))
    found = topics(liveness, hosted={("events", 0): learner})

    def leaders() -> list[str | None]:
        events = asyncio.run(found.topic("events"))
        return [place.leader for place in found.described(events).partitions]

    assert leaders() == ["2", "2"]
    clock.now += 1.6
    assert leaders() == [None, None]


@pytest.mark.parametrize("partition", [None, 1], ids=["all", "one"])
def test_a_partition_whose_nodes_are_away_is_a_gap_of_the_answer(
    tmp_path: Path, partition: int | None
) -> None:
    """Said at once, and not by a connection that is given up with all that was asked on it."""

    async def main() -> None:
        async with clustered(tmp_path, 2) as nodes:
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("x", partitions=2, replicas=1)
                for number in range(2):
                    await client.append("x", b"found %d" % number, partition=number)
                places = (await client.describe_topic("x")).partitions
                assert 2 == (await client.search("x", "found")).total
            where = {place.partition: place.replicas[0] for place in places}
            (away,) = [node for node in nodes if node.node_id == where[1]]
            (left,) = [node for node in nodes if node.node_id == where[0]]
            await away.server.stop()
            async with AsyncClient(left.address, options=ONCE) as client:
                search = functools.partial(client.search, "x", "found", partition=partition)
                loop = asyncio.get_running_loop()
                begun = loop.time()
                found = await search(deadline_seconds=2)
                assert loop.time() - begun < 4
                (gap,) = [each for each in found.coverage if not each.complete]
                assert (1, ((0, OFFSET_MAX),)) == (gap.partition, gap.missing)
                assert "cannot connect" in gap.reasons[0]
                assert (1 if partition is None else 0) == found.total == len(found.hits)
                assert not found.total_is_exact
                with pytest.raises(UnavailableError):
                    await search(require_complete=True)
                for start, stop in ((None, 0), (5, 3), (7, 7)):
                    found = await search(start=start, stop=stop, require_complete=True)
                    assert found.total_is_exact
                    assert [] == [each for each in found.coverage if not each.complete]
                found = await search(stop=9)
                (gap,) = [each for each in found.coverage if not each.complete]
                assert ((0, 9),) == gap.missing

    run(main())


def test_who_hears_no_leader_of_the_metadata_cannot_say_that_it_has_searched_everything(
    tmp_path: Path,
) -> None:
    """The topic may have got partitions that nobody has told it of: it left them out in silence."""

    async def main() -> None:
        async with clustered(tmp_path, 2) as nodes:
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                (place,) = (await client.create_topic("x", replicas=1)).partitions
                await client.append("x", b"found")
                found = await client.search("x", "found", require_complete=True)
                assert 1 == found.total
            (left,) = [node for node in nodes if node.node_id in place.replicas]
            (away,) = [node for node in nodes if node is not left]
            await away.server.stop()
            async with AsyncClient(left.address, options=QUICK) as client:
                for _ in range(200):
                    if left.backend._group.part.consensus.leader is None:
                        break
                    await asyncio.sleep(0.05)
                assert 1 == (await client.search("x", "found")).total
                one = await client.search("x", "found", partition=0, require_complete=True)
                assert 1 == one.total
                search = functools.partial(client.search, "x", "found", require_complete=True)
                with pytest.raises(UnavailableError, match="may have more partitions"):
                    await search()
                assert 0 == (await search(start=5, stop=5)).total

    run(main())


def test_a_partition_whose_node_is_full_of_clients_is_searched_all_the_same(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with clustered(tmp_path, 2, connections_max=2) as nodes:
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("x", partitions=2, replicas=1)
                for number in range(2):
                    await client.append("x", b"found", partition=number)
                places = (await client.describe_topic("x")).partitions
            where = {place.partition: place.replicas[0] for place in places}
            (full,) = [node for node in nodes if node.node_id == where[1]]
            (other,) = [node for node in nodes if node.node_id == where[0]]
            async with (
                AsyncClient(full.address, options=ONCE) as first,
                AsyncClient(full.address, options=ONCE) as second,
                AsyncClient(full.address, options=ONCE) as third,
                AsyncClient(other.address, options=ONCE) as client,
            ):
                await first.ping()
                await second.ping()
                with pytest.raises(UnavailableError, match="the most allowed"):
                    await third.ping()
                found = await client.search("x", "found", require_complete=True)
                assert 2 == found.total

    run(main())


def test_what_another_node_knows_no_more_is_a_gap_of_a_search_by_one_that_has_not_heard_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namesake with fewer partitions was created: the search was refused whole, and for good."""

    class Knowing(AsyncClient):
        async def search(self, *_: object, **__: object) -> NoReturn:
            raise TopicNotFoundError("topic 'x' has partitions 0 to 0, not 1", topic="x")

    async def main() -> None:
        async with clustered(tmp_path, 2) as nodes:
            monkeypatch.setattr(calling, "AsyncClient", Knowing)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("x", partitions=2, replicas=1)
                found = await client.search("x", "found")
                (gap,) = [each for each in found.coverage if not each.complete]
                assert "has not heard" in gap.reasons[0]
                with pytest.raises(UnavailableError, match="has not heard"):
                    await client.search("x", "found", require_complete=True)

    run(main())


def test_a_node_whose_certificate_is_not_believed_is_a_gap_like_one_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who searches has proved who it is, and must not be told that it has not."""

    class Disbelieving(AsyncClient):
        async def search(self, *_: object, **__: object) -> NoReturn:
            raise CertificateError("the certificate of 2 is not believed")

    async def main() -> None:
        async with clustered(tmp_path, 2) as nodes:
            monkeypatch.setattr(calling, "AsyncClient", Disbelieving)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("x", partitions=2, replicas=1)
                found = await client.search("x", "found")
                (gap,) = [each for each in found.coverage if not each.complete]
                assert ("the certificate of 2 is not believed",) == gap.reasons
                with pytest.raises(UnavailableError, match="certificate"):
                    await client.search("x", "found", require_complete=True)

    run(main())


def test_status_does_not_ask_who_lives_where_a_removed_node_did(tmp_path: Path) -> None:
    async def main() -> None:
        async def another(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example\r\n" * 10)
            writer.close()

        async with clustered(tmp_path, 2) as nodes:
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("x", partitions=2, replicas=1)
                for number in range(2):
                    await client.append("x", b"v", partition=number)
                mail = await asyncio.start_server(another, "127.0.0.1", 0)
                host, port = mail.sockets[0].getsockname()
                await client.add_node("0", f"{host}:{port}")
                await client.remove_node("0")
                for _ in range(100):
                    states = {each.node_id: each.state for each in (await client.cluster()).nodes}
                    if states["0"] == "removed":
                        break
                    await asyncio.sleep(0.05)

            def look() -> list[int]:
                with Client(nodes[0].address, options=QUICK) as blocking:
                    return [part.partition for part in _partitions(blocking, "x")]

            assert [0, 1] == await asyncio.to_thread(look)
            mail.close()

    run(main())
