"""The control path of a log: commands enter as entries like any record.

Place: beside `log_core`, whose lock and state it works on. Promise: `propose` returns when the
command is durable, committed and folded; whether its precondition held, the manifest tells.
Invariant: entries of one open carry a term of their own (docs/decisions/0003). In a log that a
cluster owns both questions go through a door that consensus puts here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from chronik_store.errors import UnavailableError
from chronik_store.format.control import Command, Noop, Seal
from chronik_store.format.entry import new_entry_header
from chronik_store.log_identity import LOCAL_OWNER

if TYPE_CHECKING:
    from chronik_store.log_core import LogCore


class StaleTermError(UnavailableError):
    """The term for which the caller acts has passed; plan again."""


class CommandDoor(Protocol):
    """How commands reach a log that a cluster owns. Thread-safe."""

    def leader_term(self) -> int | None:
        """The term in which this node leads the log and may act for it; None: it may not."""
        ...

    def propose(self, command: Command, *, term: int | None) -> int:
        """As `ControlPath.propose`; UnavailableError when the outcome is not known."""
        ...


class ControlPath:
    """How control entries enter one log. Thread-safe."""

    def __init__(self, core: LogCore) -> None:
        self._core = core
        self.door: CommandDoor | None = None
        self._led = False

    def lead_locked(self) -> None:
        """The first entry of an open begins a term of its own, so that terms tell opens apart.

        Intents of an earlier open thereby expire (protocol 18), and a log that turns into a
        cluster's keeps terms that only grow.
        """
        if self._led:
            return
        state, wal = self._core.state, self._core.wal
        with wal.whole_locked():
            self._led = True
            state.on_hard_state(state.term + 1, LOCAL_OWNER)
            wal.stage_hard_state(state.term, LOCAL_OWNER)
            self.stage_locked(Noop())

    def leader_term(self) -> int | None:
        """The term in which this log may seal, upload and publish now; None: it may not."""
        if self._core.read_only or self._core.closed or self._core.wal.poisoned is not None:
            return None
        if self._core.state.manifest.fenced is not None:
            return None
        if self._core.identity.owner != LOCAL_OWNER:
            return None if self.door is None else self.door.leader_term()
        return self._core.state.term if self._led else self._core.state.term + 1

    def propose(self, command: Command, *, term: int | None = None) -> int:
        """Append a control entry; returns its index once it is committed and folded.

        StaleTermError when `term` has passed. Whether the precondition held shows in `manifest`.
        """
        self._core.check_open()
        if self.door is not None:
            return self.door.propose(command, term=term)
        if not self._core.started and not self._core.read_only:
            self._core.begin()
        try:
            with self._core.wal.lock:
                self._core.check_writable_locked(fenced_ok=True)
                self.lead_locked()
                if term is not None and term != self._core.state.term:
                    raise StaleTermError(
                        f"term {term} has passed; this log is in {self._core.state.term}"
                    )
                index, seq = self.stage_locked(command)
        except BaseException as error:
            self._core.wal.unwind(error)
            raise
        self._core.wal.lead(seq)
        return index

    def refusal_of(self, index: int) -> str | None:
        """Why the command that is committed at `index` changed nothing; None: it took effect."""
        with self._core.wal.lock:
            return self._core.state.refusal_of(index)

    def settle(self, plan: Callable[[], Command | None]) -> bool:
        """Propose what `plan` finds is to do, until that took effect (True) or nothing is to do.

        Between its look and its entry another command may have found its place; then it looks
        again, and says by an error if what was wanted cannot be any more.
        """
        while (command := plan()) is not None:
            if self.refusal_of(self._core.propose(command)) is None:
                return True
        return False

    def stage_locked(self, command: Command) -> tuple[int, int]:
        """Stage a control entry: (its index, the seq that makes it durable)."""
        wal = self._core.wal
        state = self._core.state
        payload = command.encode()
        index = wal.last_index + 1
        encoded, header = new_entry_header(
            int(command.KIND),
            state.term,
            index,
            wal.end_offset,
            0,
            wal.last_timestamp_us,
            payload,
        )
        with wal.whole_locked():
            seq = wal.stage_entry(encoded, header, payload)
            state.note_command(header, command)
            self._core.known_commit = max(self._core.known_commit, index)
            if isinstance(command, Seal):
                # A file that ends with a segment can go when that segment is safe (protocol 1).
                seq = wal.stage_rotation()
        return index, seq
