"""TLS streams and enrolling over real loopback sockets: who gets in, who does not, and that each end has its reason."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import trio

from tests.wire.certificates import Issuer
from wire.enroll import answer_stranger, join
from wire.identity import Identity, der_of
from wire.invitation import Invitation, token_digest
from wire.keys import make_key
from wire.messages import AskAuthority, Authority, Enroll, Enrolled, Heartbeat, JobShow, Renew, Renewed, Reply, Role
from wire.secure import connect_tls, listen_tcp, secure
from wire.stream import SessionRefused, accepted, opened
from wire.tls import client_context, server_context

SECRET = "s" * 43


class Coordinator:
    """A coordinator's shell in small: TLS, strangers answered, sessions that echo. `ends` says how each peer fared."""

    def __init__(self, issuer: Issuer, server: Identity | None = None) -> None:
        self.issuer = issuer
        server = server or issuer.server()
        self.context = server_context(server.certificate, server.key, server.authority)
        self.roles: list[str] = []
        self.ends: list[str] = []
        self._ended = trio.Event()
        self.asked: list[object] = []
        self.port = 0

    async def serve(self, task_status=trio.TASK_STATUS_IGNORED) -> None:
        listeners = await listen_tcp("127.0.0.1", 0)
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self.admit, listeners, task_status=task_status)

    async def admit(self, socket: trio.SocketStream) -> None:
        try:
            stream = await secure(socket, self.context)
            if stream.peer is None:
                await answer_stranger(stream, self.answer)
                self.end("answered")
                return
            self.roles.append(stream.peer.role)
            async with accepted(stream, frozenset({Role(stream.peer.role)}), self.epoch) as session:
                async for message in session:
                    if isinstance(message, JobShow):
                        session.send(Reply(message.request, {"id": message.job}))
                    elif isinstance(message, Renew):
                        renewed = self.issuer.sign_request(message.request, stream.peer.role, stream.peer.name)
                        session.send(Renewed(der_of(renewed)))
            assert session.end is not None
            self.end(session.end.reason)
        except SessionRefused as refusal:
            self.end(str(refusal))

    def end(self, reason: str) -> None:
        self.ends.append(reason)
        self._ended.set()

    async def ended(self, count: int) -> list[str]:
        """How the first `count` peers fared, once they have."""
        with trio.fail_after(20):
            while len(self.ends) < count:
                self._ended = trio.Event()
                await self._ended.wait()
        return self.ends

    async def epoch(self) -> int:
        return 7

    async def answer(self, question: AskAuthority | Enroll) -> Authority | Enrolled:
        self.asked.append(question)
        if isinstance(question, AskAuthority):
            return Authority(self.issuer.der)
        if token_digest(question.token) != token_digest(SECRET):
            raise SessionRefused("no such token")
        pem = self.issuer.sign_request(question.request, "node", question.name)
        return Enrolled(der_of(pem), Role.NODE, question.name)


@asynccontextmanager
async def coordinator(issuer: Issuer | None = None, server: Identity | None = None):
    made = Coordinator(issuer or Issuer(), server)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.serve)
        yield made
        nursery.cancel_scope.cancel()


async def test_a_newcomer_joins_by_a_join_string_and_comes_in_with_its_certificate():
    async with coordinator() as there:
        invitation = Invitation(hashlib.sha256(there.issuer.der).hexdigest(), SECRET)
        identity = await join("127.0.0.1", there.port, invitation, make_key(), "n7")
        found = identity.read()
        assert (found.role, found.name) == ("node", "n7")
        stream = await connect_tls("127.0.0.1", there.port, client_context(identity.authority, identity))
        async with opened(stream, Role.NODE) as session:
            session.send(Heartbeat(1))
        assert await there.ended(3) == ["answered", "answered", "done"]
