"""The first WAL file of a restored log.

Place: below `takeover`. Promise: what it writes is recovered by `LogStore.open` like any other
WAL: one checkpoint over what the bucket holds. Invariant: the directory is empty before; an
interrupted write is wiped and done again.
"""

from __future__ import annotations

import dataclasses

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.manifest_file import Manifest, ManifestObject
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.lineage import FIRST_NUMBER
from chronik_store.log_identity import LOCAL_OWNER, LogPaths
from chronik_store.manifest.state import FoldedState
from chronik_store.restore.plan import PlannedLog
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.wal import Wal


class LogWriter:
    """Writes the WAL of a new log into an empty directory."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        services: WalServices,
        log: PlannedLog,
        paths: LogPaths,
    ) -> None:
        self._env = env
        self._config = config
        self._services = services
        self._log = log
        self._paths = paths

    def write(self, first: ManifestObject, published_hash: str) -> None:
        """The log that goes on from its first manifest, which is in the bucket."""
        manifest = dataclasses.replace(
            first.manifest,
            published_number=FIRST_NUMBER,
            published_folded_to=first.folded_to,
            published_hash=published_hash,
            published_generation=first.folded_to,
        )
        self._write(first.term, manifest, first.producers)

    def _write(self, term: int, manifest: Manifest, producers: tuple[ProducerEntry, ...]) -> None:
        log, paths = self._log, self._paths
        self._env.fs.make_directories(paths.wal)
        state = FoldedState(
            topic=log.topic,
            partition=log.partition,
            topic_id=log.topic_id,
            log_id=log.log_id,
            producers_max=self._config.producers_max,
        )
        wal = Wal.recover(
            self._env,
            paths.wal,
            WalIdentity(log.topic, log.partition, log.topic_id, LOCAL_OWNER, log.log_id),
            WalSettings(
                file_bytes=self._config.wal_file_bytes, group_bytes=self._config.group_bytes_max
            ),
            state,
            services=self._services,
            quarantine=paths.quarantine,
        )
        base = manifest.next
        try:
            wal.start(
                Checkpoint(
                    log_id=log.log_id,
                    term=term,
                    vote="",
                    base=base,
                    committed_index=base.index,
                    manifest=manifest,
                    manifest_folded_to=base.index,
                    producers=producers,
                    producers_folded_to=base.index,
                    boot_id=self._env.entropy.token_bytes(16).hex(),
                )
            )
        finally:
            wal.close()
