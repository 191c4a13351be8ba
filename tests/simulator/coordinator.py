"""The coordinator's shell in the simulated world: sessions by the real codec around the real core."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from coordinator import events, records
from coordinator.core import Core
from coordinator.outputs import Found, answer
from coordinator.policy import EndCalls, Policy
from tests.coordinator.pages import page_of
from tests.simulator.daemon import Crashed, Daemon
from tests.simulator.disk import Disk, Part, Transaction
from tests.simulator.network import Connection, Network
from tests.simulator.society import Actor, Certificate, Credentials, Local, Society
from tests.simulator.staging import CONTENTS, PIECE
from tests.simulator.world import Clock, World
from wire import limits
from wire.codec import ProtocolError
from wire.connection import Connection as Rules
from wire.connection import State
from wire.instant import Instant
from wire.messages import (
    PROTOCOL_VERSION,
    AskAuthority,
    Authority,
    BlobPiece,
    Enroll,
    Enrolled,
    Goodbye,
    Hello,
    Message,
    OutputsTaken,
    Renew,
    Renewed,
    Role,
    Welcome,
)
from wire.stream import Outbox

HOST: Final = "coordinator"
CALL_S: Final = 0.3
"""So long a job's `on_end` takes."""
CALLS: Final = EndCalls(allowed=True, own_user=False, at_once=2)


_OF_SESSIONS: Final = (events.SessionOpened, events.Received, events.SessionClosed, events.RenewAsked)


class Observer(Protocol):
    """Who is told of the coordinator's doings."""

    def coordinator_committed(self, transaction: Transaction) -> None: ...
    def coordinator_took(self, actor: Actor | None, event: events.Event, made: Sequence[records.Record]) -> None: ...
    def coordinator_sent(self, epoch: int, actor: Actor, message: Message) -> None: ...
    def coordinator_alarmed(self, sentence: str) -> None: ...
    def coordinator_called(self, job: str) -> None: ...
    def coordinator_handled(self, core: Core) -> None: ...
    def coordinator_rested(self, core: Core) -> None: ...


def brief(message: Message) -> str:
    """A message in one line of the trace."""
    text = repr(message)
    return text if len(text) <= 160 else f"{text[:150]} ... {len(text)}"


