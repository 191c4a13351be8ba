"""Who may do what with which pool: the configuration's word, asked by the core; names are those of sessions' owners."""

from __future__ import annotations

import msgspec

from wire.messages import Role

EVERYBODY = "*"
_OVER_ALL = frozenset({Role.OPERATOR, Role.ADMIN})


class PoolRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `[pools.NAME]` says; names of people, `*` for everybody."""

    users: list[str] = msgspec.field(default_factory=lambda: [EVERYBODY])
    """Who may submit."""
    viewers: list[str] | None = None
    """Who may look at other people's jobs; None: as `users`."""
    operators: list[str] = []
    """Who operates this pool, beside all operators and admins."""
    elevation: list[str] = []
    """Who may submit elevated commands, beside admins."""


class EndCalls(msgspec.Struct, frozen=True):
    """What may be run on the coordinator's machine when a job is over."""

    allowed: bool = False
    own_user: bool = True
    """It runs as the coordinator's own user, so it could do whatever the coordinator can: for admins only."""
    at_once: int = 4


class ShellRules(msgspec.Struct, frozen=True):
    """What debugging shells may take."""

    idle_s: float = 3600.0
    """Without a key being pressed."""


class Policy(msgspec.Struct, frozen=True):
    """The rules of all pools. A pool that has none is open to every user, and elevates nobody but admins."""

    pools: dict[str, PoolRules] = {}
    end_calls: EndCalls = EndCalls()
    shells: ShellRules = ShellRules()

    def may_submit(self, name: str, role: Role, pool: str) -> bool:
        """Whether this person may give the pool work."""
        return self.may_operate(name, role, pool) or _among(name, self._rules(pool).users)

    def may_look(self, name: str, role: Role, pool: str) -> bool:
        """Whether this person may see what others run there (never their logs and files)."""
        rules = self._rules(pool)
        viewers = rules.users if rules.viewers is None else rules.viewers
        return self.may_operate(name, role, pool) or _among(name, viewers)

    def may_operate(self, name: str, role: Role, pool: str) -> bool:
        """Whether this person may act on the pool's nodes and on other people's jobs there."""
        return role in _OVER_ALL or name in self._rules(pool).operators

    def may_elevate(self, name: str, role: Role, pool: str) -> bool:
        """Whether this person's commands may be elevated there, if pool and node allow it too."""
        return role is Role.ADMIN or _among(name, self._rules(pool).elevation)

    def _rules(self, pool: str) -> PoolRules:
        return self.pools.get(pool, PoolRules())


def _among(name: str, names: list[str]) -> bool:
    return name in names or EVERYBODY in names
