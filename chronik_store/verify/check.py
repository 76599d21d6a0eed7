"""One run of `verify`: its findings, its counts, and the check that is made of any copy.

Place: in `verify`, under what looks at the disk and at the bucket. Promise: whatever a
check raises about the data, or about not reaching it, becomes a finding. Invariant: errors of
other kinds are bugs, and are raised.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, CorruptionError, FutureVersionError
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.manifest.keys import live_keys
from chronik_store.model import Finding, Progress, Severity, VerifyReport
from chronik_store.segment.check import check_segment
from chronik_store.segment.reader import load_footer
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.segment.source import ByteSource
from chronik_store.verify.progress import Looked

READ_BYTES = 4 << 20
"""So much is read at a time."""


class Check:
    """Findings and counts of one run, and how far it has come."""

    def __init__(self, env: Environment, progress: Progress | None) -> None:
        self.looked = Looked(progress)
        self._clock = env.clock
        self._started = env.clock.monotonic()
        self.findings: list[Finding] = []
        self.files = 0
        self.objects = 0
        self.entries = 0
        self.size_bytes = 0

    def find(self, severity: Severity, where: str, message: str) -> None:
        self.findings.append(Finding(severity, where, message))

    def run(self, where: str, check: Callable[..., None], *arguments: object) -> None:
        """Run `check(self, *arguments)`; what it raises is a finding about `where`."""
        try:
            check(self, *arguments)
        except (CorruptionError, FutureVersionError) as error:
            self.find("corruption", where, str(error))
        except ChronikError as error:
            self.find("warning", where, f"could not be checked: {error}")
        except OSError as error:
            self.find("warning", where, f"could not be read: {error}")
        except AssertionError as error:
            self.find("corruption", where, f"an invariant does not hold: {error}")

    def run_listed(
        self, key: str, newest: Callable[[], Manifest], check: Callable[..., None], *arguments: Any
    ) -> None:
        """`run`, of an object that was listed: retention may have had it deleted meanwhile."""
        before = len(self.findings)
        self.run(key, check, *arguments)
        with suppress(ChronikError):  # nobody can say: then what was found stands
            if len(self.findings) > before and key not in live_keys(newest()):
                del self.findings[before:]

    def report(self) -> VerifyReport:
        return VerifyReport(
            findings=tuple(self.findings),
            files_checked=self.files,
            objects_checked=self.objects,
            entries_checked=self.entries,
            bytes_checked=self.size_bytes,
            elapsed_seconds=self._clock.monotonic() - self._started,
        )


def check_copy(
    check: Check,
    source: ByteSource,
    info: SegmentInfo,
    identity: SegmentIdentity,
    path: str,
    deep: bool,
) -> None:
    """Check one copy of a segment, on disk or in the bucket: its footer; deep: every byte."""
    if deep:
        check.entries += check_segment(check.looked.through(source), info, identity, path=path)
        check.size_bytes += info.size_bytes
    else:
        load_footer(source, info, path=path)
        check.size_bytes += info.footer_bytes
        check.looked.at(info.footer_bytes)
