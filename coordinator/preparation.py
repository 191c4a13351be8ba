"""A job on a node: rounds of preparation and release. This table is all there is to their order.

`docs/design.md` draws its diagram from here; `tests/coordinator/test_preparation.py` goes through every pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from coordinator.records import NodeJobState
from wire import signals
from wire.messages import Cleanliness, KeptStream, Outcome, Phase, PhaseEnd

_S = NodeJobState

TRANSITIONS: Final[dict[NodeJobState, frozenset[NodeJobState]]] = {
    _S.ABSENT: frozenset({_S.PREPARING, _S.PREPARED, _S.BARRED, _S.RELEASING, _S.UNREACHED, _S.WAIVED}),
    _S.PREPARING: frozenset({_S.ABSENT, _S.PREPARED, _S.BARRED, _S.RELEASING, _S.UNREACHED, _S.WAIVED}),
    _S.PREPARED: frozenset({_S.ABSENT, _S.PREPARING, _S.RELEASING, _S.UNREACHED, _S.WAIVED}),
    _S.BARRED: frozenset({_S.ABSENT, _S.RELEASING, _S.UNREACHED, _S.WAIVED}),
    _S.RELEASING: frozenset({_S.RELEASED, _S.RELEASE_FAILED, _S.UNREACHED, _S.WAIVED}),
    _S.UNREACHED: frozenset({_S.RELEASING, _S.RELEASED, _S.RELEASE_FAILED, _S.WAIVED}),
    _S.RELEASED: frozenset(),
    _S.RELEASE_FAILED: frozenset(),
    _S.WAIVED: frozenset(),
}
"""From each state of a round to those that may follow. A new round is a new row, never a transition."""

PAID: Final = frozenset({_S.RELEASED, _S.RELEASE_FAILED, _S.WAIVED})
"""The debt is closed: nothing more ever happens in this round."""
SETTLED: Final = PAID | {_S.UNREACHED}
"""A job may complete when all its rounds are here."""
OPEN: Final = frozenset(_S) - SETTLED
_NOTHING_RUNS: Final = frozenset({_S.ABSENT, _S.UNREACHED, _S.WAIVED})
"""Whatever the node said to be running there no longer is, or nobody can know."""


@dataclass(slots=True)
class PhaseView:
    """What is known of a preparation or a release: `job nodes` prints it."""

    attempts: int = 0
    ends: int = 0
    """Reported ones, all of them kept."""
    finished: bool = False
    succeeded: bool = False
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    reason: str | None = None
    stdout_tail: bytes = b""
    stderr_tail: bytes = b""
    stdout_size: int | None = None
    """Bytes of all that it wrote, of which that is the end; None: not known."""
    stderr_size: int | None = None
    leftovers: list[str] = field(default_factory=list)
    clean: Cleanliness | None = None
    """What the clean-up after the last attempt of a release left."""

    @property
    def said(self) -> str:
        """How its last attempt failed, in a few words."""
        how = f"exit code {self.exit_code}" if self.exit_code is not None else None
        how = how or (signals.told(self.signal) if self.signal is not None else None)
        return self.reason or how or (self.outcome.value if self.outcome is not None else "nothing is known")

    def kept(self, stderr: bool) -> KeptStream:
        """The end of what the last attempt wrote; its size is -1 where that is not known."""
        tail, size = (self.stderr_tail, self.stderr_size) if stderr else (self.stdout_tail, self.stdout_size)
        return KeptStream(-1 if size is None else size, b"", tail)

    def take(self, end: PhaseEnd) -> None:
        """One attempt ended."""
        self.ends += 1
        self.attempts = max(self.attempts, end.attempt)
        self.finished, self.succeeded = end.final, end.succeeded
        self.outcome, self.exit_code, self.signal, self.reason = end.outcome, end.exit_code, end.signal, end.reason
        self.started_at, self.ended_at = end.started_at, end.ended_at
        self.stdout_tail, self.stderr_tail = end.stdout_tail, end.stderr_tail
        self.stdout_size, self.stderr_size = end.stdout_size, end.stderr_size
        self.clean = end.clean
        self.leftovers = end.leftovers if end.clean is None else end.clean.files


@dataclass(slots=True)
class NodeJob:
    """One round of a job on a node. It owes a release from its opening until its state is in `PAID`."""

    job: str
    node: str
    round: int
    boot: str
    state: NodeJobState
    preparation: PhaseView | None
    waits: bool = True
    """Whether tasks wait for the preparation; if not, its failure bars nothing."""
    release: PhaseView = field(default_factory=PhaseView)
    tasks_started: int = 0
    """Tasks granted and not given back unstarted: they may have started."""
    reopened: int = 0
    """How often its job had been reopened when it was opened."""
    tasks_ended: int = 0
    """Attempts of tasks whose end was reported: they have."""
    reason: str | None = None
    delayed: str | None = None
    """What its release waits for, as the node said (for people, not durable)."""
    running: dict[Phase, tuple[int, float]] = field(default_factory=dict)
    """Attempts under way and since when, as far as the node said (for people, not durable)."""

    def move(self, state: NodeJobState) -> None:
        """Take the transition; staying is no transition. Raises ValueError for one the table does not have."""
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"round {self.round} of {self.job} on {self.node}: {self.state.value} to {state.value}")
        self.state = state
        if state in _NOTHING_RUNS:
            self.running.clear()

    def view(self, phase: Phase) -> PhaseView | None:
        """What is known of its preparation or its release."""
        return self.preparation if phase is Phase.PREPARATION else self.release

    @property
    def owes_release(self) -> bool:
        """The one predicate behind promise 3."""
        return self.state not in PAID

    def take(self, end: PhaseEnd) -> None:
        """Apply a reported end of an attempt of this round's preparation or release."""
        self.running.pop(end.phase, None)
        if end.phase is Phase.PREPARATION and self.preparation is not None:
            self.preparation.take(end)
            if self.state in (NodeJobState.PREPARING, NodeJobState.ABSENT, NodeJobState.PREPARED):
                self._prepared_or_not(end)
        elif end.phase is Phase.RELEASE and self.owes_release:
            self.release.take(end)
            if end.final:
                if self.state not in (NodeJobState.RELEASING, NodeJobState.UNREACHED):
                    self.move(NodeJobState.RELEASING)
                self.move(NodeJobState.RELEASED if end.succeeded else NodeJobState.RELEASE_FAILED)

    def _prepared_or_not(self, end: PhaseEnd) -> None:
        if end.final and (end.succeeded or not self.waits):
            self.move(NodeJobState.PREPARED)
        elif end.final and self.state is not NodeJobState.PREPARED:
            self.move(NodeJobState.BARRED)
