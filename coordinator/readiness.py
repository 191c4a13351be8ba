"""Which tasks may run by their `after`, which never will, and what each still waits for.

What `after` says of whole groups is read from their counts. What pairs tasks by value is kept as a counter a key
(`coordinator.pairing`) and a byte a waiting task (`coordinator.gates`), moved where a task's byte becomes final. All of
it follows from the bytes alone: `rebuild` makes it, after a restart and whenever bytes were taken back.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from coordinator.gates import Gate
from coordinator.model import OVER, Group, Job, JobState, TaskState
from coordinator.pairing import Pairing
from coordinator.render import count_of
from wire.spec import After, When

_OVER: Final = re.compile(rb"([%c-%c])\1*" % (TaskState.SUCCEEDED, TaskState.SKIPPED))
_NOT_ACTIVE: Final = re.compile(rb"[^%c]+" % TaskState.ACTIVE)
_WIDTHS: Final = (("B", 1 << 8), ("H", 1 << 16), ("I", 1 << 32))
WORTH: Final = 8
"""Ends that are told one by one in the time that a key takes to be counted."""
BAD: Final = (TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED)
"""What keeps `after = x` from coming true, in the order in which it is told."""
_WORDS: Final = {
    TaskState.FAILED: "failed",
    TaskState.CANCELLED: "was cancelled",
    TaskState.SKIPPED: "was skipped",
}


class Link:
    """One element of a group's `after` that pairs tasks by value. It is told each end in the group that is waited for,
    once, and opens or dooms the tasks that wait. Invariant: what it did follows from the bytes of both groups."""

    def __init__(self, source: Group, target: Group, gate: Gate, after: After) -> None:
        self.source, self.target, self.gate, self.after = source, target, gate, after
        self.pairing = Pairing(source.sweep, target.sweep, after.axes)
        self.seen: array[int] | None = None
        """Ends seen of each key, or `decided`; None where each key has one element, whose end decides."""
        self.doomed: list[range] = []
        """Keys whose condition can no longer come true, whose tasks are not skipped yet."""
        self.unpaired = False
        """So is what pairs with nothing, as it waits for a failure among it."""
        self.decided = self.pairing.most + 1
        if self.pairing.most > 1:
            code = next(code for code, most in _WIDTHS if self.decided < most)
            self.seen = array(code, bytes(array(code).itemsize * self.pairing.keys))
        gate.raise_(self.pairing.paired())

    def ended(self, index: int, state: TaskState) -> None:
        """An element of the source is over."""
        key = self.pairing.key_of(index)
        if self.seen is not None:
            seen = self.seen[key]
            if seen == self.decided:
                return
            self.seen[key] = seen + 1
        if self._fulfils_at_once(state):
            self._decide(key, comes_true=True)
        elif self._spoils(state):
            self._decide(key, comes_true=False)
        elif self.seen is None or self.seen[key] == self.pairing.count(key):
            self._decide(key, comes_true=self.after.when is not When.FAILED)

    def ended_runs(self, runs: list[range], state: TaskState) -> None:
        """All of these are over by now, and all went this way."""
        total = sum(map(len, runs))
        if self.pairing.alike or total == self.source.size:
            self._decide_alike(runs, state)
        elif self.is_read(total):
            self.read()
        else:
            for index in chain.from_iterable(runs):
                self.ended(index, state)

    def _decide_alike(self, runs: list[range], state: TaskState) -> None:
        """What became of these decides their keys, which nothing did before."""
        if self._fulfils_at_once(state) or (self.after.when is not When.FAILED and not self._spoils(state)):
            self.gate.lower(runs if self.pairing.alike else self.pairing.paired())
        else:
            self.doomed += runs if self.pairing.alike else [range(self.pairing.keys)]

    def is_read(self, ends: int) -> bool:
        """Whether so many ends are better counted key by key in the bytes than one by one."""
        return self.pairing.keys * WORTH <= ends

    def read(self) -> None:
        """Count what is over of each key that is not decided, instead of being told; keys have several elements."""
        assert self.seen is not None
        for key in range(self.pairing.keys):
            if self.seen[key] == self.decided:
                continue
            counts = _counts(self.source, self.pairing.elements(key))
            self.seen[key] = over = sum(counts[state] for state in OVER)
            if any(counts[state] and self._fulfils_at_once(state) for state in OVER):
                self._decide(key, comes_true=True)
            elif any(counts[state] and self._spoils(state) for state in OVER):
                self._decide(key, comes_true=False)
            elif over == self.pairing.count(key):
                self._decide(key, comes_true=self.after.when is not When.FAILED)

    def _fulfils_at_once(self, state: TaskState) -> bool:
        return self.after.when is When.FAILED and state is TaskState.FAILED

    def _spoils(self, state: TaskState) -> bool:
        """Whether one such end keeps the condition from ever coming true."""
        return self.after.when is When.SUCCEEDED and not is_good(self.source, state)

    def _decide(self, key: int, *, comes_true: bool) -> None:
        if self.seen is not None:
            self.seen[key] = self.decided
        if comes_true:
            self.gate.lower(self.pairing.targets(key))
        else:
            self.doomed.append(range(key, key + 1))

    def take_doomed(self) -> list[range]:
        """The waiting tasks that will never run by this; each is told once."""
        keys, self.doomed = self.doomed, []
        runs = list(_unpaired(self.pairing, self.target.size)) if self.unpaired else []
        self.unpaired = False
        for some in keys:
            if self.pairing.alike:
                runs.append(some)
            elif len(some) == self.pairing.keys > 1:
                runs += self.pairing.paired()
            else:
                runs += (run for key in some for run in self.pairing.targets(key))
        state = self.target.state
        found: list[range] = []
        for run in runs:
            active = state[run.start : run.stop : run.step].count(TaskState.ACTIVE)
            if active == len(run):
                found.append(run)
            elif active:
                found += (range(index, index + 1) for index in run if state[index] == TaskState.ACTIVE)
        return found


def _unpaired(pairing: Pairing, size: int) -> Iterator[range]:
    """The tasks of the target that pair with nothing."""
    alone = bytearray(b"\x01") * size
    for run in pairing.paired():
        alone[run.start : run.stop : run.step] = bytes(len(run))
    for found in re.finditer(b"\x01+", alone):
        yield range(found.start(), found.end())


def is_good(source: Group, state: TaskState) -> bool:
    """Whether `after = x` may come true beside such an end: a failure of what is optional counts for nothing."""
    return state is TaskState.SUCCEEDED or (state is TaskState.FAILED and source.spec.optional)


def rebuild(job: Job) -> None:
    """Make all that is kept of the job's `after` anew, from the bytes of its tasks."""
    for group in job.groups:
        group.gate, group.links, group.followers = None, [], []
    for group in job.groups:
        paired = [after for after in group.spec.after if after.axes]
        if not paired or job.state in (JobState.TERMINATING, JobState.COMPLETED):
            continue
        group.gate = gate = Gate(group.size)
        group.links = [Link(job.groups[after.group], group, gate, after) for after in paired]
    for group in job.groups:
        for link in group.links:
            _catch_up(link)
            link.source.followers.append(link)
        if group.gate is not None:
            for found in _NOT_ACTIVE.finditer(group.state):
                group.gate.close(range(found.start(), found.end()))
        group.rebuild_again()


