"""A hundred thousand seeded inputs against the codec, the connection's rules, and both ends of a session.

Whatever comes in is a message, or a ProtocolError with a sentence; it costs a bounded number of bytes and of seconds.
"""

from __future__ import annotations

import resource
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.wire.certificates import Issuer
from tests.wire.corpus import BOMBS, KINDS, Dice, bodies, body, damaged, nonsense
from wire import codec, limits, thin
from wire.codec import ProtocolError
from wire.connection import Connection, State
from wire.messages import (
    PROTOCOL_VERSION,
    SENDERS,
    AskAuthority,
    Enroll,
    Goodbye,
    Heartbeat,
    Hello,
    JobShow,
    Message,
    Refused,
    Reply,
    Role,
    Welcome,
)
from wire.secure import secure, shake_hands
from wire.stream import SessionRefused, accepted, opened
from wire.tls import client_context, server_context

SEEDS = range(10)
OF_CODEC = 8_000
OF_CONNECTION = 8_000
OF_STREAMS = 60
OF_COMMANDS = 1_500
OF_TLS = 25
"""Inputs a seed: 160,000 in all, and thousands more against both daemons (tests/coordinator, tests/agentd)."""
PEERS = frozenset(Role) - {Role.COORDINATOR}
ONE_MIB = 1024 * 1024


def resident() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- the codec


@pytest.mark.parametrize("seed", SEEDS)
def test_t6_whatever_comes_in_is_a_message_or_a_protocol_error(seed):
    taken = refused = 0
    before = resident()
    for content in bodies(Dice(f"codec {seed}"), OF_CODEC):
        try:
            epoch, sequence, message = codec.decode_body(content)
        except ProtocolError as error:
            assert str(error)
            refused += 1
            continue
        assert epoch >= 0
        assert sequence >= 0
        assert type(message) in KINDS
        again = codec.encode_message(message)
        assert codec.encode_message(codec.decode_body(body(message, epoch, sequence))[2]) == again
        taken += 1
    assert taken > OF_CODEC // 10
    assert refused > OF_CODEC // 3
    assert resident() - before < 64 * ONE_MIB


@pytest.mark.parametrize("name", BOMBS)
def test_t6_a_bomb_costs_a_bounded_number_of_bytes_and_seconds(name):
    content = BOMBS[name]()
    assert len(content) <= limits.MAX_FRAME
    tracemalloc.start()
    began = time.process_time()
    try:
        with suppress(ProtocolError):
            codec.decode_body(content)
        spent = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * limits.MAX_FRAME
    assert spent < 3.0  # with every allocation traced; some hundredths of it without


# ---- the connection's rules


def in_some_state(dice: Dice) -> tuple[Connection, int, int]:
    """One side of a connection somewhere in its life; epoch and sequence of the frame that is due."""
    if dice.random.random() < 0.4:
        here = Connection(dice.random.choice(list(PEERS)))
        if dice.random.random() < 0.8:
            here.send(Hello(PROTOCOL_VERSION, here.here))
            if dice.random.random() < 0.8:
                here.receive_frame(body(Welcome(PROTOCOL_VERSION, 7), 0, 0))
                return here, 7, 1
        return here, 0, 0
    stranger = dice.random.random() < 0.3
    here = Connection(Role.COORDINATOR, allowed=PEERS, stranger=stranger)
    if dice.random.random() < 0.2:
        return here, 0, 0
    if stranger:
        here.receive_frame(body(dice.random.choice((AskAuthority(), Enroll("t", b"r"))), 0, 0))
        return here, 0, 1
    here.receive_frame(body(Hello(PROTOCOL_VERSION, dice.random.choice(list(PEERS))), 0, 0))
    if dice.random.random() < 0.9:
        here.send(Welcome(PROTOCOL_VERSION, 7))
        return here, 7, 1
    return here, 0, 1


BY_ROLE = {role: [kind for kind in KINDS if role in SENDERS[kind]] for role in Role}


def bytes_on_the_wire(
    dice: Dice, epoch: int, sequence: int, peer: Role | None = None, kinds: Sequence[type[Message]] = KINDS
) -> bytes:
    """Some frames, some of them damaged, their lengths too; mostly of what this peer may send."""
    if peer is not None and dice.random.random() > 0.2:
        kinds = BY_ROLE[peer]
    content = b"".join(
        codec.HEADER.pack(len(piece)) + piece
        for number in range(dice.random.choice((1, 1, 2, 4)))
        for piece in bodies(dice, 1, epoch, sequence + number, kinds)
    )
    match dice.random.randrange(6):
        case 0:
            return damaged(dice, content)
        case 1:
            return codec.HEADER.pack(dice.random.choice((0, 1, 4096, 4097, limits.MAX_FRAME + 1, 2**32 - 1))) + content
        case 2:
            return nonsense(dice)
        case _:
            return content


