"""Whatever happens in whatever order: slots, order of phases, and no attempt twice. Every step replays the journal."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentd.events import Disconnected
from agentd.records import Purpose
from tests.agentd.node import Node, StandInKeeper, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome, RoundState
from wire.spec import Command

SLOTS = 3
SPEC = job_spec(
    group(name="a"),
    group(name="b", slots=2),
    group(name="c", command=Command(argv=["id"], elevated=True)),
    preparation=preparation(retries=1),
    release=release(retries=1),
)
"""The last group wants what this node never gives."""
pick = st.integers(0, 1000)


class Life(RuleBasedStateMachine):
    """One job on one node, and everything that can befall it."""

    @initialize()
    def begin(self) -> None:
        self.node = Node()
        self.node.join(slots=SLOTS)
        self.node.open(SPEC)
        self.grants = 0
        self.kinds: dict[int, int] = {}
        self.judged = 0
        self.prepared_at_some_time = False

    @property
    def joined(self) -> bool:
        return self.node.core.joined

    @property
    def state(self) -> RoundState | None:
        held = self.node.core.ledger.round("j-1", 1)
        return None if held is None else held.state

    # ---- orders

    @precondition(lambda self: self.joined)
    @rule(count=st.integers(1, 12), kind=st.integers(0, 2))
    def grant(self, count: int, kind: int) -> None:
        self.grants += 1
        self.kinds[self.grants] = kind
        self.node.run(self.grants, count, group=kind)

    @precondition(lambda self: self.joined)
    @rule()
    def prepare(self) -> None:
        self.node.hear(m.Prepare("j-1", 1))

    @precondition(lambda self: self.joined and self.grants > 3)
    @rule()
    def end_round(self) -> None:
        self.node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))

    @precondition(lambda self: self.joined and self.grants)
    @rule(which=pick)
    def recall(self, which: int) -> None:
        self.node.hear(m.Recall(1 + which % self.grants))

    @precondition(lambda self: self.joined and self.grants)
    @rule(which=pick)
    def drop(self, which: int) -> None:
        self.node.hear(m.Drop([1 + which % self.grants]))

    @precondition(lambda self: self.joined)
    @rule(which=pick)
    def nonsense(self, which: int) -> None:
        """Orders for what was never here, and for more than there is: answered or the session is over, no more."""
        orders: tuple[m.Message, ...] = (
            m.Run(grant=9_000 + which, job="none-1", round=1, group=0, first=0, count=3, step=1, attempt=1),
            m.Run(grant=9_000 + which, job="j-1", round=1, group=7, first=0, count=1, step=1, attempt=1),
            m.Run(grant=9_000 + which, job="j-1", round=1, group=0, first=2**40, count=1, step=1, attempt=1),
            m.ReleaseRound("j-1", 99, "UserTerminate"),
            m.Prepare("../j-1", 1),
            m.OpenRound(job="../../etc", round=1, body=b"no body"),
            m.Ack(2**40),
        )
        held = set(self.node.core.ledger.grants)
        self.node.hear(orders[which % len(orders)])
        assert set(self.node.core.ledger.grants) <= held

    @precondition(lambda self: self.joined)
    @rule()
    def ack(self) -> None:
        reports = self.node.said(m.Report)
        if reports:
            self.node.hear(m.Ack(reports[-1].number))

    # ---- keepers

    @rule()
    def greet(self) -> None:
        self.node.greet()

    @rule(which=pick, code=st.sampled_from([0, 0, 0, 1]), seconds=st.sampled_from([0.001, 0.02, 1.0]))
    def command_ends(self, which: int, code: int, seconds: float) -> None:
        busy = [keeper for keeper in self.node.keepers.values() if keeper.queue and keeper.name in self.node.greeted]
        if busy:
            keeper = busy[which % len(busy)]
            outcome = Outcome.KILLED if keeper.keys[0] in keeper.stops else Outcome.EXITED
            self.node.end(keeper.keys[0], code, outcome, keeper=keeper.name, seconds=seconds)

    @rule(which=pick)
    def keeper_dies(self, which: int) -> None:
        keepers = list(self.node.keepers.values())
        if keepers:
            self.bury(keepers[which % len(keepers)])

    def bury(self, keeper: StandInKeeper) -> None:
        self.node.keepers.pop(keeper.name, None)
        self.node.die(keeper.name, started=keeper.keys[:1])

    # ---- the world

    @rule(seconds=st.sampled_from([0.01, 3.0, 60.0, 2000.0]), beats=st.booleans())
    def time_passes(self, seconds: float, beats: bool) -> None:
        self.node.answer_beats = beats
        self.node.wait(seconds)
        self.node.answer_beats = True

    @precondition(lambda self: self.joined)
    @rule()
    def disconnect(self) -> None:
        self.node.tell(Disconnected())

    @precondition(lambda self: not self.joined)
    @rule()
    def rejoin(self) -> None:
        if not any(True for order in self.node.surveyed):
            self.node.join(slots=SLOTS)

    @rule(survivors=st.sets(st.integers(0, 8)), reboot=st.booleans())
    def restart(self, survivors: set[int], reboot: bool) -> None:
        before = self.node.restart(boot=f"b{self.node.at}" if reboot else None)
        for number, order in enumerate(self.node.surveyed):
            keeper = before.get(order.keeper)
            if keeper is not None and not reboot and number in survivors:
                running, queue = (keeper.keys[0], keeper.keys[1:]) if keeper.queue else (None, [])
                self.node.attach(keeper, running=running, queue=queue)
            elif keeper is not None:
                self.bury(keeper)
            else:
                self.node.die(order.keeper)
        self.node.join(slots=SLOTS)

    # ---- what always holds

    @invariant()
    def no_more_runs_than_there_are_slots(self) -> None:
        width = {0: 1, 1: 2}
        used = 0
        for keeper in self.node.of(Purpose.TASKS):
            if keeper.queue:
                used += int(keeper.keys[0].split(".")[3])
        assert used <= SLOTS, width

    @invariant()
    def no_attempt_is_given_out_twice(self) -> None:
        keys = [key.rsplit(".", 2)[0] for _, key in self.node.handed if key[0].isdigit()]
        again = {key for key in keys if keys.count(key) > 1}
        ran = {f"{end.grant}.{end.position}" for end in self.node.task_ends()}
        assert not again & ran, "given to a second keeper after it may have run"

    @invariant()
    def nothing_runs_unprepared(self) -> None:
        new = self.node.handed[self.judged :]
        self.judged = len(self.node.handed)
        if any(key[0].isdigit() for _, key in new):
            held = self.node.core.ledger.round("j-1", 1)
            assert held is not None
            assert held.prep.verdict is not None
            assert held.prep.verdict.value == "succeeded"

    @invariant()
    def a_release_is_alone(self) -> None:
        releasing = [keeper for keeper in self.node.of(Purpose.RELEASE) if keeper.queue]
        if releasing:
            assert self.state is RoundState.RELEASING
            assert not self.node.of(Purpose.TASKS)
            assert not self.node.of(Purpose.PREPARATION)

    @invariant()
    def nothing_is_elevated_here(self) -> None:
        assert not any(keeper.elevated for keeper in self.node.keepers.values())
        elevated = [
            key for _, key in self.node.handed if key[0].isdigit() and self.kinds.get(int(key.split(".")[0])) == 2
        ]
        assert not elevated, "an elevated command was given to a keeper"

    @invariant()
    def reports_are_numbered_without_gaps(self) -> None:
        numbers = sorted({report.number for report in self.node.said(m.Report)})
        assert not numbers or numbers == list(range(numbers[0], numbers[-1] + 1))


class TestLife(Life.TestCase):  # type: ignore[name-defined,misc]
    settings: Any = settings(
        max_examples=150, stateful_step_count=40, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
