"""Who lives in a world of strangers: people with their roles, what the pools' rules say of them, and by what a peer is
known. What each may do is judged here from these tables alone: the oracle of the promises about rights."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from coordinator.identities import Certificates
from coordinator.policy import Policy, PoolRules
from wire.messages import Role
from wire.spec import Elevation

LOCAL_OWNER: Final = "uid:1000"
POOL: Final = "p"
OTHER_POOL: Final = "q"
"""Where strangers' nodes belong: nobody that keeps the rules has work there."""
EVERYBODY: Final = "*"
GIB: Final = 1 << 30
OFFERS: Final[dict[str, tuple[dict[str, float], dict[str, str]]]] = {
    "n0": ({"gpus": 2.0}, {"zone": "a", "fast": ""}),
    "n1": ({"gpus": 1.0, "licence": 1.5}, {"zone": "b"}),
    "n2": ({"disk": 5.0 * GIB, "licence": 1.0}, {"fast": ""}),
}
"""What some nodes have more of, or less, than all; and their labels."""
NODE_S: Final = 240.0
PEOPLE_S: Final = 60.0
"""How long certificates are good for, here."""
OPENS: Final[dict[Role, frozenset[Role]]] = {
    Role.USER: frozenset({Role.USER}),
    Role.OPERATOR: frozenset({Role.USER, Role.OPERATOR}),
    Role.ADMIN: frozenset({Role.USER, Role.OPERATOR, Role.ADMIN}),
    Role.NODE: frozenset({Role.NODE}),
}
"""As what a certificate of each role lets one act."""


class Certificate(msgspec.Struct, frozen=True):
    """As the authority signs it: travels as plain bytes, and stands for what TLS would prove."""

    key: str
    role: Role
    name: str
    until: float
    """Wall clock."""


@dataclass(frozen=True)
class Local:
    """Who came over the unix socket: proven by the kernel."""

    owner: str = LOCAL_OWNER
    roles: frozenset[Role] = frozenset({Role.NODE, Role.ADMIN})


Credentials = Certificate | Local | None
"""How a peer is known; None: it came over TLS without a certificate."""
HOME: Final = Local()


@dataclass(frozen=True)
class Actor:
    """Whose session it is."""

    owner: str
    role: Role
    key: str | None = None
    until: float | None = None


@dataclass(frozen=True)
class Person:
    name: str
    role: Role
    writes_jobs: bool = False


PEOPLE: Final = (
    Person("alice", Role.USER, writes_jobs=True),
    Person("bob", Role.USER, writes_jobs=True),
    Person("carol", Role.USER, writes_jobs=True),
    Person("vera", Role.USER),
    Person("olga", Role.OPERATOR, writes_jobs=True),
    Person("adam", Role.ADMIN),
    Person("mallory", Role.USER),
)
MALLORY: Final = PEOPLE[-1]


@dataclass
class Society:
    """The rules of one world and what was revoked in it."""

    rules: dict[str, PoolRules]
    elevation: Elevation = Elevation.FORBIDDEN
    """The pool's word."""
    elevating: frozenset[str] = frozenset()
    """Nodes whose own policy allows it."""
    certificates: Certificates = field(default_factory=lambda: Certificates("the authority", NODE_S, PEOPLE_S))

    @property
    def policy(self) -> Policy:
        return Policy(pools=self.rules)

    def offers(self, node: str) -> dict[str, Any]:
        """What a node's own configuration says, beside who it is."""
        more, labels = OFFERS.get(node, ({}, {}))
        resources = {"cpus": 2.0, "memory": float(4 * GIB), "disk": float(10 * GIB), **more}
        gpus = tuple(f"GPU-{number}" for number in range(int(resources.get("gpus", 0))))
        return {"elevation": node in self.elevating, "resources": resources, "gpus": gpus, "labels": dict(labels)}

    @staticmethod
    def draw(rng: random.Random) -> Society:
        """Some pools are open and some are not; mallory has no business in `p` ever."""
        honest = [person.name for person in PEOPLE if person is not MALLORY and person.role is Role.USER]
        users = rng.choice((["alice", "bob", "carol"], ["alice", "bob", "carol", "vera"], ["alice", "carol"]))
        rules = PoolRules(
            users=users,
            viewers=rng.choice((None, [], ["vera"], honest)),
            operators=rng.choice(([], ["carol"])),
            elevation=rng.choice(([], ["alice", "olga"], ["alice", "bob"], ["alice", "bob", "carol", "olga"])),
        )
        return Society(
            {POOL: rules, OTHER_POOL: PoolRules(users=["mallory"])},
            elevation=rng.choice((Elevation.ALLOWED,) * 3 + (Elevation.FORBIDDEN,)),
            elevating=frozenset(name for name in ("n0", "n1", "n2", "n3") if rng.random() < 0.75),
        )

    # ---- what each may do

    def may_submit(self, actor: Actor, pool: str) -> bool:
        return self.may_operate(actor, pool) or _named(actor.owner, self._rules(pool).users)

    def may_operate(self, actor: Actor, pool: str) -> bool:
        return actor.role in (Role.OPERATOR, Role.ADMIN) or (
            actor.role is Role.USER and actor.owner in self._rules(pool).operators
        )

    def may_look(self, actor: Actor, pool: str, owner: str) -> bool:
        """Whether a job of `owner` exists for this person at all."""
        rules = self._rules(pool)
        viewers = rules.users if rules.viewers is None else rules.viewers
        return actor.owner == owner or self.may_operate(actor, pool) or _named(actor.owner, viewers)

    def may_act(self, actor: Actor, pool: str, owner: str) -> bool:
        """Whether this person may end a job of `owner`, or read what it wrote."""
        return actor.owner == owner or self.may_operate(actor, pool)

    def may_elevate(self, owner: str, role: Role, pool: str) -> bool:
        return role is Role.ADMIN or _named(owner, self._rules(pool).elevation)

    def _rules(self, pool: str) -> PoolRules:
        return self.rules.get(pool, PoolRules())


def _named(name: str, names: Iterable[str]) -> bool:
    return name in names or EVERYBODY in names


def role_of(owner: str) -> Role:
    """What a person of this world is; whoever came over the socket is an admin."""
    return next((person.role for person in PEOPLE if person.name == owner), Role.ADMIN)
