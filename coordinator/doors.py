"""How peers come in: over the unix socket, known by their user, or over TLS, known by their certificate.

A peer without a certificate is answered here and goes; whoever may open a session becomes a Guest. What a guest says
then is the server's, what a key is worth the core's.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from coordinator.config import Config, ConfigError, name_of
from coordinator.events import Admitted, EnrollAsked, Ready
from coordinator.identities import MAY_ACT_AS, Identities
from wire import limits
from wire.address import host_and_port_to_listen
from wire.enroll import EnrollRefused, answer_stranger
from wire.gate import Gate
from wire.identity import IdentityError
from wire.invitation import token_digest
from wire.messages import AskAuthority, Authority, Enroll, Enrolled, Role
from wire.mistake import culprit
from wire.secure import listen_tcp, secure
from wire.stream import SessionRefused, peer_uid, refuse
from wire.tls import server_context

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from coordinator import authority as authorities

LOOK_S: Final = 3600.0
"""How often the coordinator's own certificate is looked at."""
_TOO_SLOW: Final = "the coordinator could not decide in time: try again with the same key, the token is good for it"
_PEER_GROUPS: Final = 59  # SO_PEERGROUPS, which the socket module does not name
_GROUPS_READ: Final = 1024  # bytes that getsockopt gives at most: 256 groups


@dataclass(frozen=True, slots=True)
class Guest:
    """A peer that may open a session."""

    owner: str
    allowed: frozenset[Role]
    uid: int | None = None
    """Of a local one."""
    key: str | None = None
    expires: float | None = None
    """Of one with a certificate."""

    @property
    def origin(self) -> str:
        """For the log."""
        return f"uid {self.uid}" if self.key is None else f"key {self.key[:16]}"


# ---- the socket of this machine


class LocalDoor:
    """Who on this machine may come in, by the uid that the kernel tells."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = os.getuid()
        self._group = _number_of(config.local.group) if config.local.group is not None else None

    def open_to_group(self, state: Path, path: Path) -> None:
        """Let the members of the group come as far as the socket; nothing else of the directory opens to them."""
        if self._group is not None:
            os.chown(state, -1, self._group)
            state.chmod(0o710)
            os.chown(path, -1, self._group)
            path.chmod(0o660)

    def guest(self, stream: trio.SocketStream) -> Guest:
        """Who this is. Raises SessionRefused."""
        uid = peer_uid(stream)
        groups = _groups_of(stream, uid) if uid not in (0, self._own) else frozenset()
        allowed = self._config.roles_of(uid, self._own, groups, self._group)
        if not allowed:
            raise SessionRefused(
                f"this coordinator does not serve the user {name_of(uid)}: its configuration says who may use it, "
                "under [local]"
            )
        return Guest(name_of(uid), allowed, uid)

    def is_own(self, guest: Guest) -> bool:
        """Whether this is a process of the user that the coordinator runs as."""
        return guest.uid == self._own


def _number_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"the group `{group}` in [local] does not exist on this machine") from None


def _groups_of(stream: trio.SocketStream, uid: int) -> frozenset[int]:
    """The groups of a connected process, as the kernel knows them; of one with very many, as the system lists them."""
    try:
        found = stream.socket.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _GROUPS_READ)
        credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return frozenset({*struct.unpack(f"{len(found) // 4}I", found), struct.unpack("iII", credentials)[2]})
    except OSError:
        with suppress(KeyError):
            entry = pwd.getpwuid(uid)
            return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return frozenset()


# ---- the network


@dataclass(slots=True)
class _Asked:
    """A stranger that waits for the core's word."""

    key: ec.EllipticCurvePublicKey
    answered: trio.Event = field(default_factory=trio.Event)
    enrolled: Enrolled | None = None
    refusal: SessionRefused = field(default_factory=lambda: SessionRefused(_TOO_SLOW))


