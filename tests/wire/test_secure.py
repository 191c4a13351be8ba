"""TLS streams and enrolling over real loopback sockets: who gets in, who does not, and that each end has its reason."""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
import trio.testing

from tests.wire.certificates import SERVER, Issuer, self_signed
from wire import codec, limits
from wire.connection import Connection
from wire.enroll import answer_stranger, join
from wire.identity import Identity, der_of
from wire.invitation import Invitation, token_digest
from wire.keys import load_key, make_key
from wire.messages import (
    PROTOCOL_VERSION,
    AskAuthority,
    Authority,
    Enroll,
    Enrolled,
    Heartbeat,
    Hello,
    JobShow,
    Renew,
    Renewed,
    Reply,
    Role,
)
from wire.secure import TlsStream, connect_tls, listen_tcp, secure
from wire.stream import SessionRefused, Unclean, accepted, opened
from wire.tls import client_context, server_context

SECRET = "s" * 43
HOUR = timedelta(hours=1)


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


async def dial(there: Coordinator, identity: Identity | None, authority: bytes | None = None) -> trio.abc.Stream:
    return await connect_tls("127.0.0.1", there.port, client_context(authority or there.issuer.pem, identity))


async def refused(there: Coordinator, identity: Identity | None) -> str:
    """What one learns who is not let in: a client believes its TLS handshake, so it comes with the greeting."""
    with pytest.raises(SessionRefused) as raised:
        async with opened(await dial(there, identity), Role.NODE):
            pass
    return str(raised.value)


async def comes_in(there: Coordinator) -> None:
    """Whatever somebody else did: one with a good certificate is welcomed."""
    async with opened(await dial(there, there.issuer.identity()), Role.NODE):
        pass


# ---- who is not let in


async def test_t1_without_a_certificate_no_session_is_opened():
    async with coordinator() as there:
        assert "no certificate was shown: join or log in" in await refused(there, None)
        assert "no certificate was shown" in (await there.ended(1))[0]
        await comes_in(there)


@pytest.mark.parametrize(
    ("kind", "there_it_is", "here_it_is"),
    [
        ({"expires": -HOUR, "begins": -2 * HOUR}, "has expired", "our certificate has expired"),
        ({"begins": HOUR}, "not valid yet", "refused our certificate"),
        ({"usage": SERVER}, "for another purpose", "refused our certificate"),
        ({"uris": []}, "names no identity", "cut"),
        ({"uris": ["batch://node/n1", "batch://node/n2"]}, "names no identity", "cut"),
        ({"uris": ["batch://node/../n2"]}, "names no identity", "cut"),
        ({"uris": ["https://example.org/node/n1"]}, "names no identity", "cut"),
        ({"uris": ["batch://chief/n1"]}, "names no identity", "cut"),
    ],
    ids=["expired", "not yet", "a server's", "nobody's", "two names", "a path", "another scheme", "no role"],
)
async def test_t1_a_certificate_that_is_no_good_opens_nothing(kind, there_it_is, here_it_is):
    async with coordinator() as there:
        assert here_it_is in await refused(there, there.issuer.identity(**kind))
        assert there_it_is in (await there.ended(1))[0]
        assert there.roles == []
        await comes_in(there)


@pytest.mark.parametrize("name", ["another", "authority"], ids=["another authority", "one of the same name"])
async def test_t1_a_certificate_of_another_authority_opens_nothing(name):
    async with coordinator() as there:
        stranger = Issuer(name).identity()
        assert "does not know our certificate's authority" in await refused(there, stranger)
        assert "of another authority" in (await there.ended(1))[0]
        assert there.roles == []
        await comes_in(there)


async def test_t1_a_certificate_one_signed_oneself_opens_nothing():
    async with coordinator() as there:
        own = Issuer("node")
        key = make_key()
        identity = Identity(key, own.sign(load_key(key).public_key(), "admin", "root"), own.pem)
        assert "does not know" in await refused(there, identity)
        alone = self_signed(key)
        assert "does not know" in await refused(there, Identity(key, alone, there.issuer.pem))
        assert there.roles == []


async def test_t1_a_certificate_signed_by_a_node_is_worth_nothing():
    """A node's key signs for an admin; its own certificate comes along as if it were an authority."""
    async with coordinator() as there:
        node = there.issuer.identity("node", "n1")
        forger = Issuer("n1")
        forger.key = load_key(node.key)
        key = make_key()
        forged = forger.sign(load_key(key).public_key(), "admin", "root")
        answer = await refused(there, Identity(key, forged + node.certificate, there.issuer.pem))
        assert "does not know" in answer or "refused our certificate" in answer
        assert there.roles == []


async def test_t3_a_certificate_opens_sessions_in_its_own_role_only():
    async with coordinator() as there:
        for role in (Role.USER, Role.ADMIN):
            with pytest.raises(SessionRefused, match=f"may not act as {role.value}"):
                async with opened(await dial(there, there.issuer.identity("node", "n1")), role):
                    pass


# ---- joining


