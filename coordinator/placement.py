"""Which task runs where: ready tasks and free slots in, assignments out. Predicates only look; nothing is changed here.

Order: priority; then turns (`sharing = fair`: the owner with the fewest slots in use, then the job with the fewest,
then the one served longest ago) or submission (`fifo`); in a job, groups in file order, in a group what runs again
before what runs first.
A first pass fills free slots, a second one gives busy, prepared nodes some grants ahead of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from coordinator.claims import NOTHING, Claim
from coordinator.elsewhere import NOWHERE, failed_on, shunned
from coordinator.model import AHEAD_S, AHEAD_TASKS, Group, Job, Node, Pool
from coordinator.obstacles import Obstacle, able, claim_there, held_back, needs_preparation, obstacle, room_of
from coordinator.records import NodeJobState
from wire.spec import Placement, Sharing

MAX_GRANT: Final = 1024
"""Tasks in one grant at most: a grant is one row, one frame and one bit mask."""
MAX_PUT_OFF: Final = 64
"""Tasks of one group that are passed over in one pass because they wait for another node."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Tasks `first, first+step, ...` of `group` go to `node` as attempt `attempt`."""

    node: Node
    job: Job
    group: Group
    first: int
    count: int
    step: int
    attempt: int


@dataclass(slots=True)
class _Picker:
    """Hands out the ready tasks of one group in order, without changing the group."""

    group: Group
    again: list[int]
    cursor: int
    passed: int = 0
    """Tasks that were put off."""

    @classmethod
    def of(cls, group: Group) -> _Picker:
        return cls(group, group.again.copy() if group.ready_again() is not None else [], group.first_ready())

    @property
    def has_more(self) -> bool:
        return self.peek() is not None or self.cursor < self.group.size

    @property
    def left(self) -> int:
        gate = self.group.gate
        return len(self.again) + (self.group.size - self.cursor if gate is None else gate.open_from(self.cursor))

    def peek(self) -> int | None:
        """The next task, if it is one that runs again."""
        while self.again:
            index = self.again[0]
            if self.group.state[index] == 0 and index not in self.group.waiting:
                return index
            heapq.heappop(self.again)
        return None

    def take(self, limit: int) -> tuple[int, int, int]:
        """(first, count, attempt) of the next tasks, contiguous, `limit` of them at most."""
        index = self.peek()
        if index is None:
            first = self.cursor
            count = self.group.readies_at(first, limit)
            attempt = self.group.attempts.get(first, 1)
            if self.group.attempts:  # what was over once may be active again
                alike = takewhile(lambda at: self.group.attempts.get(at, 1) == attempt, range(first, first + count))
                count = sum(1 for _ in alike)
            self.cursor = self.group.next_ready(first + count)
            return first, count, attempt
        self._drop(index)
        return index, 1, self.group.attempts.get(index, 1)

    def put_off(self) -> None:
        """The next task waits for a node that is busy: in this pass those behind it go on."""
        if (index := self.peek()) is not None:
            self._drop(index)
        self.passed += 1
        if self.passed >= MAX_PUT_OFF:
            self.again.clear()

    def _drop(self, index: int) -> None:
        while self.again and self.again[0] == index:
            heapq.heappop(self.again)


@dataclass(slots=True)
class _Contender:
    """A job with ready work, as placement sees it while it hands out."""

    job: Job
    pickers: list[_Picker]
    used: int
    room: int
    """Tasks that `parallel` still allows."""
    preparations: int
    """Preparations that may still start."""
    served: int
    """When it was served last; what is handed out just now comes after all grants."""


@dataclass(slots=True)
class _Spans:
    """Tasks collected for one (node, group, attempt), merged to arithmetic runs."""

    runs: list[list[int]] = field(default_factory=list)

    def add(self, first: int, count: int) -> None:
        if self.runs:
            run = self.runs[-1]
            start, held, step = run
            if held == 1 and count == 1 and first > start:
                run[1], run[2] = 2, first - start
                return
            contiguous = step == 1 or held == 1
            if first == start + held * step and (count == 1 or contiguous) and held + count <= MAX_GRANT:
                run[1] += count
                run[2] = step if count == 1 and held > 1 else 1
                return
        self.runs.append([first, count, 1])


