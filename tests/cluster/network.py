"""The network between the nodes of a test: each listens behind a front that can cut, hold and slow.

Place: under the tests of partitions. Promise: who calls is read from its greeting, so that a cut
between two nodes leaves clients alone; directions are cut one by one. Invariant: bytes that a
connection has taken arrive in order and whole, or the connection ends: what TCP promises.

A cut is of one of three kinds:

    hold     nothing arrives while it lasts; what was sent arrives, late, when it is over
    reset    connections break, and new ones are refused
    forget   as hold, but connections of before stay dead for good and nobody is told: a firewall
             that lost its table, or a machine that lost its power
"""

import asyncio
import itertools
import socket
import struct
import threading
from collections import defaultdict

from chronik_server.protocol.connection import Connection
from chronik_server.protocol.events import Request
from chronik_server.protocol.states import Side
from chronik_store.errors import ChronikError

CHUNK_BYTES = 1 << 16
CHUNKS_UNDER_WAY = 64
CLIENT = "client"


class _Direction:
    """From one node to another. Belongs to the network's loop."""

    def __init__(self):
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.refuses = False
        self.delay_seconds = 0.0
        self.bytes_per_second = 0.0


class Network:
    """Fronts on a thread and loop of their own. A context manager; thread-safe."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._directions = defaultdict(_Direction)
        self._connections = set()
        self._tasks = set()
        self._servers = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    # --- what tests say --------------------------------------------------------------------------

    def front(self, node_id, port, upstream_port):
        """Listen on `port` for `node_id`, which itself listens on `upstream_port`."""
        self._call(self._listen(node_id, port, upstream_port))

    def cut(self, source, target, how="hold"):
        """Nothing gets from one node to the other, until `heal`."""
        self._call(self._cut([(source, target)], how))

    def isolate(self, node_id, others, how="hold"):
        """Nothing gets from a node to the others, nor back."""
        pairs = [pair for each in others for pair in ((node_id, each), (each, node_id))]
        self._call(self._cut(pairs, how))

    def slow(self, node_ids, *, delay_seconds=0.0, bytes_per_second=0.0):
        """Every direction between these nodes takes its time, until `heal`."""
        self._call(self._slow(node_ids, delay_seconds, bytes_per_second))

    def heal(self):
        """All is well again."""
        self._call(self._heal())

    # --- on the loop -----------------------------------------------------------------------------

    async def _listen(self, node_id, port, upstream_port):
        async def accept(reader, writer):
            task = asyncio.current_task()
            self._tasks.add(task)
            try:
                await _Crossing(self, node_id, reader, writer).run(upstream_port)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # one side has gone, and the other is told by the closing
            finally:
                self._tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", port)
        self._servers.append(server)

    async def _cut(self, pairs, how):
        for pair in pairs:
            direction = self._directions[pair]
            if how == "reset":
                direction.refuses = True
            else:
                direction.is_open.clear()
        for crossing in list(self._connections):
            if crossing.ways & set(pairs):
                if how == "reset":
                    crossing.reset()
                elif how == "forget":
                    crossing.is_dead = True

    async def _slow(self, node_ids, delay_seconds, bytes_per_second):
        for pair in itertools.permutations(node_ids, 2):
            self._directions[pair].delay_seconds = delay_seconds
            self._directions[pair].bytes_per_second = bytes_per_second

    async def _heal(self):
        for direction in self._directions.values():
            direction.refuses = False
            direction.delay_seconds = direction.bytes_per_second = 0.0
            direction.is_open.set()

    async def _close(self):
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Crossing:
    """One connection through a front."""

    def __init__(self, network, node_id, reader, writer):
        self._network = network
        self._node_id = node_id
        self._reader = reader
        self._writer = writer
        self._upstream = None
        self.ways = set()
        self.is_dead = False

    async def run(self, upstream_port):
        """From its greeting to its end."""
        try:
            caller, greeting = await self._greeted()
            there, back = (caller, self._node_id), (self._node_id, caller)
            self.ways = {there, back}
            self._network._connections.add(self)
            directions = self._network._directions
            if directions[there].refuses or directions[back].refuses:
                self.reset()
                return
            await directions[there].is_open.wait()
            upstream, self._upstream = await asyncio.open_connection("127.0.0.1", upstream_port)
            self._upstream.write(greeting)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(directions[there], self._reader, self._upstream))
                group.create_task(self._carry(directions[back], upstream, self._writer))
        except* OSError:
            pass  # either side went: both are closed below
        finally:
            self._network._connections.discard(self)
            self._writer.close()
            if self._upstream is not None:
                self._upstream.close()

    async def _greeted(self):
        """(node id or CLIENT, the bytes read so far)."""
        connection, seen = Connection(Side.SERVER), b""
        while True:
            data = await self._reader.read(CHUNK_BYTES)
            seen += data
            if not data:
                return CLIENT, seen
            try:
                events = connection.receive_data(data)
            except ChronikError:
                return CLIENT, seen  # the node will say what it thinks of that
            if events:
                hello = events[0].message if isinstance(events[0], Request) else None
                peer = getattr(hello, "peer", None)
                return (CLIENT if peer is None else peer.node_id), seen

    async def _carry(self, direction, reader, writer):
        """Bytes of one direction, each chunk not before its time."""
        under_way = asyncio.Queue(CHUNKS_UNDER_WAY)

        async def take():
            try:
                while data := await reader.read(CHUNK_BYTES):
                    await under_way.put((self._network._loop.time(), data))
            except OSError:
                pass  # broken: an end like any other
            await under_way.put((0.0, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                came_at, data = await under_way.get()
                if not data:
                    break
                await self._wait(direction, came_at, len(data))
                if not self.is_dead:
                    writer.write(data)
                    await writer.drain()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        # An end is news like any other: a dead connection tells nobody.
        await direction.is_open.wait()
        if self.is_dead:
            await asyncio.Event().wait()
        raise ConnectionResetError

    async def _wait(self, direction, came_at, size):
        loop = self._network._loop
        if direction.delay_seconds:
            await asyncio.sleep(max(0.0, came_at + direction.delay_seconds - loop.time()))
        if direction.bytes_per_second:
            await asyncio.sleep(size / direction.bytes_per_second)
        await direction.is_open.wait()

    def reset(self):
        """Break it, with RST; an end that has gone already has no socket any more."""
        for writer in (self._writer, self._upstream):
            connection = None if writer is None else writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
