"""A world among strangers: who gets a certificate and who loses it, and peers that keep to no rule at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tests.simulator.chatter import Chatter, mangled
from tests.simulator.coordinator import HOST
from tests.simulator.identities import Enrolment, Registrar, Wallet
from tests.simulator.network import Connection
from tests.simulator.society import HOME, OTHER_POOL, PEOPLE, POOL, Certificate, Credentials, Person
from tests.simulator.workload import document
from wire import codec
from wire import messages as m
from wire.codec import FrameTooLarge, ProtocolError
from wire.connection import Connection as Rules
from wire.connection import WrongSend
from wire.messages import PROTOCOL_VERSION, Message, Role

if TYPE_CHECKING:
    from tests.simulator.machine import Machine
    from tests.simulator.simulation import Simulation

NODE_KINDS: Final = m.FromNode.__args__
CLIENT_KINDS: Final = tuple(kind for kind in m.FromClient.__args__ if kind not in (m.Upload, m.NodeForget))
"""To forget a node is to say that its machine is off: nobody says so idly."""
OTHER_KINDS: Final = (*m.ToNode.__args__, *m.ToClient.__args__, *m.Enrolling.__args__, *m.Renewal.__args__)
OVERSTATES: Final = 0.3
REVOCATION_MEAN: Final = 2
"""Revocations in a run, about."""


class Strangers:
    """Who is at large in one simulation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.world = sim.world
        self.rng = random.Random(f"strangers {sim.seed}")
        self.registrar = Registrar(sim.world, sim.network, sim.people)
        self.wallets = {person.name: _wallet(person) for person in PEOPLE}
        self.evil = Wallet("evil", Role.NODE, "evil", OTHER_POOL)
        self.stolen: list[Certificate] = []
        """Certificates of keys that were revoked since, or whose owners have others now."""
        self.calm = False
        self.peers: list[Peer] = []
        sim.people.credentials = self.shown_by

    def start(self) -> None:
        """The pools are set up, everybody gets a certificate, and then it begins."""
        pools = (self.sim.pool_block(), {"name": OTHER_POOL, "slots": 1})
        declared = document(pools=pools)
        self.sim.people.ask(
            lambda request: m.Submit(request=request, submission="pools", document=declared), lambda answer: None
        )
        for wallet in [*self.wallets.values(), self.evil]:
            self.registrar.outfit(wallet)
        for machine in self.sim.machines:
            if machine.wallet is not None:
                self.registrar.outfit(machine.wallet)
        span = self.sim.plan.span_s
        if self.sim.plan.twins:
            self.world.at(self.rng.uniform(10.0, span / 2), self._copy_somebody)
        if not self.sim.plan.meddling:
            return
        for _ in range(self.rng.randrange(2 * REVOCATION_MEAN + 1)):
            self.world.at(self.rng.uniform(5.0, span), self._revoke_somebody)
        for machine in self.sim.machines:
            machine.fickle = True
            machine.overstates = self.rng.random() < OVERSTATES
        for kind in (Nobody, Mallory, Vera, Watcher, Sleeper, Evil, Thief):
            peer = kind(self)
            self.peers.append(peer)
            self.world.at(self.rng.uniform(1.0, 6.0), peer.come)

    def stop(self) -> None:
        """The calm: nobody meddles any more, and whoever is nobody gets another certificate."""
        self.calm = True
        for peer in self.peers:
            peer.go()

    # ---- who has what to show

    def void(self, certificate: Certificate | None) -> bool:
        """Whether the coordinator would not take it now."""
        assert self.sim.rights is not None
        return (
            certificate is None
            or certificate.until <= self.sim.coordinator_clock.wall() + 1.0
            or certificate.key in self.sim.rights.live.revoked
        )

    def shown_by(self, name: str) -> Credentials:
        """What a person has to show; a certificate that is void sends its owner to the registrar first."""
        if not name:
            return HOME
        wallet = self.wallets[name]
        if self.void(wallet.certificate):
            self.lost(wallet)
            self.registrar.outfit(wallet)
            return None
        return wallet.certificate

    def lost(self, wallet: Wallet) -> None:
        if wallet.certificate is not None:
            self.stolen.append(wallet.certificate)
            wallet.certificate = None

    def look_after(self, machine: Machine) -> None:
        """Whoever runs the cluster sees that a node is out, and gives it a token where its certificate is void."""
        if machine.wallet is not None and self.void(machine.wallet.certificate):
            self.lost(machine.wallet)
            self.registrar.outfit(machine.wallet)

    def is_nobody(self, machine: Machine, before: bool) -> bool:
        """Whether its certificate is void, or (`before`) one of its earlier ones was, or another is on its way."""
        wallet = machine.wallet
        if wallet is None:
            return False
        return wallet.asking or self.void(wallet.certificate) or (before and wallet.keys_made > 1)

    def _copy_somebody(self) -> None:
        """A machine's disk is copied to another, which comes up at once, or while the first is cut off for longer than
        it may go on."""
        first = self.rng.choice(self.sim.machines)
        twin, comes = self.sim.copy(first), self.world.now
        if self.rng.random() < 0.5:
            twin.supervise()
        else:
            away = self.sim.plan.lost_after_s * 1.01 + 20.0
            self.sim.faults.partition(first, away + self.rng.uniform(1.0, 40.0), "both")
            self.world.after(away, twin.supervise)
            comes += away
        for _ in range(self.rng.randrange(3)):
            machine = self.rng.choice((first, twin))  # not before the twin comes: it would look like the first, booted
            self.world.at(self.rng.uniform(comes, max(comes, self.sim.plan.span_s)), self._start_again, machine)

    def _start_again(self, machine: Machine) -> None:
        """Somebody finds it dead and starts it."""
        if not self.calm and not machine.powered:
            return
        self.sim.copied[machine.node].discard(machine.name)
        machine.supervise()

    def _revoke_somebody(self) -> None:
        if self.calm:
            return
        nodes = [machine.wallet for machine in self.sim.machines if machine.wallet is not None]
        wallet = self.rng.choice([*nodes, *nodes, *self.wallets.values(), self.evil])
        if wallet.certificate is not None and not wallet.asking:
            self.registrar.revoke(wallet)

    # ---- what there is in the world

    def vocabulary(self, field: str) -> list[Any]:
        """Values of a field that mean something just now."""
        truth = self.sim.truth
        jobs = list(truth.jobs)
        match field:
            case "job" | "jobs":
                return [*jobs, *dict.fromkeys(name.rpartition("-")[0] for name in jobs)]
            case "task" | "after":
                return [f"{job.id}/{job.task_id(0, 0)}" for job in truth.jobs.values() if job.total]
            case "node":
                return [*self.sim.names, "evil"]
            case "grant" | "grants" | "tasks" | "spans":
                return [*truth.grants][-12:]
            case "round" | "attempt" | "number" | "position" | "count" | "step":
                return [1, 2, 3]
            case "pool":
                return [POOL, OTHER_POOL]
            case "path":
                return [f"workitems/{job}/home" for job in jobs] + ["shared/x", ".agent/identity/key.pem"]
            case "submission":
                return [submission.text for submission in self.sim.people.submissions]
            case "document":
                return [dict(submission.document) for submission in self.sim.people.submissions]
            case "token":
                return [*self.registrar.tokens]
            case "name":
                return [*self.sim.names, *self.wallets]
            case "life":
                return [f"{machine.name}-{machine.lives}" for machine in self.sim.machines]
            case "boot":
                return [machine.clock.boot for machine in self.sim.machines]
            case "incarnation":
                return [machine.incarnation for machine in self.sim.machines]
            case _:
                return []


