"""Links between nodes: one that has died without a word is noticed and cut."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chronik_server import peers
from chronik_server.addresses import Address, parse_address
from chronik_server.client.channel import Channel
from chronik_server.client.options import ClientOptions
from chronik_server.peers import BACKLOG_BYTES_MAX, PeerLinks
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.events import Request, Response
from chronik_server.protocol.greeting import PeerIdentity, Welcome
from chronik_server.protocol.raft_message import RaftMessage
from chronik_server.protocol.states import Side
from chronik_server.raft import messages
from chronik_server.raft.messages import Beat
from chronik_server.tls import TlsOptions
from chronik_server.turn import Turn
from chronik_store.errors import IdentityMismatchError
from tests.ports import free_ports
from tests.server.certificates import certificates
from tests.server.serving import run, serving

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
    options = others.pop("options", ClientOptions())
    links = PeerLinks(OWN, options, lambda _peer: None, lambda _sender, _report: None, **others)
    links.raft = Raft()  # type: ignore[assignment]
    return links


def test_a_silent_link_is_cut_and_one_that_speaks_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.01)

    async def main() -> None:
        links, wire = links_of(), Wire()
        links.joined(PEER, wire)
        for _ in range(40):
            links.receive(
                "2", wire, RaftMessage("", b""), b""
            )  # even what cannot be read is a word
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


def test_two_directories_under_one_id_do_not_cut_each_other_off() -> None:
    """Two clusters of one name, one of which has a node where the other lost one."""

    async def main() -> None:
        links, wire = links_of(), Wire()
        stranger = replace(PEER, node_uuid="5" * 32)
        links.check_only(PEER)
        links.joined(PEER, wire)
        links.check_only(PEER)  # by another connection
        with pytest.raises(IdentityMismatchError, match="give each node an id of its own"):
            links.check_only(stranger)
        assert not wire.cut
        links.left(PEER, wire)
        links.check_only(stranger)  # whoever it is, nobody else is there

    run(main())


def test_a_copy_of_a_node_is_kept_out_while_the_original_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both were let in, in turn: there were two leaders in a term, and nodes that had done nothing
    wrong ended over what both had committed.
    """
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.05)

    async def main() -> None:
        links, wire = links_of(), Wire()
        again = replace(PEER, boot_id="6" * 32)
        links.joined(PEER, wire)
        for _ in range(10):
            await asyncio.sleep(0.02)
            links.receive("2", wire, RaftMessage("", b""), b"")
            with pytest.raises(IdentityMismatchError, match="end it"):
                links.check_only(again)
        async with asyncio.timeout(5):
            while links._silent_looks["2"] <= peers.ALIVE_LOOKS_MAX:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.01)
        assert not wire.cut
        links.check_only(again)  # the machine has lost power, and starts once more

        links.joined(again, wire)
        links.left(again, wire)
        links.check_only(PEER)  # it was killed

    run(main())


def test_a_peer_that_takes_nothing_is_cut_and_loses_what_waits() -> None:
    async def main() -> None:
        links, wire = links_of(), Wire()
        links.joined(PEER, wire)
        links.send("2", "", BEAT)
        assert (1, False) == (len(wire.told), wire.cut)
        wire.backlog_bytes = BACKLOG_BYTES_MAX + 1
        links.send("2", "", BEAT)
        assert (1, True) == (len(wire.told), wire.cut)

    run(main())


