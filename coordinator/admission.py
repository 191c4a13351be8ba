"""Who is let in over TLS: tokens made and spent, keys admitted, renewed and revoked, and what that means for the
sessions that live by them. The shell has proven who holds which key; here is decided what the key is worth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from coordinator import joining, views
from coordinator.desk import Desk
from coordinator.events import Admitted, EnrollAsked, RenewAsked, SessionOpened
from coordinator.finding import RefusedError
from coordinator.identities import ANOTHER_TOKEN, Identity, Token
from coordinator.joining import NAME
from coordinator.records import (
    IdentityAdmitted,
    IdentityRevoked,
    TokenMade,
    TokenRevoked,
    identity_scope,
    token_scope,
)
from coordinator.sessions import Session
from wire import messages as m
from wire.near import near

MAX_TOKENS: Final = 1_000
"""Tokens kept; beyond, those that admit nobody any more are forgotten, oldest first."""
MAX_IDENTITIES: Final = 20_000
"""Keys kept, likewise."""
JOIN_S: Final = 60.0
"""A node that came in says Join within this time; from then on its heartbeats are looked at."""
MAX_USES: Final = 10_000
MIN_LIFETIME_S: Final = 1.0
MAX_LIFETIME_S: Final = 366 * 86_400.0
PAGE: Final = 1_000
"""Rows of one answer: each is short."""
RENEWED_LATELY: Final = 0.01
"""Part of a certificate's life for which the next one has the same end: asking on and on writes nothing."""

T = TypeVar("T")

_PEOPLE: Final = (m.Role.USER, m.Role.OPERATOR, m.Role.ADMIN)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_LIST_TOKENS: Final = "`coordinator token list` shows those there are"
_FULL_DISK: Final = "the coordinator's disk is full: nothing new can be kept; free some space and try again"


# ---- sessions


def open_session(desk: Desk, opened: SessionOpened) -> None:
    """A connection finished its handshake: it lives, unless its key is nobody here."""
    session = Session(opened.session, opened.role, opened.owner, opened.key, opened.expires)
    desk.sessions[session.epoch] = session
    if opened.role is m.Role.NODE:
        desk.deadlines.set(("unjoined", str(session.epoch)), desk.now.boottime + JOIN_S)
    if opened.key is None:
        return
    identities = desk.cluster.identities
    reason = identities.nobody(opened.key, opened.owner, opened.role, desk.now.wall)
    if reason is not None:
        identity = identities.by_key.get(opened.key)
        if opened.role is m.Role.NODE and identity is not None and identity.revoked:
            desk.send(session.epoch, m.JoinRefused(reason, revoked=True))
        desk.close(session.epoch, reason)
    else:
        _arm_expiry(desk, session)


def _arm_expiry(desk: Desk, session: Session) -> None:
    if session.expires is not None:
        desk.arm(("expiry", str(session.epoch)), desk.now.after(session.expires - desk.now.wall))


def unjoined(desk: Desk, epoch: int) -> None:
    """A node's session has lasted for a while: one that is no node by now holds a connection for nothing."""
    session = desk.sessions.get(epoch)
    if session is not None and session.node is None:
        desk.close(epoch, f"a node joins within {JOIN_S:g} s of coming in")


def expired(desk: Desk, epoch: int) -> None:
    """The certificate of a session may have ended; the clock on the wall, by which it counts, may have been set."""
    session = desk.sessions.get(epoch)
    if session is None or session.expires is None:
        return
    if desk.now.wall < session.expires:
        _arm_expiry(desk, session)
    else:
        _cut(desk, session, f"the certificate of {session.owner} has expired: log in again, or {ANOTHER_TOKEN}")


def _cut(desk: Desk, session: Session, reason: str) -> None:
    """End it now: what was on its way to it is no longer for it."""
    desk.discard(session.epoch)
    desk.close(session.epoch, reason)


# ---- being admitted


def enroll(desk: Desk, asked: EnrollAsked) -> None:
    """Spend a use of a token for a key. The same key gets the same answer again, and spends nothing: the first answer
    may have been lost."""
    try:
        identity = _enrolled(desk, asked)
    except RefusedError as refused:
        passing = refused.code is m.RefusalCode.FAILED
        (desk.ready.postponed if passing else desk.ready.rejected).append((asked.connection, refused.message))
    else:
        _admit(desk, asked.connection, identity)


