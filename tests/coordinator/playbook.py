"""A coordinator's core played by hand: nodes and persons say what the test has them say, the clock is a number.

No I/O. What the core keeps goes through the record codec into `rows` as a store would hold it, what it says goes
through the frame codec; after each event the invariants are checked. A node answers orders only when the test (or
`obey`) has it answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from coordinator import records
from coordinator.core import Core
from coordinator.events import (
    Admitted,
    EndCall,
    EnrollAsked,
    Event,
    FinishAsked,
    Ready,
    Received,
    RenewAsked,
    Serving,
    SessionClosed,
    SessionOpened,
    StoreState,
    Tick,
)
from coordinator.identities import Certificates
from coordinator.invariants import violations
from coordinator.outputs import Found, answer
from coordinator.policy import Policy
from coordinator.records import Record
from coordinator.sessions import KeptOutput
from tests.coordinator.asking import command as command
from tests.coordinator.asking import document as document
from tests.coordinator.asking import job as job
from tests.coordinator.asking import prep as prep
from tests.coordinator.asking import release as release
from tests.coordinator.asking import tasks as tasks
from tests.coordinator.pages import NumberedRow, page_of
from tests.coordinator.telling import brief, short
from wire import messages as m
from wire.instant import Instant

BEAT_S = 5.0
TICK = "a deadline passes"
WALL = 1_800_000_000.0


def through_wire(message: m.Message) -> m.Message:
    """The message as the other end reads it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=m.AnyMessage)  # type: ignore[no-any-return]


# ---- who takes part


@dataclass
class Held:
    """A grant at a node: the order, and the positions whose end was not said."""

    run: m.Run
    open: set[int]
    started: set[int] = field(default_factory=set)


