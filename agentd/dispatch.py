"""Tasks on a node: grants wait as ranges and run first in, first out, as slots come free; short ones a little ahead.

Only what is at a keeper is an object. A keeper with work holds its command's slots; what is queued behind the
running command holds none, as it starts when that one is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agentd.desk import MAX_REASON, Desk, Spans, spans_of
from agentd.dialogue import ItemEnded, RecallItems, RunItems, StopItem
from agentd.environment import TaskTexts, attempt_directory
from agentd.feeding import Feeding
from agentd.keepers import Keeper, Keepers
from agentd.model import Grant, Round
from agentd.outputs import is_wanted
from agentd.records import Allowance, Dropped, Owed, Purpose
from wire.messages import Outcome, Started, TaskEnd
from wire.spec import Command
from wire.template import TemplateError

AHEAD_S: Final = 0.1
MAX_AHEAD: Final = 128
"""A keeper is fed ahead: so much work by the durations seen, so many commands at most."""
ANNOUNCED: Final = 1000
"""Tasks that are told to run in one message."""
SMOOTHING: Final = 0.2
VOID: Final = "The coordinator has dropped it."


@dataclass(slots=True)
class Waiting:
    """What of a grant was not given to a keeper yet, and how the rest is to be taken back."""

    grant: int
    job: str
    round: int
    spans: deque[tuple[int, int]]
    held: bool = False
    """Known from an earlier life of the agent: nothing of it starts before the coordinator was asked."""
    returning: bool = False
    """Whatever comes back from a keeper unstarted goes back to the coordinator."""
    stopped: set[int] = field(default_factory=set)
    """Positions that were stopped one by one: those of them that a keeper did not start go back as well."""
    barriers: dict[str, int] = field(default_factory=dict)
    """While a recall is answered: the pong of each keeper that will settle what has started."""
    returned: list[int] | None = None

    def take(self) -> int:
        first, count = self.spans.popleft()
        if count > 1:
            self.spans.appendleft((first + 1, count - 1))
        return first

    def put_back(self, positions: Iterable[int]) -> None:
        for span in reversed(spans_of(sorted(positions))):
            self.spans.appendleft(span)


def key_of(grant: int, position: int, slots: tuple[int, ...], gpus: tuple[str, ...] = ()) -> str:
    """What a keeper calls a task: all that an agent which lost its memory must know of what runs."""
    key = f"{grant}.{position}.{slots[0]}.{len(slots)}"
    return f"{key}.{','.join(gpus)}" if gpus else key


def parse_key(key: str) -> tuple[int, int, tuple[int, ...], tuple[str, ...]] | None:
    """(grant, position, slots, GPUs), or None for what is no task's key."""
    parts = key.split(".")
    if len(parts) not in (4, 5) or not all(part.isdecimal() for part in parts[:4]):
        return None
    grant, position, slot, width = map(int, parts[:4])
    return grant, position, tuple(range(slot, slot + width)), tuple(parts[4].split(",")) if len(parts) == 5 else ()


