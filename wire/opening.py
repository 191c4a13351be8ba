"""What opens and ends a connection, and how a peer without a certificate gets one."""

from __future__ import annotations

from wire.vocabulary import Int64, Message, Role

__all__ = [
    "AskAuthority", "Authority", "Enroll", "Enrolled", "Goodbye", "Hello", "Renew", "Renewed", "Welcome",
]  # fmt: skip


class Hello(Message, frozen=True, tag=True):
    """First frame of every connection: the version spoken and the role asked for."""

    version: Int64
    role: Role


class Welcome(Message, frozen=True, tag=True):
    """The coordinator's answer: the session's epoch, never used before, on every later frame of this connection."""

    version: Int64
    epoch: Int64


class Goodbye(Message, frozen=True, tag=True):
    """The last frame before closing, with a reason for people. `error` tells a protocol error from a plain end."""

    reason: str
    error: bool = False


# ---- joining by proof: over TLS, before a peer has a certificate


class AskAuthority(Message, frozen=True, tag=True):
    """Instead of Hello, by a peer that knows only the digest of the authority (a join string holds it). Nothing secret
    may be said on this connection: the peer has not proven itself. Answered by Authority, which ends it."""


class Authority(Message, frozen=True, tag=True):
    """The authority's certificate (DER), public. Its sha256 is what a join string pins."""

    certificate: bytes


class Enroll(Message, frozen=True, tag=True):
    """Instead of Hello, over a connection whose server was verified: the token's secret for a certificate.

    `request` is a signing request (DER) of the key that will be this identity. `name`: the name asked for, of a node;
    people are named by their token. Answered by Enrolled, or by Goodbye; either ends the connection.
    """

    token: str
    request: bytes
    name: str = ""


class Enrolled(Message, frozen=True, tag=True):
    """The identity's certificate (DER), signed by the authority."""

    certificate: bytes
    role: Role
    name: str


class Renew(Message, frozen=True, tag=True):
    """In a session that was opened with a certificate: a new one for the same key, name and role. Answered by Renewed
    or, when the key is another, by Goodbye."""

    request: bytes


class Renewed(Message, frozen=True, tag=True):
    certificate: bytes