class FakeNode:
    """A node that keeps what an agent keeps durable, and says what it is told to say."""

    def __init__(self, play: Play, name: str, pool: str, slots: int | None, boot: str) -> None:
        self.play, self.name, self.pool, self.slots, self.boot = play, name, pool, slots, boot
        self.incarnation = f"root-of-{name}"
        self.life = ""
        self.key: str | None = None
        """Of its certificate; without one it comes over the unix socket."""
        self.expires: float | None = None
        self.proven = name
        """The name in its certificate."""
        self.resources: dict[str, float] = {}
        self.worn: dict[str, str] = {}
        self.elevation = False
        self.embedded = False
        self.epoch: int | None = None
        self.joined = False
        self.silent = False
        """Its heartbeats don't arrive, though its connection stands."""
        self.deaf = False
        """What is sent to it is lost on the way."""
        self.closed: list[str] = []
        self.said_joined: m.Joined | None = None
        self.rounds: dict[tuple[str, int], m.RoundState] = {}
        self.waits: dict[str, bool] = {}
        self.reasons: dict[tuple[str, int], str] = {}
        self.start: m.StartHeld | None = None
        self.grants: dict[int, Held] = {}
        self.recalls: list[int] = []
        """Asked for and not answered (by `obey`)."""
        self.stops: list[m.StopTasks] = []
        """Likewise."""
        self.number = 0
        self.outbox: list[m.Report] = []
        self.received: list[m.Message] = []
        self.departed = False
        self.beat = 0
        self.beat_at = 0.0
        self.spawned: list[tuple[str, int, int, int]] = []
        """(job, group, index, attempt) of every task that ever began here."""

    # ---- connection

    def join(self, *, inventory: bool = True) -> FakeNode:
        """Connect and say who it is; with `inventory` also what it holds."""
        self.joined = self.departed = False
        self.recalls.clear()
        self.stops.clear()
        self.beat_at = self.play.t
        if not self.connect():
            return self
        self.say(
            m.Join(
                embedded=self.embedded, pool=self.pool, node=self.name, incarnation=self.incarnation,
                boot=self.boot, slots=self.slots,
                resources=self.resources, labels=self.worn, elevation=self.elevation, life=self.life,
            )
        )  # fmt: skip
        if inventory and self.joined:
            self.resend()
            self.inventory()
        return self

    def connect(self) -> bool:
        """Open a session; whether it lives."""
        owner = "uid:1000" if self.key is None else self.proven
        self.epoch = self.play.open(m.Role.NODE, owner, self.key, self.expires, link=self)
        return self.epoch is not None

    def resend(self) -> None:
        for report in list(self.outbox):
            self.say(report)

    def inventory(self) -> None:
        rounds = [m.RoundHeld(name, number, state) for (name, number), state in self.rounds.items()]
        grants = [
            m.GrantHeld(number, [(position, 1) for position in sorted(held.open)])
            for number, held in self.grants.items()
            if held.open
        ]
        self.say(m.Inventory(rounds, grants, True, self.start))

    def drop(self) -> None:
        """The connection breaks."""
        epoch, self.epoch, self.joined = self.epoch, None, False
        if epoch is not None:
            self.play.links.pop(epoch, None)
            self.play.happen(SessionClosed(epoch, "the peer is gone"))

    def reboot(self, boot: str, *, prepared: bool = False) -> None:
        """The machine starts again: nothing runs; what was prepared is so only if `prepared` (no rerun wanted)."""
        self.drop()
        self.boot = boot
        if self.start is not None:
            self.start = m.StartHeld(self.start.number, self.start.digest, m.RoundState.OPENED)
        for held in self.grants.values():
            held.open.clear()
        self.grants.clear()
        for key, state in self.rounds.items():
            if state in (m.RoundState.PREPARING, m.RoundState.PREPARED) and not (
                prepared and state is m.RoundState.PREPARED
            ):
                self.rounds[key] = m.RoundState.OPENED

    def wiped(self) -> None:
        """Its root directory is another one from now on."""
        self.drop()
        self.start = None
        self.incarnation += "'"
        self.rounds.clear()
        self.grants.clear()
        self.outbox.clear()
        self.number = 0

    # ---- hearing

    def hear(self, message: m.Message) -> None:
        """A frame came; only what an agent does at once and always is done here."""
        if self.deaf:
            return
        self.received.append(message)
        match message:
            case m.Joined():
                self.joined, self.said_joined = True, message
            case m.OpenRound(job=name, round=number, body=body):
                preparation = msgspec.msgpack.decode(body, type=m.JobBody).spec.preparation if body else None
                self.waits[name] = preparation is not None and preparation.wait
                self.rounds.setdefault((name, number), m.RoundState.OPENED)
            case m.StartNode():
                state = m.RoundState.PREPARING
                self.start = m.StartHeld(message.number, message.digest, state) if message.digest else None
            case m.Prepare(name, number):
                if self.rounds.get((name, number)) in (m.RoundState.OPENED, m.RoundState.BARRED):
                    self.rounds[(name, number)] = m.RoundState.PREPARING
            case m.Run():
                self.grants[message.grant] = Held(message, set(range(message.count)))
            case m.Recall(grant):
                self.recalls.append(grant)
            case m.StopTasks():
                self.stops.append(message)
            case m.Drop(grants):
                for number in grants:
                    self.grants.pop(number, None)
            case m.ReleaseRound(name, number, reason):
                if (name, number) in self.rounds and self.rounds[name, number] is not m.RoundState.RELEASED:
                    self.rounds[name, number] = m.RoundState.RELEASING
                    self.reasons[name, number] = reason
            case m.Ack(number):
                self.outbox = [report for report in self.outbox if report.number > number]
                if not self.outbox:
                    self.rounds = {k: s for k, s in self.rounds.items() if s is not m.RoundState.RELEASED}
            case m.Depart():
                self.departed = True
            case _:
                pass

    def heard(self, kind: type[m.Message]) -> list[Any]:
        """All frames of a kind that came so far."""
        return [message for message in self.received if isinstance(message, kind)]

    # ---- speaking

    def say(self, message: m.Message) -> None:
        assert self.epoch is not None, f"{self.name} is not connected"
        self.play.happen(Received(self.epoch, through_wire(message)), who=self.name)

    @property
    def beat_due(self) -> float:
        return self.beat_at + (self.said_joined.heartbeat_s if self.said_joined is not None else BEAT_S)

    def heartbeat(self) -> None:
        self.beat += 1
        self.beat_at = self.play.t
        self.say(m.Heartbeat(self.beat))

    def report(self, tasks: Iterable[m.TaskEnd] = (), phases: Iterable[m.PhaseEnd] = ()) -> m.Report:
        """Ends, durable here until acked; sent if there is a connection."""
        self.number += 1
        report = m.Report(self.number, list(tasks), list(phases))
        self.outbox.append(report)
        if self.epoch is not None and self.joined:
            self.say(report)
        return report

    def running(self, job_id: str | None = None) -> list[tuple[int, int]]:
        """(grant, position) of what is open here, in order of arrival."""
        return [
            (number, position)
            for number, held in self.grants.items()
            if job_id is None or held.run.job == job_id
            for position in sorted(held.open)
        ]

    def labels(self, job_id: str) -> list[int]:
        """Indices of the open tasks of a job's grants here."""
        return [self.index(grant, position) for grant, position in self.running(job_id)]

    def index(self, grant: int, position: int) -> int:
        run = self.grants[grant].run
        return run.first + position * run.step

    def spawn(self, grant: int, position: int) -> None:
        held = self.grants[grant]
        if position not in held.started:
            held.started.add(position)
            self.spawned.append((held.run.job, held.run.group, self.index(grant, position), held.run.attempt))

    def task_end(self, grant: int, position: int, exit_code: int | None = 0, **more: Any) -> m.TaskEnd:
        """The end of one task, taken from what is open here."""
        self.spawn(grant, position)
        held = self.grants[grant]
        held.open.discard(position)
        if not held.open:
            del self.grants[grant]
        return task_end(grant, position, exit_code, at=self.play.wall, **more)

    def end(self, job_id: str | None = None, exit_code: int | None = 0, count: int = 1, **more: Any) -> None:
        """The first `count` open tasks end this way, in one report."""
        chosen = self.running(job_id)[:count]
        assert len(chosen) == count, f"{self.name} runs {self.running(job_id)}, not {count} tasks"
        self.report([self.task_end(grant, position, exit_code, **more) for grant, position in chosen])

    def end_all(self, job_id: str | None = None, exit_code: int | None = 0) -> None:
        if self.running(job_id):
            self.end(job_id, exit_code, count=len(self.running(job_id)))

    def latest(self, job_id: str) -> int:
        return max(number for name, number in self.rounds if name == job_id)

    def prepared(self, job_id: str, ok: bool = True, *, attempt: int = 1, final: bool = True) -> None:
        """An attempt of the preparation ended."""
        number = self.latest(job_id)
        if final:
            self.rounds[job_id, number] = m.RoundState.PREPARED if ok else m.RoundState.BARRED
        self.report(phases=[phase_end(job_id, number, m.Phase.PREPARATION, ok, attempt=attempt, final=final)])

    def started(self, ok: bool = True, *, attempt: int = 1, final: bool = True, **more: Any) -> None:
        """An attempt of the pool's start ended."""
        assert self.start is not None, "no start was ordered here"
        number = self.start.number
        if final:
            state = m.RoundState.PREPARED if ok else m.RoundState.BARRED
            self.start = m.StartHeld(number, self.start.digest, state)
        end = phase_end(m.START_JOB, number, m.Phase.START, ok, attempt=attempt, final=final, **more)
        self.report(phases=[end])

    def give_back(self, job_id: str | None = None) -> None:
        """Say of all that is open here that it never started."""
        for number, held in list(self.grants.items()):
            if job_id is None or held.run.job == job_id:
                self.recalled(number, sorted(held.open))

    def recalled(self, grant: int, positions: Iterable[int]) -> None:
        given = sorted(positions)
        if grant in self.grants:
            self.grants[grant].open -= set(given)
            if not self.grants[grant].open:
                del self.grants[grant]
        self.say(m.Recalled(grant, [(position, 1) for position in given]))

    def stopped(self) -> bool:
        """Do what the first StopTasks says: what runs is killed, the rest goes back; whether there was one."""
        if not self.stops:
            return False
        asked = self.stops.pop(0)
        wanted = {n for first, count in asked.spans for n in range(first, first + count)}
        mine = [(grant, n) for grant, n in self.running() if grant == asked.grant and n in wanted]
        at_work = [place for place in self.runnable()[: self.slots_known] if place in mine]
        back = [n for grant, n in mine if (grant, n) not in at_work]
        if back:
            self.recalled(asked.grant, back)
        killed = [
            self.task_end(grant, n, None, outcome=m.Outcome.KILLED, signal=15, reason=asked.reason)
            for grant, n in at_work
        ]
        if killed:
            self.report(killed)
        return True

    @property
    def slots_known(self) -> int:
        return self.said_joined.slots if self.said_joined is not None else 1

    def released(self, job_id: str, ok: bool = True, *, number: int | None = None, attempt: int = 1) -> None:
        """Whatever of the job is alive here is killed, the release ran to its end."""
        number = self.latest(job_id) if number is None else number
        assert self.rounds[job_id, number] is m.RoundState.RELEASING, "no release was ordered here"
        killed = [
            self.task_end(grant, position, None, outcome=m.Outcome.KILLED, signal=9)
            for grant, position in self.running(job_id)
        ]
        self.rounds[job_id, number] = m.RoundState.RELEASED
        self.report(killed, [phase_end(job_id, number, m.Phase.RELEASE, ok, attempt=attempt)])

    def obey(self) -> bool:
        """Answer one thing that is open here, as an agent would; whether there was any."""
        if self.epoch is None or not self.joined:
            return False
        if self.start is not None and self.start.state is m.RoundState.PREPARING:
            self.started()
            return True
        for (name, number), state in list(self.rounds.items()):
            if state is m.RoundState.PREPARING:
                self.prepared(name)
                return True
            if state is m.RoundState.RELEASING:
                self.released(name, number=number)
                return True
        for message in self.received:
            if isinstance(message, m.RemoveJob):
                self.received.remove(message)
                self.say(m.Removed(message.job))
                return True
        if self.stopped():
            return True
        if self.recalls:
            grant = self.recalls.pop(0)
            at_work = self.running()[: self.slots_known]
            self.recalled(
                grant, [at for number, at in self.running() if number == grant and (grant, at) not in at_work]
            )
            return True
        for number, held in self.grants.items():
            barred = self.rounds.get((held.run.job, held.run.round)) is m.RoundState.BARRED
            if barred and self.waits[held.run.job]:
                self.recalled(number, held.open)
                return True
        runnable = self.runnable()
        if runnable:
            self.report([self.task_end(grant, position) for grant, position in runnable[:64]])
        return bool(runnable)

    def runnable(self) -> list[tuple[int, int]]:
        """What is open here and whose round lets it run, as an agent sees to."""
        found = []
        for grant, position in self.running():
            run = self.grants[grant].run
            state = self.rounds.get((run.job, run.round))
            if state is m.RoundState.PREPARED or (state is not m.RoundState.RELEASING and not self.waits[run.job]):
                found.append((grant, position))
        return found


