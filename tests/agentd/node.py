"""A node's core in the hands of a test: the test says what happens, the harness keeps the journal and the shell's part.

After every step the journal's rows are replayed into a fresh ledger, which must equal the live one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agentd import records
from agentd.core import AgentCore
from agentd.dialogue import (
    VERSION,
    AckReports,
    ItemEnded,
    ItemsRecalled,
    KeeperHello,
    Ping,
    Pong,
    RecallItems,
    Retire,
    RunItems,
    StopItem,
    Template,
    ToKeeper,
)
from agentd.events import (
    Chore,
    CleanJob,
    Connected,
    DiscardTasks,
    EmptyJob,
    EndTerminal,
    Event,
    FindOverdue,
    ForgetKeeper,
    JobCleaned,
    JobDirectoryMade,
    JobEmptied,
    KeeperDead,
    KeeperSaid,
    KillKeeper,
    Leave,
    MakeJob,
    MakeStart,
    OpenTerminal,
    OutputsRead,
    OverdueFound,
    PieceTaken,
    ReadOutputs,
    ReadTails,
    Ready,
    Received,
    StartKeeper,
    SurveyKeeper,
    TailsRead,
    TakePiece,
    TasksDiscarded,
    TerminalOpened,
    Tick,
)
from agentd.model import Ledger, NodeConfig
from agentd.records import Purpose
from wire import messages as m
from wire.instant import Instant
from wire.messages import Outcome
from wire.spec import AxisSpec, Command, GroupSpec, JobSpec, Needs, Preparation, Release

CONFIG = NodeConfig(pool="p", node="p-1", root="/node", incarnation="i1")


def group(count: int = 1000, **more: Any) -> GroupSpec:
    command = more.pop("command", Command(argv=["true", ["axis", 0]]))
    return GroupSpec(name=more.pop("name", "t"), axes=[AxisSpec(["n"], (1, count, 1))], command=command, **more)


def job_spec(*groups: GroupSpec, **more: Any) -> JobSpec:
    return JobSpec(name="j", pool="p", groups=list(groups or [group()]), **more)


def preparation(**command: Any) -> Preparation:
    more = {name: command.pop(name) for name in ("wait", "rerun_after_reboot") if name in command}
    return Preparation(command=Command(argv=["prepare"], **command), **more)


def release(**command: Any) -> Release:
    return Release(command=Command(argv=["clean"], **command))


def body(spec: JobSpec, job: str = "j-1") -> bytes:
    return msgspec.msgpack.encode(m.JobBody(job, "me", spec))


@dataclass
class StandInKeeper:
    """What a keeper was told and did not answer for yet."""

    name: str
    purpose: Purpose
    templates: dict[str, Template] = field(default_factory=dict)
    queue: list[tuple[str, str, list[str], str]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    acked: int = 0
    seq: int = 0
    retiring: bool = False
    elevated: bool = False
    needs: Needs = Needs()  # noqa: RUF009  # it is frozen

    @property
    def keys(self) -> list[str]:
        return [item[0] for item in self.queue]


class Node:
    """The core, its journal, and a shell that answers what needs no decision."""

    def __init__(self, config: NodeConfig = CONFIG, *, at: float = 1000.0, boot: str = "b1") -> None:
        self.config = config
        self.rows: list[tuple[str, bytes]] = []
        self.boot = boot
        self.at = at
        self.answer_chores = True
        self.answer_beats = True
        self.kept_s: float | None = None
        self.tails = (m.NOTHING_WRITTEN, m.NOTHING_WRITTEN)
        self.streams = (m.KeptStream(4, b"out\n", b""), m.KeptStream(0, b"", b""))
        """What each task wrote, as the shell reads it."""
        self.overdue: list[str] = []
        """Directories of tasks that their `keep` has passed for."""
        self.disk: dict[tuple[str, str], bytes] = {}
        """(job, digest) → what lies there of a file that its commands bring in."""
        self.disk_failure: str | None = None
        self.greeted: set[str] = set()
        self.handed: list[tuple[str, str]] = []
        """(keeper, key) of every command ever given to a keeper."""
        self.start()

    # ---- life

    def start(self) -> None:
        self.core = AgentCore(self.config)
        self.sent: list[m.Message] = []
        self.chores: list[Chore] = []
        self.stop_reasons: list[str] = []
        self.terminals: set[int] = set()
        """Those that are open."""
        self.keepers: dict[str, StandInKeeper] = {}
        self.surveyed: list[SurveyKeeper] = []
        self.killed: list[str] = []
        self.forgotten: list[str] = []
        self.hung_up: list[str] = []
        self.left: Leave | None = None
        for _, row in self.rows:
            self.core.apply(records.decode(row))
        self.core.restarted(self.now)
        self._take()

    def restart(self, *, boot: str | None = None) -> dict[str, StandInKeeper]:
        """The agent dies and comes up again; the keepers that were there."""
        before = self.keepers
        if boot is not None:
            self.boot = boot
        self.start()
        return before

    @property
    def now(self) -> Instant:
        return Instant(self.boot, self.at, 1_700_000_000.0 + self.at)

    # ---- events

    def tell(self, *events: Event) -> None:
        """These happen at once; then what follows is made durable and done."""
        for event in events:
            self.core.handle(event, self.now)
        self._take()

    def hear(self, *messages: m.Message) -> None:
        self.tell(*(Received(message) for message in messages))

    def wait(self, seconds: float) -> None:
        """Time passes, with a tick at each deadline; keepers answer pings, the coordinator beats."""
        end = self.at + seconds
        while True:
            due = self.core.next_deadline()
            if due is None or due.boottime > end:
                break
            self.at = max(self.at, due.boottime)
            self.tell(Tick())
        self.at = end
        self.tell(Tick())

    def join(self, *, slots: int = 2, heartbeat_s: float = 5.0, lease_s: float = 900.0) -> None:
        self.tell(Connected())
        assert isinstance(self.sent[-1], m.Join)
        self.hear(m.Joined(heartbeat_s=heartbeat_s, lease_s=lease_s, slots=slots))

    def open(self, spec: JobSpec, *, job: str = "j-1", number: int = 1) -> None:
        self.hear(m.OpenRound(job=job, round=number, body=body(spec, job)))

    def run(self, grant: int, count: int, *, first: int = 0, job: str = "j-1", **more: Any) -> None:
        fields: dict[str, Any] = {"round": 1, "group": 0, "step": 1, "attempt": 1, **more}
        self.hear(m.Run(grant=grant, job=job, first=first, count=count, **fields))

    def greet(self, *names: str) -> None:
        """Keepers that were started connect, if none is named all of them."""
        for name in names or [name for name in self.keepers if name not in self.greeted]:
            self.greeted.add(name)
            self.tell(KeeperSaid(name, KeeperHello(version=VERSION, keeper=name, pid=1, boot="b", starttime=1)))

    def attach(
        self,
        keeper: StandInKeeper,
        *,
        running: str | None = None,
        queue: Sequence[str] = (),
        leftovers: bool = False,
        version: int = VERSION,
    ) -> None:
        """A keeper of an earlier life of the agent connects."""
        self.keepers[keeper.name] = keeper
        self.greeted.add(keeper.name)
        hello = KeeperHello(
            version=version, keeper=keeper.name, pid=1, boot="b", starttime=1, queue=list(queue), running=running,
            leftovers=leftovers,
        )  # fmt: skip
        self.tell(KeeperSaid(keeper.name, hello))

    def end(
        self,
        key: str | None = None,
        code: int | None = 0,
        outcome: Outcome = Outcome.EXITED,
        *,
        keeper: str | None = None,
        seconds: float = 1.0,
        leftovers: bool = False,
    ) -> str:
        """A command at a keeper ends, if none is named the first one that is anywhere."""
        name = keeper or next(k.name for k in self.keepers.values() if (key in k.keys if key else k.queue))
        stand_in = self.keepers[name]
        key = key or stand_in.keys[0]
        stand_in.queue = [item for item in stand_in.queue if item[0] != key]
        self.at += 0.02  # later than the last report, so that this end is not gathered with the next
        self.tell(KeeperSaid(name, self.ended(stand_in, key, code, outcome, seconds=seconds, leftovers=leftovers)))
        return key

    def ended(
        self,
        keeper: StandInKeeper,
        key: str,
        code: int | None = 0,
        outcome: Outcome = Outcome.EXITED,
        *,
        seconds: float = 1.0,
        leftovers: bool = False,
    ) -> ItemEnded:
        keeper.seq += 1
        wall = self.now.wall
        return ItemEnded(
            seq=keeper.seq, key=key, outcome=outcome, exit_code=code if outcome is Outcome.EXITED else None,
            started_at=wall - seconds, ended_at=wall, leftovers=leftovers,
        )  # fmt: skip

    def die(self, name: str, *, started: Sequence[str] = (), ends: Sequence[ItemEnded] = ()) -> None:
        self.tell(KeeperDead(name, frozenset(started), tuple(ends)))

    # ---- what is to be seen

    def of(self, purpose: Purpose) -> list[StandInKeeper]:
        return [keeper for keeper in self.keepers.values() if keeper.purpose is purpose]

    @property
    def tasks(self) -> list[str]:
        """Keys at keepers for tasks."""
        return [key for keeper in self.of(Purpose.TASKS) for key in keeper.keys]

    def said(self, kind: type[Any]) -> list[Any]:
        """The messages of this kind that the coordinator was sent."""
        return [message for message in self.sent if isinstance(message, kind)]

    def task_ends(self) -> list[m.TaskEnd]:
        return [end for report in self.said(m.Report) for end in report.tasks]

    def phase_ends(self) -> list[m.PhaseEnd]:
        return [end for report in self.said(m.Report) for end in report.phases]

    # ---- the shell's part

    def _take(self) -> None:
        """Make what is ready durable, do it, and answer, until nothing more follows."""
        ready = self.core.take_ready()
        self._commit(ready)
        answers = self._do(ready)
        if answers:
            self.tell(*answers)

    def _commit(self, ready: Ready) -> None:
        gone = set(ready.forget)
        self.rows = [row for row in self.rows if row[0] not in gone]
        self.rows += [(records.scope_of(record), records.encode(record)) for record in ready.records]
        replayed = Ledger()
        for _, row in self.rows:
            replayed.apply(records.decode(row))
        assert replayed == self.core.ledger

    def _do(self, ready: Ready) -> list[Event]:
        answers: list[Event] = []
        for now in ready.at_once:
            answers += self._say(*now) if isinstance(now, tuple) else self._send(now)
        for message in ready.messages:
            answers += self._send(message)
        for order in ready.keepers:
            answers += self._keeper_order(order)
        for name, said in ready.said:
            answers += self._say(name, said)
        for chore in ready.chores:
            if isinstance(chore, EndTerminal):
                self.terminals.discard(chore.shell)
                answers += [] if chore.said is None else self._send(chore.said)
                continue
            if isinstance(chore, OpenTerminal):
                self.terminals.add(chore.shell)
                answers.append(TerminalOpened(chore.shell, f"/dev/pts/{chore.shell}"))
                continue
            self.chores.append(chore)
            if self.answer_chores:
                answers.append(self.answer(chore))
        if ready.hang_up is not None:
            self.hung_up.append(ready.hang_up)
        self.left = self.left or ready.leave
        return answers

    def _send(self, message: m.Message) -> list[Event]:
        self.sent.append(message)
        if isinstance(message, m.Heartbeat) and self.answer_beats:
            return [Received(m.HeartbeatAck(message.beat))]
        return []

    def _keeper_order(self, order: StartKeeper | SurveyKeeper | KillKeeper | ForgetKeeper) -> list[Event]:
        match order:
            case StartKeeper():
                terms = {"elevated": order.elevated, "needs": order.needs}
                self.keepers[order.keeper] = StandInKeeper(order.keeper, order.purpose, **terms)
            case SurveyKeeper():
                self.surveyed.append(order)
            case KillKeeper():
                self.killed.append(order.keeper)
            case ForgetKeeper():
                self.forgotten.append(order.keeper)
        return []

    def _say(self, name: str, said: ToKeeper) -> list[Event]:
        keeper = self.keepers.get(name)
        if keeper is None:
            return []
        match said:
            case Ping():
                return [KeeperSaid(name, Pong(n=said.n))]
            case Template():
                keeper.templates[said.id] = said
            case RunItems():
                keeper.queue += said.items
                self.handed += [(name, item[0]) for item in said.items]
            case StopItem():
                keeper.stops.append(said.key)
                self.stop_reasons.append(said.reason)
            case AckReports():
                keeper.acked = said.seq
            case Retire():
                keeper.retiring = True
                del self.keepers[name]
                return [KeeperDead(name)]
            case RecallItems():
                return self._recall(keeper, said.keys)
            case _:
                pass
        return []

    def _recall(self, keeper: StandInKeeper, keys: list[str] | None) -> list[Event]:
        """The first one runs; what is behind it comes back."""
        back = [key for key in keeper.keys[1:] if keys is None or key in keys]
        keeper.queue = [item for item in keeper.queue if item[0] not in back]
        return [KeeperSaid(keeper.name, ItemsRecalled(keys=back))]

    def answer(self, chore: Chore) -> Event:
        match chore:
            case EmptyJob():
                return JobEmptied(chore.job)
            case MakeJob():
                return JobDirectoryMade(chore.job)
            case MakeStart():
                return JobDirectoryMade(m.START_JOB)
            case CleanJob():
                return JobCleaned(chore.job, kept_s=self.kept_s if chore.keep_s else None)
            case ReadOutputs():
                found = [m.TaskOutput(row.job, row.group, row.index, row.attempt, *self.streams) for row in chore.rows]
                return OutputsRead(chore.turn, found, len(found))
            case FindOverdue():
                return OverdueFound(chore.job, self.overdue, None)
            case DiscardTasks():
                self.overdue = [name for name in self.overdue if name not in chore.names]
                return TasksDiscarded(chore.job)
            case ReadTails():
                return TailsRead(chore.keeper, chore.key, *self.tails)
            case TakePiece():
                return self._take_piece(chore)

    def _take_piece(self, chore: TakePiece) -> Event:
        """Onto the disk of the node, which outlives the agent."""
        held = self.disk.setdefault((chore.job, chore.digest), b"")
        if self.disk_failure is not None:
            return PieceTaken(chore.job, chore.digest, chore.turn, failure=self.disk_failure)
        if chore.offset == len(held):
            held = self.disk[chore.job, chore.digest] = held + chore.content
        return PieceTaken(chore.job, chore.digest, chore.turn, len(held), len(held) >= chore.size)
