"""Getting a certificate for a token: the newcomer's three steps, and the coordinator's side of the conversation.

    1. dial without verifying, AskAuthority, compare what comes with the pin of the join string; nothing secret was said
    2. dial verifying against that, Enroll: the token's secret for a certificate
    3. dial with the certificate, Hello

A question and its answer are a whole connection, over in `HANDSHAKE_S`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

import trio

from wire import limits
from wire.certificate import CertificateError, read_certificate
from wire.codec import FrameTooLarge, ProtocolError
from wire.connection import Connection
from wire.identity import Identity, pem_of
from wire.invitation import Invitation
from wire.messages import AskAuthority, Authority, Enroll, Enrolled, Goodbye, Role
from wire.secure import connect_tls
from wire.stream import SessionRefused, hear, say
from wire.tls import client_context, unverified_context

A = TypeVar("A", Authority, Enrolled)


class EnrollRefused(SessionRefused):
    """The coordinator will not have this newcomer, or is the wrong one: trying again with the same join string comes
    to the same. Every other SessionRefused may pass."""


ANYBODY = Role.USER
"""What a newcomer will be, its token says: until then any role but the coordinator's may ask."""


async def join(host: str, port: int, invitation: Invitation, key: bytes, name: str = "") -> Identity:
    """A certificate for this private key (PEM), by the token of a join string; `name` is asked for by nodes.

    Keep the key on disk before: a try that was interrupted may be repeated with the same key.
    Raises OSError, SessionRefused, IdentityError."""
    from wire.keys import key_fingerprint, make_request  # only newcomers need what they import

    request, own = make_request(key), key_fingerprint(key)
    authority = await ask_authority(host, port, invitation)
    enrolled = await enroll(host, port, authority, invitation.secret, request, name)
    try:
        found = read_certificate(enrolled.certificate)
    except CertificateError as error:
        raise SessionRefused(f"the coordinator answered with no certificate: {error}") from None
    if (found.key, found.role, found.name) != (own, enrolled.role.value, enrolled.name):
        raise SessionRefused("the coordinator answered with a certificate that is not ours")
    return Identity(key, pem_of(enrolled.certificate), authority)


def join_now(host: str, port: int, invitation: Invitation, key: bytes, name: str = "") -> Identity:
    """As `join`, for programs that are not inside trio."""
    return trio.run(partial(join, host, port, invitation, key, name))


async def ask_authority(host: str, port: int, invitation: Invitation) -> bytes:
    """The authority's certificate (PEM), once it is the pinned one. Raises OSError, SessionRefused, IdentityError."""
    stream = await connect_tls(host, port, unverified_context())
    answer = await _question(stream, AskAuthority(), Authority)
    if not invitation.pins(answer.certificate):
        raise EnrollRefused(
            "the coordinator there is not the one of the join string (its authority is another): either the address "
            "or the join string is of another coordinator, or somebody stands between; nothing secret was said"
        )
    return pem_of(answer.certificate)


async def enroll(host: str, port: int, authority: bytes, secret: str, request: bytes, name: str = "") -> Enrolled:
    """The token's secret and a signing request (DER) for a certificate, told only to a coordinator whose certificate
    this authority (PEM) signed. Raises OSError, SessionRefused, IdentityError."""
    stream = await connect_tls(host, port, client_context(authority))
    return await _question(stream, Enroll(secret, request, name), Enrolled)


async def _question(stream: trio.abc.Stream, question: AskAuthority | Enroll, kind: type[A]) -> A:
    """One question and its answer; the stream is closed then."""
    connection = Connection(ANYBODY)
    try:
        with trio.move_on_after(limits.ENROLL_S) as patience:
            try:
                await say(stream, connection.send(question))
                answer = await hear(stream, connection)
            except (ProtocolError, FrameTooLarge) as error:
                raise SessionRefused(str(error)) from None
            if isinstance(answer, Goodbye):
                raise (EnrollRefused if answer.error else SessionRefused)(answer.reason)
    finally:
        await trio.aclose_forcefully(stream)
    if patience.cancelled_caught:
        raise SessionRefused(f"the coordinator did not answer within {limits.ENROLL_S:g} s")
    return cast(A, answer)  # the connection's table lets nothing else through


async def answer_stranger(
    stream: trio.abc.Stream, answer: Callable[[AskAuthority | Enroll], Awaitable[Authority | Enrolled]]
) -> None:
    """The coordinator's side, with a peer that has shown no certificate: one question, its answer, the end. `answer`
    may raise SessionRefused, whose sentence the peer is told: EnrollRefused when asking again would be in vain. Raises
    SessionRefused for whatever came to nothing."""
    connection = Connection(Role.COORDINATOR, stranger=True)
    try:
        with trio.move_on_after(limits.HANDSHAKE_S) as patience:
            try:
                question = await hear(stream, connection)
            except ProtocolError as error:
                await _part(stream, connection, str(error))
                raise SessionRefused(str(error)) from None
        if patience.cancelled_caught:
            raise SessionRefused(f"a peer without a certificate asked nothing within {limits.HANDSHAKE_S:g} s")
        if isinstance(question, Goodbye):
            raise SessionRefused(question.reason)
        assert isinstance(question, AskAuthority | Enroll), "the connection's table lets nothing else through"
        try:
            reply = await answer(question)
        except SessionRefused as refusal:
            await _part(stream, connection, str(refusal), error=isinstance(refusal, EnrollRefused))
            raise
        with trio.move_on_after(limits.GOODBYE_S):
            await say(stream, connection.send(reply))
    finally:
        await trio.aclose_forcefully(stream)


async def _part(stream: trio.abc.Stream, connection: Connection, reason: str, *, error: bool = True) -> None:
    with trio.move_on_after(limits.GOODBYE_S):
        await say(stream, connection.farewell(reason, error=error))
