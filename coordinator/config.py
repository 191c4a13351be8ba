"""What an administrator may set, in one TOML file; everything has a default and nothing unknown is taken.

[local]                      # who beside the own uid and root may use the socket of this machine
group = "batch"              # the socket opens to this group
group_role = "user"          # what its members are
[local.roles]
alice = "operator"           # of whom more is said: user, operator, admin or node, by user name or "uid:1000"
[pools.render]               # who may do what with a pool, see coordinator.policy
users = ["alice", "bob"]
[certificates]
node = "7d"                  # how long they are valid; renewed at half of it
people = "30d"
[on_end]                     # what jobs have run on this machine when they are over
allowed = true               # by default nothing
user = "nobody"              # as whom, where the coordinator is root; else as its own user, and for admins only
timeout = "1m"
at_once = 4
[files]                      # files beside a submitted one that its commands bring in (`from`)
max_mib = 64                 # of one
held_mib = 1024              # of all that one person has brought here and that jobs name, or that are a day old at most
[outputs]                    # how much is kept of what failed tasks wrote; beyond, the oldest goes
job_mib = 64                 # of one job
owner_mib = 256              # of all jobs of one submitter
total_mib = 1024
[shells]
idle = "1h"                  # a debugging shell in which nothing is typed for so long is closed
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final

import msgspec

from coordinator.calls import Caller
from coordinator.durations import seconds_of
from coordinator.identities import MAY_ACT_AS
from coordinator.outputs import Bounds
from coordinator.policy import EndCalls, Policy, PoolRules, ShellRules
from wire.bounds import MAX_FILE_BYTES
from wire.limits import MAX_DOCUMENT, MAX_HELD_PER_OWNER
from wire.messages import Role
from wire.settings import ConfigError as ConfigError
from wire.settings import read_settings

_ALL: Final = frozenset(Role) - {Role.COORDINATOR}
_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 3650 * 86_400.0


class LocalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may come over the unix socket."""

    group: str | None = None
    group_role: Role = Role.USER
    roles: dict[str, Role] = {}


class FilesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be uploaded; documents always may be."""

    max_mib: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES >> 20)] = 64
    held_mib: Annotated[int, msgspec.Meta(ge=0, le=2**30)] = 1024

    @property
    def max_bytes(self) -> int:
        return max(self.max_mib << 20, MAX_DOCUMENT)

    @property
    def held_bytes(self) -> int:
        return max(self.held_mib << 20, MAX_HELD_PER_OWNER)


class CertificateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the certificates that are signed here are valid, as durations."""

    node: str = "7d"
    people: str = "30d"

    @property
    def node_s(self) -> float:
        return seconds_of(self.node) or 0.0

    @property
    def people_s(self) -> float:
        return seconds_of(self.people) or 0.0


class OnEndConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be run here when a job is over."""

    allowed: bool = False
    user: str | None = None
    timeout: str = "1m"
    at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4

    @property
    def rules(self) -> EndCalls:
        return EndCalls(self.allowed, self.user is None, self.at_once)

    @property
    def timeout_s(self) -> float:
        return seconds_of(self.timeout) or 0.0

    def caller(self) -> Caller:
        """Who runs it. Raises ConfigError."""
        if not self.allowed or self.user is None:
            return Caller(self.timeout_s)
        try:
            entry = pwd.getpwnam(self.user)
        except KeyError:
            raise ConfigError(f"user = {self.user!r} in [on_end]: there is no such user") from None
        if os.geteuid() != 0 or entry.pw_uid == 0:
            why = "it is root" if entry.pw_uid == 0 else "only a coordinator that runs as root can do that"
            raise ConfigError(f"user = {self.user!r} in [on_end] can't be taken: {why}")
        groups = os.getgrouplist(self.user, entry.pw_gid)
        return Caller(self.timeout_s, (entry.pw_uid, entry.pw_gid, *groups))


class ShellsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What debugging shells may take."""

    idle: str = "1h"

    @property
    def idle_s(self) -> float:
        return seconds_of(self.idle) or 0.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    local: LocalConfig = LocalConfig()
    pools: dict[str, PoolRules] = {}
    certificates: CertificateConfig = CertificateConfig()
    files: FilesConfig = FilesConfig()
    outputs: Bounds = Bounds()
    shells: ShellsConfig = ShellsConfig()
    on_end: OnEndConfig = OnEndConfig()

    @property
    def policy(self) -> Policy:
        return Policy(self.pools, self.on_end.rules, ShellRules(self.shells.idle_s))

    def roles_of(self, uid: int, own: int, groups: Collection[int] = (), opened: int | None = None) -> frozenset[Role]:
        """The roles that this local user may take here: all of them for the own uid and root, else what is said of the
        user, else what the members of the `opened` group are."""
        if uid in (0, own):
            return _ALL
        role = self.local.roles.get(name_of(uid)) or self.local.roles.get(f"uid:{uid}")
        if role is None and opened is not None and opened in groups:
            role = self.local.group_role
        return MAY_ACT_AS[role] if role is not None else frozenset()


def name_of(uid: int) -> str:
    """The person behind a uid: a user name, or `uid:N`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


def read_config(path: Path) -> Config:
    """The configuration in `path`. Raises ConfigError."""
    config = read_settings(path, Config)
    reason = _what_is_wrong(config)
    if reason is not None:
        raise ConfigError(f"{path}: {reason}")
    return config


def _what_is_wrong(config: Config) -> str | None:
    if Role.COORDINATOR in (config.local.group_role, *config.local.roles.values()):
        return "`coordinator` is no role that a person can have"
    if config.local.roles and config.local.group is None:
        return "[local.roles] names users, but without `group` in [local] the socket opens to none of them"
    if min(config.outputs.job_mib, config.outputs.owner_mib, config.outputs.total_mib) < 0:
        return "a bound in [outputs] is below zero: it is a number of MiB, 0 keeps the latest output only"
    if not _SHORTEST_S <= config.on_end.timeout_s <= _LONGEST_S:
        return f"timeout = {config.on_end.timeout!r} in [on_end] is no duration from 1s to 3650d: write it like 90s"
    if not _SHORTEST_S <= config.shells.idle_s <= _LONGEST_S:
        return f"idle = {config.shells.idle!r} in [shells] is no duration from 1s to 3650d: write it like 30m"
    for name, duration in (("node", config.certificates.node), ("people", config.certificates.people)):
        seconds = seconds_of(duration)
        if seconds is None or not _SHORTEST_S <= seconds <= _LONGEST_S:
            return f"{name} = {duration!r} in [certificates] is no duration from 1s to 3650d: write it like 7d or 12h"
    return None
