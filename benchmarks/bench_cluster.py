"""A cluster of three server processes on this machine, driven through the client.

Every acknowledgement comes from a quorum: two of three processes have the record on disk
(fdatasync). Client, leader and followers share the cores of this machine and its one disk. What was
acknowledged is read back through a consumer and compared, record by record.

While appends and fetches are measured the nodes build no search indexes and seal at 512 MiB, and
each turn has a topic of its own, which two seconds do not fill on the machines seen so far: the
log is measured, not what is made of it. `--defaults` measures both together, in one topic.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from benchmarks.cluster_nodes import Node, Nodes
from benchmarks.harness import Options, Report, begin, parse, percentile, scratch
from benchmarks.workload import ONE_KB, Values
from chronik_server.client import AsyncClient, ClientOptions
from chronik_store.errors import ChronikError

T = TypeVar("T")
CASES = ("append", "fetch", "failover", "idle")
BATCH = 100
IN_FLIGHT = 64
IDLE_PARTITIONS = 1000
PATIENCE_SECONDS = 60.0
OPENING_SECONDS = 600.0
QUIET = {"CHRONIK_WAL_INDEXING_ENABLED": "false", "CHRONIK_SEGMENT_BYTES": str(512 << 20)}
OPTIONS = ClientOptions(retry_seconds=PATIENCE_SECONDS)
WARM_SECONDS = 0.5
"""How long each turn appends before it is measured."""


@dataclass
class Acknowledged:
    """Where records are, by the word of the cluster: (base offset, first number, how many)."""

    runs: list[tuple[int, int, int]] = field(default_factory=list)
    numbers: int = 0

    def take(self, count: int) -> int:
        """The first of `count` fresh numbers."""
        first = self.numbers
        self.numbers += count
        return first

    async def check(self, client: AsyncClient, topic: str, values: Values) -> int:
        """Read the whole partition: what was acknowledged is where it was said to be. Returns the
        number of records read, those of unknown outcome among them.
        """
        expected = self._expected()
        offset, number = next(expected, (-1, -1))
        count = 0
        async with await client.consumer(topic) as consumer:
            async for _, record, _ in consumer:
                if record.offset == offset:
                    if record.value != values[number]:
                        raise AssertionError(f"offset {offset} is not the record {number}")
                    offset, number = next(expected, (-1, -1))
                count += 1
        if offset >= 0:
            raise AssertionError(f"offset {offset} was acknowledged and did not come back")
        return count

    def _expected(self) -> Iterator[tuple[int, int]]:
        for base, first, count in sorted(self.runs):
            for place in range(count):
                yield base + place, first + place


@dataclass(frozen=True)
class Sample:
    """One repetition. cpu: seconds of the client's process, the leader's, the two followers'."""

    records: int
    seconds: float
    each: list[float]
    cpu: tuple[float, float, float]


# --- the load ------------------------------------------------------------------------------------


