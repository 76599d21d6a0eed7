"""The list of a directory's topics, in memory and on disk.

Place: part of `data_directory`; `topic_changes` makes the changes, one at a time. Promise: a change
that has returned is durable; each topic has an id that its namesakes do not share. Invariant:
TOPICS is replaced in one step; where nobody can know whether it was, the topics that differ are in
doubt, and nothing is acknowledged for them until the list has been written again.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress

from chronik_store.disk_errors import disk_errors
from chronik_store.errors import UnavailableError
from chronik_store.format.store_file import TopicCatalog, TopicEntry, decode_topic_catalog
from chronik_store.fs.base import FileStat
from chronik_store.small_files import SmallFiles

TOPICS_NAME = "TOPICS"


class TopicList:
    """The topics. Who changes them is alone; readers take what is there."""

    def __init__(self, files: SmallFiles, path: str) -> None:
        self.all: tuple[TopicEntry, ...] = ()
        """Sorted; also those that are being deleted."""
        self.in_doubt: frozenset[str] = frozenset()
        """Topics whose last change may or may not be on disk, until TOPICS is written again."""
        self._files = files
        self._path = path
        self._seen: FileStat | None = None

    def load(self) -> bool:
        """Take the list that is on disk; False: there is none. OSError as it comes."""
        data = self._files.read(TOPICS_NAME)
        if data is not None:
            self.all = decode_topic_catalog(data, path=f"{self._path}/{TOPICS_NAME}").topics
        return data is not None

    def create(self) -> None:
        """A new directory has an empty one. OSError as it comes."""
        self._files.write(TOPICS_NAME, TopicCatalog().encode())

    def get(self, name: str) -> TopicEntry | None:
        """The live topic of this name."""
        return next((each for each in self.namesakes(name) if each.state == "live"), None)

    def namesakes(self, name: str) -> list[TopicEntry]:
        """Every topic of this name: a live one, and those that are being deleted."""
        topics, found = self.all, []
        for at in range(bisect_left(topics, (name,)), len(topics)):
            if topics[at].name != name:
                break
            found.append(topics[at])
        return found

    def check_sure(self, name: str) -> None:
        """UnavailableError if nobody can know whether the last change of this topic is in force."""
        if name in self.in_doubt:
            raise UnavailableError(
                f"a change of topic {name!r} in {self._path} failed, and nobody knows whether it "
                "is in force: make it again, or close the store and open it again to see"
            )

    def put(self, entry: TopicEntry) -> None:
        """Add or replace a topic (by id). Durable when it returns.

        UnavailableError with durability "unknown": see `check_sure`; any other: nothing changed.
        """
        others = [each for each in self.all if each.topic_id != entry.topic_id]
        self._replace(tuple(sorted([*others, entry])))

    def forget(self, topic_id: str) -> None:
        """Remove a topic from the list. Durable when it returns."""
        self._replace(tuple(each for each in self.all if each.topic_id != topic_id))

    def look(self) -> None:
        """Read-only: as `reload`, where the list has been replaced since; else it costs a stat."""
        with disk_errors(self._path, "look at the topics of"), suppress(FileNotFoundError):
            found = self._files.stat(TOPICS_NAME)
            if found != self._seen:
                self.reload()
                self._seen = found

    def reload(self) -> None:
        """Read-only: the list as it is now."""
        with disk_errors(self._path, "read the topics of"):
            self.load()

    def _replace(self, topics: tuple[TopicEntry, ...]) -> None:
        with disk_errors(self._path, "write the topics of"):
            self._files.begin(TOPICS_NAME, TopicCatalog(topics).encode())
        try:
            self._files.finish(TOPICS_NAME)
            self.all, self.in_doubt = topics, frozenset()
        except BaseException as error:
            # A name that was changed and not synced may be either one after a power loss, and after
            # a restart it is the new one. Nothing may be acknowledged that holds in one only.
            self.in_doubt |= {each.name for each in {*topics} ^ {*self.all}}
            if not isinstance(error, OSError):
                raise
            raise UnavailableError(
                f"the new list of the topics of {self._path} may or may not be on disk "
                f"({error.strerror or error}): check the disk, then make the change again",
                durability="unknown",
            ) from error
