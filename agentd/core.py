"""The node's core: decides what runs where and when on this node, from typed events. Pure.

    core = AgentCore(NodeConfig(...))
    for record in log: core.apply(record)
    core.restarted(now)                     once, also on an empty log; asks for the survey of journalled keepers
    core.handle(event, now) -> None         any of agentd.events.Event
    core.take_ready() -> Ready
    core.next_deadline() -> Instant | None

It says Join by itself at Connected, once the survey is over (every SurveyKeeper answered by a hello or KeeperDead).
"""

from __future__ import annotations

from typing import Final, assert_never

from agentd.bodies import BodyRefused
from agentd.desk import Desk
from agentd.dialogue import (
    UNDERSTOOD,
    FromKeeper,
    ItemEnded,
    ItemsRecalled,
    ItemStarted,
    KeeperGone,
    KeeperHello,
    KeeperStuck,
    Pong,
)
from agentd.dispatch import Dispatch
from agentd.environment import TaskTexts
from agentd.events import (
    Connected,
    Disconnected,
    DiskSeen,
    Event,
    Interrupted,
    JobCleaned,
    JobDirectoryMade,
    JobEmptied,
    KeeperDead,
    KeeperSaid,
    Leave,
    LifelineCut,
    OutputsRead,
    OverdueFound,
    PieceTaken,
    Ready,
    Received,
    StoreState,
    TailsRead,
    TasksDiscarded,
    TerminalOpened,
    Terminated,
    Tick,
    Unkillable,
)
from agentd.health import Vitals
from agentd.inventory import inventory
from agentd.keepers import Keeper, Keepers, Stage
from agentd.lease import Lease
from agentd.model import Ledger, NodeConfig
from agentd.orders import OrderRefused, Orders
from agentd.outputs import Outputs
from agentd.phases import Phases
from agentd.records import BootSeen, Purpose, Record
from agentd.retention import Retention
from agentd.shells import Shells
from wire import messages as m
from wire.instant import Instant

ORPHANED_S: Final = 30.0
ORPHANED_CUT_S: Final = 5.0
"""How long an embedded agent waits for its coordinator, and for one whose `run` is dead."""


