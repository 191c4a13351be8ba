"""How strangers become known: wallets with a key and a certificate, the enrolment that fills them, and the registrar,
an administrator who makes tokens, revokes what is lost, and outfits again whoever is nobody any more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from tests.simulator.coordinator import HOST
from tests.simulator.network import Connection, Network
from tests.simulator.people import People
from tests.simulator.society import Certificate
from tests.simulator.world import World
from wire import limits
from wire import messages as m
from wire.codec import ProtocolError
from wire.connection import Connection as Rules
from wire.messages import Message, Role

TOKEN_S: Final = 400.0
AGAIN_S: Final = 2.0
RENEW_EVERY_S: Final = (2.0, 6.0)
"""How often somebody looks at the age of a certificate."""


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def certificate_of(content: bytes) -> Certificate:
    return msgspec.msgpack.decode(content, type=Certificate)


@dataclass(eq=False)
class Wallet:
    """What a person or a node has to show. The key is made when a certificate is asked for."""

    name: str
    role: Role
    host: str
    pool: str | None = None
    key: str = ""
    certificate: Certificate | None = None
    keys_made: int = 0
    asking: bool = False
    """Its registrar is about to outfit it."""
    filled: Callable[[], None] | None = None
    """Called when there is a certificate in it again."""

    def new_key(self) -> str:
        self.keys_made += 1
        return f"key-of-{self.name}-{self.keys_made}-{self.host}"

    def lose(self) -> None:
        """The directory it lay in is gone."""
        self.certificate, self.key = None, ""


class Enrolment:
    """One connection without a certificate: a token's secret for a certificate, or a sentence. Tried once."""

    def __init__(
        self,
        world: World,
        network: Network,
        host: str,
        question: m.Enroll,
        done: Callable[[Certificate | None, str], None],
    ) -> None:
        self.world = world
        self.question = question
        self.done: Callable[[Certificate | None, str], None] | None = done
        self.rules = Rules(Role.NODE)
        self._connection: Connection | None = None
        network.dial(host, HOST, self._dialled, None)
        world.after(limits.ENROLL_S, self._over, None, "no answer in time")

    def _dialled(self, connection: Connection | None) -> None:
        if connection is None:
            self._over(None, "nobody answers")
            return
        self._connection = connection
        connection.ends[0] = self
        connection.send(0, self.rules.send(self.question))

    def received(self, data: bytes) -> None:
        try:
            self.rules.receive_bytes(data)
            while (message := self.rules.next_event()) is not None:
                self._take(message)
        except ProtocolError as error:
            self._over(None, str(error))

    def ended(self) -> None:
        self._over(None, "the connection broke")

    def _take(self, message: Message) -> None:
        match message:
            case m.Enrolled():
                self._over(certificate_of(message.certificate), "")
            case m.Goodbye():
                self._over(None, message.reason)
            case _:
                self._over(None, f"an answer of kind {type(message).__name__}")

    def _over(self, certificate: Certificate | None, reason: str) -> None:
        done, self.done = self.done, None
        if done is None:
            return
        if self._connection is not None:
            self._connection.close(0)
        done(certificate, reason)


class Registrar:
    """The administrator beside the coordinator. Patient: whatever fails is tried again until a wallet is filled."""

    def __init__(self, world: World, network: Network, people: People) -> None:
        self.world = world
        self.network = network
        self.people = people
        self.tokens: list[str] = []
        """Every secret that ever left the house: what thieves try again."""
        self.outfits = 0

    def outfit(self, wallet: Wallet) -> None:
        """A new key and a certificate for it, by a new token."""
        if wallet.asking:
            return
        wallet.asking = True
        self.outfits += 1
        secret = f"secret-{self.outfits}-of-{wallet.name}"
        name = wallet.name if wallet.role is not Role.NODE or self.world.chance(0.3) else None
        self.world.note(self.people.host, f"makes a token for {wallet.role.value} {wallet.name}")

        def make(request: int) -> Message:
            return m.TokenCreate(
                request=request, digest=digest_of(secret), role=wallet.role, lifetime_s=TOKEN_S, name=name,
                pool=wallet.pool,
            )  # fmt: skip

        self.people.ask(make, lambda answer: self._made(wallet, secret, answer))

    def _made(self, wallet: Wallet, secret: str, answer: Message) -> None:
        if isinstance(answer, m.Refused):
            self.world.note(self.people.host, f"no token for {wallet.name}: {answer.message}")
            self._again(wallet)
            return
        self.tokens.append(secret)
        key = wallet.new_key()
        question = m.Enroll(token=secret, request=key.encode(), name=wallet.name if wallet.role is Role.NODE else "")
        Enrolment(
            self.world, self.network, wallet.host, question,
            lambda certificate, reason: self._enrolled(wallet, key, certificate, reason),
        )  # fmt: skip

    def _enrolled(self, wallet: Wallet, key: str, certificate: Certificate | None, reason: str) -> None:
        if certificate is not None:
            self.world.note(
                wallet.host, f"is {certificate.role.value} {certificate.name} until {certificate.until:.0f}"
            )
            wallet.certificate, wallet.key, wallet.asking = certificate, key, False
            if wallet.filled is not None:
                wallet.filled()
            return
        self.world.note(wallet.host, f"not enrolled: {reason}")
        if "revoke" in reason or self.world.chance(0.5):
            self.revoke(wallet, lambda: self._again(wallet))  # perhaps an answer got lost, and the name is taken
        else:
            self._again(wallet)

    def _again(self, wallet: Wallet) -> None:
        wallet.asking = False
        self.world.after(AGAIN_S, self.outfit, wallet)

    def revoke(self, wallet: Wallet, then: Callable[[], None] = lambda: None) -> None:
        """Whatever key has this name is nobody from now on."""
        self.world.note(self.people.host, f"revokes {wallet.role.value} {wallet.name}")

        def make(request: int) -> Message:
            if wallet.role is Role.NODE:
                return m.NodeRevoke(request, wallet.name)
            return m.IdentityRevoke(request, wallet.name)

        self.people.ask(make, lambda answer: then())