def _enrolled(desk: Desk, asked: EnrollAsked) -> Identity:
    identities, wall = desk.cluster.identities, desk.now.wall
    token = identities.tokens.get(asked.token)
    if token is None:
        raise _refused(f"this token is not known here: {ANOTHER_TOKEN}")
    state, known = token.state(wall), identities.by_key.get(asked.key)
    if known is not None and known.revoked:
        raise _refused(f"this key was revoked, as {known.name}: come with a new key and a new token")
    if known is not None and asked.key in token.keys and state in ("open", "used") and known.state(wall) == "valid":
        return known
    if state != "open":
        ended = {"used": "was used up", "expired": "has expired", "revoked": "was revoked"}[state]
        raise _refused(f"this token {ended}: {ANOTHER_TOKEN}")
    if desk.store_full:
        raise RefusedError(m.RefusalCode.FAILED, _FULL_DISK)
    name = _name_for(desk, token, asked)
    _make_room(desk)
    until = wall + desk.certificates.lifetime_s(token.role)
    desk.keep(IdentityAdmitted(asked.key, token.role, name, token.pool, token.digest, until, wall, desk.now))
    return identities.by_key[asked.key]


def _name_for(desk: Desk, token: Token, asked: EnrollAsked) -> str:
    """A node names itself where its token does not; a person is named by the token. Raises RefusedError."""
    if token.role is not m.Role.NODE:
        known = desk.cluster.identities.by_key.get(asked.key)
        name = token.name or _nameless(token)
        if known is not None and (known.name, known.role) != (name, token.role):
            raise _refused(f"this key is {known.role.value} {known.name} already: come with another")
        return name
    name = token.name or asked.name
    if not NAME.match(name):
        raise _refused(f"{name[:80]!r} is no name for a node: letters, digits, `_`, `-` and `.`, 64 at most")
    known = desk.cluster.identities.by_key.get(asked.key)
    if known is not None and (known.name, known.role) != (name, m.Role.NODE):
        raise _refused(f"this key is {known.role.value} {known.name} already: come with another")
    holder = desk.cluster.identities.node(name)
    if holder is not None and holder.key != asked.key:
        raise _refused(f"another machine was admitted as node {name}: choose another --name, or revoke that one first")
    node = desk.cluster.nodes.get(name)
    if holder is None and node is not None and node.session is not None:
        raise _refused(f"a node {name} is connected over the coordinator's own socket: choose another --name")
    return name


def _nameless(token: Token) -> str:
    """A token for several people names each of them: they share nothing."""
    name = f"{token.role.value}-{token.id}"
    return name if token.uses == 1 else f"{name}-{token.used + 1}"


def _make_room(desk: Desk) -> None:
    identities = desk.cluster.identities
    if len(identities.by_key) < MAX_IDENTITIES:
        return
    dead = next(identities.dead_identities(desk.now.wall), None)
    if dead is None:
        raise _refused(f"{len(identities.by_key)} certificates are known here, and more are not kept: revoke some")
    desk.forget(identity_scope(dead.key))


def renew(desk: Desk, asked: RenewAsked) -> None:
    """A session that lives by a certificate gets the next one, and with it more time."""
    session = desk.sessions.get(asked.session)
    identity = desk.cluster.identities.by_key.get(session.key) if session is not None and session.key else None
    if session is None or identity is None:
        return
    if session.expires is not None and desk.now.wall >= session.expires:
        expired(desk, session.epoch)
        return
    lifetime_s = desk.certificates.lifetime_s(identity.role)
    until = desk.now.wall + lifetime_s
    if until - identity.until > RENEWED_LATELY * lifetime_s:
        if all(token.digest == identity.token for token in desk.cluster.identities.spent_for(identity.key)):
            desk.forget(identity_scope(identity.key))  # the new row says all that the older ones did
        desk.keep(
            IdentityAdmitted(
                identity.key, identity.role, identity.name, identity.pool, identity.token, until, identity.since,
                desk.now,
            )
        )  # fmt: skip
        identity = desk.cluster.identities.by_key[identity.key]
    session.expires = identity.until
    _arm_expiry(desk, session)
    _admit(desk, session.epoch, identity)


