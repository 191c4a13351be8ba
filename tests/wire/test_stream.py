"""Sessions over streams in memory: what peers do wrong ends their session, in time, and nobody else's."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from wire import codec, limits
from wire.codec import FrameTooLarge
from wire.connection import Connection
from wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    BodyChunk,
    FileContents,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    JobShow,
    OpenRound,
    Reply,
    Role,
    Run,
    Welcome,
)
from wire.stream import (
    Outbox,
    Session,
    SessionRefused,
    accepted,
    connect_unix,
    listen_unix,
    opened,
    peer_uid,
    refuse,
)

PEERS = frozenset(Role) - {Role.COORDINATOR}


async def seven() -> int:
    return 7


@asynccontextmanager
async def both(role: Role = Role.NODE):
    """Two open sessions over streams in memory: ours and the coordinator's."""
    near_stream, far_stream = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        made: list[Session] = []
        ready, done = trio.Event(), trio.Event()

        async def accept() -> None:
            async with accepted(far_stream, PEERS, seven) as far:
                made.append(far)
                ready.set()
                await done.wait()

        nursery.start_soon(accept)
        async with opened(near_stream, role) as near:
            await ready.wait()
            yield near, made[0]
            done.set()


@asynccontextmanager
async def raw_peer():
    """A coordinator's session, and the bare stream of whoever is at its other end."""
    near_stream, far_stream = trio.testing.memory_stream_pair()
    connection = Connection(Role.NODE)
    await near_stream.send_all(connection.send(Hello(PROTOCOL_VERSION, Role.NODE)))
    async with accepted(far_stream, PEERS, seven) as session:
        connection.receive_bytes(await near_stream.receive_some(1000))
        assert connection.next_event() == Welcome(PROTOCOL_VERSION, 7)
        yield session, connection, near_stream


async def test_messages_pass_both_ways_in_order(autojump_clock):
    async with both(Role.ADMIN) as (near, far):
        for number in range(100):
            near.send(JobShow(number, "daily"))
        assert [await far.receive() for _ in range(100)] == [JobShow(number, "daily") for number in range(100)]
        far.send(Reply(1, {"id": "daily-1"}))
        assert await near.receive() == Reply(1, {"id": "daily-1"})
        assert (near.epoch, far.epoch, far.peer) == (7, 7, Role.ADMIN)


async def test_a_session_left_says_goodbye_after_what_was_queued(autojump_clock):
    near_stream, far_stream = trio.testing.memory_stream_pair()
    heard = []

    async def accept() -> None:
        async with accepted(far_stream, PEERS, seven) as far:
            heard.extend([message async for message in far])
            assert far.end is not None
            assert (far.end.reason, far.end.error) == ("done", False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        async with opened(near_stream, Role.NODE) as near:
            for beat in range(3):
                near.send(Heartbeat(beat))
    assert heard == [Heartbeat(0), Heartbeat(1), Heartbeat(2)]


async def test_a_closed_session_ends_both_sides_with_the_reason(autojump_clock):
    async with both() as (near, far):
        far.close("the coordinator stops")
        assert await near.receive() is None
        assert near.end is not None
        assert near.end.reason == "the coordinator stops"
        assert await far.receive() is None
        near.send(Heartbeat(1))  # dropped


async def test_an_unclean_end_is_told_as_such(autojump_clock):
    async with raw_peer() as (session, _, stream):
        await stream.aclose()
        assert await session.receive() is None
        assert session.end is not None
        assert session.end.reason == "the connection was cut"
    async with raw_peer() as (session, connection, stream):
        await stream.send_all(connection.send(Heartbeat(1))[:-2])
        await stream.aclose()
        assert await session.receive() is None
        assert session.end.reason == "the connection was cut in the middle of a frame"
        assert session.end.error


async def test_silence_between_frames_is_borne(autojump_clock):
    async with raw_peer() as (session, connection, stream), trio.open_nursery() as nursery:

        async def late() -> None:
            await trio.sleep(80_000)
            await stream.send_all(connection.send(Heartbeat(1)))

        nursery.start_soon(late)
        assert await session.receive() == Heartbeat(1)


async def test_a_frame_that_dribbles_is_cut_off_after_its_time(autojump_clock):
    async with raw_peer() as (session, connection, stream):
        frame = connection.send(Heartbeat(1))
        began = trio.current_time()

        async def dribble() -> None:
            for place in range(len(frame)):
                await stream.send_all(frame[place : place + 1])
                await trio.sleep(limits.FRAME_S / len(frame) * 1.9)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            assert await session.receive() is None
            assert trio.current_time() - began == pytest.approx(limits.FRAME_S)
            nursery.cancel_scope.cancel()
        assert session.end is not None
        assert "longer than 10 s" in session.end.reason


async def test_a_frame_in_pieces_within_its_time_is_taken(autojump_clock):
    async with raw_peer() as (session, connection, stream), trio.open_nursery() as nursery:
        frame = connection.send(Heartbeat(1)) + connection.send(Heartbeat(2))

        async def slowly() -> None:
            for place in range(len(frame)):
                await stream.send_all(frame[place : place + 1])
                await trio.sleep(limits.FRAME_S / len(frame) * 1.5)

        nursery.start_soon(slowly)
        assert await session.receive() == Heartbeat(1)
        assert await session.receive() == Heartbeat(2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack(">I", limits.MAX_FRAME + 1), "over the limit"),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "msgpack"),
        (struct.pack(">I", 0), "empty"),
        (codec.frame(7, 1, codec.encode_message(JobShow(1, "x"))), "may not be sent by node"),
        (codec.frame(7, 3, codec.encode_message(Heartbeat(1))), "was due"),
    ],
    ids=["oversize", "malformed", "empty", "wrong role", "gap"],
)
async def test_a_protocol_error_is_answered_with_its_reason(autojump_clock, content, reason):
    async with raw_peer() as (session, connection, stream):
        await stream.send_all(content)
        assert await session.receive() is None
        assert session.end is not None
        assert session.end.error
        assert reason in session.end.reason
        connection.receive_bytes(await stream.receive_some(10_000))
        farewell = connection.next_event()
        assert isinstance(farewell, Goodbye)
        assert farewell.error
        assert reason in farewell.reason