def task_end(grant: int, position: int, exit_code: int | None = 0, *, at: float = WALL, **more: Any) -> m.TaskEnd:
    given: dict[str, Any] = {
        "outcome": m.Outcome.EXITED, "signal": None, "started_at": at - 1.0, "ended_at": at, "cpu_s": 0.5,
        "max_rss_bytes": 4 << 20, "reason": None, **more,
    }  # fmt: skip
    return m.TaskEnd(grant=grant, position=position, exit_code=exit_code, **given)


def phase_end(
    job_id: str, number: int, phase: m.Phase, ok: bool, *, attempt: int = 1, final: bool = True, **more: Any
) -> m.PhaseEnd:
    given: dict[str, Any] = {
        "outcome": m.Outcome.EXITED, "exit_code": 0 if ok else 1, "signal": None, "started_at": WALL,
        "ended_at": WALL + 1, "reason": None, "stdout_tail": b"out\n", "stderr_tail": b"", **more,
    }  # fmt: skip
    return m.PhaseEnd(job=job_id, round=number, phase=phase, attempt=attempt, final=final, succeeded=ok, **given)


class Person:
    """Somebody's session."""

    def __init__(
        self, play: Play, role: m.Role, owner: str, key: str | None = None, expires: float | None = None
    ) -> None:
        self.play, self.role, self.owner = play, role, owner
        self.requests = 0
        self.answers: dict[int, m.Reply | m.Refused] = {}
        self.closed: list[str] = []
        self.epoch = play.open(role, owner, key, expires, link=self)

    def hear(self, message: m.Message) -> None:
        assert isinstance(message, m.Reply | m.Refused), f"a person is told {message}"
        assert message.request not in self.answers, "a request was answered twice"
        self.answers[message.request] = message

    def start(self, kind: Callable[..., m.Message], *args: Any, **more: Any) -> int:
        """Ask; the number under which the answer will stand in `answers`."""
        self.requests += 1
        message = kind(self.requests, *args) if not more else kind(*args, request=self.requests, **more)
        self.play.happen(Received(self.epoch, through_wire(message)), who=self.owner)
        return self.requests

    def ask(self, kind: Callable[..., m.Message], *args: Any, **more: Any) -> Any:
        """Ask what is answered at once with facts: those."""
        answer = self.answers[self.start(kind, *args, **more)]
        assert isinstance(answer, m.Reply), f"refused: {answer}"
        return answer.body

    def refused(self, kind: Callable[..., m.Message], *args: Any, **more: Any) -> m.Refused:
        """Ask what is refused at once: how."""
        answer = self.answers[self.start(kind, *args, **more)]
        assert isinstance(answer, m.Refused), f"not refused: {answer}"
        return answer

    def drop(self) -> None:
        self.play.links.pop(self.epoch, None)
        self.play.happen(SessionClosed(self.epoch, "the peer is gone"))


