"""The rules of a connection: the handshake's table, who may say what, and what becomes of every sequence of frames."""

from __future__ import annotations

import hashlib
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.test_codec import mutations, sample
from wire import codec, limits
from wire.codec import ProtocolError
from wire.connection import TRANSITIONS, Connection, State, Way, WrongSend
from wire.messages import (
    PROTOCOL_VERSION,
    SENDERS,
    AnyMessage,
    AskAuthority,
    Authority,
    Enroll,
    Enrolled,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    JobList,
    Join,
    Message,
    Role,
    Welcome,
)

KINDS = typing.get_args(AnyMessage)
PEERS = frozenset(Role) - {Role.COORDINATOR}
OPENING = (Hello, Welcome, Goodbye, AskAuthority, Authority, Enroll, Enrolled)
BY_STRANGERS = (State.ASKING, State.ENROLLING)


def pair(role: Role = Role.NODE, epoch: int = 7) -> tuple[Connection, Connection]:
    """Both ends of an open connection."""
    near, far = Connection(role), Connection(Role.COORDINATOR, allowed=PEERS)
    far.receive_bytes(near.send(Hello(PROTOCOL_VERSION, role)))
    assert far.next_event() == Hello(PROTOCOL_VERSION, role)
    near.receive_bytes(far.send(Welcome(PROTOCOL_VERSION, epoch)))
    assert near.next_event() == Welcome(PROTOCOL_VERSION, epoch)
    return near, far


def body(epoch: int, sequence: int, message: Message) -> bytes:
    return codec.frame(epoch, sequence, codec.encode_message(message))[codec.HEADER.size :]


def in_state(opener: bool, state: State, *, stranger: bool = False) -> Connection:
    """A connection brought into a state."""
    stranger = stranger or state in BY_STRANGERS
    connection = Connection(Role.NODE) if opener else Connection(Role.COORDINATOR, allowed=PEERS, stranger=stranger)
    if state is State.SILENT:
        return connection
    if state in BY_STRANGERS:
        question = AskAuthority() if state is State.ASKING else Enroll("t", b"r")
        if opener:
            connection.send(question)
        else:
            assert connection.receive_frame(body(0, 0, question)) == question
        assert connection.state is state
        return connection
    if state is State.CLOSED:
        connection.farewell("over")
        return connection
    if opener:
        connection.send(Hello(PROTOCOL_VERSION, Role.NODE))
        if state is State.OPEN:
            connection.receive_frame(body(0, 0, Welcome(PROTOCOL_VERSION, 7)))
    else:
        connection.receive_frame(body(0, 0, Hello(PROTOCOL_VERSION, Role.NODE)))
        if state is State.OPEN:
            connection.send(Welcome(PROTOCOL_VERSION, 7))
    assert connection.state is state
    return connection


def test_after_the_handshake_both_sides_agree_on_role_and_epoch():
    near, far = pair(Role.OPERATOR, epoch=41)
    assert (near.state, far.state) == (State.OPEN, State.OPEN)
    assert (near.epoch, far.epoch) == (41, 41)
    assert (near.peer, far.peer) == (Role.COORDINATOR, Role.OPERATOR)


MINE = {True: Heartbeat(1), False: HeartbeatAck(1)}
SAYS = {
    Hello: lambda opener: Hello(PROTOCOL_VERSION, Role.NODE),
    Welcome: lambda opener: Welcome(PROTOCOL_VERSION, 7),
    Goodbye: lambda opener: Goodbye("enough"),
    AskAuthority: lambda opener: AskAuthority(),
    Authority: lambda opener: Authority(b"c"),
    Enroll: lambda opener: Enroll("t", b"r"),
    Enrolled: lambda opener: Enrolled(b"c", Role.NODE, "n"),
    Message: lambda opener: MINE[opener],
}


@pytest.mark.parametrize("opener", [True, False], ids=["opener", "accepter"])
@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
@pytest.mark.parametrize("kind", SAYS)
def test_sending_follows_the_table_in_every_state(opener, state, kind):
    connection = in_state(opener, state)
    message = SAYS[kind](opener)
    expected = TRANSITIONS[opener].get((state, Way.SENT, kind))
    if expected is None:
        with pytest.raises(WrongSend):
            connection.send(message)
        assert connection.state is state
    else:
        assert connection.send(message)
        assert connection.state is expected


