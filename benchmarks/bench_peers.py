"""The same appends and reads in SQLite, LMDB and RocksDB, as far as they are installed.

Each peer is told to be durable when a write returns: SQLite in WAL mode with synchronous=FULL, LMDB
by its default, RocksDB with sync=True. `pip install lmdb rocksdict` adds the two; neither is a
dependency of Chronik.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from benchmarks.bench_append import NOT_WAITED_FOR as AHEAD
from benchmarks.bench_append import Ahead
from benchmarks.harness import begin, in_turns, parse, percentile, ratios, scratch
from benchmarks.workload import ONE_KB, TOPIC, RawFile, Values, quiet_config
from chronik_store import PartitionLog

GROUP = 100
WARM_GROUPS = 700
"""70 MB: each is measured as it is after its first second, not while its memory is new."""
POINT_READS = 2000
_KEY = struct.Struct(">Q").pack


class Peer(Protocol):
    """A store of numbered values."""

    def append(self, first: int, values: list[bytes]) -> None:
        """One durable group."""
        ...

    def settle(self) -> None:
        """Return when all groups are durable."""
        ...

    def read_all(self) -> Iterator[bytes]:
        """All values in order."""
        ...

    def read(self, number: int) -> bytes: ...
    def close(self) -> None: ...


class AtOnce:
    """What is appended is durable when `append` returns."""

    def settle(self) -> None:
        """Nothing is under way."""


class Chronik(AtOnce):
    def __init__(self, path: str) -> None:
        self._log = PartitionLog.open(path, topic=TOPIC, config=quiet_config())

    def append(self, first: int, values: list[bytes]) -> None:
        self._log.append(values)

    def read_all(self) -> Iterator[bytes]:
        for batch in self._log.read_batches(0):
            yield from batch.values()

    def read(self, number: int) -> bytes:
        return self._log.read(number, max_records=1).records[0].value

    def close(self) -> None:
        self._log.close()


class ChronikAhead(Chronik):
    """By `append_nowait`: durable when its future is done, with up to 32 others under way."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._ahead = Ahead(self._log)

    def append(self, first: int, values: list[bytes]) -> None:
        self._ahead.append(values)

    def settle(self) -> None:
        self._ahead.drain()


class Raw(AtOnce):
    """One write and one fdatasync a group, into zeros written before; reads by position."""

    def __init__(self, path: str, size_bytes: int) -> None:
        os.mkdir(path)
        self._file = RawFile(path, size_bytes)

    def append(self, first: int, values: list[bytes]) -> None:
        self._file.append(values)

    def read_all(self) -> Iterator[bytes]:
        return self._file.values(ONE_KB)

    def read(self, number: int) -> bytes:
        return self._file.read(number * ONE_KB, ONE_KB)

    def close(self) -> None:
        self._file.close()


class Sqlite(AtOnce):
    def __init__(self, path: str) -> None:
        os.mkdir(path)
        self._db = sqlite3.connect(f"{path}/log.db", isolation_level=None)
        self._db.execute("pragma journal_mode=WAL")
        self._db.execute("pragma synchronous=FULL")
        self._db.execute("create table log(number integer primary key, value blob not null)")

    def append(self, first: int, values: list[bytes]) -> None:
        self._db.execute("begin immediate")
        self._db.executemany("insert into log values(?, ?)", enumerate(values, first))
        self._db.execute("commit")

    def read_all(self) -> Iterator[bytes]:
        rows = self._db.execute("select value from log order by number")
        while found := rows.fetchmany(1000):
            for (value,) in found:
                yield value

    def read(self, number: int) -> bytes:
        found: bytes
        (found,) = self._db.execute("select value from log where number=?", (number,)).fetchone()
        return found

    def close(self) -> None:
        self._db.close()


class Lmdb(AtOnce):
    def __init__(self, path: str) -> None:
        import lmdb

        self._env: Any = lmdb.open(path, map_size=8 << 30)

    def append(self, first: int, values: list[bytes]) -> None:
        with self._env.begin(write=True) as transaction:
            items = [(_KEY(number), value) for number, value in enumerate(values, first)]
            transaction.cursor().putmulti(items, append=True)

    def read_all(self) -> Iterator[bytes]:
        with self._env.begin() as transaction:
            yield from transaction.cursor().iternext(keys=False, values=True)

    def read(self, number: int) -> bytes:
        with self._env.begin() as transaction:
            found: bytes = transaction.get(_KEY(number))
            return found

    def close(self) -> None:
        self._env.close()