@pytest.mark.parametrize("seed", SEEDS)
def test_t6_a_connection_takes_only_what_its_state_and_its_peer_allow(seed):
    dice = Dice(f"connection {seed}")
    taken = refused = 0
    before = resident()
    for _ in range(OF_CONNECTION):
        here, epoch, sequence = in_some_state(dice)
        content = bytes_on_the_wire(dice, epoch, sequence, here.peer)
        cut = dice.random.randrange(len(content) + 1)
        try:
            for piece in (content[:cut], content[cut:]):
                here.receive_bytes(piece)
                while (message := here.next_event()) is not None:
                    assert allowed(here, message)
                    taken += 1
        except ProtocolError as error:
            assert str(error)
            assert here.state is State.CLOSED or here.farewell(str(error))
            refused += 1
        assert len(here._buffer) <= len(content)
    assert taken > OF_CONNECTION // 20
    assert refused > OF_CONNECTION // 4
    assert resident() - before < 64 * ONE_MIB


def allowed(here: Connection, message: Message) -> bool:
    if isinstance(message, Goodbye) or here.peer is None:
        return isinstance(message, Goodbye | AskAuthority | Enroll)
    return here.peer in SENDERS[type(message)]


# ---- sessions


async def epoch() -> int:
    return 7


async def drain(stream: trio.abc.ReceiveStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some():
            pass


async def said_to(stream: trio.abc.Stream, content: bytes) -> None:
    """Say it and hang up; what is answered is read and not looked at."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(content)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", SEEDS)
async def test_t6_an_accepted_session_ends_with_a_reason_and_the_others_go_on(autojump_clock, seed):
    dice = Dice(f"accepted {seed}")
    good_near, good_far = trio.testing.memory_stream_pair()

    async def answer() -> None:
        async with accepted(good_far, PEERS, epoch) as session:
            async for message in session:
                session.send(Reply(message.request, message.job))

    async def accept(stream: trio.abc.Stream) -> None:
        try:
            async with accepted(stream, PEERS, epoch) as session:
                async for message in session:
                    assert session.peer in SENDERS[type(message)]
            assert session.end is not None
            assert session.end.reason
        except SessionRefused as refusal:
            assert str(refusal)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with opened(good_near, Role.USER) as good:
            for number in range(OF_STREAMS):
                near, far = trio.testing.memory_stream_pair()
                hello = Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE))
                start, at = (hello, (7, 1)) if dice.random.random() < 0.8 else (b"", (0, 0))
                async with trio.open_nursery() as pair:
                    pair.start_soon(accept, far)
                    pair.start_soon(said_to, near, start + bytes_on_the_wire(dice, *at, Role.NODE))
                good.send(JobShow(number, f"j-{number}"))
                assert await good.receive() == Reply(number, f"j-{number}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_t6_an_opened_session_bears_whatever_answers_it(autojump_clock, seed):
    dice = Dice(f"opened {seed}")
    for _ in range(OF_STREAMS):
        near, far = trio.testing.memory_stream_pair()
        welcome = codec.frame(0, 0, codec.encode_message(Welcome(PROTOCOL_VERSION, 7)))
        start, at = (welcome, (7, 1)) if dice.random.random() < 0.8 else (b"", (0, 0))
        async with trio.open_nursery() as pair:
            pair.start_soon(said_to, far, start + bytes_on_the_wire(dice, *at, Role.COORDINATOR))
            try:
                async with opened(near, Role.NODE) as session:
                    session.send(Heartbeat(1))
                    async for message in session:
                        assert Role.COORDINATOR in SENDERS[type(message)]
                assert session.end is not None
                assert session.end.reason
            except SessionRefused as refusal:
                assert str(refusal)


class Said:
    """A socket of a coordinator that says this and hangs up."""

    def __init__(self, dice: Dice, content: bytes) -> None:
        self.dice = dice
        self.content = content
        self.closed = False

    def recv(self, size: int, /) -> bytes:
        size = min(size, self.dice.random.choice((1, 3, 100, size)))
        piece, self.content = self.content[:size], self.content[size:]
        return piece

    def sendall(self, content: bytes, /) -> None:
        assert content

    def settimeout(self, seconds: float | None, /) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("seed", SEEDS)
def test_t6_a_short_command_tells_in_a_sentence_whatever_it_is_answered(seed):
    dice = Dice(f"thin {seed}")
    welcome = codec.frame(0, 0, codec.encode_message(Welcome(PROTOCOL_VERSION, 7)))
    answered = refused = 0
    for _ in range(OF_COMMANDS):
        greeted = dice.random.random() < 0.8
        kinds = [Reply, Reply, Refused, Goodbye] if dice.random.random() < 0.7 else KINDS
        content = bytes_on_the_wire(dice, 7 if greeted else 0, 1 if greeted else 0, kinds=kinds)
        there = Said(dice, welcome + content if greeted else content)
        try:
            thin.Coordinator(there, "here", "user").call("JobShow", job="j")
            answered += 1
        except thin.ThinError as error:
            assert str(error.message) or error.code
            refused += 1
    assert refused > OF_COMMANDS // 2


# ---- TLS


class Meddler:
    """Between two ends: passes on what each says, and damages some of it."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.meddled = False
        self.near, self.inner_near = trio.testing.memory_stream_pair()
        self.far, self.inner_far = trio.testing.memory_stream_pair()

    async def pass_on(self, source: trio.abc.ReceiveStream, target: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while content := await source.receive_some(self.dice.random.choice((7, 500, 5000))):
                if self.dice.random.random() < 0.06:
                    self.meddled = True
                    content = damaged(self.dice, bytes(content))
                if content:
                    await target.send_all(content)
        await target.aclose()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pass_on, self.inner_near, self.inner_far)
            nursery.start_soon(self.pass_on, self.inner_far, self.inner_near)


@pytest.mark.parametrize("seed", SEEDS)
async def test_t6_whoever_meddles_with_tls_is_noticed_by_both_sides_and_changes_nothing(autojump_clock, seed):
    dice = Dice(f"tls {seed}")
    issuer = Issuer()
    server = issuer.server()
    accepting = server_context(server.certificate, server.key, server.authority)
    dialling = client_context(issuer.pem, issuer.identity("user", "u"))
    heard: list[object] = []

    async def accept(stream: trio.abc.Stream) -> None:
        with suppress(SessionRefused):
            secured = await secure(stream, accepting)
            assert secured.peer is not None
            async with accepted(secured, PEERS, epoch) as session:
                async for message in session:
                    heard.append(message)
                    session.send(Reply(message.request, "fine"))
            assert session.end is not None

    async def open_(stream: trio.abc.Stream) -> None:
        with suppress(SessionRefused):
            async with opened(await shake_hands(stream, dialling, server=False), Role.USER) as session:
                session.send(JobShow(1, "j"))
                with trio.move_on_after(60):  # half a record is silence, which an owner judges
                    assert await session.receive() in (None, Reply(1, "fine"))

    whole = 0
    for _ in range(OF_TLS):
        meddler = Meddler(dice)
        heard.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meddler.run)
            nursery.start_soon(accept, meddler.far)
            nursery.start_soon(open_, meddler.near)
        assert heard in ([], [JobShow(1, "j")])
        assert meddler.meddled or heard
        whole += bool(heard)
    assert 0 < whole < OF_TLS


