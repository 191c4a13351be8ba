"""Every message and every role: who may send what to a coordinator, and what may come from one that has no role yet."""

from __future__ import annotations

import typing

import pytest

from tests.wire.senders import MAY_SEND
from tests.wire.test_codec import sample
from wire import codec
from wire.codec import ProtocolError
from wire.connection import Connection, State
from wire.messages import PROTOCOL_VERSION, SENDERS, AnyMessage, Goodbye, Hello, Message, Role, Welcome

KINDS: list[type[Message]] = list(typing.get_args(AnyMessage))
PEERS = [role for role in Role if role is not Role.COORDINATOR]
BEFORE_HELLO = {"Hello", "Goodbye"}
WITHOUT_CERTIFICATE = {"AskAuthority", "Enroll", "Goodbye"}
ONLY_BEFORE = {"Hello", "Welcome", "AskAuthority", "Authority", "Enroll", "Enrolled"}
"""Messages of the opening: in an open session they come from nobody."""


def framed(epoch: int, sequence: int, message: Message) -> bytes:
    return codec.frame(epoch, sequence, codec.encode_message(message))[codec.HEADER.size :]


def said(kind: type[Message], role: Role = Role.USER) -> Message:
    if kind is Hello:
        return Hello(PROTOCOL_VERSION, role)
    message: Message = sample(kind)
    return message


def opened(role: Role) -> Connection:
    """The coordinator's end of a session with a peer of this role."""
    connection = Connection(Role.COORDINATOR, allowed=frozenset(PEERS))
    connection.receive_frame(framed(0, 0, Hello(PROTOCOL_VERSION, role)))
    connection.send(Welcome(PROTOCOL_VERSION, 7))
    assert connection.state is State.OPEN
    return connection


def test_t5_every_message_has_a_row_in_the_table_and_every_row_a_message() -> None:
    assert MAY_SEND.keys() == {kind.__name__ for kind in KINDS}
    assert {kind.__name__: roles for kind, roles in SENDERS.items()} == MAY_SEND
    assert all(MAY_SEND.values())


@pytest.mark.parametrize("role", PEERS, ids=lambda role: role.value)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_an_open_session_takes_a_message_from_the_roles_of_its_row_only(kind: type[Message], role: Role) -> None:
    connection = opened(role)
    frame = framed(7, 1, said(kind, role))
    if role in MAY_SEND[kind.__name__] and kind.__name__ not in ONLY_BEFORE:
        assert connection.receive_frame(frame) == said(kind, role)
        return
    with pytest.raises(ProtocolError):
        connection.receive_frame(frame)
    assert connection.state is State.OPEN
    assert connection.peer is role


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_who_has_said_no_role_yet_may_only_say_one(kind: type[Message]) -> None:
    connection = Connection(Role.COORDINATOR, allowed=frozenset(PEERS))
    frame = framed(0, 0, said(kind))
    if kind.__name__ in BEFORE_HELLO:
        assert connection.receive_frame(frame) == said(kind)
        return
    with pytest.raises(ProtocolError):
        connection.receive_frame(frame)
    assert connection.state is State.SILENT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_who_has_shown_no_certificate_may_only_ask_for_one(kind: type[Message]) -> None:
    connection = Connection(Role.COORDINATOR, allowed=frozenset(PEERS), stranger=True)
    frame = framed(0, 0, said(kind))
    if kind.__name__ in WITHOUT_CERTIFICATE:
        assert connection.receive_frame(frame) == said(kind)
        assert connection.state is not State.OPEN
        return
    with pytest.raises(ProtocolError):
        connection.receive_frame(frame)
    assert connection.state is State.SILENT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_between_hello_and_welcome_nothing_but_a_goodbye_is_taken(kind: type[Message]) -> None:
    connection = Connection(Role.COORDINATOR, allowed=frozenset(PEERS))
    connection.receive_frame(framed(0, 0, Hello(PROTOCOL_VERSION, Role.ADMIN)))
    frame = framed(0, 1, said(kind, Role.ADMIN))
    if kind is Goodbye:
        assert connection.receive_frame(frame) == said(kind)
        return
    with pytest.raises(ProtocolError):
        connection.receive_frame(frame)


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
@pytest.mark.parametrize("allowed", PEERS, ids=lambda role: role.value)
def test_t5_nobody_takes_a_role_that_his_identity_does_not_have(role: Role, allowed: Role) -> None:
    connection = Connection(Role.COORDINATOR, allowed=frozenset({allowed}))
    frame = framed(0, 0, Hello(PROTOCOL_VERSION, role))
    if role is allowed:
        connection.receive_frame(frame)
        assert connection.peer is role
    else:
        with pytest.raises(ProtocolError, match="may not act as"):
            connection.receive_frame(frame)
