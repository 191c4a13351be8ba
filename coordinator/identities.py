"""Who may come over TLS, as the records tell it: tokens, and the keys that were admitted with them.

An identity is its key; a name is what the key was admitted under. Only `Cluster.apply` changes this, and forgetting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from coordinator.records import (
    IdentityAdmitted,
    IdentityRevoked,
    TokenMade,
    TokenRevoked,
    identity_scope,
    token_scope,
)
from wire.instant import Instant
from wire.messages import Role

ANOTHER_TOKEN: Final = "an administrator makes a new token with `coordinator token create`"
TOKEN_ID: Final = 8
"""Hex digits of a token's digest that name it."""

MAY_ACT_AS: Final[dict[Role, frozenset[Role]]] = {
    Role.USER: frozenset({Role.USER}),
    Role.OPERATOR: frozenset({Role.USER, Role.OPERATOR}),
    Role.ADMIN: frozenset({Role.USER, Role.OPERATOR, Role.ADMIN}),
    Role.NODE: frozenset({Role.NODE}),
}
"""The roles in which who holds one may open a session."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is signed here: by whom, and for how long."""

    authority: str | None = None
    """The sha256 (hex) of the authority's certificate; None: nothing listens on TLS, and nobody is admitted."""
    node_s: float = 7 * 86_400.0
    people_s: float = 30 * 86_400.0

    def lifetime_s(self, role: Role) -> float:
        return self.node_s if role is Role.NODE else self.people_s


@dataclass(slots=True, eq=False)
class Token:
    """A right to be admitted, `uses` times until `until` (wall clock)."""

    digest: str
    role: Role
    uses: int
    name: str | None
    pool: str | None
    until: float
    by: str
    made_at: Instant
    keys: dict[str, None] = field(default_factory=dict)
    """Every key it admitted, in order: each is a use."""
    revoked: bool = False

    @property
    def id(self) -> str:
        return self.digest[:TOKEN_ID]

    @property
    def used(self) -> int:
        return len(self.keys)

    def state(self, wall: float) -> str:
        """`open`, or why it admits nobody any more."""
        if self.revoked:
            return "revoked"
        if wall >= self.until:
            return "expired"
        return "used" if self.used >= self.uses else "open"


@dataclass(slots=True, eq=False)
class Identity:
    """A key that was admitted, and under which name."""

    key: str
    role: Role
    name: str
    pool: str | None
    token: str | None
    until: float
    since: float
    revoked: bool = False

    def state(self, wall: float) -> str:
        """`valid`, or why it is nobody."""
        if self.revoked:
            return "revoked"
        return "expired" if wall >= self.until else "valid"


class Identities:
    """All tokens and keys. Invariant: what is forgotten here is exactly what the store forgets of it."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.by_key: dict[str, Identity] = {}
        self._by_name: dict[str, dict[str, Identity]] = {}

    # ---- folded from the records

    def apply(self, record: TokenMade | TokenRevoked | IdentityAdmitted | IdentityRevoked) -> None:
        """Take one durable fact about a token or a key."""
        match record:
            case TokenMade():
                self.tokens[record.digest] = Token(
                    record.digest, record.role, record.uses, record.name, record.pool, record.until, record.by,
                    record.at,
                )  # fmt: skip
            case TokenRevoked():
                if (token := self.tokens.get(record.digest)) is not None:
                    token.revoked = True
            case IdentityAdmitted():
                self._admitted(record)
            case IdentityRevoked():
                if (identity := self.by_key.get(record.key)) is not None:
                    identity.revoked = True

    def _admitted(self, record: IdentityAdmitted) -> None:
        self._drop(record.key)  # a renewed one stands where its latest record does
        identity = Identity(record.key, record.role, record.name, record.pool, record.token, record.until, record.since)
        self.by_key[record.key] = identity
        self._by_name.setdefault(record.name, {})[record.key] = identity
        if record.token is not None and (token := self.tokens.get(record.token)) is not None:
            token.keys[record.key] = None

    def forget(self, scope: str) -> None:
        """The rows of this scope are forgotten, and so is what they said."""
        name = scope.partition(" ")[2]
        if scope == token_scope(name):
            self.tokens.pop(name, None)
        elif scope == identity_scope(name):
            self._drop(name)

    def _drop(self, key: str) -> None:
        identity = self.by_key.pop(key, None)
        if identity is not None:
            namesakes = self._by_name[identity.name]
            del namesakes[key]
            if not namesakes:
                del self._by_name[identity.name]

    # ---- asked

    def of_name(self, name: str, *roles: Role) -> list[Identity]:
        """The keys that were admitted under this name in one of these roles and are not revoked."""
        namesakes = self._by_name.get(name, {})
        return [identity for identity in namesakes.values() if identity.role in roles and not identity.revoked]

    def node(self, name: str) -> Identity | None:
        """The key that holds this node's name, if any; one whose certificate ended holds it still."""
        return next(iter(self.of_name(name, Role.NODE)), None)

    def nobody(self, key: str, name: str, role: Role, wall: float) -> str | None:
        """Why a certificate is worth nothing here whose signature and date are good, or None."""
        identity = self.by_key.get(key)
        if identity is None:
            return f"the certificate of {name[:80]} is not known to this coordinator: {ANOTHER_TOKEN}"
        if identity.revoked:
            return f"the certificate of {identity.name} was revoked: {ANOTHER_TOKEN}"
        if wall >= identity.until:
            return f"the certificate of {identity.name} has expired: {ANOTHER_TOKEN}"
        if name != identity.name or role not in MAY_ACT_AS[identity.role]:
            return f"this certificate is for {identity.role.value} {identity.name} and for nobody else"
        return None

    def dead_tokens(self, wall: float) -> Iterator[Token]:
        """Oldest first, those that admit nobody any more."""
        return (token for token in self.tokens.values() if token.state(wall) != "open")

    def spent_for(self, key: str) -> list[Token]:
        """The tokens that admitted this key."""
        return [token for token in self.tokens.values() if key in token.keys]

    def dead_identities(self, wall: float) -> Iterator[Identity]:
        """Oldest first, the keys that are nobody any more and that no token counts among its uses."""
        counted = {key for token in self.tokens.values() for key in token.keys}
        return (
            identity
            for identity in self.by_key.values()
            if identity.state(wall) != "valid" and identity.key not in counted
        )