def _admit(desk: Desk, connection: int, identity: Identity) -> None:
    desk.ready.admitted.append(Admitted(connection, identity.role, identity.name, identity.key, identity.until))


def _refused(message: str, way_out: str | None = None) -> RefusedError:
    return RefusedError(m.RefusalCode.REFUSED, message, way_out=way_out)


def _invalid(message: str) -> RefusedError:
    return RefusedError(m.RefusalCode.INVALID, message)


# ---- tokens


def token_create(desk: Desk, session: Session, message: m.TokenCreate) -> None:
    """Keep a token; asked again, because the answer was lost, it is the same one."""
    _check(desk, message)
    tokens = desk.cluster.identities.tokens
    if message.digest not in tokens:
        _room_for_token(desk, message.digest)
        desk.keep(
            TokenMade(
                message.digest, message.role, message.uses, message.name, message.pool,
                desk.now.wall + message.lifetime_s, session.owner, desk.now,
            )
        )  # fmt: skip
    token = tokens[message.digest]
    if (token.role, token.uses, token.name, token.pool) != (message.role, message.uses, message.name, message.pool):
        raise _refused("there is such a token already, for something else: make another secret")
    body = {**_token_row(desk, token), "authority": desk.certificates.authority}
    desk.reply(session.epoch, message.request, body)


def _check(desk: Desk, message: m.TokenCreate) -> None:
    if desk.certificates.authority is None:
        raise _refused(
            "this coordinator listens on its own socket only, where no token is needed",
            "start it with `coordinator serve --listen HOST:PORT` to have nodes and people come over the network",
        )
    if desk.store_full:
        raise _refused(_FULL_DISK)
    if not _DIGEST.match(message.digest):
        raise _invalid("the digest of a token's secret is 64 hex digits")
    if message.role is m.Role.COORDINATOR:
        raise _invalid("there is one coordinator: tokens are for `node`, `user`, `operator` and `admin`")
    if not 1 <= message.uses <= MAX_USES:
        raise _invalid(f"a token has 1 to {MAX_USES} uses, not {message.uses}")
    if not MIN_LIFETIME_S <= message.lifetime_s <= MAX_LIFETIME_S:
        raise _invalid(f"a token lives for {MIN_LIFETIME_S:g} s to {MAX_LIFETIME_S / 86_400:g} d")
    for kind, name in (("name", message.name), ("pool", message.pool)):
        if name is not None and not NAME.match(name):
            raise _invalid(f"{name[:80]!r} is no {kind}: letters, digits, `_`, `-` and `.`, 64 at most")
    if message.role is not m.Role.NODE and message.pool is not None:
        raise _invalid("only nodes join a pool: what people may do where stands in the coordinator's configuration")
    if message.role is m.Role.NODE and message.name is not None and message.uses > 1:
        raise _invalid(f"one machine is node {message.name}: a token with a name has one use")


def _room_for_token(desk: Desk, digest: str) -> None:
    tokens = desk.cluster.identities.tokens
    if any(token.id == digest[: len(token.id)] for token in tokens.values()):
        raise _refused("another token begins with the same digits: make another secret")
    if len(tokens) < MAX_TOKENS:
        return
    dead = next(desk.cluster.identities.dead_tokens(desk.now.wall), None)
    if dead is None:
        raise _refused(f"{len(tokens)} tokens are open, and more are not kept: revoke some", _LIST_TOKENS)
    desk.forget(token_scope(dead.digest))


def token_list(desk: Desk, session: Session, message: m.TokenList) -> None:
    page = _page(desk.cluster.identities.tokens.values(), message.skip)
    desk.reply(session.epoch, message.request, [_token_row(desk, token) for token in page])


def _page(entries: Iterable[T], skip: int) -> Iterator[T]:
    return islice(islice(entries, max(0, skip), None), PAGE)


def _token_row(desk: Desk, token: Token) -> views.Plain:
    return {
        "id": token.id,
        "role": token.role.value,
        "name": token.name,
        "pool": token.pool,
        "uses": token.uses,
        "used": token.used,
        "created_by": token.by,
        "created_at": views.time_text(token.made_at.wall),
        "expires_at": views.time_text(token.until),
        "state": token.state(desk.now.wall),
    }


