"""Connections between simulated machines promise what TCP promises, and no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chronik_server.testing.servers.simulated_loop import SimulatedLoop
from chronik_server.testing.servers.wires import HIGH_WATER_BYTES, WINDOW_BYTES, Wires
from chronik_server.testing.servers.world import end_all
from chronik_store.testing.virtual_time import Machine, Simulation

PORT = 7411


class Peer(asyncio.BufferedProtocol):
    """Keeps what it hears. small: reads into a buffer of so many bytes."""

    def __init__(self, small: int = 1000) -> None:
        self.heard = b""
        self.events: list[str] = []
        self.transport: Any = None
        self._buffer = bytearray(small)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._buffer[:nbytes]

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost" if exc is None else type(exc).__name__)


class Net:
    """A machine that listens, and a story beside it."""

    def __init__(self) -> None:
        self.simulation = Simulation(3)
        self.wires = Wires(random.Random(3), (0.001, 0.01))
        self.machine: Machine = self.simulation.machine("server")
        self.loops: list[SimulatedLoop] = []
        self.accepted: list[Peer] = []
        self.listen()

    def listen(self) -> None:
        """Its process."""
        self.loop = loop = self._loop("server", self.machine._life)

        async def serve() -> None:
            def accept() -> Peer:
                self.accepted.append(Peer())
                return self.accepted[-1]

            await loop.create_server(accept, "server", PORT)
            await asyncio.Event().wait()

        self.machine.spawn(lambda: loop.run_until_complete(serve()), name="process")

    def _loop(self, host: str, owner: Any) -> SimulatedLoop:
        self.loops.append(SimulatedLoop(self.simulation._scheduler, owner, host, self.wires))
        return self.loops[-1]

    def run(self, story: Callable[[Net], Awaitable[None]]) -> None:
        def main() -> None:
            self._loop("client", self.simulation._driver).run_until_complete(story(self))

        try:
            self.simulation.run(main, limit_seconds=1000.0)
        finally:
            end_all(self.simulation, self.loops)

    async def connect(self) -> Peer:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(Peer, "server", PORT)
        return peer


async def _late() -> None:
    await asyncio.sleep(1.0)


def test_bytes_come_in_order_in_pieces_of_any_size_and_both_ways() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        sent = [bytes([number % 251]) * (number * 7 % 400) for number in range(300)]
        for part in sent:
            one.transport.write(part)
        await _late()
        (other,) = net.accepted
        assert other.heard == b"".join(sent)
        other.transport.writelines([b"an", b"swer"])
        await _late()
        assert one.heard == b"answer"

    Net().run(story)


def test_who_closes_is_heard_to_the_end_and_hangs_up() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        one.transport.write(b"x" * 3 * WINDOW_BYTES)
        one.transport.close()
        one.transport.write(b"never")
        await _late()
        (other,) = net.accepted
        assert other.heard == b"x" * 3 * WINDOW_BYTES
        assert other.events == ["made", "eof", "lost"]
        assert one.events[-1] == "lost"

    Net().run(story)


def test_who_aborts_is_lost_at_once() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        await _late()
        one.transport.abort()
        await _late()
        assert one.events == ["made", "lost"]
        assert net.accepted[0].events == ["made", "ConnectionResetError"]

    Net().run(story)


def test_a_killed_process_hangs_up_and_its_host_refuses() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        await _late()
        net.wires.process_ended(net.loop)
        net.machine.kill()
        await _late()
        assert one.events == ["made", "ConnectionResetError"]
        with pytest.raises(ConnectionRefusedError):
            await net.connect()

    Net().run(story)


def test_a_host_without_power_says_nothing_and_refuses_what_comes_once_it_is_back() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        await _late()
        net.wires.silent.add("server")
        net.machine.crash("lost")
        one.transport.write(b"hello?")
        await asyncio.sleep(60)
        assert one.events == ["made"]
        asked = asyncio.ensure_future(net.connect())
        await asyncio.sleep(60)
        assert not asked.done()

        net.machine.restart()
        net.wires.silent.discard("server")
        net.listen()
        await _late()
        assert one.events == ["made", "ConnectionResetError"]
        two = await asked
        two.transport.write(b"you")
        await _late()
        assert net.accepted[-1].heard == b"you"

    Net().run(story)


@pytest.mark.parametrize("way", [("client", "server"), ("server", "client")])
def test_what_is_cut_comes_when_it_is_healed(way: tuple[str, str]) -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        await _late()
        (other,) = net.accepted
        net.wires.cut.add(way)
        one.transport.write(b"there")
        other.transport.write(b"back")
        await asyncio.sleep(30)
        is_heard = (other.heard == b"there", one.heard == b"back")
        assert is_heard == (way[0] == "server", way[0] == "client")
        net.wires.heal()
        await _late()
        assert (other.heard, one.heard) == (b"there", b"back")

    Net().run(story)


def test_who_does_not_read_stops_who_writes() -> None:
    async def story(net: Net) -> None:
        one = await net.connect()
        await _late()
        (other,) = net.accepted
        other.transport.pause_reading()
        one.transport.write(b"x" * (WINDOW_BYTES + HIGH_WATER_BYTES))
        await _late()
        assert one.events == ["made"]
        one.transport.write(b"y")
        assert one.events == ["made", "pause"]
        assert one.transport.get_write_buffer_size() == HIGH_WATER_BYTES + 1
        assert other.heard == b""
        net.loop.from_outside(other.transport.resume_reading)
        await _late()
        assert one.events == ["made", "pause", "resume"]
        assert len(other.heard) == WINDOW_BYTES + HIGH_WATER_BYTES + 1

    Net().run(story)


def test_connections_of_a_host_break_at_both_ends() -> None:
    async def story(net: Net) -> None:
        ones = [await net.connect() for _ in range(8)]
        await _late()
        net.wires.break_some("server")
        await _late()
        broken = [number for number, one in enumerate(ones) if one.events[-1] != "made"]
        assert 0 < len(broken) < 8
        for number, (one, other) in enumerate(zip(ones, net.accepted, strict=True)):
            assert (one.events[-1] != "made") == (other.events[-1] != "made") == (number in broken)

    Net().run(story)


def test_a_port_is_taken_by_one_listener_at_a_time() -> None:
    async def story(net: Net) -> None:
        await _late()
        loop = asyncio.get_running_loop()
        await loop.create_server(Peer, "client", PORT)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Peer, "client", PORT)

    Net().run(story)
