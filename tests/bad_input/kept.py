"""What every test of bad input ends with: nothing was lost, nothing was added."""

from __future__ import annotations

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False)
"""No background: each test says when the pipeline runs."""


def opened(path, **changes):
    """Partition 0 of topic `t` of the directory `path`, which is made if it is missing."""
    options = {name: changes.pop(name) for name in ("read_only", "object_store") if name in changes}
    return chronik.PartitionLog.open(path, topic="t", config=CONFIG.replace(**changes), **options)


def values(log):
    return [record.value for record in log.scan()]


def stored(path):
    """What a new open of the directory reads."""
    with opened(path) as log:
        return values(log)