def invitation_to(issuer: Issuer, secret: str = SECRET) -> Invitation:
    return Invitation(hashlib.sha256(issuer.der).hexdigest(), secret)


async def test_t2_an_authority_other_than_the_pinned_one_is_told_nothing():
    """Somebody stands between, with an authority of his own."""
    async with coordinator() as between:
        with pytest.raises(SessionRefused, match=r"authority is another.*nothing secret was said"):
            await join("127.0.0.1", between.port, invitation_to(Issuer()), make_key(), "n1")
        assert between.asked == [AskAuthority()]


async def test_t2_who_shows_the_true_authority_but_has_not_its_certificate_is_told_nothing():
    """Somebody stands between who passes on the authority's certificate, which is public, and hopes for the token."""
    true, own = Issuer(), Issuer()
    async with coordinator(true, own.server()) as between:
        with pytest.raises(SessionRefused, match="another authority"):
            await join("127.0.0.1", between.port, invitation_to(true), make_key(), "n1")
        assert between.asked == [AskAuthority()]


async def test_t2_a_node_of_the_pool_that_poses_as_its_coordinator_gets_no_token():
    issuer = Issuer()
    for poser in (issuer.identity("node", "n1"), issuer.identity("node", "n1", usage=SERVER)):
        async with coordinator(issuer, poser) as between:
            with pytest.raises(SessionRefused, match=r"for another purpose|no coordinator but node n1"):
                await join("127.0.0.1", between.port, invitation_to(issuer), make_key(), "n2")
            assert between.asked == [AskAuthority()]


async def test_t2_a_token_that_is_none_is_refused_with_the_sentence():
    async with coordinator() as there:
        with pytest.raises(SessionRefused, match="no such token"):
            await join("127.0.0.1", there.port, invitation_to(there.issuer, "x" * 43), make_key(), "n1")


async def test_t2_a_certificate_of_another_key_is_not_taken():
    async with coordinator() as there:
        key = make_key()

        async def answer(question: AskAuthority | Enroll) -> Authority | Enrolled:
            if isinstance(question, AskAuthority):
                return Authority(there.issuer.der)
            return Enrolled(der_of(there.issuer.identity("node", "n1").certificate), Role.NODE, "n1")

        there.answer = answer
        with pytest.raises(SessionRefused, match="not ours"):
            await join("127.0.0.1", there.port, invitation_to(there.issuer), key, "n1")


async def test_one_with_a_certificate_may_not_ask_as_a_stranger_does():
    async with coordinator() as there:
        async with await dial(there, there.issuer.identity()) as stream:
            await stream.send_all(Connection(Role.NODE).send(Enroll("t", b"r")))
            connection = Connection(Role.NODE)
            connection.receive_bytes(await stream.receive_some(10_000))
        assert "by those who have shown none" in connection.next_event().reason
        assert there.asked == []


async def test_a_stranger_is_read_a_small_frame_and_no_more():
    async with coordinator() as there, await dial(there, None) as stream:
        await stream.send_all(codec.HEADER.pack(limits.MAX_OPENING_FRAME + 1))
        assert "over the limit of 4096" in (await there.ended(1))[0]


# ---- peers that disturb


async def unfinished(there: Coordinator, *pieces: bytes) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", there.port)
    for piece in pieces:
        await stream.send_all(piece)
    return stream


def client_hello() -> bytes:
    """The first flight of a client, in one TLS record."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        codec.frame(0, 0, codec.encode_message(Hello(PROTOCOL_VERSION, Role.ADMIN))),
        bytes(5000),
        b"\xff" * 5000,
        client_hello()[:40],
        client_hello()[:-1] + b"\x00\x16\x03\x03",
        b"\x15\x03\x03\x00\x02\x02\x28",
    ],
    ids=["nothing", "http", "ssh", "no tls", "zeros", "ones", "cut off", "torn", "an alert"],
)
async def test_t6_whatever_comes_instead_of_a_handshake_ends_its_connection_alone(said):
    async with coordinator() as there:
        stream = await unfinished(there, said)
        await stream.send_eof()
        assert "no TLS with the peer" in (await there.ended(1))[0]
        await stream.aclose()
        await comes_in(there)


async def test_t6_an_older_tls_is_refused_with_the_reason():
    async with coordinator() as there:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
        async with TlsStream(await trio.open_tcp_stream("127.0.0.1", there.port), old, server=False) as stream:
            with pytest.raises(Unclean, match=r"does not speak TLS 1.3"):
                await stream.handshake()
        assert "does not speak TLS 1.3" in (await there.ended(1))[0]


async def test_t6_a_peer_that_resets_its_connection_disturbs_nobody():
    async with coordinator() as there, trio.open_nursery() as nursery:

        async def come_and_break(said: bytes) -> None:
            stream = await unfinished(there, said)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()

        async with opened(await dial(there, there.issuer.identity("user", "u")), Role.USER) as session:
            for number in range(40):
                nursery.start_soon(come_and_break, client_hello()[: number * 13])
            session.send(JobShow(1, "daily"))
            assert await session.receive() == Reply(1, {"id": "daily"})
            await there.ended(40)


class Wire:
    """Two ends of a TLS connection over streams in memory, so that time is the test's."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.near, self.far = trio.testing.memory_stream_pair()
        server = issuer.server()
        self.context = server_context(server.certificate, server.key, server.authority)

    async def accept(self) -> TlsStream:
        return await secure(self.far, self.context)

    @asynccontextmanager
    async def open(self, identity: Identity | None = None):
        """Both ends after the handshake."""
        identity = identity or self.issuer.identity()
        near = TlsStream(self.near, client_context(self.issuer.pem, identity), server=False)
        ends: list[TlsStream] = []

        async def accept() -> None:
            ends.append(await self.accept())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(near.handshake)
        yield near, ends[0]


