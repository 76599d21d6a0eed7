"""A program with a log of its own, told line by line what to do with it.

Run by `test_clock_skew` as a process, since a clock is a process's at least:

    python -m tests.s3.one_log DIRECTORY URL

Each line on stdin is one call below, as JSON [name, arguments ...]; each gets one line of JSON:
what it returned, or {"error": its class, "said": its text, "retriable": ...}.
"""

import json
import sys
import time

import chronik_store as chronik


class OneLog:
    """The calls."""

    def __init__(self, directory, url):
        config = chronik.LogConfig.from_env(
            pipeline_enabled=False,
            cache_memory_bytes=0,
            cache_disk_bytes=0,
            wal_file_bytes=4096,
            max_future_seconds=60.0,
        )
        self._log = chronik.PartitionLog.open(
            directory, topic="events", object_store=url, config=config
        )

    def clock(self):
        return time.time()

    def append(self, *values):
        return self._log.append([value.encode() for value in values]).end_offset

    def tier(self):
        """Seal, and let the pipeline run; what it reports, and what `status` says then."""
        self._log.seal()
        reports = [self._log.run_pipeline_once() for _ in range(3)]
        status = self._log.status()
        return {
            "errors": reports[-1].errors,
            "last_error": str(status.last_error or ""),
            "writable": status.writable,
            "tiered": status.watermarks.tiered,
            "indexed": status.watermarks.indexed,
            "wal_bytes": status.wal_bytes,
        }

    def read(self, offset, count):
        return [each.value.decode() for each in self._log.scan(offset, offset + count)]

    def search(self, query):
        found = self._log.search(query)
        return {
            "hits": [hit.offset for hit in found.hits],
            "complete": all(each.complete for each in found.coverage),
            "reasons": [reason for each in found.coverage for reason in each.reasons],
        }


def main():
    log = OneLog(*sys.argv[1:])
    print(json.dumps("open"), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = getattr(log, name)(*arguments)
        except chronik.ChronikError as error:
            answer = {
                "error": type(error).__name__,
                "said": str(error),
                "retriable": error.retriable,
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
