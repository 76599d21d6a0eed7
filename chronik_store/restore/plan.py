"""The plan of a restore that is under way: a small file in the directory that is being made.

Place: used by `restore` alone. Promise: the ids of the new logs are on disk before anything is
claimed under them, so that a restore that was cut off goes on under the same ids instead of
claiming a second time. Invariant: it only grows, and is removed when the directory is complete.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from chronik_store.data_directory import RESTORE_NAME, DataDirectory
from chronik_store.disk_errors import disk_errors
from chronik_store.errors import CorruptionError


class PlannedLog(NamedTuple):
    """One partition to restore, and the id of its new log."""

    topic: str
    partition: int
    topic_id: str
    log_id: str


class RestorePlan(NamedTuple):
    """What is restored from where, up to where, and under which ids."""

    url: str
    store_id: str
    until_offset: int | None
    until_us: int | None
    started_us: int
    logs: tuple[PlannedLog, ...]

    def same_request(self, url: str, until_offset: int | None, until_us: int | None) -> bool:
        """The plan was made for these arguments."""
        return (url, until_offset, until_us) == (self.url, self.until_offset, self.until_us)


def load_plan(directory: DataDirectory) -> RestorePlan | None:
    """The plan of an earlier, unfinished restore into this directory."""
    path = f"{directory.path}/{RESTORE_NAME}"
    with disk_errors(path, "read"):
        data = directory.files.read(RESTORE_NAME)
    if data is None:
        return None
    try:
        fields = json.loads(data)
        logs = tuple(PlannedLog(*each) for each in fields.pop("logs"))
        plan = RestorePlan(**fields, logs=logs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptionError(
            f"{path} is not readable: restore into another, empty directory", path=path
        ) from error
    with disk_errors(path, "write"):
        directory.files.settle()  # what is done by this plan must not outlast it
    return plan


def save_plan(directory: DataDirectory, plan: RestorePlan) -> None:
    """Write the plan; durable when it returns."""
    directory.files.write(RESTORE_NAME, json.dumps(plan._asdict()).encode())


def remove_plan(directory: DataDirectory) -> None:
    """The directory is complete."""
    fs = directory.env.fs
    if fs.exists(f"{directory.path}/{RESTORE_NAME}"):
        fs.remove(f"{directory.path}/{RESTORE_NAME}")
        fs.sync_directory(directory.path)
