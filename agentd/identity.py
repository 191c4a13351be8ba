"""Who this node is to a coordinator over TLS: its key and certificate below the agent's directory, got for a token
once, and renewed while the node lives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import trio

from wire.address import unreachable
from wire.certificate import Certificate, CertificateError, read_certificate
from wire.enroll import EnrollRefused, join
from wire.identity import (
    CERTIFICATE,
    KEY,
    Identity,
    IdentityError,
    NoIdentity,
    der_of,
    pem_of,
    read_identity,
    read_private,
    remove_identity,
    write_identity,
    write_private,
)
from wire.invitation import Invitation, InvitationError, parse_invitation
from wire.messages import Role
from wire.retry import delay_s
from wire.spec import Backoff
from wire.stream import SessionRefused

DIRECTORY: Final = "identity"
VARIABLE: Final = "BATCH_JOIN"
JOIN_AGAIN: Final = Backoff(first_ms=1_000, cap_ms=30_000)
SPREAD: Final = 0.2
"""Part of a certificate's life over which the renewals of nodes that were admitted together are spread."""
_MAX_JOIN: Final = 4096


class OutcastError(Exception):
    """This node will not be let in as it is, however often it asks. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class JoinGiven:
    """What the command line says of a token: a join string, or why there is none that could be used."""

    invitation: Invitation | None = field(default=None, repr=False)
    why_not: str = "give a join string with --join: `coordinator token create --role node` prints one"


def read_join(given: str | None) -> JoinGiven:
    """What `--join` says: a join string, `@FILE`, or `-` for stdin; without it, the environment's, which is taken out
    of there. Raises InvitationError for what is none."""
    stored = os.environ.pop(VARIABLE, None)
    text = stored if given is None else given
    if text is None:
        return JoinGiven()
    if text == "-":
        text = sys.stdin.read(_MAX_JOIN)
    elif text.startswith("@"):
        try:
            with open(text[1:], encoding="utf-8", errors="replace") as file:
                text = file.read(_MAX_JOIN)
        except OSError as error:  # in order where the node has joined already: its token is spent and may be gone
            return JoinGiven(why_not=f"the join string can't be read from {text[1:]}: {error.strerror}")
    try:
        return JoinGiven(parse_invitation(text))
    except InvitationError as error:
        raise InvitationError(f"--join: {error}") from None


class Papers:
    """The node's identity while the agent runs. Everything that touches the disk blocks: call it in a thread."""

    def __init__(self, directory: str | Path) -> None:
        """Raises NoIdentity, IdentityError."""
        self._directory = directory
        self.identity: Identity = read_identity(directory)
        self.certificate: Certificate = self.identity.read()
        self._since = self._written_at()

    def expired(self, wall: float) -> bool:
        return wall >= self.certificate.expires

    def renewal_due(self) -> float:
        """The wall time at which the next certificate is asked for: at half of this one's life, or a little later."""
        life_s = self.certificate.expires - self._since
        at_most_ms = max(1, int(1000 * SPREAD * life_s))
        spread = Backoff(first_ms=at_most_ms, cap_ms=at_most_ms)
        return self._since + life_s / 2 + delay_s(spread, 1, self.certificate.key)

    def _written_at(self) -> float:
        """When this certificate was got, as it begins before that, so that clocks may differ."""
        try:
            written = os.stat(os.path.join(self._directory, CERTIFICATE)).st_mtime
        except OSError:
            written = 0.0  # removed under us: it began when it says
        return min(max(written, self.certificate.begins), self.certificate.expires)

    def request(self) -> bytes:
        """The signing request for the next one. Raises IdentityError."""
        from wire.keys import make_request

        return make_request(self.identity.key)

    def renew(self, certificate: bytes) -> None:
        """Take the next certificate (DER). Key and authority stay, so one file is replaced, whole or not at all.
        Raises IdentityError."""
        try:
            found = read_certificate(certificate)
        except CertificateError as error:
            raise IdentityError(f"the coordinator's answer is no certificate: {error}") from None
        held = self.certificate
        if (found.role, found.name, found.key) != (held.role, held.name, held.key):
            raise IdentityError("the coordinator's answer is a certificate of somebody else")
        write_private(self._directory, CERTIFICATE, pem_of(certificate))
        self.identity = Identity(self.identity.key, pem_of(certificate), self.identity.authority)
        self.certificate = found
        self._since = self._written_at()


def held_papers(directory: str, given: JoinGiven, wall: float) -> Papers | None:
    """The identity that is there, if it is of use: a node that is told to join another coordinator, or again after
    its certificate has run out, needs the next one. Raises OutcastError, IdentityError."""
    try:
        papers = Papers(directory)
    except NoIdentity:
        if given.invitation is None:
            raise OutcastError(f"this node has not joined over TLS yet: {given.why_not}") from None
        return None
    invitation = given.invitation
    if invitation is not None and not invitation.pins(der_of(papers.identity.authority)):
        remove_identity(directory)
        return None
    if not papers.expired(wall):
        return papers
    if invitation is None:
        raise OutcastError(
            f"the certificate of node {papers.certificate.name} has expired while it was away, and the coordinator "
            f"takes it no more. To join again: {given.why_not}"
        )
    return None


async def join_as(
    address: tuple[str, int], directory: str, invitation: Invitation, name: str, waits: Callable[[str], None]
) -> Papers:
    """Be admitted as node `name`, or as the token names it. What may pass is tried again for ever, and said to `waits`.
    Raises OutcastError, IdentityError."""
    key = await trio.to_thread.run_sync(_key, directory)
    failures = 0
    while True:
        try:
            identity = await join(*address, invitation, key, name)
            break
        except EnrollRefused as refusal:
            raise OutcastError(str(refusal)) from None
        except SessionRefused as refusal:
            reason = str(refusal)
        except OSError as error:
            reason = unreachable(f"{address[0]}:{address[1]}", error)
        failures += 1
        waits(reason)
        await trio.sleep(delay_s(JOIN_AGAIN, failures, name))
    if identity.read().role != Role.NODE.value:
        raise OutcastError(f"this token makes a {identity.read().role} and no node: make one with --role node")
    await trio.to_thread.run_sync(partial(write_identity, directory, identity))
    return await trio.to_thread.run_sync(Papers, directory)


def _key(directory: str) -> bytes:
    """The key that this node will be known by, on disk before anybody is told of it: a try may be repeated."""
    held = read_private(directory, KEY)
    if held is not None:
        return held
    from wire.keys import make_key

    made = make_key()
    write_private(directory, KEY, made)
    return made


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node asks to be let in, and with what."""

    host: str
    port: int
    directory: str
    given: JoinGiven

    def enter(self, name: str, wall: float, waits: Callable[[str], None]) -> Papers | None:
        """The node's papers; a node that has none of use asks for them until it is let in, or told to stop: None.
        Blocks. Raises OutcastError (in groups), IdentityError."""
        papers = held_papers(self.directory, self.given, wall)
        if papers is not None:
            return papers
        assert self.given.invitation is not None, "without one there is an error"
        return trio.run(self._join, self.given.invitation, name, waits)

    async def _join(self, invitation: Invitation, name: str, waits: Callable[[str], None]) -> Papers | None:
        papers: Papers | None = None
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
                papers = await join_as((self.host, self.port), self.directory, invitation, name, waits)
                nursery.cancel_scope.cancel()
        return papers

    def may_come_again(self) -> bool:
        """Whether there is a join string to try for a node whose key was revoked: its next key."""
        if self.given.invitation is None:
            return False
        remove_identity(self.directory)
        return True


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
