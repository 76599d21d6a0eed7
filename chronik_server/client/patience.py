"""How long a question may be without an answer before its connection counts as lost.

Place: under `channel`. Promise: what was asked to wait, or takes the node long by its nature, has
that time beyond `request_seconds`; what the node does by a setting of its own, it has said in its
welcome. Invariant: every wait has an end; that the other side is there at all is asked sooner, by
pings (`channel`).
"""

from __future__ import annotations

from typing import Any, Final

from chronik_server.protocol.cluster import FindBundles, RebuildBundles, RunPipeline, Status
from chronik_server.protocol.data import Fetch, Search
from chronik_server.protocol.greeting import Welcome
from chronik_server.protocol.topics import CreateTopic, DeleteTopic
from chronik_store.arguments import check_seconds

FOR_EVER_SECONDS: Final = 1e9
"""What infinity is on the wire."""

UPKEEP_SECONDS: Final = 600.0
_UPKEEP: Final = (CreateTopic, DeleteTopic, RunPipeline, FindBundles, RebuildBundles, Status)
"""The pipeline uploads and indexes whole segments, and who asks for bundles waits for his turn; a
topic goes, and a namesake comes, when its run there has ended; a status opens what is not open.
"""


def milliseconds(seconds: float, name: str) -> int:
    """As questions have times. TypeError, ValueError: it is none, or negative."""
    check_seconds(seconds, name)
    return int(min(seconds, FOR_EVER_SECONDS) * 1000)


def patience_seconds(message: Any, welcome: Welcome | None) -> float:
    """Of this question, beyond what any has."""
    if isinstance(message, Fetch):
        return message.wait_ms / 1000
    if isinstance(message, Search):
        if message.deadline_ms is not None:
            return message.deadline_ms / 1000
        return 0.0 if welcome is None or welcome.search_ms is None else welcome.search_ms / 1000
    return UPKEEP_SECONDS if isinstance(message, _UPKEEP) else 0.0