# ---- memory for one connection (I19)


async def test_t6_a_flood_of_bytes_without_end_is_held_within_a_bound(autojump_clock):
    """Frames of the largest size that never end, as fast as they are taken."""
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE)))
    held = 0

    async def flood() -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await near.send_all(codec.HEADER.pack(limits.MAX_FRAME))
            for _ in range(64):
                await near.send_all(b"\xc1" * (256 * 1024))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        async with accepted(far, PEERS, epoch) as session:
            take = session.connection.receive_bytes

            def watched(content: bytes) -> None:
                nonlocal held
                take(content)
                held = max(held, len(session.connection._buffer))

            session.connection.receive_bytes = watched
            assert await session.receive() is None
            assert session.end is not None
            assert session.end.error
        nursery.cancel_scope.cancel()
    assert ONE_MIB <= held <= limits.MAX_FRAME + 64 * 1024 + codec.HEADER.size


async def test_t6_messages_that_nobody_takes_stay_with_their_sender(autojump_clock):
    """A session whose owner is busy reads nothing on: the peer's own writes block."""
    near, far = trio.testing.memory_stream_pair()
    sent = 0
    await near.send_all(Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE)))
    async with accepted(far, PEERS, epoch) as session:
        for number in range(1, 2000):
            await near.send_all(codec.frame(7, number, codec.encode_message(Heartbeat(number))))
            sent += 1
        assert await session.receive() == Heartbeat(1)
        assert len(session.connection._buffer) <= 64 * 1024
    assert sent == 1999