def _wallet(person: Person) -> Wallet:
    return Wallet(person.name, person.role, "people")


class Peer:
    """Somebody who comes, says what nobody should, and comes again."""

    host = "outside"
    kinds: Sequence[type[Message]] = (*NODE_KINDS, *CLIENT_KINDS, *OTHER_KINDS)
    mangles = 0.05
    stays = (1, 12)
    """Messages in one connection."""

    def __init__(self, strangers: Strangers) -> None:
        self.strangers = strangers
        self.world = strangers.world
        self.rng = random.Random(f"{type(self).__name__} {strangers.sim.seed}")
        self.chatter = Chatter(self.rng, strangers.vocabulary)
        self.requests = 0
        self._connection: Connection | None = None
        self._rules = Rules(Role.USER)
        self._left = 0

    # ---- what each kind of peer decides

    def shown(self) -> Credentials:
        return None

    def role(self) -> Role:
        return Role.USER

    def first(self) -> list[Message]:
        """What is said at once after Welcome."""
        return []

    def message(self) -> Message:
        self.requests += 1
        given = {"request": self.requests if self.rng.random() < 0.9 else 1}
        kind = self.rng.choice(self.kinds)
        return self.chatter.of(kind, **(given if "request" in kind.__struct_fields__ else {}))

    # ---- coming and going

    def come(self) -> None:
        if not self.strangers.calm:
            self.strangers.sim.network.dial(self.host, HOST, self._dialled, self.shown())

    def go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(0)

    def _dialled(self, connection: Connection | None) -> None:
        if connection is None or self.strangers.calm:
            if connection is not None:
                connection.close(0)
            self._later()
            return
        connection.ends[0] = self
        role = self.role()
        self._connection, self._rules, self._left = connection, Rules(role), self.rng.randint(*self.stays)
        connection.send(0, self._rules.send(m.Hello(PROTOCOL_VERSION, role)))
        if self.rng.random() < 0.1:
            self._talk()  # without waiting for an answer

    def _later(self) -> None:
        self.world.after(self.rng.uniform(0.5, 8.0), self.come)

    def received(self, data: bytes) -> None:
        try:
            self._rules.receive_bytes(data)
            while (message := self._rules.next_event()) is not None:
                self._hears(message)
        except ProtocolError:
            self.ended()

    def ended(self) -> None:
        self.go()
        self._later()

    def _hears(self, message: Message) -> None:
        match message:
            case m.Welcome():
                for said in self.first():
                    self.say(said)
                self._talk()
            case m.Goodbye() | m.JoinRefused():
                self.ended()
            case _:
                pass

    def _talk(self) -> None:
        if self._connection is None:
            return
        if self._left <= 0:
            self.ended()
            return
        self._left -= 1
        self.say(self.message())
        self.world.after(self.rng.expovariate(2.0), self._talk)

    def say(self, message: Message) -> None:
        """Send it, whether or not this role may."""
        if self._connection is None:
            return
        try:
            data = self._rules.send(message)  # type: ignore[arg-type]
        except (WrongSend, FrameTooLarge):
            data = _unruly(self._rules, message)
        self.world.note(self.host, f"-> {type(self).__name__}: {str(message)[:100]}")
        if self.rng.random() < self.mangles:
            data = mangled(self.rng, data)
        self._connection.send(0, data)


