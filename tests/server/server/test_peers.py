"""Links between nodes: one that has died without a word is noticed and cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chronik_server import peers
from chronik_server.client.options import ClientOptions
from chronik_server.peers import BACKLOG_BYTES_MAX, PeerLinks
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.raft_message import RaftMessage
from chronik_server.raft.messages import Beat
from tests.server.serving import run

OWN = PeerIdentity("0" * 32, "1", "1" * 32, "2" * 32)
PEER = PeerIdentity("0" * 32, "2", "3" * 32, "4" * 32)
BEAT = Beat("4" * 32, 1, 1, 0, ())


class Raft:
    def peer_up(self, _peer: str, _boot_id: str) -> None: ...
    def peer_down(self, _peer: str) -> None: ...
    def receive(self, *_: Any) -> None: ...


class Wire:
    """A link that goes nowhere."""

    def __init__(self) -> None:
        self.backlog_bytes = 0
        self.cut = False
        self.told: list[Any] = []

    def tell(self, message: Any, _payload: Any = b"") -> None:
        self.told.append(message)

    def close(self) -> None:
        raise AssertionError("what waits would keep a dead connection open")

    def abort(self) -> None:
        self.cut = True


def links_of(**others: Any) -> PeerLinks:
    links = PeerLinks(
        OWN, ClientOptions(), lambda _peer: None, lambda _sender, _report: None, **others
    )
    links.raft = Raft()  # type: ignore[assignment]
    return links


def test_a_silent_link_is_cut_and_one_that_speaks_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.01)

    async def main() -> None:
        links, wire = links_of(), Wire()
        links.joined(PEER, wire)
        for _ in range(40):
            links.receive("2", RaftMessage("", b""), b"")  # even what cannot be read is a word
            await asyncio.sleep(0.01)
            assert not wire.cut
        while not wire.cut:  # noqa: ASYNC110 (`run` bounds it)
            await asyncio.sleep(0.01)

    run(main())


def test_a_new_link_is_not_cut_for_the_silence_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.01)

    async def main() -> None:
        links, old, new = links_of(), Wire(), Wire()
        links.joined(PEER, old)
        await asyncio.sleep(0.04)
        links.joined(PEER, new)
        assert old.cut  # of two links of one node the newer one holds
        assert not new.cut
        links.left(PEER, old)
        assert links.is_connected("2")
        links.left(PEER, new)
        await asyncio.sleep(0.1)
        assert not new.cut  # it has ended: nobody looks any more

    run(main())


def test_a_peer_that_takes_nothing_is_cut_and_loses_what_waits() -> None:
    async def main() -> None:
        links, wire = links_of(), Wire()
        links.joined(PEER, wire)
        links.send("2", "", BEAT)
        assert (1, False) == (len(wire.told), wire.cut)
        wire.backlog_bytes = BACKLOG_BYTES_MAX + 1
        links.send("2", "", BEAT)
        assert (1, True, 1) == (len(wire.told), wire.cut, links.dropped)

    run(main())
