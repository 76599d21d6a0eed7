"""What runs in the child processes: `python children.py VERB DIRECTORY [ARGUMENTS]`.

A child says on its standard output, line by line, what it knows; the parent believes nothing else.
"""

from __future__ import annotations

import os
import sys
import time

from chronik_store import LogConfig, LogStore, open_bucket
from chronik_store.errors import ChronikError, LogClosedError, LogPoisonedError

CONFIG = LogConfig(
    wal_file_bytes=64 << 10,
    segment_bytes=48 << 10,
    pipeline_interval_seconds=0.05,
    indexing_enabled=False,
    garbage_seconds=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)


def say(*words: object) -> None:
    print(*words, flush=True)


def value(number: int) -> bytes:
    return b"%08d" % number + b"v" * (number * 37 % 700)


def open_log(path: str, *, read_only: bool = False) -> tuple[LogStore, object]:
    store = LogStore.open(path, config=CONFIG, read_only=read_only)
    if not read_only:
        store.create_topic("t", exist_ok=True)
    return store, store.partition("t")


def append(path: str) -> None:
    """One record after the other, for ever; each offset is said once it is acknowledged."""
    _, log = open_log(path)
    number = log.watermarks.end
    say("open", number)
    while True:
        result = log.append(value(number))
        say("acked", result.base_offset)
        number += 1


def send(path: str) -> None:
    """Hundreds in flight; said by the thread that commits them."""
    _, log = open_log(path)
    number = log.watermarks.end
    say("open", number)
    while True:
        futures = []
        for _ in range(200):
            future = log.append_nowait(value(number))
            future.add_done_callback(lambda done: say("acked", done.result().base_offset))
            futures.append(future)
            number += 1
        futures[-1].result()


def hold(path: str) -> None:
    """Open for writing until told to stop."""
    store, _ = open_log(path)
    say("open", os.getpid())
    sys.stdin.read()
    store.close()


def follow(path: str, count: str) -> None:
    """Read beside the writer until so many records were seen; each as it comes."""
    _, log = open_log(path, read_only=True)
    say("open", log.watermarks.committed)
    for record in log.scan(follow=True):
        assert record.value == value(record.offset), record
        say("saw", record.offset)
        if record.offset + 1 >= int(count):
            return


def interrupted(path: str) -> None:
    """Append until Ctrl-C, then close as a program does, and say what is known."""
    store, log = open_log(path)
    number = log.watermarks.end
    say("open", number)
    try:
        while True:
            say("acked", log.append(value(number)).base_offset)
            number += 1
    except KeyboardInterrupt:
        say("interrupted")
    number = log.watermarks.end  # what was interrupted may be there, or not
    try:
        say("acked", log.append(value(number)).base_offset)
    except (LogPoisonedError, LogClosedError) as error:
        say("refused", error.durability)
    try:
        store.close()
    except ChronikError as error:
        say("closed", type(error).__name__)
    else:
        say("closed")


def search(url: str) -> None:
    """Search again and again, from the bucket alone."""
    with open_bucket(url, topic="t") as log:
        while True:
            say("found", log.search("fish").total)
            time.sleep(0.01)


def search_in_turn(url: str) -> None:
    """Each of them a reader of its own, which makes its scratch and removes it."""
    while True:
        with open_bucket(url, topic="t") as log:
            found = log.search("fish")
            say("found" if found.complete else "missing", found.total)


def forked(path: str) -> None:
    """Fork with appends in flight: the child is refused everything and harms nothing."""
    from chronik_store.errors import ForkedError

    store, log = open_log(path)
    say("open", log.watermarks.end)
    futures = [log.append_nowait(value(number)) for number in range(100)]
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (
            lambda: log.append(b"x"),
            lambda: log.append_nowait(b"x"),
            lambda: log.read(0),
            lambda: list(log.scan()),
            lambda: log.watermarks,
            store.topics,
            lambda: store.create_topic("u"),
            log.run_pipeline_once,
        ):
            try:
                call()
            except ForkedError:
                refused += 1
        log.close()
        store.close()
        say("child", refused)
        os._exit(0)
    os.waitpid(child, 0)
    for future in futures:
        say("acked", future.result(10).base_offset)
    time.sleep(0.1)
    for number in range(100, 150):
        say("acked", log.append(value(number)).base_offset)
    store.close()
    say("closed")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