class AgentCore:
    """What joins the parts: sessions here, orders in `orders`, tasks in `dispatch`, commands of phases in `phases`."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self._desk = Desk(config)
        self._keepers = Keepers(self._desk)
        self._outputs = Outputs(self._desk)
        self._dispatch = Dispatch(self._desk, self._keepers, self._texts)
        self._phases = Phases(self._desk, self._keepers, self._dispatch, self._outputs)
        self._retention = Retention(self._desk, self._keepers, self._dispatch, self._outputs, self._texts)
        self._shells = Shells(self._desk, self._keepers)
        self._lease = Lease()
        self._vitals = Vitals(config.disk_floor)
        self._orders = Orders(self._desk, self._dispatch, self._phases, self._texts)
        self._texts_known: dict[tuple[str, int], tuple[int, int, TaskTexts]] = {}
        self._connected = False
        self._join_said = False
        self._epoch = 0
        self._surveyed = False
        self._slots = 0
        self._full = False
        self._leaving = False
        self._dismissed = False
        """The coordinator has let it go."""
        self._cut = False
        self._was_in = False
        self._fenced: str | None = None
        """Why the coordinator shut this life out, once it has."""
        self._orphan = False
        self._alone_since: float | None = None

    # ---- the calls

    @property
    def ledger(self) -> Ledger:
        """The durable state, to look at."""
        return self._desk.ledger

    @property
    def joined(self) -> bool:
        return self._desk.joined

    def apply(self, record: Record) -> None:
        """Fold a record of the journal, before `restarted`."""
        self._desk.ledger.apply(record)

    def restarted(self, now: Instant) -> None:
        """The journal is read: find out what of it is still alive."""
        self._desk.now = now
        self._alone_since = now.boottime
        if self.ledger.boot != now.boot:
            self._desk.keep(BootSeen(now.boot))
        self._dispatch.restarted()
        self._retention.restarted()
        self._keepers.survey()
        self._end_survey()

    def handle(self, event: Event, now: Instant) -> None:
        """Take one event. What follows from it is in the next `take_ready`."""
        self._desk.now = now
        if self._lease.ran_out(now):
            self._lease_over()
        match event:
            case Received():
                self._receive(event.message)
            case KeeperSaid():
                keeper = self._keepers.all.get(event.keeper)
                if keeper is not None:
                    self._keeper_said(keeper, event.said)
            case KeeperDead():
                self._keeper_dead(event)
            case TailsRead() | OutputsRead() | OverdueFound() | TasksDiscarded():
                self._looked_at(event)
            case JobDirectoryMade():
                self._phases.directory_made(event.job, event.failure)
            case TerminalOpened():
                self._shells.terminal_opened(event)
            case PieceTaken() | JobEmptied() | JobCleaned():
                self._provided(event)
            case Connected():
                self._session_over()
                self._connected, self._epoch = True, event.epoch
                self._join()
            case Disconnected():
                self._session_over()
            case StoreState():
                self._full = event.full
            case DiskSeen():
                self._vitals.disk_seen(event.free, event.size)
            case Unkillable():
                self._vitals.resists(event.keeper or event.job, event.job)
            case Terminated():
                self._leave(Leave.STOPPED)
            case Interrupted():
                self._interrupted()
            case LifelineCut():
                self._cut = True
            case Tick():
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def _provided(self, event: PieceTaken | JobEmptied | JobCleaned) -> None:
        """What a job needs before it begins, and when it is over."""
        match event:
            case PieceTaken():
                self._phases.courses.brought(self._phases.courses.bringing.taken(event))
            case JobEmptied():
                self._vitals.over(event.job)
                self._phases.courses.emptied(event.job)
            case JobCleaned():
                self._phases.cleaned(event)

    def _looked_at(self, event: TailsRead | OutputsRead | OverdueFound | TasksDiscarded) -> None:
        """Directories of commands were read, or looked through."""
        match event:
            case TailsRead():
                self._phases.tails_read(event)
                self._bury(event.keeper)
            case OutputsRead():
                self._outputs.read(event)
            case OverdueFound():
                self._retention.found(event)
            case TasksDiscarded():
                self._retention.discarded()

    def take_ready(self) -> Ready:
        """All that follows from the events handled since the last call."""
        self._pass_time()
        if self._desk.joined and (news := self._vitals.news()) is not None:
            self._desk.send(news)
        self._desk.flush_if_due()
        if self._surveyed and not self._full and self._fenced is None:
            if self._may_go():
                self._phases.end_start()
            self._phases.advance()
            self._shells.advance()
            self._outputs.advance()
            self._retention.advance()
            if self._lease.valid(self._desk.now) and self._phases.started:
                self._dispatch.feed(self._slots, self._orders.runnable, self._phases.courses.bringing.lacking)
            self._desk.flush_if_due()
        self._dispatch.flushed()
        self._desk.forget_acked()
        if not self._desk.unflushed:
            self._keepers.send_acks()
        self._leave_if_done()
        self._desk.ready.epoch = self._epoch
        return self._desk.take_ready()

    def next_deadline(self) -> Instant | None:
        """When `handle` wants a Tick."""
        now = self._desk.now
        dues = (
            self._lease.next_due(), self._keepers.next_due(), self._orphan_due(), self._desk.next_due(),
            self._retention.next_due(),
        )  # fmt: skip
        due = [at for at in dues if at is not None]
        wait = self._phases.next_due()
        if wait is not None:
            due.append(now.boottime + wait)
        return now.after(min(due) - now.boottime) if due else None

    # ---- time

    def _pass_time(self) -> None:
        now = self._desk.now
        if self._desk.joined and (beat := self._lease.beat(now)) is not None:
            self._desk.send_at_once(m.Heartbeat(beat))
        if self._connected and self._lease.unanswered(now):
            self._hang_up("the coordinator does not answer")
        self._keepers.pass_time()
        due = self._orphan_due()
        if due is not None and now.boottime >= due:
            self._settle_alone()

    def _lease_over(self) -> None:
        """Whatever was granted may be given to others from now on: start nothing of it, and join again."""
        self._dispatch.return_everything()
        if self._connected:
            self._hang_up("its lease ran out")

    def _orphan_due(self) -> float | None:
        """When an embedded agent gives its coordinator up."""
        if not self.config.embedded or self._orphan or self._alone_since is None:
            return None
        return self._alone_since + (ORPHANED_CUT_S if self._cut else ORPHANED_S)

    def _settle_alone(self) -> None:
        """The coordinator will not come back: end everything, pay every debt, and go."""
        self._orphan = True
        for job in list(self.ledger.jobs.values()):
            for held in list(job.rounds.values()):
                if held.open and not held.is_start:
                    self._phases.release_asked(held, "UserTerminate")

    # ---- sessions

    def _join(self) -> None:
        if not self._connected or self._join_said or not self._surveyed or self._orphan or self._fenced is not None:
            return
        self._join_said = True
        self._lease.join_sent(self._desk.now)
        config = self.config
        self._desk.ready.messages.append(
            m.Join(
                pool=config.pool,
                node=config.node,
                incarnation=config.incarnation,
                boot=self.ledger.boot,
                slots=config.slots,
                resources=config.resources,
                labels=config.labels,
                elevation=config.elevation,
                containment=config.containment,
                users=config.users,
                limits=list(config.limits),
                version=config.version,
                embedded=config.embedded,
                life=config.life,
            )
        )

    def _joined(self, message: m.Joined) -> None:
        self._desk.flush()
        self._desk.forget_now()
        self._desk.joined = self._was_in = True
        self._alone_since = None
        self._slots = message.slots
        self._lease.joined(message.heartbeat_s, message.lease_s)
        if self._lease.until is not None:
            self._keepers.lease(self._lease.until)
        for number in sorted(self.ledger.outbox):
            self._desk.send(self.ledger.outbox[number])
        for piece in inventory(self.ledger):
            self._desk.send(piece)
        self._dispatch.joined()
        if (health := self._vitals.joined()) is not None:
            self._desk.send(health)
        if self._leaving:
            self._desk.send(m.Leaving())

    def _hang_up(self, reason: str) -> None:
        self._session_over()
        self._desk.ready.hang_up = reason

    def _session_over(self) -> None:
        if self._connected and self._alone_since is None:
            self._alone_since = self._desk.now.boottime
        self._connected = self._join_said = self._desk.joined = False
        self._lease.disconnected()
        self._outputs.session_over()
        self._orders.session_over()
        self._shells.session_over()
        self._phases.courses.bringing.disconnected()
        self._desk.ready.messages.clear()  # nobody is there to hear them
        self._desk.ready.hang_up = None

    def _receive(self, message: m.Message) -> None:
        """A message of the coordinator; before it has let us in nothing but its answer counts."""
        if not self._connected:
            return
        if isinstance(message, m.JoinRefused):
            self._shut_out(message)
            return
        if not self._desk.joined:
            if isinstance(message, m.Joined):
                self._joined(message)
            return
        if isinstance(message, m.BlobPiece):
            self._phases.courses.brought(self._phases.courses.bringing.piece(message))
            return
        if getattr(message, "job", None) == m.START_JOB:
            self._hang_up(f"no job is called {m.START_JOB}")
            return
        try:
            self._obey(message)
        except (OrderRefused, BodyRefused) as error:
            self._hang_up(str(error))

    def _obey(self, message: m.Message) -> None:
        """An order of the coordinator that has let us in."""
        match message:
            case m.HeartbeatAck():
                if self._lease.acked(message.beat) and self._lease.until is not None:
                    self._keepers.lease(self._lease.until)
            case m.Ack() | m.OutputsTaken():
                self._acked(message)
            case m.Run():
                self._orders.run(message)
            case m.BodyChunk() | m.OpenRound():
                self._orders.open(message)
            case m.StartNode():
                self._orders.start(message)
            case m.Prepare():
                self._orders.prepare(message)
            case m.Recall() | m.StopTasks() | m.Drop():
                self._give_up(message)
            case m.ReleaseRound():
                self._orders.release(message)
            case m.RemoveJob():
                self._orders.remove(message)
            case m.OpenShell() | m.CloseShell():
                self._shells.order(message)
            case m.Depart():
                self._dismissed = self._leaving
            case _:
                self._hang_up(f"a node has no answer to {type(message).__name__}")

    def _give_up(self, message: m.Recall | m.StopTasks | m.Drop) -> None:
        """Tasks that are not to run here, or no longer."""
        match message:
            case m.Recall():
                self._dispatch.recall(message.grant)
            case m.StopTasks():
                self._dispatch.stop(message.grant, message.spans, message.reason)
            case m.Drop():
                self._dispatch.drop(message.grants)

    def _acked(self, message: m.Ack | m.OutputsTaken) -> None:
        if isinstance(message, m.Ack):
            self._desk.acked(message.number)
        else:
            self._outputs.taken(message.number)

    def _shut_out(self, refused: m.JoinRefused) -> None:
        """A newcomer goes, and what runs below its keepers is not its to judge. A life that was in is fenced: another
        agent lives by its identity and may be given its work, so nothing that it started goes on. A release does: it
        only leaves the node clean, and nobody else will."""
        if not self._was_in:
            self._leave(Leave.REVOKED if refused.revoked else Leave.REFUSED, refused.reason)
            return
        self._fenced = refused.reason
        self._session_over()
        for keeper in self._fenced_keepers():
            self._keepers.kill(keeper)

    def _fenced_keepers(self) -> list[Keeper]:
        return [keeper for keeper in self._keepers.all.values() if keeper.purpose is not Purpose.RELEASE]

    def _texts(self, job: str, number: int, group: int) -> TaskTexts:
        held = self.ledger.round(job, number)
        prepared = held.prep.attempts if held is not None else 0
        known = self._texts_known.get((job, group))
        if known is None or known[:2] != (number, prepared):
            texts = TaskTexts(self.config, self.ledger.jobs[job], group, prepared)
            known = self._texts_known[(job, group)] = (number, prepared, texts)
            for gone in [key for key in self._texts_known if key[0] not in self.ledger.jobs]:
                del self._texts_known[gone]
        return known[2]

    # ---- keepers

    def _whose(self, keeper: Keeper) -> Dispatch | Phases | Shells:
        """The part that the keeper works for."""
        if keeper.purpose is Purpose.TASKS:
            return self._dispatch
        return self._shells if keeper.purpose is Purpose.SHELL else self._phases

    def _keeper_said(self, keeper: Keeper, said: FromKeeper) -> None:
        whose = self._whose(keeper)
        match said:
            case ItemEnded():
                self._vitals.over(keeper.name)
                whose.ended(keeper, said)
            case KeeperHello():
                self._greeted(keeper, said)
            case ItemStarted():
                self._dispatch.started(keeper, said.key, said.at)
            case ItemsRecalled():
                whose.recalled(keeper, said.keys)
            case Pong():
                settled = self._keepers.ponged(keeper, said.n)
                self._dispatch.ponged(keeper, said.n)
                if settled and not isinstance(whose, Dispatch):
                    whose.settled(keeper)
                if settled:
                    self._end_survey()
            case KeeperGone():  # without survivors its death is what counts, and comes
                if said.survivors:
                    self._vitals.resists(keeper.name, keeper.job)
            case KeeperStuck():
                self._vitals.resists(keeper.name, keeper.job)
            case _ as unreachable:
                assert_never(unreachable)

    def _greeted(self, keeper: Keeper, hello: KeeperHello) -> None:
        if keeper.stage in (Stage.UP, Stage.SETTLING):
            self._keepers.kill(keeper)  # its first connection broke: what was on it can't be known
            return
        if hello.version not in UNDERSTOOD:
            self._keepers.kill(
                keeper
            )  # what it has to say can't be known either; what began and ended is in its record
            return
        keys = [*([hello.running] if hello.running is not None else []), *hello.queue]
        self._whose(keeper).greeted(keeper, keys)
        self._keepers.greeted(keeper, leftovers=hello.leftovers, version=hello.version)

    def _keeper_dead(self, event: KeeperDead) -> None:
        self._vitals.over(event.keeper)
        keeper = self._keepers.all.get(event.keeper)
        if keeper is None:
            return
        self._whose(keeper).keeper_dead(keeper, event.started, event.ends, event.reason)
        if keeper.stage is Stage.STARTING:
            self._phases.course(keeper.job).made = False  # perhaps its directory is gone
        if self._keepers.died(keeper) and keeper.purpose is not Purpose.SHELL:
            reason = f"No keeper could be started for it: {event.reason or 'it died before it could say why.'}"
            self._phases.give_up(keeper.job, reason, keeper.allowance)
        self._bury(event.keeper)
        self._end_survey()

    def _bury(self, name: str) -> None:
        """Forget a dead keeper, unless what its last command wrote is still to be read."""
        keeper = self._keepers.all.get(name)
        if keeper is not None and keeper.stage is Stage.DEAD and not self._phases.reading(keeper):
            self._desk.flush()
            self._keepers.bury(keeper)

    def _end_survey(self) -> None:
        if self._surveyed or self._keepers.surveying():
            return
        self._surveyed = True
        self._dispatch.surveyed()
        self._join()

    # ---- leaving

    def _interrupted(self) -> None:
        if self._leaving:
            self._leave(Leave.STOPPED)
            return
        self._leaving = True
        self._desk.send(m.Leaving())

    def _leave_if_done(self) -> None:
        """Go when nothing is held any more and nobody is to be asked."""
        if self._fenced is not None:
            if not self._fenced_keepers():
                self._leave(Leave.REFUSED, self._fenced)
            return
        ended = self._surveyed and self._may_go() and self._phases.end_start()
        if ended and (self._dismissed or not self._keepers.all):
            self._leave(Leave.DEPARTED)

    def _may_go(self) -> bool:
        """Whether it goes, and nothing but its start is left to end."""
        if self._dismissed:
            return True
        alone = (self._leaving or self._cut) and not self._connected and not self.ledger.outbox
        rounds = (held for job in self.ledger.jobs.values() for held in job.rounds.values() if not held.is_start)
        return (self._orphan or alone) and all(held.state is m.RoundState.RELEASED for held in rounds)

    def _leave(self, why: Leave, reason: str = "") -> None:
        if self._desk.ready.leave is None:
            self._desk.flush()
            self._desk.ready.leave, self._desk.ready.leave_reason = why, reason
