"""A machine whose disk rots between its lives, and an operator who mends what can be mended.

Place: a `StoreWorld`, with `disk_damage` between lives and a `RottenBucket` beside them. Promise:
a damaged directory opens and has all that is known, or is refused by name, with no byte changed;
then the operator does what `plan_repair` says, and what that promises is compared with what is
known. Invariant: the ledger forgets what repair or restore says is given up, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import random
from itertools import pairwise

from chronik_store.bucket_log import open_bucket
from chronik_store.config import LogConfig
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    FutureVersionError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.manifest_file import Manifest, decode_manifest_object
from chronik_store.log_identity import NO_ID
from chronik_store.log_store import LogStore
from chronik_store.objectstore.layout import (
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    parse_segment_key,
    segments_prefix,
)
from chronik_store.partition_log import PartitionLog
from chronik_store.repair import PartitionRepair, apply_repair, plan_repair
from chronik_store.restore import restore
from chronik_store.small_files import CHANGING
from chronik_store.testing.crash import CrashError
from chronik_store.testing.worlds.clients import Clients
from chronik_store.testing.worlds.disk_damage import Damage, strike
from chronik_store.testing.worlds.rotten_bucket import RottenBucket
from chronik_store.testing.worlds.store_world import CONFIG, URL, StoreWorld

ROUNDS = 6
"""How often it may be refused before it opens: each damage once, and once more behind a repair."""


class _Clients(Clients):
    """They may be told of damage while an object is damaged; never otherwise."""

    rotten: RottenBucket

    def met_damage(self, error: CorruptionError) -> None:
        if not self.rotten.keys:
            raise error


class DamagedWorld(StoreWorld):
    """See the module."""

    def __init__(self, seed: int, *, config: LogConfig = CONFIG, lives: int | None = None) -> None:
        self.chance = random.Random(f"{seed}/damage")
        lives = self.chance.randint(2, 5) if lives is None else lives
        super().__init__(seed, config=config.replace(cache_disk_bytes=1 << 16), lives=lives)
        self.served = self.rotten = RottenBucket(self.bucket)
        clients = _Clients(self.rng, self.node, self.ledger)
        clients.rotten = self.rotten
        self.clients = clients
        self.may_rot = self.was_damaged = False
        self.keeps_files = False
        """No WAL file can be removed in this life: what the bucket covers stays."""
        self.damages: list[Damage] = []
        """What is damaged on the disk, until the log has opened again."""
        self.is_mending = False
        """A repair has begun: nothing can be turned back any more."""
        self.given_up: int | None = None
        """The log goes on from here, by what a repair or a restore has said."""
        self.gave_up = False
        """Some of it was: objects of what is no part of the log any more may be in the bucket."""
        self.is_restoring = self.was_moved = False
        self.moved = 0
        self.log_id = NO_ID

    # --- damage ----------------------------------------------------------------------------------

    def live(self) -> None:
        self.may_rot = True
        self.keeps_files = self.chance.random() < 0.4
        if self.chance.random() < 0.4:
            self.simulation.later(self.chance.expovariate(1.0), self.rot)
        super().live()
        self.may_rot = self.keeps_files = False
        if not self.write_failed and self.chance.random() < 0.8:
            self.damages = strike(self.node.disk, self.chance)
            self.was_damaged = self.was_damaged or bool(self.damages)
            for each in self.damages:
                self.events["vanished files" if each.kept else "flipped bits"] += 1

    def rot(self) -> None:
        """An object is damaged, while the log is open or just after."""
        prefix = self.chance.choice(("segments/", "segments/", "manifests/"))
        if self.may_rot and self.rotten.rot(prefix, self.chance):
            self.events["damaged objects"] += 1

    def turn_back(self, path: str = "") -> None:
        """The operator has a copy of the file (default: of all files)."""
        assert not self.is_mending, "repair has begun, and asks for something else now"
        chosen = [each for each in self.damages if path in {"", each.path}]
        assert chosen, f"{path} is not damaged; damaged are {self.damages}"
        for each in chosen:
            self.damages.remove(each)
            if not each.path.startswith("/data/cache/"):  # which the refused open has emptied
                each.turn_back(self.node.disk)

    def before_disk_call(self, number: int, operation: str, path: str) -> None:
        """The oracle does not know that WAL files vanish, or go to quarantine: what was dropped may
        have been in one.
        """
        if self.keeps_files and operation == "remove" and path.endswith(".log"):
            raise OSError(errno.EIO, "not removed", path)
        if operation == "remove" and self.was_damaged and self.log is not None:
            run = parse_segment_key(segments_prefix("t", 0) + path.rpartition("/")[2])
            if run is not None and run.end_offset <= self.log.watermarks.start:
                return
        super().before_disk_call(number, operation, path)

    # --- opening ---------------------------------------------------------------------------------

    def open(self) -> None:
        self.oracle.log = None
        promised: int | None = None
        for _ in range(ROUNDS):
            if self.is_restoring:
                promised = self.restore()
            before, self.store = self.files(), None
            try:
                super().open()
            except ChronikError as error:
                self.close_store()
                promised = self.mend(error, before)
            else:
                if not self.is_old_copy():
                    self.take_stock(promised)
                    return
                self.close_store()
                self.is_restoring = True
        raise AssertionError(f"it does not open, whatever is done; damaged were {self.damages}")

    def close_store(self) -> None:
        self.oracle.log = self.log = None
        self.clients.opened(None)
        if self.store is not None:
            self.store.close()
            self.store = None

    def files(self) -> dict[str, bytes]:
        """All bytes of the directory, but the lock's, the cache's, which each open empties, and the
        notes of changes, which an open of the directory removes when it has made the changes last.
        """
        disk, others = self.node.disk, ("/data/LOCK", "/data/cache/")
        paths = [path for path in disk.paths("/data") if not path.startswith(others)]
        paths = [path for path in paths if not path.endswith(CHANGING)]
        return {path: disk.peek(path) for path in paths}

    def check_unchanged(self, before: dict[str, bytes], what: str) -> None:
        after = self.files()
        paths = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
        assert not paths, f"{what} changed {paths}"

    def is_old_copy(self) -> bool:
        """The newest file is gone, and the bucket knows more than those before it."""
        unnamed = any(each.kept and each.is_newest for each in self.damages)
        if not unnamed or self.given_up is not None:
            return False
        assert self.log is not None
        assert self.log._core is not None
        return self.newest_manifest()[0] > self.log._core.manifest.published_number

    def take_stock(self, promised: int | None) -> None:
        """It is open: what it lost is what was given up, and no more."""
        assert self.log is not None
        assert self.log._core is not None
        end = self.log.watermarks.committed
        if self.given_up is not None:
            assert promised in {None, end}, f"promised was {promised}, it goes on from {end}"
            self.forget(self.given_up)
        elif unnamed := [each for each in self.damages if each.kept and each.is_newest]:
            # Nothing else names it, or what was done in it.
            assert end >= min(unnamed[0].good_end or 0, self.known_end()), f"{end}, {unnamed}"
            self.events["tails lost unseen"] += end < self.known_end()
            self.forget(end)
        else:
            assert end >= self.known_end(), f"{end}; known to {self.known_end()}: {self.damages}"
        self.damages, self.is_mending, self.given_up = [], False, None
        self.log_id = self.log._core.manifest.log_id

    def known_end(self) -> int:
        """Everything known stands below."""
        return max(self.ledger.known, default=-1) + 1

    def forget(self, offset: int) -> None:
        """The ledger does; and a producer whose sequence may be lost begins as another one."""
        self.ledger.forget(offset)
        self.gave_up = True
        clients = self.clients
        clients.producer_id, clients.sequence, clients.unanswered = clients.producer_id + 1, 0, None

    # --- the operator ----------------------------------------------------------------------------

    def mend(self, error: ChronikError, before: dict[str, bytes]) -> int | None:
        """It is refused: make it open. Returns where it goes on, if that was promised."""
        if not any(each.may_be_refused for each in self.damages):
            raise error
        assert isinstance(error, CorruptionError | FutureVersionError), repr(error)
        self.events["refusals to open"] += 1
        self.check_unchanged(before, f"a refused open ({error})")
        self.rotten.heal()
        if self.chance.random() < 0.3:
            self.look_beside()
            self.check_unchanged(before, "a reader")
        try:
            [plan] = plan_repair("/data", config=self.config, env=self.node.environment)
        except (CorruptionError, FutureVersionError) as refused:
            self.mend_by_hand(refused)
            return None
        self.check_unchanged(before, "a plan")
        self.events[f"plans: {plan.action}"] += 1
        self.judge_plan(plan)
        return self.follow(plan)

    def mend_by_hand(self, error: CorruptionError | FutureVersionError) -> None:
        """Repair can do nothing: a file is put back from a copy, or the bucket has all of it."""
        is_list = error.path in {"/data/STORE", "/data/TOPICS"}
        if isinstance(error, CorruptionError):
            assert is_list, repr(error)
            if self.newest_manifest()[0] and self.chance.random() < 0.5:
                self.is_restoring = True
                return
        self.turn_back(error.path)

    def judge_plan(self, plan: PartitionRepair) -> None:
        """What it says is so, and it gives up no more than the damage explains."""
        number, tiered = self.newest_manifest()
        assert plan.action != "none", f"it is refused, and nothing is to be done: {plan}"
        assert plan.verdict == "suspect", plan
        assert plan.tiered_offset == tiered, f"{plan}; the bucket ends at {tiered} (no. {number})"
        if plan.action == "set_aside":
            assert plan.end_offset >= self.known_end(), f"{plan}; known to {self.known_end()}"
        elif plan.action == "go_on":
            ends = [each.good_end for each in self.damages if each.good_end is not None]
            kept = min([self.known_end(), *ends])
            assert plan.end_offset >= max(kept, tiered), f"{plan}; kept is {kept}: {self.damages}"

    def follow(self, plan: PartitionRepair) -> int | None:
        """Do what the plan says."""
        if plan.action in {"take_out", "restore"} and plan.end_offset > plan.tiered_offset:
            self.look_beside(plan)  # what the bucket does not have is read out first
        if plan.action == "take_out":
            self.turn_back()
        elif plan.action == "restore" and self.newest_manifest()[0] and self.chance.random() < 0.8:
            self.is_restoring = True
        elif plan.action == "restore" or (not self.is_mending and self.chance.random() < 0.2):
            self.turn_back()
        else:
            self.is_mending = True
            if plan.action == "go_on":
                self.given_up = plan.end_offset
            done = apply_repair("/data", config=self.config, env=self.node.environment)
            assert done == (plan,), f"planned was {plan}, done is {done}"
            self.events["repairs"] += 1
            return self.given_up
        return None

    def look_beside(self, plan: PartitionRepair | None = None) -> None:
        """A reader shows what is there, if anything. By a plan it must be what that says, up to the
        newest mark: nobody knows of what stands behind that whether its writer is still there.
        """
        known = self.ledger.copy()
        env = self.node.environment
        try:
            with LogStore.open("/data", config=self.config, env=env, read_only=True) as store:
                log = store.partition("t")
                assert plan is None or log.recovery.end_offset == plan.end_offset
                end = first = log.watermarks.start
                if plan is not None:
                    end = first = max(plan.first_offset, plan.tiered_offset)
                for record in log.scan(first):
                    assert record.offset == end, f"{end} is passed over"
                    known.saw(record.offset, record.value)
                    end += 1
                assert end >= log.watermarks.committed
        except (CorruptionError, FutureVersionError, OffsetOutOfRangeError, UnavailableError):
            if plan is not None:
                raise
        self.ledger.compared = known.compared

    def restore(self) -> int:
        """Into a new directory, the old one is kept. Run again until it is done; where it ends."""
        fs = self.node.environment.fs
        self.rotten.heal()
        if not self.was_moved:
            if fs.exists("/data"):
                self.moved += 1
                fs.rename("/data", f"/aside-{self.moved}")
            fs.sync_directory("/")
            self.was_moved = True
            manifest = self._published()[1]
            assert manifest is not None
            # It begins where a drop reached beyond what was uploaded.
            self.given_up = max(manifest.next.offset, manifest.start_offset)
        expected = self.given_up
        assert expected is not None
        report = restore(URL, "/data", config=self.config, env=self.node.environment)
        if not report.was_complete:
            [log] = report.logs
            assert (log.old_log_id, log.end_offset) == (self.log_id, expected), (log, expected)
        self.events["restores"] += 1
        self.is_restoring = self.was_moved = False
        return expected

    def newest_manifest(self) -> tuple[int, int]:
        """(number, end offset) of what this log published last, as the bucket has it; (0, 0)."""
        number, manifest = self._published()
        return number, 0 if manifest is None else manifest.next.offset

    def _published(self) -> tuple[int, Manifest | None]:
        keys = [each.key for each in self.bucket.list(manifest_prefix("t", 0, self.log_id))]
        numbers = [found.number for key in keys if (found := parse_manifest_key(key))]
        if not numbers:
            return 0, None
        number = max(numbers)
        body = self.bucket.get(manifest_key("t", 0, self.log_id, number))
        return number, decode_manifest_object(body).manifest

    # --- checks ----------------------------------------------------------------------------------

    def check(self) -> None:
        with contextlib.suppress(CrashError):
            if self.rotten.keys:
                self.node.call(self.judge_rot)
        self.rotten.heal()
        super().check()

    def judge_rot(self) -> None:
        """Objects are damaged: each read is right or says so, and `verify` names them."""
        log = self.log
        assert log is not None
        assert log._core is not None
        marks = log.watermarks
        for _ in range(10):
            offset = self.chance.randint(marks.start, marks.committed)
            with contextlib.suppress(CorruptionError, FutureVersionError, OffsetOutOfRangeError):
                found = log.read(offset, max_records=5)
                assert len(found) > 0 or offset >= marks.committed
                self.ledger.saw_all(offset, [record.value for record in found])
        self.judge_findings(log)
        if not self.newest_manifest()[0]:
            return
        with contextlib.suppress(CorruptionError, FutureVersionError, OffsetOutOfRangeError):
            env = self.node.environment
            with open_bucket(URL, topic="t", config=self.config, env=env) as reader:
                first = reader.watermarks.start
                for expected, record in enumerate(reader.scan(first), first):
                    assert record.offset == expected, f"{expected} is passed over"
                    self.ledger.saw(record.offset, record.value)

    def judge_findings(self, log: PartitionLog) -> None:
        """What is rotten and was listed all the time is named. (The pipeline goes on meanwhile.)"""
        before = self.listed(log)
        said = log.verify(bucket=True, deep=True).findings
        for key in self.rotten.keys & before & self.listed(log):
            named = [each for each in said if key in f"{each.where} {each.message}"]
            assert any(each.severity == "corruption" for each in named), f"{key} is rotten: {said}"

    @staticmethod
    def listed(log: PartitionLog) -> set[str]:
        """The segments of the log and its newest manifest."""
        assert log._core is not None
        manifest = log._core.manifest
        newest = manifest_key("t", 0, manifest.log_id, manifest.published_number)
        return {newest, *(each.key for each in manifest.segments)}

    def check_bucket(self, log: PartitionLog) -> None:
        """Of what the log lists there is no gap. What it gave up may have left objects."""
        if not self.gave_up:
            super().check_bucket(log)
            return
        assert log._core is not None
        segments, marks = log._core.manifest.segments, log.watermarks
        for left, right in pairwise(segments):
            assert left.end_offset == right.base_offset, segments
        if segments:
            assert segments[0].base_offset <= marks.start, (segments, marks)
            assert segments[-1].end_offset == marks.tiered, (segments, marks)
        findings = log.verify(bucket=True, deep=True).findings
        left_behind = [each for each in findings if each.severity == "note"]
        assert len(left_behind) == len(findings), findings
        assert all(each.where.startswith("segments/") for each in left_behind), findings