@pytest.mark.parametrize("opener", [True, False], ids=["opener", "accepter"])
@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
@pytest.mark.parametrize("kind", SAYS)
def test_receiving_follows_the_table_in_every_state(opener, state, kind):
    connection = in_state(opener, state, stranger=state is State.SILENT and kind in (AskAuthority, Enroll))
    message = SAYS[kind](not opener)
    expected = TRANSITIONS[opener].get((state, Way.RECEIVED, kind))
    frame = body(connection.epoch, connection._received, message)
    if expected is None:
        with pytest.raises(ProtocolError):
            connection.receive_frame(frame)
        assert connection.state is state
    else:
        assert connection.receive_frame(frame) == message
        assert connection.state is expected


def test_the_table_leads_from_silence_to_open_and_from_everywhere_to_closed():
    for opener, table in TRANSITIONS.items():
        reached = {State.SILENT}
        for _ in State:
            reached |= {after for (before, _, _), after in table.items() if before in reached}
        assert reached == set(State), opener
        for state in set(State) - {State.CLOSED}:
            assert table[state, Way.SENT, Goodbye] is State.CLOSED
            assert table[state, Way.RECEIVED, Goodbye] is State.CLOSED


@pytest.mark.parametrize("role", [role for role in Role if role in PEERS], ids=lambda role: role.value)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OPENING], ids=lambda kind: kind.__name__)
def test_the_coordinator_takes_a_message_only_from_a_role_that_may_send_it(kind, role):
    _, far = pair(role)
    frame = body(7, 1, sample(kind))
    if role in SENDERS[kind]:
        assert far.receive_frame(frame) == sample(kind)
    else:
        with pytest.raises(ProtocolError, match=f"{kind.__name__} may not be sent by {role.value}"):
            far.receive_frame(frame)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OPENING], ids=lambda kind: kind.__name__)
def test_a_peer_takes_from_the_coordinator_only_what_the_coordinator_may_send(kind):
    near, _ = pair()
    frame = body(7, 1, sample(kind))
    if Role.COORDINATOR in SENDERS[kind]:
        assert near.receive_frame(frame) == sample(kind)
    else:
        with pytest.raises(ProtocolError, match="may not be sent by coordinator"):
            near.receive_frame(frame)


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OPENING], ids=lambda kind: kind.__name__)
def test_no_side_sends_what_its_own_role_may_not(kind, role):
    connection = pair()[1] if role is Role.COORDINATOR else pair(role)[0]
    if role in SENDERS[kind]:
        assert connection.send(sample(kind))
    else:
        with pytest.raises(WrongSend):
            connection.send(sample(kind))


def test_every_message_has_its_senders():
    assert set(SENDERS) == set(KINDS)


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_a_role_that_the_identity_does_not_allow_is_refused_by_name(role):
    for allowed in (frozenset(), frozenset({Role.USER}), frozenset(Role)):
        far = Connection(Role.COORDINATOR, allowed=allowed)
        hello = body(0, 0, Hello(PROTOCOL_VERSION, role))
        if role in allowed and role is not Role.COORDINATOR:
            assert far.receive_frame(hello)
        else:
            with pytest.raises(ProtocolError, match=f"may not act as {role.value}"):
                far.receive_frame(hello)


def test_another_version_is_refused_by_either_side_with_both_numbers():
    far = Connection(Role.COORDINATOR, allowed=PEERS)
    with pytest.raises(ProtocolError, match=rf"version {PROTOCOL_VERSION + 1} .* version {PROTOCOL_VERSION}"):
        far.receive_frame(body(0, 0, Hello(PROTOCOL_VERSION + 1, Role.NODE)))
    near = Connection(Role.NODE)
    near.send(Hello(PROTOCOL_VERSION, Role.NODE))
    with pytest.raises(ProtocolError, match="install the same release"):
        near.receive_frame(body(0, 0, Welcome(PROTOCOL_VERSION + 1, 7)))


def test_before_the_handshake_only_a_small_frame_is_read():
    far = Connection(Role.COORDINATOR, allowed=PEERS)
    far.receive_bytes(codec.HEADER.pack(limits.MAX_OPENING_FRAME + 1))
    with pytest.raises(ProtocolError, match="over the limit of 4096"):
        far.next_event()
    _, far = pair()
    far.receive_bytes(codec.HEADER.pack(limits.MAX_FRAME))
    assert far.next_event() is None
    with pytest.raises(ProtocolError, match="over the limit"):
        Connection(Role.COORDINATOR, allowed=PEERS).receive_frame(bytes(limits.MAX_OPENING_FRAME + 1))


# ---- sequence and epoch


@pytest.mark.parametrize("epoch", [6, 8])
def test_a_frame_of_another_epoch_ends_the_connection_and_is_counted(epoch: int):
    _, far = pair(epoch=7)
    with pytest.raises(ProtocolError, match=f"a frame of session {epoch} came in session 7"):
        far.receive_frame(body(epoch, 1, Heartbeat(1)))
    assert far.stale == 1