def _catch_up(link: Link) -> None:
    """Tell a new link what is over already."""
    if link.after.when is When.FAILED:
        link.unpaired = sum(map(len, link.pairing.paired())) < link.target.size
    source = link.source
    over = sum(source.counts[state] for state in OVER)
    if over and link.is_read(over):
        link.read()
    elif over:
        for found in _OVER.finditer(source.state):
            run, state = range(found.start(), found.end()), TaskState(found[1][0])
            if link.pairing.alike:
                link.ended_runs([run], state)
            else:
                for index in run:
                    link.ended(index, state)


# ---- what is still missing


@dataclass(frozen=True, slots=True)
class Unmet:
    """A condition that does not hold for a task."""

    after: After
    source: Group
    values: dict[str, str] = field(default_factory=dict)
    """The values that pair them, by axis; none where it is about all of the group."""
    total: int = 0
    """Tasks that it is about."""
    left: int = 0
    """Those of them that are not over."""
    spoilt: str | None = None
    """Why it can no longer come true."""
    first: int | None = None
    """The first task that keeps it from coming true; None: there is none to blame."""

    @property
    def written(self) -> str:
        """As it stands in the file: `calibrate[desk].done`."""
        return written(self.source, self.after)

    @property
    def asked(self) -> str:
        """With the task's own values: `calibrate[desk=fx].done`."""
        values = ",".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.source.spec.name}{f'[{values}]' if values else ''}{_SUFFIX[self.after.when]}"

    @property
    def label(self) -> str | None:
        """The task to look at, to know why."""
        return None if self.first is None else self.source.sweep.label(self.first)

    @property
    def sentence(self) -> str:
        if self.spoilt is not None:
            return f"`after = {self.written}` can no longer come true: {self.spoilt}"
        what = {When.SUCCEEDED: "did not succeed yet", When.DONE: "are not over", When.FAILED: "may still fail"}
        tasks = f"{self.left:,} of {count_of(self.total, 'task')}"
        return f"it waits for `{self.asked}`: {tasks} {what[self.after.when]}"