def _unruly(rules: Rules, message: Message) -> bytes:
    """A frame that these rules would not send, in its right place in the row."""
    content = codec.frame(rules.epoch, rules._sent, codec.encode_message(message))
    rules._sent += 1
    return content


class Nobody(Peer):
    """Has no certificate: greets as everybody, and tries tokens."""

    stays = (1, 3)

    def role(self) -> Role:
        return self.rng.choice((Role.NODE, Role.USER, Role.OPERATOR, Role.ADMIN))

    def come(self) -> None:
        if self.rng.random() < 0.5 or self.strangers.calm:
            super().come()
            return
        secrets = self.strangers.registrar.tokens
        token = self.rng.choice(secrets) if secrets and self.rng.random() < 0.8 else "guessed"
        key = f"key-of-nobody-{self.requests}"
        self.requests += 1
        name = self.rng.choice(self.strangers.vocabulary("name"))
        Enrolment(
            self.world, self.strangers.sim.network, self.host, m.Enroll(token, key.encode(), name),
            lambda certificate, reason: self._enrolled(certificate),
        )  # fmt: skip

    def _enrolled(self, certificate: Certificate | None) -> None:
        """A token that lies about may be spent before its owner comes: then its finder is who it says, for what that
        is worth; whoever runs the cluster revokes the name when its owner is refused."""
        if certificate is not None:
            self.strangers.stolen.append(certificate)
        self._later()


class Mallory(Peer):
    """A user with no right in the pool, who may as well be a node or an admin by her own words."""

    host = "people"

    def shown(self) -> Credentials:
        return self.strangers.shown_by("mallory")

    def role(self) -> Role:
        return Role.USER if self.rng.random() < 0.9 else self.rng.choice((Role.NODE, Role.ADMIN, Role.OPERATOR))