class TlsDoor:
    """The TLS port. Invariant: the secret of a token goes no further than here."""

    def __init__(
        self,
        authority: authorities.Authority,
        identities: Callable[[], Identities],
        ask: Callable[[EnrollAsked], Awaitable[None]],
        wall: Callable[[], float],
        log: Any,
    ) -> None:
        """`identities` are the core's, to be read; `ask` gives the core an event."""
        self.gate = Gate()
        self._authority = authority
        self._identities = identities
        self._ask = ask
        self._wall = wall
        self._log = log
        self._asked: dict[int, _Asked] = {}
        self._last = 0
        self._show_identity()

    def _show_identity(self) -> None:
        """Take the certificate of now into use for new connections. Raises IdentityError."""
        own = self._authority.server_identity(self._wall())
        self._context = server_context(own.certificate, own.key, self._authority.pem)

    async def stay_valid(self) -> None:
        """For ever: the coordinator's certificate is made anew in time."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                self._show_identity()
            except (IdentityError, OSError) as error:
                self._log.error("the coordinator's certificate can't be made anew", reason=str(error))

    # ---- one connection

    async def guest(self, transport: trio.SocketStream) -> tuple[trio.abc.Stream, Guest] | None:
        """Who this is, over TLS; None for one that had only a question, which was answered. Raises SessionRefused,
        with the connection closed."""
        try:
            return await self._guest(transport)
        except SessionRefused:
            raise
        except Exception as error:  # whichever mistake of ours a stranger finds, it ends his connection alone
            self._log.error("a mistake of the coordinator itself, met by a stranger", where=culprit(error))
            await trio.aclose_forcefully(transport)
            raise SessionRefused("a mistake of the coordinator itself") from error

    async def _guest(self, transport: trio.SocketStream) -> tuple[trio.abc.Stream, Guest] | None:
        stream = await secure(transport, self._context)
        peer = stream.peer
        if peer is None:
            await answer_stranger(stream, self._answer)
            return None
        role = next((role for role in MAY_ACT_AS if role.value == peer.role), None)
        if role is None:
            await _turn_away(stream, f"a certificate of a {peer.role} opens no session here")
        reason = self._identities().nobody(peer.key, peer.name, role, self._wall())
        if reason is not None and role is not Role.NODE:  # a node is told by the core that it must end
            await _turn_away(stream, reason)
        return stream, Guest(peer.name, MAY_ACT_AS[role], key=peer.key, expires=peer.expires)

    async def _answer(self, question: AskAuthority | Enroll) -> Authority | Enrolled:
        """Raises SessionRefused, whose sentence the peer is told."""
        if isinstance(question, AskAuthority):
            return Authority(self._authority.der)
        from wire.keys import fingerprint, requested_key

        try:
            asked = _Asked(requested_key(question.request))
        except IdentityError as error:
            raise EnrollRefused(str(error)) from None
        self._last -= 1
        number = self._last
        self._asked[number] = asked
        try:
            with trio.move_on_after(limits.ENROLL_S):
                key = fingerprint(asked.key)
                await self._ask(EnrollAsked(number, token_digest(question.token), question.name[:200], key))
                await asked.answered.wait()
        finally:
            del self._asked[number]
        if asked.enrolled is None:
            raise asked.refusal
        return asked.enrolled

    # ---- what the core has decided

    def deliver(self, ready: Ready) -> None:
        """Answer the strangers that waited for this."""
        for admitted in ready.admitted:
            if (asked := self._asked.get(admitted.connection)) is not None:
                asked.enrolled = Enrolled(self.sign(admitted, asked.key), admitted.role, admitted.name)
                asked.answered.set()
        for refusal, refused in ((EnrollRefused, ready.rejected), (SessionRefused, ready.postponed)):
            for connection, reason in refused:
                if (asked := self._asked.get(connection)) is not None:
                    asked.refusal = refusal(reason)
                    asked.answered.set()

    def sign(self, admitted: Admitted, key: ec.EllipticCurvePublicKey) -> bytes:
        """The certificate that the core has promised, for the key it was promised to."""
        self._log.info("admitted", role=admitted.role.value, name=admitted.name, key=admitted.key[:16])
        return self._authority.sign(key, admitted.role, admitted.name, now=self._wall(), until=admitted.until)


async def _turn_away(stream: trio.abc.Stream, reason: str) -> NoReturn:
    await refuse(stream, reason, for_good=True)
    raise SessionRefused(reason)


async def open_listeners(text: str) -> list[trio.SocketListener]:
    """Listeners at every address that is meant. Raises ValueError, OSError."""
    host, port = host_and_port_to_listen(text)
    return await listen_tcp(host, port)


def address_of(listener: trio.SocketListener) -> str:
    """Where it listens, as others write it."""
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def caller_of(stream: trio.SocketStream) -> str:
    """The address that a connection comes from (of IPv6 the network of one household); empty when it is gone."""
    try:
        host = str(stream.socket.getpeername()[0])
    except OSError:
        return ""
    return ":".join(host.split(":")[:4]) if ":" in host and not host.startswith("::") else host