class Round:
    """One pass of placement over a pool. Invariant: no node is given more than its slots and its share ahead."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.free = {node.name: node.slots - node.used for node in pool.nodes.values() if node.takes_work}
        self.contenders = [contender for job in pool.jobs.values() if (contender := _contender(pool, job)) is not None]
        self.ages = {contender.job.id: age for age, contender in enumerate(self.contenders)}
        self.served = 1 << 62
        self.owner_used: dict[str, int] = {}
        for job in pool.jobs.values():
            self.owner_used[job.owner] = self.owner_used.get(job.owner, 0) + job.used
        self.left: dict[str, Claim] = {}
        """What nodes have left beside slots, as far as it was looked at."""
        self.reserved: set[str] = set()
        """Nodes kept for a task wider than what is free, from all others."""
        self.spared: dict[str, Claim] = {}
        """What of nodes is kept for a task that needs more than what is left beside slots, from others that need it."""
        self.waiting: list[_Contender] = []
        """Those with ready work left when the free slots were filled, where priorities differ."""
        self.newcomers: list[_Contender] = []
        """Those who hold nothing, and whose tasks are too long (or too little known) to queue ahead of slots."""
        self.able: dict[tuple[str, int], frozenset[str]] = {}
        """Nodes that could take tasks of a group, where some of it keep away from others."""
        self.opening: set[tuple[str, str]] = set()
        self.spans: dict[tuple[str, str, int, int], _Spans] = {}

    def assignments(self) -> Iterator[Assignment]:
        """Hand out all that can be, best first."""
        self._fill_free()
        if len({job.spec.priority for job in self.pool.jobs.values()}) > 1:
            self.waiting = self.unplaced()
        self.newcomers = [contender for contender in self.unplaced() if _is_newcomer(contender)]
        served = self.served
        for contender in self._in_turn(self.contenders):
            self._fill_ahead(contender)
        if served < self.served and (self.reserved or self.spared):  # whoever room is kept for may queue by now
            self.reserved.clear()
            self.spared.clear()
            self._fill_free()
        for (node, job_id, number, attempt), spans in self.spans.items():
            job = self.pool.jobs[job_id]
            for first, count, step in spans.runs:
                yield Assignment(self.pool.nodes[node], job, job.groups[number], first, count, step, attempt)

    def unplaced(self) -> list[_Contender]:
        """Contenders that still have ready work."""
        return [c for c in self.contenders if c.room > 0 and any(picker.has_more for picker in c.pickers)]

    # ---- free slots

    def _fill_free(self) -> None:
        for priority in sorted({contender.job.spec.priority for contender in self.contenders}, reverse=True):
            self._fill([c for c in self.contenders if c.job.spec.priority == priority])

    def _fill(self, contenders: list[_Contender]) -> None:
        competing = contenders.copy()
        while competing and any(free > 0 for free in self.free.values()):
            contender = min(competing, key=self._turn)
            alone = len(competing) == 1
            if not self._place_next(contender, alone):
                competing.remove(contender)

    def _turn(self, contender: _Contender) -> tuple[int, int, int, int]:
        if self.pool.sharing is Sharing.FIFO:
            return (0, 0, 0, self._age(contender))
        return (self.owner_used[contender.job.owner], contender.used, contender.served, self._age(contender))

    def _age(self, contender: _Contender) -> int:
        return self.ages[contender.job.id]

    def _in_turn(self, contenders: list[_Contender]) -> list[_Contender]:
        return sorted(contenders, key=lambda c: (-c.job.spec.priority, self._turn(c)))

    def _place_next(self, contender: _Contender, alone: bool) -> bool:
        """Give one turn's worth of the contender's work a place; False when there is nothing or nowhere."""
        if contender.room <= 0:
            return False
        for picker in contender.pickers:
            while picker.has_more:
                kept_from = self._kept_from(contender.job, picker)
                node = self._best_node(contender, picker.group, kept_from)
                if node is not None:
                    self._take(contender, picker, node, self._quantum(contender, picker, node, alone))
                    return True
                if not kept_from:
                    break
                picker.put_off()
        return False

    def _kept_from(self, job: Job, picker: _Picker) -> frozenset[str]:
        """The nodes that the next task is not to go to."""
        if not picker.group.moves or (index := picker.peek()) is None:
            return NOWHERE
        failed = failed_on(picker.group, index)
        if not failed:
            return NOWHERE
        key = (job.id, picker.group.number)
        if key not in self.able:
            self.able[key] = able(self.pool, job, picker.group)
        return shunned(failed, self.able[key])

    def _quantum(self, contender: _Contender, picker: _Picker, node: Node, alone: bool) -> int:
        """Tasks to hand out at once: all that fits where nobody else waits and nothing is left to balance."""
        fits = self.free[node.name] // picker.group.spec.slots
        if picker.group.claim is not None:
            fits = min(fits, self._times(contender.job, picker.group, node))
        if self.pool.placement is Placement.SPREAD and picker.left < sum(self.free.values()):
            return 1
        return min(fits, contender.room, MAX_GRANT) if alone else 1

    def _best_node(self, contender: _Contender, group: Group, kept_from: frozenset[str]) -> Node | None:
        best: Node | None = None
        best_key: tuple[int, int, str] | None = None
        claimed = False
        for name, free in self.free.items():
            if free <= 0 or name in self.reserved or name in kept_from:
                continue
            node = self.pool.nodes[name]
            reason = obstacle(contender.job, group, node, free, self._left_for(contender.job, group, node))
            if reason is not None or not self._may_open(contender, node) or self.is_kept(contender.job, group, node):
                claimed = claimed or reason is Obstacle.CLAIMED
                continue
            key = self._preference(contender.job, node, free)
            if best_key is None or key < best_key:
                best, best_key = node, key
        if best is None and (claimed or group.spec.slots > 1):
            self._keep_free(contender, group, kept_from)
        return best

    def left_on(self, node: Node) -> Claim:
        """What the node has left beside slots, after all that was handed out."""
        left = self.left.get(node.name)
        if left is None:
            left = self.left[node.name] = node.offer.plus(node.claimed, -1).plus(node.reserved, -1)
        return left

    def _left_for(self, job: Job, group: Group, node: Node) -> Claim | None:
        """What is left for tasks of this group; None where they need nothing. Directories that were booked just now are
        there for the tasks that come after the first."""
        if group.opening is None:
            return None
        left = self.left_on(node)
        if job.reserve is not None and (job.id, node.name) in self.opening and job.open_round(node.name) is None:
            left = left.plus(job.reserve, 1)
        return left

    def _times(self, job: Job, group: Group, node: Node) -> int:
        """How many tasks of a group with a claim find all that they need there, slots aside."""
        left = (self._left_for(job, group, node) or NOTHING).plus(self.spared.get(node.name, NOTHING), -1)
        if job.reserve is not None and job.open_round(node.name) is None:
            left = left.plus(job.reserve, -1)
        return (group.claim or NOTHING).times_in(left)

    def is_kept(self, job: Job, group: Group, node: Node) -> bool:
        """Whether the node, or what the group needs of it, is kept for a task that needs more room."""
        if node.name in self.reserved:
            return True
        kept, claim = self.spared.get(node.name), claim_there(job, group, node)
        if kept is None or claim is None:
            return False
        return claim.times_in((self._left_for(job, group, node) or NOTHING).plus(kept, -1)) < 1

    def _preference(self, job: Job, node: Node, free: int) -> tuple[int, int, str]:
        if self.pool.placement is Placement.PACK:
            unopened = job.open_round(node.name) is None and (job.id, node.name) not in self.opening
            return (int(unopened), free, node.name)
        return (0, -free, node.name)

    def _may_open(self, contender: _Contender, node: Node) -> bool:
        if (contender.job.id, node.name) in self.opening or not needs_preparation(contender.job, node):
            return True
        return contender.preparations > 0

    def _keep_free(self, contender: _Contender, group: Group, kept_from: frozenset[str]) -> None:
        """A task for which there is too little everywhere keeps the node that lacks least from others: as a whole where
        it lacks slots; where it lacks something else, what it needs of that, and who needs nothing may have the slots.
        """
        job, found = contender.job, []
        for name, free in self.free.items():
            node = self.pool.nodes[name]
            kept = name in self.reserved or name in self.spared or name in kept_from
            if kept or not self._may_open(contender, node) or obstacle(job, group, node, node.slots) is not None:
                continue
            claim = claim_there(job, group, node)
            lack = 0.0 if claim is None else claim.lack_in(self._left_for(job, group, node) or NOTHING)
            found.append((max(0, group.spec.slots - free), lack, -free, name))
        if not found:
            return
        slots, lack, _, name = min(found)
        if slots:
            self.reserved.add(name)
        elif lack and (claim := claim_there(job, group, self.pool.nodes[name])) is not None:
            self.spared[name] = claim

    def is_wanted(self, node: Node, priority: int, claim: Claim | None) -> bool:
        """Whether work of a higher priority waits that could run on the node, if this did not take its place."""
        return any(
            contender.job.spec.priority > priority and self._could_run(contender, node, claim)
            for contender in self.waiting
        )

    def ahead_of(self, job: Job, node: Node, claim: Claim | None) -> list[Job]:
        """Jobs with work left whose turn comes before this one's, and that could run on the node when it has room."""
        unplaced = self._in_turn(self.unplaced())
        if any(contender.job is job for contender in unplaced):
            unplaced = list(takewhile(lambda contender: contender.job is not job, unplaced))
        else:  # nothing of it could be handed out anyway
            unplaced = [contender for contender in unplaced if contender.job.spec.priority > job.spec.priority]
        return [contender.job for contender in unplaced if self._could_run(contender, node, claim)]

    def prepares_no_more(self, job: Job) -> bool:
        """Whether `prep { parallel }` allows no further node."""
        return any(contender.job is job and contender.preparations <= 0 for contender in self.contenders)

    def _could_run(self, contender: _Contender, node: Node, claim: Claim | None) -> bool:
        """Whether some of what is left of the job could run there, if only slots were free, and, for what queues there
        with a claim, all else too: where such queue all that the node holds is of their kind."""
        job = contender.job
        return self._may_open(contender, node) and any(
            obstacle(job, group, node, group.spec.slots, None if claim else self._left_for(job, group, node)) is None
            for group in (picker.group for picker in contender.pickers if picker.has_more)
        )

    # ---- ahead of free slots

    def _fill_ahead(self, contender: _Contender) -> None:
        for picker in contender.pickers:
            each, group = _each_ahead(picker.group), picker.group
            slots, claim = group.spec.slots, group.claim
            for name, free in self.free.items() if each else ():
                node = self.pool.nodes[name]
                depth = each * max(1, node.slots // slots)
                queued = max(0, -free // slots)  # some slots may be free, too few for this one
                if free >= slots or queued > depth // 2:
                    continue  # most nodes at most times: looked at before anything that costs more
                if contender.room <= 0 or not picker.has_more:
                    break
                if self._kept_from(contender.job, picker):
                    break  # it waits for a slot, and may choose among all that become free
                may = self._may_queue(contender.job, group, node)
                in_turn = may and not self.is_wanted(node, contender.job.spec.priority, claim)
                if in_turn and not self._yields(contender, node, claim):
                    self._take(contender, picker, node, min(depth - queued, contender.room, MAX_GRANT))

    def _yields(self, contender: _Contender, node: Node, claim: Claim | None) -> bool:
        """Whether it is the turn of one there who has nothing and may queue nothing: his way to a slot is kept free."""
        return any(
            other.job.spec.priority == contender.job.spec.priority
            and self._turn(other) < self._turn(contender)
            and self._could_run(other, node, claim)
            for other in self.newcomers
        )

    def _may_queue(self, job: Job, group: Group, node: Node) -> bool:
        """Whether tasks of the group may queue at this busy node: not where nothing is prepared."""
        slots = group.spec.slots
        if node.name in self.reserved:
            return False
        if group.claim is not None and (node.name in self.spared or not self._alike(group.claim, slots, node)):
            return False
        node_job = job.current.get(node.name)
        prepared = node_job is not None and node_job.state is NodeJobState.PREPARED
        return prepared and obstacle(job, group, node, slots) is None

    def _alike(self, claim: Claim, slots: int, node: Node) -> bool:
        """Whether all the node holds is of this width and claim, and slots run out before anything else: then what
        queues there never waits for more than a slot, and keeps no slot from those who need nothing else."""
        held, rest = divmod(node.slots - self.free[node.name], slots)
        offer = node.offer.plus(node.reserved, -1)
        return (
            rest == 0
            and claim.times_in(offer) >= node.slots // slots
            and self.left_on(node) == offer.plus(claim, -held)
        )

    def _take(self, contender: _Contender, picker: _Picker, node: Node, limit: int) -> None:
        """Book up to `limit` tasks of the picker's group on the node."""
        job, slots = contender.job, picker.group.spec.slots
        self.served += 1
        contender.served = self.served
        taken = False
        while limit > 0 and picker.has_more and not (taken and self._kept_from(job, picker)):
            taken = True
            first, count, attempt = picker.take(limit)
            limit -= count
            contender.room -= count
            contender.used += count * slots
            self.owner_used[job.owner] += count * slots
            self.free[node.name] -= count * slots
            if picker.group.claim is not None:
                self.left[node.name] = self.left_on(node).plus(picker.group.claim, -count)
            if (job.id, node.name) not in self.opening:
                self._open(contender, node)
            key = (node.name, job.id, picker.group.number, attempt)
            self.spans.setdefault(key, _Spans()).add(first, count)

    def _open(self, contender: _Contender, node: Node) -> None:
        """A first task of the job goes there, in this pass."""
        job = contender.job
        self.opening.add((job.id, node.name))
        if needs_preparation(job, node):
            contender.preparations -= 1
        if job.reserve is not None and job.open_round(node.name) is None:
            self.left[node.name] = self.left_on(node).plus(job.reserve, -1)


def _preparing(pool: Pool, job: Job) -> int:
    """Nodes that prepare for the job; one that is lost holds up no other."""
    nodes = [pool.nodes.get(name) for name, r in job.current.items() if r.state is NodeJobState.PREPARING]
    return sum(node is not None and not node.missing for node in nodes)


def _contender(pool: Pool, job: Job) -> _Contender | None:
    """The job as a contender, or None when nothing of it could run now."""
    if held_back(job) is not None:
        return None
    room = room_of(job)
    if room <= 0:
        return None
    pickers = [_Picker.of(group) for group in job.groups if group.has_ready and job.conditions_hold(group)]
    if not pickers:
        return None
    limit = job.preparation.parallel if job.preparation is not None else None
    preparations = limit - _preparing(pool, job) if limit is not None else 1 << 62
    return _Contender(job, pickers, job.used, room, preparations, job.last_grant)


def _is_newcomer(contender: _Contender) -> bool:
    ready = (picker.group for picker in contender.pickers if picker.has_more)
    return contender.used == 0 and not any(_each_ahead(group) for group in ready)


def _each_ahead(group: Group) -> int:
    """Tasks of a group that may queue for each place on a node: none before a first one has ended."""
    typical = group.typical_s()
    return 0 if typical is None else min(AHEAD_TASKS, int(AHEAD_S / max(typical, 1e-4)))


def recalls(round_: Round) -> list[int]:
    """Grants to ask back: those queued at busy nodes while another node of the pool stands ready with nothing to do.

    Towards a node that is prepared for the job (or needs no preparation) only: what waits has 100 ms of work at most,
    and that is no reason to prepare a node. Also those in the way of unplaced work of a higher priority.
    """
    pool = round_.pool
    wanted: list[int] = []
    idle = [pool.nodes[name] for name, free in round_.free.items() if free > 0 and name not in round_.reserved]
    taken_in: dict[tuple[str, int], bool] = {}
    for node in pool.nodes.values() if idle or round_.waiting else ():
        if node.used <= node.slots or any(grant.recalled for grant in node.grants.values()):
            continue
        last = next(reversed(node.grants.values()))
        job = pool.jobs.get(last.job)
        if job is None or last.kept_back == last.open:
            continue
        key = (last.job, last.group)
        if key not in taken_in:
            taken_in[key] = any(_stands_ready(round_, job, job.groups[last.group], other) for other in idle)
        if taken_in[key] or round_.is_wanted(node, job.spec.priority, last.claim):
            wanted.append(last.id)
    return wanted


def _stands_ready(round_: Round, job: Job, group: Group, node: Node) -> bool:
    left = None if group.opening is None else round_.left_on(node)
    return obstacle(job, group, node, round_.free[node.name], left) is None and not needs_preparation(job, node)
