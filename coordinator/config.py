"""What an administrator may set, in one TOML file; everything has a default and nothing unknown is taken.

[socket]
group = "batch"              # who beside the own uid and root may connect at all

[roles]
alice = "operator"           # user, operator, admin or node, by user name
"""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Final

import msgspec

from wire.messages import Role

_WIDER: Final[dict[Role, frozenset[Role]]] = {
    Role.USER: frozenset({Role.USER}),
    Role.OPERATOR: frozenset({Role.USER, Role.OPERATOR}),
    Role.ADMIN: frozenset({Role.USER, Role.OPERATOR, Role.ADMIN}),
    Role.NODE: frozenset({Role.NODE}),
}
_ALL: Final = frozenset(Role) - {Role.COORDINATOR}
_MAX_BYTES: Final = 1024 * 1024


class ConfigError(Exception):
    """The file can't be used. The text says where and why."""


class SocketConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    group: str | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    socket: SocketConfig = SocketConfig()
    roles: dict[str, Role] = {}

    def roles_of(self, uid: int, own: int) -> frozenset[Role]:
        """The roles that this identity may take here: all of them for the own uid and root."""
        if uid in (0, own):
            return _ALL
        role = self.roles.get(name_of(uid))
        return _WIDER[role] if role is not None else frozenset()


def name_of(uid: int) -> str:
    """The person behind a uid: a user name, or `uid:N`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


def read_config(path: Path) -> Config:
    """The configuration in `path`. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES} bytes: that is no configuration")
        config = msgspec.toml.decode(content, type=Config)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if Role.COORDINATOR in config.roles.values():
        raise ConfigError(f"{path}: `coordinator` is no role that a person can have")
    return config