class Session:
    """One accepted connection."""

    def __init__(self, daemon: CoordinatorDaemon, connection: Connection) -> None:
        self.daemon = daemon
        self.connection = connection
        self.credentials = connection.credentials
        self.rules = Rules(Role.COORDINATOR, allowed=_roles(self.credentials), stranger=self.credentials is None)
        self.epoch: int | None = None
        self.outbox = Outbox()
        self.actor: Actor | None = None
        self._waiting: list[bytes | None] = []
        daemon.world.after(limits.HANDSHAKE_S, self._greeted_by_now)

    def _greeted_by_now(self) -> None:
        if self.rules.state is not State.OPEN and self.connection.open[1]:
            self.hang_up("no Hello in time")

    # ---- the network's side

    def received(self, data: bytes) -> None:
        self._waiting.append(data)
        self.read()

    def ended(self) -> None:
        self._waiting.append(None)
        self.read()

    def read(self) -> None:
        """Take what the socket holds, unless the process is stopped."""
        while self._waiting and self.daemon.alive and not self.daemon.stopped:
            data = self._waiting.pop(0)
            if data is None:
                self._over("the peer is gone")
                return
            try:
                self.rules.receive_bytes(data)
                while (message := self.rules.next_event()) is not None:
                    self._take(message)
            except ProtocolError as error:
                self.daemon.world.note(HOST, f"protocol error: {error}")
                self.hang_up(str(error))
                return

    def _take(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.epoch = self.daemon.log.next_number()
            self.connection.send(1, self.rules.send(Welcome(PROTOCOL_VERSION, self.epoch)))
            self.daemon.sessions[self.epoch] = self
            self.actor = _actor(self.credentials, message.role)
            self.daemon.actors[self.epoch] = self.actor
            who = self.actor
            self.daemon.post(events.SessionOpened(self.epoch, who.role, who.owner, who.key, who.until))
        elif isinstance(message, Goodbye):
            self._over(message.reason)
        elif isinstance(message, AskAuthority):
            self.connection.send(1, self.rules.send(Authority(b"the authority")))
            self._over("answered")
        elif isinstance(message, Enroll):
            self.daemon.enrol(self, message)
        elif isinstance(message, Renew) and self.epoch is not None:
            self._renew(self.epoch, message)
        elif self.epoch is not None:
            self.daemon.post(events.Received(self.epoch, message))

    def _renew(self, epoch: int, message: Renew) -> None:
        if self.actor is None or message.request.decode(errors="replace") != self.actor.key:
            self.hang_up("another key than this session's")
        else:
            self.daemon.post(events.RenewAsked(epoch))

    # ---- the daemon's side

    def admit(self, admitted: events.Admitted) -> None:
        """The certificate that was asked for: signed, and sent."""
        certificate = Certificate(admitted.key, admitted.role, admitted.name, admitted.until)
        content = msgspec.msgpack.encode(certificate)
        if self.epoch is not None:
            self.send(Renewed(content))
        elif self.connection.open[1]:
            self.connection.send(1, self.rules.send(Enrolled(content, admitted.role, admitted.name)))
            self._over("answered")

    def send(self, message: Message) -> None:
        """As `wire.stream` does: what the peer does not take waits here, up to a limit."""
        if not self.connection.open[1] or self.rules.state is not State.OPEN:
            return
        if self.connection.reads[0] and not self.outbox:
            self.connection.send(1, self.rules.send(message))
            return
        self.outbox.put(message)  # type: ignore[arg-type]
        most = limits.MAX_QUEUED if self.rules.peer is Role.NODE else limits.MAX_QUEUED_REPLIES
        if self.outbox.size > most:
            self.daemon.world.note(HOST, f"cuts {self.epoch}: the peer does not read")
            self.outbox.clear()
            self._over("the peer does not read")
        elif self.connection.reads[0]:
            self.flush()

    def flush(self) -> None:
        """The peer takes again."""
        while self.outbox:
            self.connection.send(1, self.rules.send(self.outbox.take()[0]))

    def hang_up(self, reason: str) -> None:
        if self.connection.open[1]:
            self.connection.send(1, self.rules.farewell(reason))
            self.connection.close(1)
        self._over(reason)

    def _over(self, reason: str) -> None:
        self.connection.close(1)
        if self.epoch is not None and self.daemon.sessions.pop(self.epoch, None) is not None:
            self.daemon.post(events.SessionClosed(self.epoch, reason))


def _roles(credentials: Credentials) -> frozenset[Role]:
    """What the shell lets a peer ask for. Of one with a certificate it asks nothing: that is for the core to judge."""
    match credentials:
        case Certificate():
            return frozenset(Role) - {Role.COORDINATOR}
        case Local(roles=roles):
            return roles
        case None:
            return frozenset()


def _actor(credentials: Credentials, role: Role) -> Actor:
    match credentials:
        case Certificate(key=key, name=name, until=until):
            return Actor(name, role, key, until)
        case Local(owner=owner):
            return Actor(owner, role)
        case None:
            raise AssertionError("a peer without a certificate was welcomed")


class CoordinatorDaemon(Daemon):
    """One life of the coordinator."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        disk: Disk,
        network: Network,
        observer: Observer,
        society: Society | None = None,
    ) -> None:
        super().__init__(world, HOST, clock, disk, disk.log("coordinator"))
        self.network = network
        self.observer = observer
        self.society = society
        self.sessions: dict[int, Session] = {}
        self.actors: dict[int, Actor] = {}
        """Of every session of this life, by epoch."""
        self._accepted: list[Session] = []
        self._accepted_max = 64
        """How many are kept before the closed ones among them are forgotten."""
        self._enrolling: dict[int, Session] = {}
        self._enrolments = 0
        self.finished = False
        self.core: Core = Core(Policy(end_calls=CALLS))
        if society is not None:
            self.core = Core(msgspec.structs.replace(society.policy, end_calls=CALLS), society.certificates)
        for _, body in self.log.rows:
            self.core.apply(records.decode(body))
        self.core.restarted(self.now())
        network.listen(HOST, self._accept)

    def _accept(self, connection: Connection) -> Session | None:
        shown = connection.credentials
        if isinstance(shown, Certificate) and shown.until <= self.clock.wall():
            return None  # the handshake fails: it has ended
        session = Session(self, connection)
        if len(self._accepted) >= self._accepted_max:
            self._accepted = [old for old in self._accepted if old.connection.open[1]]
            self._accepted_max = max(64, 2 * len(self._accepted))
        self._accepted.append(session)
        return session

    def enrol(self, session: Session, question: Enroll) -> None:
        """Somebody without a certificate wants one. Numbers below zero are no session's."""
        self._enrolments -= 1
        self._enrolling[self._enrolments] = session
        token = hashlib.sha256(question.token.encode()).hexdigest()
        key = question.request.decode(errors="replace")
        self.post(events.EnrollAsked(self._enrolments, token, question.name, key))

    # ---- what the loop needs

    def take(self, event: Any, now: Instant) -> None:
        """As it is; among strangers also: who did what to what is durable."""
        if self.society is None:
            self.core.handle(event, now)
            return
        made = len(self.core.ready.records)
        self.core.handle(event, now)
        actor = self.actors.get(event.session) if isinstance(event, _OF_SESSIONS) else None
        self.observer.coordinator_took(actor, event, self.core.ready.records[made:])

    def tick(self) -> Any:
        return events.Tick()

    def store_state(self, full: bool) -> Any:
        return events.StoreState(full)

    def part(self, batch: events.Ready) -> Part:
        rows = [(records.scope_of(record), records.encode(record)) for record in batch.records]
        return Part(rows, frozenset(batch.forget))

    def committed(self, transaction: Transaction) -> None:
        self.observer.coordinator_committed(transaction)

    def send_at_once(self, ready: events.Ready) -> None:
        for epoch, message in ready.at_once:
            self._send(epoch, message)

    def _discard(self, epoch: int) -> None:
        if (session := self.sessions.get(epoch)) is not None:
            session.outbox.clear()

    def effects(self, ready: events.Ready) -> list[Callable[[], None]]:
        effects: list[Callable[[], None]] = []
        effects += [partial(self._discard, epoch) for epoch in ready.discard]
        effects += [partial(self._send, epoch, message) for epoch, message in ready.frames]
        effects += [partial(self._serve, piece) for piece in ready.pieces]
        effects += [partial(self._admit, admitted) for admitted in ready.admitted]
        effects += [partial(self._reject, number, reason) for number, reason in ready.rejected + ready.postponed]
        effects += [partial(self._send, said.session, OutputsTaken(said.number)) for said in ready.outputs]
        effects += [partial(self._send, lookup.session, answer(lookup, Found(None, 0))) for lookup in ready.lookups]
        effects += [partial(self._page, asked) for asked in ready.pages]
        effects += [partial(self.world.after, CALL_S, self._called, call) for call in ready.calls]
        effects += [partial(self.observer.coordinator_alarmed, sentence) for sentence in ready.alarms]
        effects += [partial(self._close, epoch, reason) for epoch, reason in ready.close]
        if ready.finished:
            effects.append(self._finish)
        return effects

    def _send(self, epoch: int, message: Message) -> None:
        session = self.sessions.get(epoch)
        if session is not None:
            self.world.note(HOST, f"-> {epoch} {brief(message)}")
            assert session.actor is not None
            self.observer.coordinator_sent(epoch, session.actor, message)
            session.send(message)

    def _serve(self, serving: events.Serving) -> None:
        """A piece of a file, read off the disk meanwhile."""
        content = CONTENTS.get(serving.digest)
        piece = partial(BlobPiece, job=serving.job, digest=serving.digest, offset=serving.offset)
        if content is None:
            self.world.after(0.002, self._send, serving.session, piece(refused="it is not here any more."))
        else:
            part = content[serving.offset : serving.offset + PIECE]
            self.world.after(0.002, self._send, serving.session, piece(content=part))

    def _page(self, asked: events.PageAsked) -> None:
        numbered = [(number, *row) for number, row in zip(self.log.row_numbers, self.log.rows, strict=True)]
        self.post(page_of(numbered, self.log.last_row, asked, 64))

    def _called(self, call: events.EndCall) -> None:
        """What a job's `on_end` names has ended, if we live to see it: at its first attempt not always well."""
        if self.alive:
            self.observer.coordinator_called(call.job)
            failed = call.attempt == 1 and len(call.argv[-1]) % 2 == 0
            self.post(events.EndCallOver(call.job, int(failed), None, None, b""))

    def _asker(self, number: int) -> Session | None:
        return self._enrolling.pop(number, None) if number < 0 else self.sessions.get(number)

    def _admit(self, admitted: events.Admitted) -> None:
        session = self._asker(admitted.connection)
        if session is not None:
            session.admit(admitted)

    def _reject(self, number: int, reason: str) -> None:
        session = self._asker(number)
        if session is not None:
            self.world.note(HOST, f"rejects {number}: {reason}")
            session.hang_up(reason)

    def _close(self, epoch: int, reason: str) -> None:
        session = self.sessions.pop(epoch, None)
        if session is not None:
            self.world.note(HOST, f"closes {epoch}: {reason}")
            session.hang_up(reason)

    def _finish(self) -> None:
        self.finished = True
        raise Crashed

    def handled(self) -> None:
        self.observer.coordinator_handled(self.core)

    def rested(self) -> None:
        self.observer.coordinator_rested(self.core)

    # ---- dying and stopping

    def vanish(self) -> None:
        self.network.unlisten(HOST)
        for session in self._accepted:
            session.connection.close(1)
        self.sessions.clear()

    def resume(self) -> None:
        super().resume()
        for session in list(self._accepted):
            session.read()


def stored(rows: Sequence[tuple[str, bytes]]) -> Core:
    """A core as the log makes it, without a restart."""
    core = Core()
    for _, body in rows:
        core.apply(records.decode(body))
    return core