def test_a_certificate_that_is_not_believed_is_logged_and_the_node_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For it may be replaced, here or there; and so that who looks into the log sees it."""
    monkeypatch.setattr(peers, "RECONNECT_SECONDS", 0.01)
    files, others = certificates(tmp_path / "tls"), certificates(tmp_path / "others")
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    believed = tmp_path / "ca.pem"
    theirs, ours = (Path(each["ca.pem"]).read_bytes() for each in (others, files))
    believed.write_bytes(theirs)
    attempts, opened = [], Channel.open

    async def counted(*arguments: Any, **options: Any) -> Channel:
        attempts.append(arguments)
        return await opened(*arguments, **options)

    monkeypatch.setattr(Channel, "open", counted)

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls) as (_, address):
            links = links_of(options=ClientOptions(tls=TlsOptions(ca=str(believed))))
            nobody = Address("127.0.0.1", free_ports(1)[0])
            links.follow({"2": (parse_address(address), nobody)})
            while len(attempts) < 20:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.01)
            believed.write_bytes(ours)
            while not any("in no cluster" in each for each in caplog.messages):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await links.close()

    run(main())
    said = [each for each in caplog.messages if "is not believed" in each]
    assert 1 == len(said)
    assert "have CHRONIK_TLS_CA name the CA" in said[0]
    assert 1 == sum("cannot connect" in each for each in caplog.messages)


def identity(node_id: str) -> PeerIdentity:
    return PeerIdentity(OWN.cluster_id, node_id, node_id * 32, "4" * 32)


@pytest.mark.parametrize("who", ["2", "3"])
def test_3_what_comes_behind_a_welcome_is_of_the_node_that_is_there(who: str) -> None:
    """Addresses may be swapped: an acknowledgement of another node must not count as this one's."""
    heard: list[tuple[str, str]] = []

    class Listening(Raft):
        def receive(self, *said: Any) -> None:
            heard.append((said[0], said[1]))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Connection(Side.SERVER)
        (hello,) = wire.receive_data(await reader.read(4096))
        assert isinstance(hello, Request)
        welcome = Welcome(1, "x", OWN.cluster_id, who, "4" * 32, 1 << 20, 9, peer=identity(who))
        head, _ = messages.encode(messages.AppendEntriesResponse(7, True, 9, 1, 8, 0, 0, False))
        said = [
            *wire.send(Response(hello.request_id, welcome)),
            *wire.tell(RaftMessage("g/0", head)),
        ]
        writer.write(b"".join(bytes(part) for part in said))
        await reader.read()  # until the other side has hung up
        writer.close()
        done.set()

    done = asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        links = links_of(turn=Turn(asyncio.get_running_loop()))
        links.raft = Listening()  # type: ignore[assignment]
        port = listener.sockets[0].getsockname()[1]
        links.follow({"2": (Address("127.0.0.1", port),)})
        if who == "2":
            while not heard:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.001)
        else:
            await done.wait()
        await links.close()
        listener.close()
        assert heard == ([("2", "g/0")] if who == "2" else [])

    run(main())


def test_3_only_the_link_of_a_peer_speaks_for_it() -> None:
    heard: list[Any] = []

    async def main() -> None:
        links, old, new = links_of(), Wire(), Wire()
        links.raft.receive = lambda *said: heard.append(said)  # type: ignore[method-assign,union-attr]
        head, _ = messages.encode(messages.TimeoutNow(7))
        links.receive("2", old, RaftMessage("g", head), b"")  # it has greeted, and is not yet it
        assert [] == heard
        links.joined(PEER, old)
        links.receive("2", old, RaftMessage("g", head), b"")
        assert 1 == len(heard)
        links.joined(PEER, new)
        links.receive("2", old, RaftMessage("g", head), b"")
        assert 1 == len(heard)

    run(main())


def test_16_an_address_that_cannot_be_used_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "RECONNECT_SECONDS", 0.001)
    tried = []

    async def main() -> None:
        links = links_of()

        async def refused(_node: str, address: Address) -> None:
            tried.append(address)
            raise UnicodeError("label too long")

        monkeypatch.setattr(links, "_connect", refused)
        links.follow({"2": (Address("a" * 64, 1),)})
        while len(tried) < 2:  # noqa: ASYNC110 (`run` bounds it)
            await asyncio.sleep(0.001)
        links.follow({"2": ()})  # nobody knows where it is
        await asyncio.sleep(0.01)
        links.follow({"2": (Address("b", 1),)})
        while tried[-1].host != "b":  # noqa: ASYNC110 (`run` bounds it)
            await asyncio.sleep(0.001)
        await links.close()

    run(main())