# ---- the play


@dataclass
class Batch:
    """What one Ready wanted stored."""

    records: list[Record]
    forget: list[str]


class Play:
    """A core with its store, its clock and those who talk to it."""

    def __init__(
        self,
        *,
        checking: bool = True,
        telling: bool = False,
        policy: Policy | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.certificates = certificates or Certificates()
        self.t = 1000.0
        self.boot = "machine"
        self.wall_offset = WALL
        self.core = Core(self.policy, self.certificates)
        self.checking = checking
        self.telling = telling
        self.rows: list[tuple[str, bytes]] = []
        """What the store holds: (scope, body)."""
        self.numbers: list[int] = []
        """Of the rows."""
        self.last_number = 0
        self.calls: list[EndCall] = []
        """Commands that were to be run on the coordinator's machine, those of earlier lives too."""
        self.page_rows = 3
        """So many rows a reader of events is given at once."""
        self.batches: list[Batch] = []
        self.kept: list[Record] = []
        """Every record of every life, forgotten ones too."""
        self.outputs: dict[tuple[str, int, int, int], KeptOutput] = {}
        """What is kept of tasks' outputs: (job, group, index, attempt)."""
        self.last_epoch = 0
        self.submissions = 0
        self.links: dict[int, FakeNode | Person] = {}
        self.nodes: dict[str, FakeNode] = {}
        self.finished = False
        self.admitted: list[Admitted] = []
        self.rejected: list[tuple[int, str]] = []
        self.alarms: list[str] = []
        self.pieces: list[Serving] = []
        """Of files, that were to be sent to nodes."""
        self.discarded: list[int] = []
        self.strangers = 0
        self.story: list[str] = []
        self.core.restarted(self.now)
        self.settle()
        self.admin = Person(self, m.Role.ADMIN, "uid:1000")

    # ---- time

    @property
    def wall(self) -> float:
        return self.wall_offset + self.t

    @property
    def now(self) -> Instant:
        return Instant(self.boot, self.t, self.wall)

    def wait(self, seconds: float) -> None:
        """Time passes; whoever is alive says so, and deadlines are met."""
        end = self.t + seconds
        while True:
            due = self.core.next_deadline()
            beats = [node.beat_due for node in self.nodes.values() if node.joined and not node.silent]
            at = min([end, *beats, *([due.boottime] if due is not None else [])])
            self.t = max(self.t, at)
            for node in list(self.nodes.values()):
                if node.joined and not node.silent and node.epoch is not None and node.beat_due <= self.t:
                    node.heartbeat()
            due = self.core.next_deadline()
            if due is not None and due.boottime <= self.t:
                self.happen(Tick())
            elif self.t >= end:
                return

    def sleep(self, seconds: float) -> None:
        """The coordinator is stopped for so long: nothing is handled, then a tick comes late."""
        self.t += seconds
        self.happen(Tick())

    # ---- events

    def open(
        self,
        role: m.Role,
        owner: str = "uid:1000",
        key: str | None = None,
        expires: float | None = None,
        *,
        link: FakeNode | Person | None = None,
    ) -> int | None:
        """A session of `link`, which hears from then on; None when it was closed at once."""
        self.last_epoch += 1
        epoch = self.last_epoch
        if link is not None:
            self.links[epoch] = link
        self.happen(SessionOpened(epoch, role, owner, key, expires))
        return epoch if link is None or epoch in self.links else None

    def enroll(self, token: str, key: str, name: str = "") -> Admitted | str:
        """A peer without a certificate asks for one: what it gets, or why not."""
        self.strangers -= 1
        self.happen(EnrollAsked(self.strangers, token, name, key))
        found = [a for a in self.admitted if a.connection == self.strangers]
        found += [reason for connection, reason in self.rejected if connection == self.strangers]
        [answer] = found
        return answer

    def renew(self, epoch: int) -> Admitted:
        """A session's next certificate."""
        self.happen(RenewAsked(epoch))
        assert self.admitted[-1].connection == epoch
        return self.admitted[-1]

    def happen(self, event: Event, who: str = "") -> None:
        """One event, and all that follows from it."""
        if self.telling:
            self._tell_event(event, who)
        self.core.handle(event, self.now)
        self.settle()

    def settle(self) -> None:
        ready = self.core.take_ready()
        self.finished = self.finished or ready.finished
        self.admitted += ready.admitted
        self.rejected += ready.rejected + ready.postponed
        self.alarms += ready.alarms
        self.pieces += ready.pieces
        self.discarded += ready.discard
        self.batches.append(Batch(list(ready.records), list(ready.forget)))
        for scope in ready.forget:
            self.numbers = [number for number, row in zip(self.numbers, self.rows, strict=True) if row[0] != scope]
            self.rows = [row for row in self.rows if row[0] != scope]
        for record in ready.records:
            body = records.encode(record)
            assert records.decode(body) == record
            self.rows.append((records.scope_of(record), body))
            self.last_number += 1
            self.numbers.append(self.last_number)
            self.kept.append(record)
            if self.telling:
                self.tell(f"  * {brief(record)}")
        if self.checking:
            assert list(violations(self.core.cluster)) == []
        for epoch, message in [*ready.at_once, *ready.frames]:
            link = self.links.get(epoch)
            if self.telling and not isinstance(message, m.HeartbeatAck):
                self.tell(f"  -> {self._name(link)}: {brief(message)}")
            if link is not None:
                link.hear(through_wire(message))
        self._keep_outputs(ready)
        for admitted in ready.admitted:
            who, until = f"{admitted.role.value} {admitted.name}", admitted.until - self.wall_offset - 1000
            self.tell(f"  -> {admitted.connection}: a certificate as {who} for {short(admitted.key)} until {until:g}s")
        for connection, reason in ready.rejected + ready.postponed:
            self.tell(f"  -> {connection}: no certificate: {reason}")
        for sentence in ready.alarms:
            self.tell(f"  ! {sentence}")
        for epoch, reason in ready.close:
            link = self.links.pop(epoch, None)
            self.tell(f"  x {self._name(link)}: {reason}")
            if link is not None:
                link.closed.append(reason)
                if isinstance(link, FakeNode) and link.epoch == epoch:
                    link.epoch, link.joined = None, False
        self.calls += ready.calls
        for asked in ready.pages:
            self.happen(page_of(self.numbered(), self.last_number, asked, self.page_rows))

    def numbered(self) -> list[NumberedRow]:
        """What the store holds: (number, scope, body)."""
        return [(number, scope, body) for number, (scope, body) in zip(self.numbers, self.rows, strict=True)]

    def _keep_outputs(self, ready: Ready) -> None:
        """As `coordinator.outputs` does, without a file."""
        for said in ready.outputs:
            self.outputs |= {(kept.job, kept.group, kept.index, kept.attempt): kept for kept in said.outputs}
            if (node := self.links.get(said.session)) is not None:
                node.hear(m.OutputsTaken(said.number))
        for lookup in ready.lookups:
            kept = self.outputs.get((lookup.job, lookup.group, lookup.index, lookup.attempt))
            stream = None if kept is None else kept.stderr if lookup.stderr else kept.stdout
            if (person := self.links.get(lookup.session)) is not None:
                person.hear(answer(lookup, Found(stream, 0)))

    # ---- shorthands

    def node(
        self,
        name: str,
        slots: int | None = 1,
        pool: str = "p",
        boot: str = "boot-1",
        *,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        elevation: bool = False,
    ) -> FakeNode:
        """A node that joins with nothing."""
        node = self.nodes[name] = FakeNode(self, name, pool, slots, boot)
        node.resources, node.worn, node.elevation = resources or {}, labels or {}, elevation
        return node.join()

    def person(self, owner: str, role: m.Role = m.Role.USER) -> Person:
        return Person(self, role, owner)

    def submit(
        self,
        *jobs: dict[str, Any],
        pools: Iterable[dict[str, Any]] = (),
        by: Person | None = None,
        submission: str = "",
    ) -> str:
        """Submit; the id of the last job."""
        who = by or self.admin
        self.submissions += 1
        given = submission or f"submission-{self.submissions}"
        missing = {j["pool"] for j in jobs} - set(self.core.cluster.pools) - {pool["name"] for pool in pools}
        if missing:
            bare = document(pools=[{"name": name} for name in sorted(missing)])
            self.admin.ask(m.Submit, submission=f"pools-of-{given}", document=bare)
        body = who.ask(m.Submit, submission=given, document=document(*jobs, pools=pools), source="test.batch")
        last: str = body["jobs"][-1]["id"]
        return last

    def show(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.admin.ask(m.JobShow, job_id)
        return body

    def rounds(self, job_id: str) -> list[tuple[str, int, str]]:
        """(node, round, state) of every round of the job."""
        return [(row["node"], row["round"], row["state"]) for row in self.admin.ask(m.JobNodes, job_id)]

    def task(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = self.admin.ask(m.TaskShow, name)
        return body

    def node_state(self, name: str) -> str:
        state: str = self.admin.ask(m.NodeShow, name)["state"]
        return state

    def terminate(self, job_id: str, force: bool = False) -> None:
        self.admin.ask(m.JobTerminate, job_id, "UserTerminate", force)

    def finish(self, reason: str = "UserTerminate") -> None:
        self.happen(FinishAsked(reason))

    def disk_full(self, full: bool) -> None:
        self.happen(StoreState(full))

    def kept_of(self, kind: type[Any]) -> list[Any]:
        """Every record of a kind, in order."""
        return [record for record in self.kept if isinstance(record, kind)]

    def obey(self, rounds: int = 2_000) -> None:
        """Every node does what it is told until nothing is left to do."""
        for _ in range(rounds):
            if sum(node.obey() for node in list(self.nodes.values())) == 0:
                return
        raise AssertionError("the play does not come to an end")

    def run_out(self, job_id: str, seconds: float = 5_000) -> None:
        """Nodes obey and time passes until the job is over."""
        for _ in range(200):
            self.obey()
            found = self.core.cluster.jobs.get(job_id)
            if found is None or found.completed_at is not None:
                return
            self.wait(seconds / 200)
        raise AssertionError(f"{job_id} does not end: {self.core.cluster.jobs[job_id].state}")

    def restart(self, rows: list[tuple[str, bytes]] | None = None, *, boot: str | None = None) -> None:
        """The coordinator dies and starts again from what was stored; every connection is gone."""
        if rows is not None:
            self.rows, self.numbers, self.last_number = list(rows), list(range(1, len(rows) + 1)), len(rows)
        self.boot = boot or self.boot
        self.links.clear()
        for node in self.nodes.values():
            node.epoch, node.joined = None, False
        self.core = Core(self.policy, self.certificates)
        for _, body in self.rows:
            self.core.apply(records.decode(body))
        self.core.restarted(self.now)
        self.tell("the coordinator starts again")
        self.settle()
        self.admin = Person(self, m.Role.ADMIN, "uid:1000")

    # ---- the story

    def tell(self, line: str) -> None:
        if self.story and self.story[-1].endswith(TICK) and not line.startswith(" "):
            self.story.pop()  # nothing came of it
        self.story.append(line)

    def _tell_event(self, event: Event, who: str) -> None:
        match event:
            case Received(_, m.Heartbeat()):
                return
            case Received(_, message):
                self.tell(f"{self.t - 1000:g}s {who}: {brief(message)}")
            case Tick():
                self.tell(f"{self.t - 1000:g}s {TICK}")
            case SessionOpened():
                return
            case SessionClosed(epoch, reason):
                self.tell(f"{self.t - 1000:g}s session {epoch} ends: {reason}")
            case FinishAsked() | StoreState() | EnrollAsked() | RenewAsked():
                self.tell(f"{self.t - 1000:g}s {short(str(event))}")

    def _name(self, link: FakeNode | Person | None) -> str:
        return "nobody" if link is None else link.name if isinstance(link, FakeNode) else link.owner