class Dispatch:
    """Invariants: slots and GPUs of keepers with work are disjoint and, but for what an earlier life or a larger limit
    left, within the limit; a position is either in `spans`, at one keeper, or no longer open."""

    def __init__(self, desk: Desk, keepers: Keepers, texts: Callable[[str, int, int], TaskTexts]) -> None:
        self._desk = desk
        self._keepers = keepers
        self._texts = texts
        self._waiting: dict[int, Waiting] = {}
        self._durations: dict[tuple[str, int], float] = {}
        self.no_retry_of: str | None = None
        """Directories of this job's tasks are being thrown away: no task begins again that may have had one."""
        self._announced: list[tuple[int, int, float]] = []

    # ---- grants come and go

    def add(self, grant: int) -> None:
        """A grant was recorded."""
        held = self._desk.ledger.grants[grant]
        self._waiting[grant] = Waiting(grant, held.job, held.round, deque([(0, held.count)]))

    def restarted(self) -> None:
        """Grants of an earlier life: what no keeper turns out to hold is given back at the next join."""
        for grant, held in self._desk.ledger.grants.items():
            self._waiting[grant] = Waiting(grant, held.job, held.round, deque(), held=True)

    def surveyed(self) -> None:
        """All keepers have said what they hold: the rest never started, unless that is not known."""
        at_keepers = self._positions_at_keepers()
        self._desk.flush()
        for waiting in list(self._waiting.values()):
            held = self._desk.ledger.grants.get(waiting.grant)
            if held is None or held.stale:
                self._void(waiting)
                continue
            away = at_keepers.get(waiting.grant, set())
            still = [n for n in range(held.count) if held.open[n] and n not in away]
            waiting.spans = deque(spans_of(still))

    def _void(self, waiting: Waiting) -> None:
        del self._waiting[waiting.grant]
        if waiting.grant in self._desk.ledger.grants:
            self._desk.keep_of_grant(Dropped(waiting.grant))

    def _positions_at_keepers(self) -> dict[int, set[int]]:
        at: dict[int, set[int]] = {}
        for keeper in self._keepers.all.values():
            for grant, position in keeper.items.values():
                at.setdefault(grant, set()).add(position)
        return at

    def joined(self) -> None:
        """The inventory is told: give back what was kept from an earlier life."""
        for waiting in [waiting for waiting in self._waiting.values() if waiting.held]:
            waiting.held = False
            if waiting.spans:
                self._return_spans(waiting)
        self._announced += [
            (*keeper.items[key], at)
            for keeper in self._keepers.of_purpose(Purpose.TASKS)
            for key, at in keeper.started.items()
            if key in keeper.items
        ]

    def drop(self, grants: Iterable[int]) -> None:
        """These are void: kill what runs of them, report nothing."""
        self._desk.flush()
        void = set(grants)
        for grant in void & self._waiting.keys():
            self._void(self._waiting[grant])
        for keeper in self._keepers.of_purpose(Purpose.TASKS):
            for key, (grant, _) in keeper.items.items():
                if grant in void:
                    self._desk.say(keeper.name, StopItem(key=key, reason=VOID))

    def stop(self, grant: int, spans: Spans, reason: str) -> None:
        """End these positions: what a keeper has is stopped and tells its end, the rest goes back unstarted."""
        waiting, held = self._waiting.get(grant), self._desk.ledger.grants.get(grant)
        if waiting is None or held is None:
            return
        wanted = {n for first, count in spans for n in range(max(0, first), min(first + count, held.count))}
        waiting.stopped |= wanted
        still = [n for first, count in waiting.spans for n in range(first, first + count)]
        waiting.spans = deque(spans_of([n for n in still if n not in wanted]))
        for keeper in self._keepers.of(waiting.job, Purpose.TASKS):
            for key, (owner, position) in keeper.items.items():
                if owner == grant and position in wanted:
                    self._desk.say(keeper.name, StopItem(key=key, reason=reason[:MAX_REASON]))
        self._come_back(grant, [n for n in still if n in wanted])

    def recall(self, grant: int) -> None:
        """Give back what has not started; answered once, when every keeper has said what it could not give back."""
        waiting = self._waiting.get(grant)
        if waiting is None:
            self._desk.give_back(grant, [])
            return
        if waiting.returned is not None:
            return
        waiting.returned = [n for first, count in waiting.spans for n in range(first, first + count)]
        waiting.spans.clear()
        waiting.returning = True  # nothing of it starts after the answer, whatever becomes of the keeper that has it
        for keeper in self._keepers.of(waiting.job, Purpose.TASKS):
            keys = [key for key, (owner, _) in keeper.items.items() if owner == grant]
            if keys:
                self._desk.say(keeper.name, RecallItems(keys=keys))
                waiting.barriers[keeper.name] = self._keepers.barrier(keeper)
        self._answer_recall(waiting)

    def _answer_recall(self, waiting: Waiting) -> None:
        if waiting.returned is None or waiting.barriers:
            return
        positions, waiting.returned = sorted(waiting.returned), None
        self._desk.give_back(waiting.grant, spans_of(positions))
        self._close_if_over(waiting)

    def return_all(self, job: str, number: int) -> None:
        """Nothing of this round starts any more: give back what waits, and what keepers did not begin."""
        for waiting in [w for w in self._waiting.values() if w.job == job and w.round == number]:
            self._return_spans(waiting)
            waiting.returning = True
        for keeper in self._keepers.of(job, Purpose.TASKS):
            if len(keeper.items) > 1:
                self._desk.say(keeper.name, RecallItems(keys=None))

    def return_everything(self) -> None:
        """Nothing starts any more of what was granted so far."""
        for waiting in list(self._waiting.values()):
            self._return_spans(waiting)
            waiting.returning = True
        for keeper in self._keepers.of_purpose(Purpose.TASKS):
            if keeper.items:
                self._desk.say(keeper.name, RecallItems(keys=None))

    def hold(self) -> None:
        """Have keepers give back what they have not begun; it waits here."""
        for keeper in self._keepers.of_purpose(Purpose.TASKS):
            if len(keeper.items) > 1:
                self._desk.say(keeper.name, RecallItems(keys=None))

    def fail_waiting(self, job: str, reason: str, allowance: Allowance | None = None) -> None:
        """What waits of this job (for keepers of this allowance) can't be started: each attempt fails with the
        reason."""
        for waiting in [w for w in self._waiting.values() if w.job == job and not w.held and w.returned is None]:
            if allowance is not None and self._allowance_of(waiting) != allowance:
                continue
            spans, waiting.spans = waiting.spans, deque()
            for first, count in spans:
                for position in range(first, first + count):
                    self._failed(waiting.grant, position, reason)
            self._close_if_over(waiting)

    def _allowance_of(self, waiting: Waiting) -> Allowance | None:
        grant = self._desk.ledger.grants.get(waiting.grant)
        return None if grant is None else self._texts(grant.job, grant.round, grant.group).allowance

    def _return_spans(self, waiting: Waiting) -> None:
        spans: Spans = list(waiting.spans)
        waiting.spans.clear()
        if waiting.returned is not None:
            waiting.returned += [n for first, count in spans for n in range(first, first + count)]
        elif spans:
            self._desk.give_back(waiting.grant, spans)
        self._close_if_over(waiting)

    def _close_if_over(self, waiting: Waiting) -> None:
        if waiting.grant not in self._desk.ledger.grants and waiting.returned is None:
            self._waiting.pop(waiting.grant, None)

    # ---- what keepers say

    def greeted(self, keeper: Keeper, keys: list[str]) -> None:
        """What it holds, after a restart of ours; what is void is stopped."""
        for key in keys:
            parsed = parse_key(key)
            if parsed is None:
                self._desk.say(keeper.name, StopItem(key=key, reason="It is no task of this node."))
                continue
            grant, position, keeper.slots, keeper.gpus = parsed
            keeper.items[key] = (grant, position)
            if self._desk.is_open(grant, position) is None:
                self._desk.say(keeper.name, StopItem(key=key, reason=VOID))

    def started(self, keeper: Keeper, key: str, at: float) -> None:
        if key in keeper.items:
            keeper.started[key] = at
            if keeper.items[key][0] in self._desk.ledger.grants:
                self._announced.append((*keeper.items[key], at))

    def ended(self, keeper: Keeper, said: ItemEnded) -> None:
        """An end, possibly one that was told before: then only its ack is owed."""
        self._keepers.recorded(keeper, said.seq)
        item = self._take_item(keeper, said.key)
        if item is None:
            parsed = parse_key(said.key)
            item = None if parsed is None else parsed[:2]
        if item is not None:
            self._end(item, said)

    def _end(self, item: tuple[int, int], said: ItemEnded) -> None:
        grant = self._desk.is_open(*item)
        if grant is None:
            return
        reason = None if said.reason is None else said.reason[:MAX_REASON]
        end = TaskEnd(
            *item, said.outcome, said.exit_code, said.signal, said.started_at, said.ended_at, said.cpu_s,
            said.max_rss_bytes, reason,
        )  # fmt: skip
        self._desk.task_ended(end, self._owed(grant, end))
        if said.outcome is Outcome.EXITED:
            self._learn((grant.job, grant.group), max(0.0, said.ended_at - said.started_at))

    def _owed(self, grant: Grant, end: TaskEnd) -> Owed | None:
        """What it wrote, if the coordinator is to have that."""
        if end.outcome is Outcome.EXITED and end.exit_code == 0 and not self._desk.config.output_success:
            command = self._desk.ledger.jobs[grant.job].spec.groups[grant.group].command
            if not command.arms:
                return None  # as most do
        texts = self._texts(grant.job, grant.round, grant.group)
        wanted = is_wanted(self._desk.config, texts.spec.command, end)
        if wanted is None:
            return None
        index = grant.index(end.position)
        directory = attempt_directory(f"{grant.job}/{texts.sweep.task_id(index)}", grant.attempt)
        return Owed(grant.job, grant.group, index, grant.attempt, directory, wanted)

    def recalled(self, keeper: Keeper, keys: list[str]) -> None:
        """These never started and never will there."""
        back: dict[int, list[int]] = {}
        for key in keys:
            item = self._take_item(keeper, key)
            if item is not None and self._desk.is_open(*item) is not None:
                back.setdefault(item[0], []).append(item[1])
        for grant, positions in back.items():
            self._come_back(grant, positions)

    def _come_back(self, grant: int, positions: list[int]) -> None:
        waiting = self._waiting.get(grant)
        if waiting is None:
            return
        if waiting.returned is not None:
            waiting.returned += positions
            return
        waiting.put_back(n for n in positions if not waiting.returning and n not in waiting.stopped)
        back = sorted(n for n in positions if waiting.returning or n in waiting.stopped)
        if back:
            self._desk.give_back(grant, spans_of(back))
            self._close_if_over(waiting)

    def ponged(self, keeper: Keeper, number: int) -> None:
        for waiting in [w for w in self._waiting.values() if w.barriers.get(keeper.name, number + 1) <= number]:
            del waiting.barriers[keeper.name]
            self._answer_recall(waiting)

    def keeper_dead(self, keeper: Keeper, started: frozenset[str], ends: Iterable[ItemEnded], reason: str) -> None:
        """Take what its record file says: what ended did, what only started is lost, the rest never began."""
        for said in ends:
            self.ended(keeper, said)
        for key in started:
            item = self._take_item(keeper, key) or self._named(key)
            if item is not None:
                self._lost(item, reason)
        for key in list(keeper.items):
            item = self._take_item(keeper, key)
            if item is not None and self._desk.is_open(*item) is not None:
                self._come_back(item[0], [item[1]])
        for waiting in [w for w in self._waiting.values() if keeper.name in w.barriers]:
            del waiting.barriers[keeper.name]
            self._answer_recall(waiting)

    def _named(self, key: str) -> tuple[int, int] | None:
        parsed = parse_key(key)
        return None if parsed is None else parsed[:2]

    def _take_item(self, keeper: Keeper, key: str) -> tuple[int, int] | None:
        """What this key stood for there; with its last item a keeper's slots are free."""
        item = keeper.items.pop(key, None)
        keeper.started.pop(key, None)
        if item is not None and not keeper.items:
            keeper.rest()
            keeper.since = self._desk.now.boottime
        return item

    def _lost(self, item: tuple[int, int], reason: str) -> None:
        if self._desk.is_open(*item) is not None:
            self._unstarted(item, Outcome.LOST, reason or "Its keeper died, so nobody knows how it ended.")

    def _failed(self, grant: int, position: int, reason: str, outcome: Outcome = Outcome.START_FAILED) -> None:
        held = self._desk.is_open(grant, position)
        if held is not None:
            self._desk.begin(held.job, held.round)
            self._unstarted((grant, position), outcome, reason)

    def _unstarted(self, item: tuple[int, int], outcome: Outcome, reason: str) -> None:
        wall = self._desk.now.wall
        end = TaskEnd(*item, outcome, None, None, wall, wall, 0.0, 0, reason[:MAX_REASON])
        self._desk.task_ended(end, self._owed(self._desk.ledger.grants[end.grant], end))

    # ---- feeding

    def _learn(self, group: tuple[str, int], seconds: float) -> None:
        known = self._durations.get(group)
        self._durations[group] = seconds if known is None else known + SMOOTHING * (seconds - known)

    def forget_job(self, job: str) -> None:
        for group in [group for group in self._durations if group[0] == job]:
            del self._durations[group]

    def _depth(self, grant: Grant) -> int:
        """How many commands of this group a keeper may hold at once."""
        known = self._durations.get((grant.job, grant.group))
        if known is None:
            return 1
        return min(MAX_AHEAD, max(1, int(AHEAD_S / max(known, 1e-4))))

    def feed(
        self, slots: int, runnable: Callable[[Round], bool], lacking: Callable[[str, Command], str | None]
    ) -> None:
        """Give keepers what may run, in the order in which it was granted. `lacking` says why a command can't have its
        files here."""
        feeding = Feeding(slots, self._desk.config, self._keepers)
        for waiting in list(self._waiting.values()):
            if not waiting.spans or waiting.held or waiting.returned is not None:
                continue
            if waiting.job == self.no_retry_of and self._desk.ledger.grants[waiting.grant].attempt > 1:
                continue
            held = self._desk.ledger.round(waiting.job, waiting.round)
            if held is None or not runnable(held):
                continue
            grant = self._desk.ledger.grants[waiting.grant]
            command = self._texts(grant.job, grant.round, grant.group).spec.command
            if (reason := lacking(grant.job, command)) is not None:
                self._fail_grant(waiting, reason, Outcome.INPUT_FAILED)
                continue
            if not self._feed_grant(feeding, waiting, self._desk.ledger.grants[waiting.grant]):
                break
        feeding.settle()

    def _feed_grant(self, feeding: Feeding, waiting: Waiting, grant: Grant) -> bool:
        """Whether all of it found a place (else what was granted later waits behind it)."""
        texts = self._texts(grant.job, grant.round, grant.group)
        width, depth = texts.spec.slots, self._depth(grant)
        if texts.failure is not None:
            self._fail_grant(waiting, texts.failure)
            return True
        keepers = self._keepers.for_tasks(grant.job, texts.allowance)
        share = min(depth, feeding.share(keepers, width, sum(count for _, count in waiting.spans)))
        usable = [keeper for keeper in keepers if keeper.usable]
        for keeper in sorted(usable, key=lambda keeper: len(keeper.items)):
            if waiting.spans and feeding.has_room(keeper, width, depth):
                self._fill(keeper, waiting, grant, texts, share)
        feeding.start_keepers(grant, texts.allowance, width, sum(count for _, count in waiting.spans))
        return not waiting.spans

    def _fill(self, keeper: Keeper, waiting: Waiting, grant: Grant, texts: TaskTexts, depth: int) -> None:
        items: list[tuple[str, str, list[str], str]] = []
        while waiting.spans and len(keeper.items) < depth:
            position = waiting.take()
            key = key_of(grant.grant, position, keeper.slots, keeper.gpus)
            try:
                template, values, directory = texts.item(grant, position, keeper.slots[0], keeper.gpus)
            except TemplateError as error:
                self._failed(grant.grant, position, f"Its texts have no value: {error}.")
                continue
            self._keepers.teach(keeper, template)
            items.append((key, template.id, values, directory))
            keeper.items[key] = (grant.grant, position)
        if items:
            self._desk.say(keeper.name, RunItems(items=items))

    def _fail_grant(self, waiting: Waiting, reason: str, outcome: Outcome = Outcome.START_FAILED) -> None:
        while waiting.spans:
            self._failed(waiting.grant, waiting.take(), reason, outcome)

    def flushed(self) -> None:
        """Ends are recorded: forget grants that are over, announce what runs."""
        grants = self._desk.ledger.grants
        for grant in [grant for grant in self._waiting if grant not in grants]:
            self._close_if_over(self._waiting[grant])
        for first in range(0, len(self._announced), ANNOUNCED):
            self._desk.send(Started(self._announced[first : first + ANNOUNCED]))
        self._announced.clear()