def test_an_opening_frame_doubled_is_dropped_and_counted():
    _, far = pair(epoch=7)
    assert far.receive_frame(body(0, 0, Hello(PROTOCOL_VERSION, Role.ADMIN))) is None
    assert (far.stale, far.doubled, far.peer) == (0, 1, Role.NODE)
    assert far.receive_frame(body(7, 1, Heartbeat(2))) == Heartbeat(2)


def test_a_doubled_frame_is_dropped_and_counted():
    near, far = pair()
    first = near.send(Heartbeat(1))[codec.HEADER.size :]
    assert far.receive_frame(first) == Heartbeat(1)
    assert far.receive_frame(first) is None
    assert far.receive_frame(near.send(Heartbeat(2))[codec.HEADER.size :]) == Heartbeat(2)
    assert far.receive_frame(first) is None
    assert far.doubled == 2


def test_a_gap_is_a_protocol_error():
    near, far = pair()
    near.send(Heartbeat(1))
    with pytest.raises(ProtocolError, match="frame 2 came where 1 was due"):
        far.receive_frame(near.send(Heartbeat(2))[codec.HEADER.size :])


@given(st.lists(st.integers(0, 9), max_size=60))
def test_whatever_a_network_does_messages_come_once_and_in_order(order):
    near, far = pair()
    frames = [near.send(Heartbeat(beat))[codec.HEADER.size :] for beat in range(10)]
    taken: list[int] = []
    for number in order:
        try:
            message = far.receive_frame(frames[number])
        except ProtocolError:
            assert number > len(taken)
            break
        if message is not None:
            assert isinstance(message, Heartbeat)
            taken.append(message.beat)
    assert taken == list(range(len(taken)))


def test_after_a_goodbye_nothing_is_taken_and_nothing_sent():
    near, far = pair()
    assert far.receive_frame(near.farewell("enough", error=False)[codec.HEADER.size :]) == Goodbye("enough", False)
    assert far.receive_frame(body(7, 2, Heartbeat(1))) is None
    far.receive_bytes(codec.HEADER.pack(5) + b"wrong")
    assert far.next_event() is None
    with pytest.raises(WrongSend):
        near.send(Heartbeat(1))
    assert near.farewell("again") == b""


def test_a_coordinator_may_turn_a_silent_peer_away():
    near = Connection(Role.NODE)
    near.send(Hello(PROTOCOL_VERSION, Role.NODE))
    near.receive_bytes(Connection(Role.COORDINATOR).farewell("not you"))
    assert near.next_event() == Goodbye("not you", True)


# ---- bytes


@given(st.lists(st.integers(1, 40), min_size=1, max_size=50))
def test_however_the_bytes_are_cut_the_messages_are_the_same(cuts):
    near, far = pair()
    content = b"".join(near.send(Heartbeat(beat)) for beat in range(20))
    taken = []
    while content:
        size = cuts[len(content) % len(cuts)]
        piece, content = content[:size], content[size:]
        far.receive_bytes(piece)
        while (message := far.next_event()) is not None:
            taken.append(message)
    assert taken == [Heartbeat(beat) for beat in range(20)]
    assert not far.in_frame


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_at_any_time_are_messages_or_a_protocol_error(content, opened):
    far = pair()[1] if opened else Connection(Role.COORDINATOR, allowed=PEERS)
    far.receive_bytes(content)
    try:
        while far.next_event() is not None:
            pass
    except ProtocolError as error:
        assert str(error)
        assert far.farewell(str(error))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_conversation_ends_in_messages_or_a_protocol_error(seed):
    kinds = [kind for kind in KINDS if Role.NODE in SENDERS[kind] and kind not in OPENING]
    near, _ = pair()
    dice = hashlib.sha256(str(seed).encode()).digest()
    content = b"".join(near.send(sample(kinds[byte % len(kinds)])) for byte in dice)
    for damaged in mutations(content, str(seed), 20):
        _, far = pair()
        far.receive_bytes(damaged)
        try:
            while (message := far.next_event()) is not None:
                assert Role.NODE in SENDERS[type(message)]
        except ProtocolError:
            continue


def test_a_reason_of_any_length_fits_the_last_frame():
    far = Connection(Role.COORDINATOR, allowed=PEERS)
    assert len(far.farewell("é" * 100_000)) < limits.MAX_OPENING_FRAME


def test_a_person_is_no_node():
    near, far = pair(Role.ADMIN)
    with pytest.raises(WrongSend):
        near.send(Join(pool="p", node="n", incarnation="i", boot="b", slots=1))
    assert far.receive_frame(near.send(JobList(1))[codec.HEADER.size :]) == JobList(1)