class Rocks(AtOnce):
    def __init__(self, path: str) -> None:
        import rocksdict

        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self._batch = rocksdict.WriteBatch
        self._db: Any = rocksdict.Rdict(path, options)
        self._synced: Any = rocksdict.WriteOptions()
        self._synced.sync = True

    def append(self, first: int, values: list[bytes]) -> None:
        batch = self._batch(raw_mode=True)
        for number, value in enumerate(values, first):
            batch.put(_KEY(number), value)
        self._db.write(batch, self._synced)

    def read_all(self) -> Iterator[bytes]:
        yield from self._db.values()

    def read(self, number: int) -> bytes:
        found: bytes = self._db[_KEY(number)]
        return found

    def close(self) -> None:
        self._db.close()


Sample = dict[str, float]


def measure(make: Any, directory: str, values: Values, groups: int, singles: int) -> Sample:
    """One repetition: groups, single appends, everything read and compared, single reads."""
    path = os.path.join(directory, "peer")
    peer: Peer = make(path)
    number = 0
    for group in values.groups(WARM_GROUPS, GROUP):
        peer.append(number, group)
        number += GROUP
    peer.settle()
    work = values.groups(groups, GROUP, first=number)
    started = time.perf_counter()
    for group in work:
        peer.append(number, group)
        number += GROUP
    peer.settle()
    appending = time.perf_counter() - started
    each = []
    for _ in range(singles):
        one = [values[number]]
        started = time.perf_counter()
        peer.append(number, one)
        peer.settle()
        each.append(time.perf_counter() - started)
        number += 1
    started = time.perf_counter()
    found = sum(1 for _ in peer.read_all())
    reading = time.perf_counter() - started
    if found != number:
        raise AssertionError(f"{make}: {number} appended, {found} came back")
    for place, value in enumerate(peer.read_all()):
        if value != values[place]:
            raise AssertionError(f"{make}: record {place} is not what was appended")
    points = []
    chance = random.Random(5)
    for _ in range(POINT_READS):
        place = number - 1 - chance.randrange(10_000)
        started = time.perf_counter()
        value = peer.read(place)
        points.append(time.perf_counter() - started)
        if value != values[place]:
            raise AssertionError(f"{make}: record {place} is not what was appended")
    peer.close()
    shutil.rmtree(path)
    return {
        "append": groups * GROUP / appending,
        "one": percentile(each, 50) * 1e6,
        "read": number / reading,
        "point": percentile(points, 50) * 1e6,
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv)
    report = begin("Peers", options, "every write durable when it returns, in all of them")
    values = Values(ONE_KB)
    groups = options.scaled(1500, 300)
    singles = options.scaled(1000, 200)
    size = ((WARM_GROUPS + groups) * GROUP + singles) * ONE_KB
    makers: dict[str, Any] = {
        "raw loop": partial(Raw, size_bytes=size),
        "chronik": Chronik,
        AHEAD: ChronikAhead,
        "sqlite": Sqlite,
    }
    for name, module, maker in (("lmdb", "lmdb", Lmdb), ("rocksdb", "rocksdict", Rocks)):
        try:
            __import__(module)
        except ImportError:
            report.notes.append(f"{name} is not measured: {module} is not installed")
        else:
            makers[name] = maker
    with scratch(options) as directory:
        found = in_turns(
            {
                name: partial(measure, maker, directory, values, groups, singles)
                for name, maker in makers.items()
            },
            options.repetitions,
            warm=False,
        )
    columns = {
        "append": ("appends of 100 x 1 KiB", "records/s"),
        "one": ("one append of 1 KiB, p50", "us"),
        "read": ("everything in order", "records/s"),
        "point": ("one of the newest 10,000, p50", "us"),
    }
    for key, (what, unit) in columns.items():
        for name, samples in found.items():
            report.figure(f"{what}: {name}", unit, [sample[key] for sample in samples])
    peers = [name for name in found if name not in {"raw loop", "chronik", AHEAD}]

    def times_the_best(key: str, name: str = "chronik") -> float:
        best = [
            max(found[name][turn][key] for name in peers) for turn in range(options.repetitions)
        ]
        return ratios([sample[key] for sample in found[name]], best)

    report.figure(
        f"appends of 100 x 1 KiB: {AHEAD} / best peer", "x", [times_the_best("append", AHEAD)]
    )
    report.at_least("appends of 100 x 1 KiB: chronik / best peer", times_the_best("append"), 2.0)
    report.at_least("everything in order: chronik / best peer", times_the_best("read"), 1.0)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