def token_revoke(desk: Desk, session: Session, message: m.TokenRevoke) -> None:
    tokens = desk.cluster.identities.tokens
    token = next((token for token in tokens.values() if token.id == message.token.lower()), None)
    if token is None:
        ids = [token.id for token in tokens.values()]
        text = f"there is no token `{message.token[:80]}`"
        raise RefusedError(m.RefusalCode.UNKNOWN, text, near(message.token, ids), _LIST_TOKENS)
    if not token.revoked:
        desk.keep(TokenRevoked(token.digest, desk.now))
    desk.reply(session.epoch, message.request, _token_row(desk, token))


# ---- identities


def identity_list(desk: Desk, session: Session, message: m.IdentityList) -> None:
    page = _page(desk.cluster.identities.by_key.values(), message.skip)
    desk.reply(session.epoch, message.request, [_identity_row(desk, identity) for identity in page])


def _identity_row(desk: Desk, identity: Identity) -> views.Plain:
    return {
        "name": identity.name,
        "role": identity.role.value,
        "key": identity.key,
        "pool": identity.pool,
        "since": views.time_text(identity.since),
        "expires_at": views.time_text(identity.until),
        "state": identity.state(desk.now.wall),
    }


def identity_revoke(desk: Desk, session: Session, message: m.IdentityRevoke) -> None:
    """Every key of a person is nobody from now on, in every role."""
    found = desk.cluster.identities.of_name(message.name, *_PEOPLE)
    if not found:
        names = {entry.name for entry in desk.cluster.identities.by_key.values() if entry.role is not m.Role.NODE}
        text = f"nobody has a certificate as `{message.name[:80]}`"
        way_out = "`coordinator user list` shows who has"
        raise RefusedError(m.RefusalCode.UNKNOWN, text, near(message.name, names), way_out)
    # The one who asks may be among them, and is answered first.
    desk.reply(session.epoch, message.request, _revoked(desk, message.name, found))
    _revoke(desk, found, session)


def node_revoke(desk: Desk, session: Session, message: m.NodeRevoke) -> None:
    """The node's key is nobody from now on; what the cluster had of the node it has no more."""
    found = desk.cluster.identities.of_name(message.node, m.Role.NODE)
    node = desk.cluster.nodes.get(message.node)
    if not found and node is not None:
        raise _refused(
            f"node `{message.node}` has no certificate"
            + (": it was revoked already" if node.revoked else ": it joined over the coordinator's own socket"),
            None if node.revoked else "whoever may use that socket is trusted: stop its agent instead",
        )
    if not found:
        names = {entry.name for entry in desk.cluster.identities.by_key.values() if entry.role is m.Role.NODE}
        text = f"there is no node `{message.node[:200]}`"
        way_out = "`coordinator node list` shows those there are"
        raise RefusedError(m.RefusalCode.UNKNOWN, text, near(message.node, names | set(desk.cluster.nodes)), way_out)
    desk.reply(session.epoch, message.request, _revoked(desk, message.node, found))
    if node is not None:
        joining.revoked(desk, node)
    _revoke(desk, found, session)


def _revoke(desk: Desk, found: list[Identity], by: Session) -> None:
    keys = {identity.key for identity in found}
    for identity in found:
        desk.keep(IdentityRevoked(identity.key, by.owner, desk.now))
    for session in list(desk.sessions.values()):
        if session.key not in keys:
            continue
        reason = f"the certificate of {session.owner} was revoked"
        if session.epoch == by.epoch:
            desk.close(session.epoch, reason)  # not cut: it is still to hear that it was done
        else:
            _cut(desk, session, reason)


def _revoked(desk: Desk, name: str, found: list[Identity]) -> views.Plain:
    """What a revocation answers: `tokens` are those that let these keys in and would let in more."""
    tokens = desk.cluster.identities.tokens
    spent = dict.fromkeys(identity.token for identity in found if identity.token is not None)
    still_open = [
        tokens[digest].id for digest in spent if digest in tokens and tokens[digest].state(desk.now.wall) == "open"
    ]
    return {"name": name, "keys": len(found), "tokens": still_open}


ANSWERS: Final[dict[type[m.Message], Callable[..., None]]] = {
    m.TokenCreate: token_create,
    m.TokenList: token_list,
    m.TokenRevoke: token_revoke,
    m.IdentityList: identity_list,
    m.IdentityRevoke: identity_revoke,
    m.NodeRevoke: node_revoke,
}