class Vera(Peer):
    """A user who may perhaps look, and asks for everything."""

    host = "people"
    mangles = 0.0
    kinds = tuple(kind for kind in CLIENT_KINDS if kind is not m.Submit)

    def shown(self) -> Credentials:
        return self.strangers.shown_by("vera")


class Watcher(Peer):
    """A user who sits before a screen and keeps to the rules: told of every change as long as she may be."""

    host = "people"
    mangles = 0.0
    stays = (1_000_000, 1_000_000)

    def shown(self) -> Credentials:
        return self.strangers.shown_by("carol")

    def first(self) -> list[Message]:
        return [m.Overview(request=1)]

    def _talk(self) -> None:
        """Only answers make her ask again."""

    def _hears(self, message: Message) -> None:
        if isinstance(message, m.Reply):
            self.requests += 1
            self.world.after(self.rng.uniform(0.2, 2.0), self._ask, message.body["changed"], self._connection)
        else:
            super()._hears(message)

    def _ask(self, changed: int, connection: Connection | None) -> None:
        if self._connection is connection:
            self.say(m.Overview(request=self.requests + 1, changed=changed))


class Sleeper(Watcher):
    """Is connected and says nothing at all."""

    def shown(self) -> Credentials:
        return self.strangers.shown_by("bob")

    def first(self) -> list[Message]:
        return []


class Evil(Peer):
    """A node whose machine somebody has taken over: it has a certificate, of a pool where nobody else is."""

    host = "evil"
    kinds = (*NODE_KINDS, *NODE_KINDS, *CLIENT_KINDS, *OTHER_KINDS)
    mangles = 0.02
    stays = (4, 40)

    def shown(self) -> Credentials:
        wallet = self.strangers.evil
        if self.strangers.void(wallet.certificate):
            self.strangers.lost(wallet)
        return wallet.certificate

    def role(self) -> Role:
        return Role.NODE

    def message(self) -> Message:
        return self._forged() or super().message()

    def _forged(self) -> Message | None:
        """Something about work that others were given."""
        truth, rng = self.strangers.sim.truth, self.rng
        given = [grant for grant in truth.grants.values() if grant.open]
        if not given or rng.random() < 0.5:
            return None
        grant = rng.choice(given[-6:])
        record, position = grant.record, min(grant.open)
        end = m.TaskEnd(record.grant, position, m.Outcome.EXITED, 0, None, 1.0, 2.0, 0.1, 1000)
        phase = self.chatter.of(m.PhaseEnd, job=record.job, round=record.round)  # type: ignore[arg-type]
        self.reports += 1
        return rng.choice(
            (
                m.Recalled(record.grant, [(position, 1)]),
                m.Report(self.reports, [end], []),
                m.Report(self.reports, [], [phase]),
                m.NotHeld(record.job, record.round),
                m.Started([(record.grant, position, 1.0)]),
                m.Removed(record.job),
            )
        )

    reports = 0

    def first(self) -> list[Message]:
        if self.rng.random() < 0.2:
            return []
        name = "evil" if self.rng.random() < 0.8 else self.rng.choice(self.strangers.sim.names)
        pool = OTHER_POOL if self.rng.random() < 0.8 else POOL
        join = m.Join(pool=pool, node=name, incarnation="root-evil", boot="boot-evil", slots=1, life=str(self.requests))
        self.requests += 1
        return [join, m.Inventory([], [], self.rng.random() < 0.8)]


class Thief(Peer):
    """Has certificates that are void."""

    def shown(self) -> Credentials:
        void = [found for found in self.strangers.stolen if self.strangers.void(found)]
        self.certificate = self.rng.choice(void) if void else None
        return self.certificate

    certificate: Certificate | None = None

    def role(self) -> Role:
        return Role.NODE if self.certificate is None else self.certificate.role

    def first(self) -> list[Message]:
        if self.certificate is None or self.certificate.role is not Role.NODE:
            return []
        name = self.certificate.name
        return [m.Join(pool=POOL, node=name, incarnation=f"root-{name}", boot="b", slots=1, life="thief")]