_SUFFIX: Final = {When.SUCCEEDED: "", When.DONE: ".done", When.FAILED: ".failed"}


def written(source: Group, after: After) -> str:
    """An element of `after` as it stands in the file."""
    axes = f"[{', '.join(after.axes)}]" if after.axes else ""
    return f"{source.spec.name}{axes}{_SUFFIX[after.when]}"


def unmet(job: Job, group: Group, index: int) -> Iterator[Unmet]:
    """Every condition that does not hold for a task now, in the order of its `after`."""
    for place, after in enumerate(group.spec.after):
        source = job.groups[after.group]
        values, runs = {}, [range(source.size)]
        if after.axes:
            pairing = _pairing(job, group, place)
            key = pairing.key_for(index)
            values, runs = pairing.values(index), [] if key is None else list(pairing.elements(key))
        found = _look(source, after, values, runs)
        if found is not None:
            yield found


def _pairing(job: Job, group: Group, place: int) -> Pairing:
    """That of an element of its `after`, made once: lists of tasks ask for each of them."""
    after = group.spec.after[place]
    found = next((link.pairing for link in group.links if link.after is after), group.pairings.get(place))
    if found is None:
        found = group.pairings[place] = Pairing(job.groups[after.group].sweep, group.sweep, after.axes)
    return found


def why_skipped(job: Job, group: Group, index: int) -> str | None:
    """Why a task will never run, as far as its `after` says so."""
    return next((found.sentence for found in unmet(job, group, index) if found.spoilt is not None), None)


def _look(source: Group, after: After, values: dict[str, str], runs: list[range]) -> Unmet | None:
    """The condition over these elements, or None where it holds."""
    total = sum(len(run) for run in runs)
    counts = source.counts if total == source.size else _counts(source, runs)
    left = counts[TaskState.ACTIVE] + counts[TaskState.GRANTED]
    name, spoilt, first = source.spec.name, None, None
    match after.when:
        case When.DONE:
            if not left:
                return None
        case When.FAILED:
            if counts[TaskState.FAILED]:
                return None
            if not left:
                spoilt = f"all of `{name}` that it asks for are over, and none failed"
        case When.SUCCEEDED:
            bad = next((state for state in BAD if counts[state] and not is_good(source, state)), None)
            if bad is None and not left:
                return None
            if bad is not None:
                first = _first(source, runs, bad)
                spoilt = f"`{source.sweep.label(first)}` {_WORDS[bad]}"
                if not after.axes and source.size > 1:
                    spoilt = f"not every task of `{name}` succeeded"
    if spoilt is None:
        first = _first(source, runs, TaskState.GRANTED if counts[TaskState.GRANTED] else TaskState.ACTIVE)
    return Unmet(after, source, values, total, left, spoilt, first)


def _counts(source: Group, runs: Iterable[range]) -> list[int]:
    """How many of these tasks are in each state."""
    counts = [0] * len(TaskState)
    for run in runs:
        tasks = source.state[run.start : run.stop : run.step]
        counts = [count + tasks.count(state) for count, state in zip(counts, TaskState, strict=True)]
    return counts


def _first(source: Group, runs: list[range], state: TaskState) -> int:
    found = [
        run[at] for run in runs if (at := source.state[run.start : run.stop : run.step].find(state)) >= 0
    ]  # fmt: skip
    return min(found)
