"""An owner that takes its directory out of the bucket: by a restore, which is cut off at any point.

Place: one of the owners of a `MovedWorld`. Promise: the restore is run until it is done or another
one has been faster; then the report says what the claims in the bucket say. Invariant: it is run
again with the same arguments.
"""

from __future__ import annotations

from chronik_store.errors import ConfigError, DiskFullError, FencedError, UnavailableError
from chronik_store.restore import RestoreReport, restore
from chronik_store.testing.crash import CrashError
from chronik_store.testing.worlds.heritage import Limits
from chronik_store.testing.worlds.owned_topics import LIVE, NEVER, Topic
from chronik_store.testing.worlds.owner import Owner
from chronik_store.testing.worlds.store_world import URL


class Successor(Owner):
    """Has no directory before it has taken over."""

    restoring = False

    def take_over(self, limits: Limits) -> bool:
        """Restore, again and again until it is done; False: another one was faster."""
        self.heritage.limits[self.name] = limits
        while True:
            self.simulation.sleep(0.01)
            if not self.node.is_up:
                self.node.restart()
            self.befalls_restore()
            self.restoring = True
            self.events["restores begun"] += 1
            try:
                report = self.node.call(lambda: self.restore_once(limits), name="restore")
            except CrashError:
                self.events["restores cut off"] += 1
            except (UnavailableError, DiskFullError):
                self.events["restores failed"] += 1
            except FencedError:
                self.events["restores overtaken"] += 1
                return False
            except ConfigError:
                # It was done, and the crash came before its return.
                if not self.node.disk.exists("/data/STORE"):
                    raise
                self.restored(RestoreReport("/data", URL, "", (), was_complete=True))
                return True
            else:
                self.restored(report)
                return True
            finally:
                self.restoring = False

    def restore_once(self, limits: Limits) -> RestoreReport:
        env = self.node.environment
        return restore(URL, "/data", **limits._asdict(), config=self.config, env=env)

    def befalls_restore(self) -> None:
        """What happens to one run of it."""
        faults = self.node.bucket_faults
        faults.hook = faults.reply_hook = self.node.disk.hook = None
        faults.is_down = False
        what = self.rng.random()
        later = self.rng.expovariate(1.0)
        if what < 0.5:
            self.simulation.later(later, self.cut_off)
        elif what < 0.7:
            lost = self.rng.randint(1, 40)

            def lose(number: int, operation: str, key: str) -> None:
                nonlocal lost
                lost -= 1
                if lost == 0:
                    self.events["lost replies"] += 1
                    raise UnavailableError(f"{operation} {key}: no reply", durability="unknown")

            faults.reply_hook = lose
        elif what < 0.8:
            self.disk_fails()

    def cut_off(self) -> None:
        if self.restoring and self.node.is_up:
            self.node.crash(self.rng.choice(("lost", "kept", "torn", "any")))

    def restored(self, report: RestoreReport) -> None:
        """The report tells what the claims say; and what was left out is deleted for good."""
        self.events["restores"] += 1
        self.has_directory = True
        logs = self.heritage.witness.logs
        for made in report.logs:
            if made.old_log_id is not None:
                assert made.log_id in self.heritage.ends, f"{made} without a claim"
                assert made.end_offset == self.heritage.ends[made.log_id], made
                assert made.start_offset == logs[made.log_id].body.manifest.start_offset or (
                    logs[made.log_id].number > 1
                ), made
        for log in logs.values():
            if log.owner == self.name and log.predecessor is not None and log.number:
                topic = self.topics.setdefault(log.topic, Topic(log.topic))
                topic.state, topic.topic_id = LIVE, log.topic_id
                topic.ledger = self.heritage.facts[log.log_id]
                self.may_be_dropped(topic, self.heritage.ends[log.log_id])
        self.ledger = self.clients.ledger = self.main.ledger
        if self.main.state == NEVER:
            force = self.heritage.witness.in_force("t")
            assert not force, f"{force} was not restored"