class Throttled(trio.abc.Stream):
    """A stream whose peer takes nothing."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.blocked = False

    async def send_all(self, data: bytes) -> None:
        if self.blocked:
            await trio.sleep_forever()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def slow_reader(send) -> tuple[float, str]:
    """Seconds until the session of a peer that takes nothing ended, and why."""
    near_stream, far_stream = trio.testing.memory_stream_pair()
    await near_stream.send_all(Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE)))
    throttled = Throttled(far_stream)
    async with accepted(throttled, PEERS, seven) as session:
        throttled.blocked = True
        began = trio.current_time()
        send(session)
        assert await session.receive() is None
        assert session.end is not None
        assert session.end.error
        return trio.current_time() - began, session.end.reason


async def test_a_peer_that_takes_nothing_is_cut_after_its_time(autojump_clock):
    seconds, reason = await slow_reader(lambda session: session.send(HeartbeatAck(1)))
    assert seconds == pytest.approx(limits.SEND_S)
    assert "took nothing for 30 s" in reason


async def test_a_slow_reader_is_cut_once_too_much_waits_for_it(autojump_clock):
    chunk = BodyChunk("d", 0, limits.MAX_CHUNK, bytes(limits.MAX_CHUNK))

    def flood(session: Session) -> None:
        sent = 0
        while session.end is None:
            session.send(chunk)
            sent += limits.MAX_CHUNK
            assert sent < 2 * limits.MAX_QUEUED
        assert session._outbox.size == 0

    seconds, reason = await slow_reader(flood)
    assert seconds == 0
    assert "does not read" in reason


async def test_f33_who_answers_can_wait_until_the_answers_were_taken(autojump_clock):
    async with both(Role.ADMIN) as (near, far):
        await far.has_room()
        for number in range(3):
            far.send(Reply(number, bytes(limits.MAX_AHEAD // 2)))
        assert far._outbox.size > limits.MAX_AHEAD
        with trio.fail_after(1):
            await far.has_room()
        assert far._outbox.size <= limits.MAX_AHEAD
        assert [(await near.receive()).request for _ in range(3)] == [0, 1, 2]


async def test_f33_who_waits_for_room_is_let_go_when_the_session_ends(autojump_clock):
    near_stream, far_stream = trio.testing.memory_stream_pair()
    await near_stream.send_all(Connection(Role.USER).send(Hello(PROTOCOL_VERSION, Role.USER)))
    throttled = Throttled(far_stream)
    async with accepted(throttled, PEERS, seven) as session:
        throttled.blocked = True
        for number in range(3):
            session.send(Reply(number, bytes(limits.MAX_AHEAD // 2)))
        began = trio.current_time()
        await session.has_room()
        assert trio.current_time() - began == pytest.approx(limits.SEND_S)
        assert session.end is not None
        assert "took nothing" in session.end.reason


async def test_a_message_that_fits_no_frame_is_told_to_its_sender(autojump_clock):
    async with both(Role.ADMIN) as (near, far):
        with pytest.raises(FrameTooLarge):
            far.send(Reply(1, bytes(limits.MAX_FRAME)))
        far.send(Reply(2, None))
        assert await near.receive() == Reply(2, None)


async def test_an_exception_in_the_body_leaves_as_itself_and_closes(autojump_clock):
    near_stream, far_stream = trio.testing.memory_stream_pair()
    await near_stream.send_all(Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE)))
    with pytest.raises(KeyError):
        async with accepted(far_stream, PEERS, seven):
            raise KeyError
    with pytest.raises(trio.ClosedResourceError):
        await far_stream.send_all(b"x")


# ---- the order of the outbox


def drained(*messages) -> list:
    outbox = Outbox()
    for message in messages:
        outbox.put(message)
    taken = []
    while outbox:
        taken.append(outbox.take()[0])
    assert outbox.size == 0
    return taken


def test_everything_overtakes_chunks_of_files():
    chunk = FileContents(1, b"x", 1, True)
    assert drained(chunk, Heartbeat(1), chunk, Heartbeat(2)) == [Heartbeat(1), Heartbeat(2), chunk, chunk]


def test_only_what_depends_on_nothing_overtakes_chunks_of_bodies():
    chunk = BodyChunk("d", 0, 1, b"x")
    opening = OpenRound(job="a-1", round=1, digest="d")
    run = Run(grant=1, job="a-1", round=1, group=0, first=0, count=1, step=1, attempt=1)
    assert drained(chunk, chunk, opening, Ack(1), run, HeartbeatAck(2)) == [
        Ack(1),
        HeartbeatAck(2),
        chunk,
        chunk,
        opening,
        run,
    ]


def test_a_goodbye_is_the_last_even_behind_chunks():
    chunk = FileContents(1, b"x", 1, True)
    assert drained(chunk, Goodbye("over")) == [chunk, Goodbye("over")]
    assert drained(Heartbeat(1), Goodbye("over")) == [Heartbeat(1), Goodbye("over")]


# ---- the handshake


async def test_a_silent_peer_is_not_waited_for(autojump_clock):
    _near, far = trio.testing.memory_stream_pair()
    began = trio.current_time()
    with pytest.raises(SessionRefused, match="did not greet within 5 s"):
        async with accepted(far, PEERS, seven):
            pass
    assert trio.current_time() - began == pytest.approx(limits.HANDSHAKE_S)


async def test_a_peer_that_dribbles_its_hello_is_not_waited_for(autojump_clock):
    near, far = trio.testing.memory_stream_pair()
    hello = Connection(Role.NODE).send(Hello(PROTOCOL_VERSION, Role.NODE))

    async def dribble() -> None:
        for place in range(len(hello)):
            await near.send_all(hello[place : place + 1])
            await trio.sleep(1.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(SessionRefused, match="within 5 s"):
            async with accepted(far, PEERS, seven):
                pass
        nursery.cancel_scope.cancel()


async def test_a_coordinator_that_does_not_answer_is_not_waited_for(autojump_clock):
    near, _far = trio.testing.memory_stream_pair()
    with pytest.raises(SessionRefused, match="did not welcome us within 30 s"):
        async with opened(near, Role.NODE):
            pass


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(PROTOCOL_VERSION + 1, Role.NODE), "install the same release"),
        (Hello(PROTOCOL_VERSION, Role.ADMIN), "may not act as admin"),
        (Heartbeat(1), "may not be sent by this identity|may not come"),
        (Goodbye("never mind"), "never mind"),
    ],
    ids=["version", "role", "no hello", "goodbye"],
)
async def test_a_wrong_opening_is_refused_with_its_reason(autojump_clock, hello, reason):
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(codec.frame(0, 0, codec.encode_message(hello)))
    with pytest.raises(SessionRefused, match=reason):
        async with accepted(far, frozenset({Role.NODE}), seven):
            pass


async def test_the_one_refused_learns_why(autojump_clock):
    near, far = trio.testing.memory_stream_pair()

    async def accept() -> None:
        with pytest.raises(SessionRefused):
            async with accepted(far, frozenset({Role.USER}), seven):
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(SessionRefused, match="may not act as node"):
            async with opened(near, Role.NODE):
                pass


async def test_the_one_turned_away_learns_why(autojump_clock):
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse, far, "this coordinator does not serve you")
        with pytest.raises(SessionRefused, match="does not serve you"):
            async with opened(near, Role.NODE):
                pass


async def test_the_one_turned_away_before_it_spoke_learns_why(tmp_path):
    path = str(tmp_path / "coordinator.sock")
    async with listen_unix(path) as listener, await connect_unix(path) as near:
        await refuse(await listener.accept(), "too many connections")
        with pytest.raises(SessionRefused, match="too many connections"):
            async with opened(near, Role.NODE):
                pass


# ---- unix sockets


async def test_a_path_longer_than_a_socket_address_works_and_tells_the_uid(tmp_path):
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / "coordinator.sock")
    listener = listen_unix(path)
    async with listener, await connect_unix(path) as near, await listener.accept() as far:
        assert peer_uid(far) == peer_uid(near)
        assert (directory / "coordinator.sock").stat().st_mode & 0o777 == 0o600
        await near.send_all(b"x")
        assert await far.receive_some(1) == b"x"


async def test_the_socket_file_of_a_dead_coordinator_is_replaced(tmp_path):
    path = str(tmp_path / "coordinator.sock")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    async with listen_unix(path) as listener, await connect_unix(path) as near, await listener.accept():
        await near.aclose()