async def leader_of(client: AsyncClient, nodes: Nodes, topic: str, partition: int = 0) -> Node:
    """The node that leads, once one does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        place = (await client.describe_topic(topic)).partitions[partition]
        for node in nodes.alive:
            if node.node_id == place.leader:
                return node
        await asyncio.sleep(0.05)
    raise TimeoutError(f"nobody leads {topic}/{partition}")


async def appended(
    client: AsyncClient,
    nodes: Nodes,
    values: Values,
    done: Acknowledged,
    topic: str,
    size: int,
    in_flight: int,
    seconds: float,
) -> Sample:
    """`in_flight` tasks append batches of `size` records, one after the other, for a while."""
    clock = time.perf_counter
    each: list[float] = []
    leader = await leader_of(client, nodes, topic)
    followers = [node for node in nodes.nodes if node is not leader]

    async def append_until(end: float) -> None:
        while (before := clock()) < end:
            first = done.take(size)
            batch = values.range(first, size)
            found = await client.append(topic, batch if size > 1 else batch[0])
            each.append(clock() - before)
            done.runs.append((found.base_offset, first, size))

    def cpu() -> tuple[float, ...]:
        nodes.check()
        others = sum(node.cpu_seconds() for node in followers)
        return time.process_time(), leader.cpu_seconds(), others

    before, began = cpu(), clock()
    await asyncio.gather(*(append_until(began + seconds) for _ in range(in_flight)))
    took, after = clock() - began, cpu()
    client_cpu, leader_cpu, others_cpu = (b - a for a, b in zip(before, after, strict=True))
    return Sample(len(each) * size, took, each, (client_cpu, leader_cpu, others_cpu))


async def measure_appends(directory: str, options: Options, values: Values, report: Report) -> None:
    """The three loads, each into a topic of its own; then fetches of the largest.

    That comes last, and not in turns: a segment of it that is sealed and uploaded behind its back
    is part of its price, and not of the others'.
    """
    cases = {
        "one record a call, one in flight": ("alone", 1, 1),
        f"one record a call, {IN_FLIGHT} in flight": ("singles", 1, IN_FLIGHT),
        f"{BATCH} records a call, {IN_FLIGHT} in flight": ("batches", BATCH, IN_FLIGHT),
    }
    seconds = options.extra.seconds or 2.0
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    done: dict[str, Acknowledged] = {}
    environ = {} if options.extra.defaults else QUIET
    with Nodes(os.path.join(directory, "nodes"), environ=environ) as nodes:
        client = AsyncClient(nodes.servers, options=OPTIONS)
        for name, (kind, size, in_flight) in cases.items():
            for turn in range(options.repetitions):
                say(f"{name}, turn {turn + 1} of {options.repetitions}")
                topic = kind if options.extra.defaults else f"{kind}-{turn}"
                if topic not in done:
                    done[topic] = Acknowledged()
                    await client.create_topic(topic)
                for length in (min(WARM_SECONDS, seconds), seconds):
                    sample = await appended(
                        client, nodes, values, done[topic], topic, size, in_flight, length
                    )
                samples[name].append(sample)
        for topic, all_of_it in done.items():
            say(f"{topic}: reading back {all_of_it.numbers} records")
            count = await all_of_it.check(client, topic, values)
            if count != all_of_it.numbers:
                raise AssertionError(f"{all_of_it.numbers} were appended, {count} are there")
        if "fetch" in options.extra.cases:
            await measure_fetches(client, nodes, options, report, topic)
        await client.close()
    show_appends(report, samples)


def show_appends(report: Report, samples: dict[str, list[Sample]]) -> None:
    """Figures and targets of all loads."""
    alone, singles, batches = samples
    for name, found in samples.items():
        rate = report.figure(name, "records/s", [each.records / each.seconds for each in found])
        for percent in (50, 99):
            times = [percentile(each.each, percent) * 1e3 for each in found]
            p = report.figure(f"{name}, p{percent}", "ms", times)
            if name == alone and percent == 50:
                report.at_most(f"{name}, p50", p, 1.0, "ms")
        for place, who in enumerate(("client", "leader", "both followers")):
            cpu = [1e6 * each.cpu[place] / each.records for each in found]
            report.figure(f"{name}, CPU of {who}", "us/record", cpu)
        if name == batches:
            report.at_least(name, rate, 126_000, "records/s")
        elif name == singles:
            report.at_least(name, rate, 38_000, "records/s")


async def measure_fetches(
    client: AsyncClient, nodes: Nodes, options: Options, report: Report, topic: str
) -> None:
    """A consumer reads a whole partition from its start; what it gave was compared before."""
    leader = await leader_of(client, nodes, topic)

    async def singly() -> int:
        count = 0
        async with await client.consumer(topic) as consumer:
            async for _ in consumer:
                count += 1
        return count

    async def in_runs() -> int:
        count = 0
        async with await client.consumer(topic) as consumer:
            async for run in consumer.runs():
                count += len(run.records)
        return count

    ways = {"record by record": singly, "run by run": in_runs}
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for turn in range(options.repetitions):
        say(f"fetch, turn {turn + 1} of {options.repetitions}")
        for way, read in ways.items():
            cpu, leader_cpu = time.process_time(), leader.cpu_seconds()
            began = time.perf_counter()
            count = await read()
            took = time.perf_counter() - began
            cpu, leader_cpu = time.process_time() - cpu, leader.cpu_seconds() - leader_cpu
            found[way].append((count / took, 1e6 * cpu / count, 1e6 * leader_cpu / count))
    for way, turns in found.items():
        name = f"fetch from the start, {way}"
        rates, clients, leaders = (list(column) for column in zip(*turns, strict=True))
        rate = report.figure(name, "records/s", rates)
        report.figure(f"{name}, CPU of client", "us/record", clients)
        report.figure(f"{name}, CPU of leader", "us/record", leaders)
        report.at_least(name, rate, 500_000, "records/s")


# --- a leader that is killed, and groups that do nothing -----------------------------------------


async def failover(directory: str, values: Values) -> float:
    """Seconds from the SIGKILL of the leader, under load, to the acknowledgement of an append that
    began behind it: answers that were on their way do not count.
    """
    topic, done = "events", Acknowledged()
    with Nodes(directory) as nodes:
        client = AsyncClient(nodes.servers, options=OPTIONS)
        await client.create_topic(topic)
        leader = await leader_of(client, nodes, topic)
        ending = asyncio.Event()

        async def append() -> None:
            first = done.take(1)
            found = await client.append(topic, values[first])
            done.runs.append((found.base_offset, first, 1))

        async def load() -> None:
            while not ending.is_set():
                try:
                    await append()
                except ChronikError as error:
                    say(f"not acknowledged: {error}")

        tasks = [asyncio.create_task(load()) for _ in range(8)]
        await asyncio.sleep(2.0)
        leader.process.kill()
        killed_at = time.perf_counter()
        await asyncio.wait_for(append(), PATIENCE_SECONDS)
        took = time.perf_counter() - killed_at
        ending.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_SECONDS)
        await done.check(client, topic, values)
        await client.close()
        return took


async def idle(directory: str, options: Options) -> tuple[float, list[float]]:
    """Seconds until all partitions of a new topic are led, and the percent of a core that each node
    takes when leadership is spread and the groups have nothing to do.
    """
    seconds = 10.0 if options.quick else 30.0
    with Nodes(directory) as nodes:
        client = AsyncClient(nodes.servers, options=OPTIONS)
        await client.create_topic("quiet", partitions=IDLE_PARTITIONS)
        began = time.monotonic()
        while any(p.leader is None for p in (await client.describe_topic("quiet")).partitions):
            if time.monotonic() > began + OPENING_SECONDS:
                raise TimeoutError("some of the partitions have no leader")
            await asyncio.sleep(0.5)
        opening = time.monotonic() - began
        await asyncio.sleep(20.0)
        before = [node.cpu_seconds() for node in nodes.nodes]
        await asyncio.sleep(seconds)
        after = [node.cpu_seconds() for node in nodes.nodes]
        await client.close()
        return opening, [100 * (b - a) / seconds for a, b in zip(before, after, strict=True)]


async def measure_failovers(
    directory: str, options: Options, values: Values, report: Report
) -> None:
    """Each in a fresh cluster."""
    times = []
    for turn in range(options.repetitions):
        say(f"failover, turn {turn + 1} of {options.repetitions}")
        times.append(await failover(os.path.join(directory, f"failover-{turn}"), values))
    report.figure("SIGKILL of the leader to the next acknowledgement", "s", times)
    report.at_most("failover, the slowest", max(times), 2.0, "s")


# --- the program ---------------------------------------------------------------------------------


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """On uvloop where it is installed, as the servers do."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", choices=(*CASES, []), help="all, if none is named")
    parser.add_argument("--seconds", type=float, help="of each load in each turn")
    parser.add_argument("--defaults", action="store_true", help="with search indexes, as installed")


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, repetitions=3, add=_arguments)
    options.extra.cases = options.extra.cases or list(CASES)
    cases = options.extra.cases
    report = begin(
        "Cluster",
        options,
        "acknowledged when two of three processes have it on disk (fdatasync per group)",
    )
    if not options.extra.defaults:
        report.notes.append("no search indexes, segments of 512 MiB; --defaults measures with both")
    values = Values(ONE_KB)
    with scratch(options) as directory:
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "append": partial(measure_appends, directory, options, values, report),
            "failover": partial(measure_failovers, directory, options, values, report),
        }

        async def all_parts() -> None:
            for name, part in parts.items():
                if name in cases or (name == "append" and "fetch" in cases):
                    await part()
            if "idle" in cases:
                say(f"{IDLE_PARTITIONS} idle partitions")
                opening, shares = await idle(os.path.join(directory, "idle"), options)
                report.figure(f"{IDLE_PARTITIONS} new partitions, all led after", "s", [opening])
                report.figure(f"{IDLE_PARTITIONS} idle partitions, a node", "% of a core", shares)
                report.at_most("idle partitions, the busiest node", max(shares), 10.0, "%")

        run(all_parts())
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