async def test_t6_a_silent_peer_is_given_its_time_and_no_more(autojump_clock):
    wire = Wire(Issuer())
    began = trio.current_time()
    with pytest.raises(SessionRefused, match="did not finish within 5 s"):
        await wire.accept()
    assert trio.current_time() - began == pytest.approx(limits.HANDSHAKE_S)
    with pytest.raises(trio.BrokenResourceError):
        await wire.near.send_all(b"x")


async def test_t6_a_handshake_of_a_byte_now_and_then_is_given_its_time_and_no_more(autojump_clock):
    wire = Wire(Issuer())
    began = trio.current_time()

    async def dribble() -> None:
        for byte in client_hello():
            await wire.near.send_all(bytes([byte]))
            await trio.sleep(1.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(SessionRefused, match="within 5 s"):
            await wire.accept()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(limits.HANDSHAKE_S)


async def test_t6_a_handshake_without_end_is_cut_by_its_size(autojump_clock):
    """Records that each hold one byte of a ClientHello that says it is sixteen million bytes long."""
    wire = Wire(Issuer())
    sent = 0

    async def flood() -> None:
        nonlocal sent
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await wire.near.send_all(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")
            while True:
                await wire.near.send_all(b"\x16\x03\x01\x00\x01\x00" * 100)
                sent += 600
                await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with pytest.raises(SessionRefused, match="no TLS with the peer"):
            await wire.accept()
    assert sent <= 2 * limits.MAX_TLS_HANDSHAKE


async def test_t6_a_certificate_with_hundreds_in_tow_is_cut_by_its_size():
    async with coordinator() as there:
        identity = there.issuer.identity()
        heavy = Identity(identity.key, identity.certificate + there.issuer.pem * 230, identity.authority)
        assert "cut" in await refused(there, heavy)
        assert f"more than {limits.MAX_TLS_HANDSHAKE} bytes" in (await there.ended(1))[0]
        await comes_in(there)


async def test_an_end_without_a_farewell_is_told_as_a_cut(autojump_clock):
    wire = Wire(Issuer())
    async with wire.open() as (near, far):
        await near.send_all(b"hello")
        await near.transport.aclose()
        assert await far.receive_some() == b"hello"
        assert await far.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await far.send_all(b"x" * 100_000)


async def test_closing_waits_for_nobody(autojump_clock):
    wire = Wire(Issuer())
    async with wire.open() as (near, far):
        began = trio.current_time()
        await near.aclose()
        await far.aclose()
        assert trio.current_time() == began


async def test_a_damaged_record_is_the_end_with_a_reason(autojump_clock):
    wire = Wire(Issuer())
    async with wire.open() as (near, far):
        await near.transport.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(Unclean, match=r"TLS failed|decryption failed"):
            await far.receive_some()
        with pytest.raises(Unclean, match=r"TLS failed|refused"):
            await near.receive_some()


async def test_much_passes_both_ways_at_once_unchanged(autojump_clock):
    wire = Wire(Issuer())
    async with wire.open() as ends, trio.open_nursery() as nursery:
        content = [hashlib.sha512(bytes([n])).digest() * 16_384 for n in (1, 2)]

        async def receive(stream: TlsStream, expected: bytes) -> None:
            taken = bytearray()
            while len(taken) < len(expected):
                taken += await stream.receive_some(1000 + len(taken) % 70_000)
            assert bytes(taken) == expected

        for end, sent, expected in zip(ends, content, reversed(content), strict=True):
            nursery.start_soon(end.send_all, sent)
            nursery.start_soon(receive, end, expected)


async def test_t6_what_tls_holds_of_a_peer_that_floods_is_bounded(autojump_clock):
    """Tiny records, a thousand at a time: what is not asked for stays in the socket."""
    wire = Wire(Issuer())
    async with wire.open() as (near, far):
        for _ in range(50):
            out = bytearray()
            for _ in range(1000):
                near._tls.write(b"x")
                out += near._out.read()
            await wire.near.send_all(out)
        taken = 0
        held = 0
        while taken < 50_000:
            taken += len(await far.receive_some())
            held = max(held, far._in.pending)
        assert held <= 64 * 1024


async def test_nobody_who_is_away_is_reached_within_its_time(autojump_clock, monkeypatch):
    async def never(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    with pytest.raises(TimeoutError, match="no connection within"):
        await connect_tls("192.0.2.1", 1, client_context(Issuer().pem))
