"""Drains come to their end: in the calm a node that works for a job which does not end is drained, taken back, and
works for it again. What had begun to be drained before ends as drained too, before it is taken back."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from coordinator.records import NodeJobState
from tests.simulator.invariants import Breach, require
from tests.simulator.society import POOL
from tests.simulator.truth import RoundTruth
from tests.simulator.workload import Character, Kind, command, document
from wire import messages as m
from wire.messages import Message

if TYPE_CHECKING:
    from tests.simulator.operators import Operators

DEADLINES_S: Final = (0.0, 2.0, 10.0, 40.0)
LOOKS_S: Final = 1.0
STOPPED_S: Final = 25.0
"""After its deadline nothing runs any more: the grace of any task, and the way there."""
PATIENCE_S: Final = 600.0
"""Three nodes of which one at a time releases, each with all tries of the slowest release that is drawn."""
QUICK: Final = Character(duration_s=(0.2, 2.0))


class Stage(enum.Enum):
    """How far the drain in the calm has come."""

    SUBMITTED = "its job is on its way"
    WORKS = "its job has not begun there"
    EMPTIES = "it is to be drained"
    BACK = "it is not back at work"
    OVER = "over"


def standing_job(tasks: int) -> dict[str, Any]:
    """It goes on until it is ended, and has always more to run than there is room for."""
    task = Character(hang=1.0, ignores_term=0.3)
    phase = {"retries": 1, "timeout_ms": 30_000}
    return {
        "name": "standing",
        "pool": POOL,
        "priority": 1000,
        "finish": "manual",
        "preparation": {"command": command(Kind.PREPARATION, QUICK, **phase)},
        "release": {"command": command(Kind.RELEASE, QUICK, **phase)},
        "groups": [
            {
                "name": "g",
                "axes": [{"names": ["i"], "range": (1, tasks, 1)}],
                "command": command(Kind.TASK, task, retries=0),
            }
        ],
    }


class Drains:
    """Begins with the calm, looks every second, and says what it waits for."""

    def __init__(self, operators: Operators) -> None:
        self.operators = operators
        self.sim = operators.sim
        self.world = operators.world
        self.truth = operators.sim.truth
        self.stage = Stage.SUBMITTED
        self.node = next(machine.node for machine in self.sim.machines if machine.powered)
        self.job = ""
        self.began = self.since = self.world.now
        """When the calm began, and the stage."""
        self.deadline_s = operators.rng.choice(DEADLINES_S)
        slots = sum(machine.config.slots for machine in self.sim.machines)
        self.document = document(standing_job(2 * slots))
        self._submit()

    @property
    def holds(self) -> str | None:
        """The node that nobody else may take back just now."""
        return self.node if self.stage is Stage.EMPTIES else None

    def unrest(self) -> list[str]:
        return [] if self.stage is Stage.OVER else [f"{self.node}: {self.stage.value}"]

    def _submit(self) -> None:
        self.sim.people.ask(
            lambda request: m.Submit(request=request, submission="standing", document=self.document), self._submitted
        )

    def _submitted(self, answer: Message) -> None:
        if isinstance(answer, m.Refused):  # the disk was full until just now
            require(self.world.now - self.began < PATIENCE_S, "drain", f"nothing is taken any more: {answer.message}")
            self.world.after(LOOKS_S, self._submit)
            return
        assert isinstance(answer, m.Reply)
        self.job = answer.body["jobs"][0]["id"]
        self._enter(Stage.WORKS)
        self._look()

    def _enter(self, stage: Stage) -> None:
        self.stage, self.since = stage, self.world.now

    def _look(self) -> None:
        late = self.world.now - self.since > PATIENCE_S + self.deadline_s
        require(not late, "drain", f"{self.node}: {self.stage.value}, since {self.since:.0f} s", self.job)
        match self.stage:
            case Stage.WORKS if self._runs() and not self.truth.drained:
                self.operators.drain(self.node, self.deadline_s, wait=True)
                self._enter(Stage.EMPTIES)
            case Stage.EMPTIES if self.truth.drained.get(self.node):
                self.operators.enable(self.node)
                self._enter(Stage.BACK)
            case Stage.EMPTIES:
                self._stopped_in_time()
            case Stage.BACK if self._prepared_anew():
                self.sim.people.terminate(self.job)
                self._enter(Stage.OVER)
            case _:
                pass
        if self.stage is not Stage.OVER:
            self.world.after(LOOKS_S, self._look)

    def _rounds(self) -> list[RoundTruth]:
        return [found for found in self.truth.rounds[self.job, self.node] if not found.voided]

    def _runs(self) -> bool:
        return any(tree.who.job == self.job and tree.who.kind is Kind.TASK for tree in self.truth.live[self.node])

    def _stopped_in_time(self) -> None:
        """A deadline that has passed is acted on, whatever the releases wait for."""
        marked = self.truth.drain_marks.get(self.node, self.world.now)
        if self.world.now - max(marked, self.since) > self.deadline_s + STOPPED_S and self._runs():
            raise Breach("drain", f"{self.node} runs tasks {STOPPED_S:g} s after its drain's deadline", self.job)

    def _prepared_anew(self) -> bool:
        """It works for the job again, in a next round that has its own preparation."""
        *earlier, last = self._rounds()
        prepared = any(tree.who.kind is Kind.PREPARATION and tree.succeeded for tree in last.trees)
        if not (earlier and prepared and self._runs()):
            return False
        due = [*(found for found in earlier[:-1] if not found.unreached), earlier[-1]]  # but a shut out machine's
        paid = all(found.state is NodeJobState.RELEASED and found.released_well for found in due)
        require(paid, "drain", f"{self.node} is back with a round that was not released", self.job)
        return True

    def begun_before(self) -> None:
        """Nodes that faults found draining are drained within reason, too."""
        for node, empty in self.truth.drained.items():
            since = max(self.began, self.truth.drain_marks[node])
            late = not empty and self.world.now - since > PATIENCE_S + max(DEADLINES_S)
            gone = all(machine.name in self.sim.gone for machine in self.sim.machines if machine.node == node)
            require(gone or not late, "drain", f"{node} was to be drained {since:.0f} s after the start, and is not")
