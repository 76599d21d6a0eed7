"""Who looks at the bucket and at the nodes while everything goes on, and changes nothing.

Place: over `player`. Promise: at every moment the newest manifest of a partition names nothing that
the bucket does not have, whole, and each node answers what its health listener asks. Invariant: it
looks behind the simulated network: in one step, so that nobody collects what it is about to read.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from chronik_server.backend import Check
from chronik_server.store_metrics import families
from chronik_server.testing.servers.player import Player
from chronik_server.testing.servers.world import URL
from chronik_store.bucket_log import open_bucket
from chronik_store.errors import ChronikError, TopicNotFoundError


class Looking(Player):
    """See the module."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Side by side."""
        return [self.again(self.verify, 1.5), self.again(self.ask_health, 2.0)]

    async def verify(self) -> None:
        """`verify --bucket`, of a partition that is surely there."""
        found = self.some_lane()
        if found is None:
            return
        topic, partition = found
        env = self.world.outsider
        try:
            with open_bucket(URL, topic=topic.name, partition=partition, env=env) as log:
                report = log.verify(bucket=True)
        except TopicNotFoundError:
            return  # nothing is published yet
        except ChronikError as error:
            self.world.violate(f"{topic}/{partition} in the bucket: {error!r}")
            return
        self.events["looks at the bucket"] += 1
        for finding in report.findings:
            if finding.severity != "note":
                self.world.violate(f"{topic}/{partition} in the bucket: {finding}")

    async def ask_health(self) -> None:
        """/ready and /metrics, as far as they are no HTTP."""
        node = self.rng.choice(list(self.world.nodes.values()))

        async def question(backend: Any) -> tuple[Check, ...]:
            list(families(await backend.status(None)))
            checks: tuple[Check, ...] = await backend.checks()
            return checks

        def told(checks: tuple[Check, ...]) -> None:
            self.events["asked ready"] += not any(each.fault for each in checks)
            self.events["asked not ready"] += any(each.fault for each in checks)

        node.ask(question, told)

    def heal(self) -> None:
        """It harms nobody."""
