"""What an administrator may set on a node, in one TOML file; everything has a default and nothing unknown is taken.

path = ["/opt/tools/bin"]         # before the standard PATH of every command
boot_id_file = "/run/boot-id"     # what stands for the kernel's boot id
slots = 8                         # as --slots
gpus = ["0", "GPU-6d7e-0c1f"]     # GPUs by number or id; --resource gpus=2 is ["0", "1"]

[env]                             # variables that every command sees
HTTP_PROXY = "http://proxy:3128"

[resources]                       # as --resource
licences = 2

[labels]                          # as --label
zone = "a"

[users]
mode = "job"                      # each job runs as a user of its own (the default if root runs the agent), or "same"
first = 1879048192                # these are the users of jobs; no account may be among them. The last one is the
count = 65536                     # agent's, to kill with
leases = "/var/lib/poolkeeper-uids/leases.json"   # which of them are in use, for all agents of the machine

[outputs]                         # what the coordinator keeps of each output of a task that failed
head = 16384                      # bytes of its beginning
tail = 65536                      # and of its end
success = 0                       # of the end of those that succeeded

[limits]
pids = 4096                       # processes and threads at once of each command, where control groups can see to it
cgroups = true                    # false: no control groups even where the machine lets us make them
disk_floor_bytes = 1073741824     # with less room on the disk of its root a node takes no work, until there is a
                                  # quarter more than that (default: 1 GiB, or 5 % of a smaller disk; 0: never)

[files]                           # what commands bring in (`file` blocks)
max_bytes = 17179869184           # of one download
timeout_s = 3600                  # for all files of one attempt together
patience_s = 60                   # of silence of a server
tries = 4                         # of each download
proxy = "http://proxy:3128"       # default: none, whatever the environment says
ca = "/etc/poolkeeper/files.pem"  # trusted beside the system's authorities; every user must be able to read it
python = "/usr/bin/python3"       # what brings them in, as the job's user; default: one that every user may execute
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agentd.containment import PIDS_MAX
from agentd.model import Staging
from agentd.uids import COUNT, FIRST, LEASES, LEAST, MAX_UID
from wire.settings import ConfigError as ConfigError
from wire.settings import read_settings


class UsersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[users]`."""

    mode: Literal["job", "same"] | None = None
    first: Annotated[int, msgspec.Meta(ge=LEAST, le=MAX_UID)] = FIRST
    count: Annotated[int, msgspec.Meta(ge=2, le=MAX_UID)] = COUNT
    leases: str = LEASES


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[limits]`."""

    pids: Annotated[int, msgspec.Meta(ge=16, le=4_194_304)] = PIDS_MAX
    cgroups: bool = True
    disk_floor_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] | None = None


class FilesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[files]`."""

    max_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**53)] = Staging().max_bytes
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)] = Staging().timeout_s
    patience_s: Annotated[float, msgspec.Meta(gt=0, le=1e5)] = Staging().patience_s
    tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = Staging().tries
    proxy: str | None = None
    ca: str | None = None
    python: str | None = None


class OutputsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[outputs]`, in bytes of each of a task's two outputs; one message must hold them."""

    head: Annotated[int, msgspec.Meta(ge=0, le=64 * 1024)] = 16 * 1024
    tail: Annotated[int, msgspec.Meta(ge=0, le=192 * 1024)] = 64 * 1024
    success: Annotated[int, msgspec.Meta(ge=0, le=192 * 1024)] = 0


class FileConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's contents."""

    path: list[str] = []
    env: dict[str, str] = {}
    boot_id_file: str | None = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    gpus: list[str] = []
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    allow_elevation: bool = False
    users: UsersConfig = UsersConfig()
    limits: LimitsConfig = LimitsConfig()
    files: FilesConfig = FilesConfig()
    outputs: OutputsConfig = OutputsConfig()


def read_config(path: Path) -> FileConfig:
    """The configuration in `path`. Raises ConfigError."""
    config = read_settings(path, FileConfig)
    for text in (*config.path, *config.env, *config.env.values()):
        if "\0" in text:
            raise ConfigError(f"{path}: a NUL byte can stand in no environment")
    if not config.users.leases.startswith("/"):
        raise ConfigError(f"{path}: [users] leases is an absolute path, found {config.users.leases!r}")
    for name, place in (("ca", config.files.ca), ("python", config.files.python)):
        if place is not None and (not place.startswith("/") or "\0" in place):
            raise ConfigError(f"{path}: [files] {name} is an absolute path, found {place!r}")
    if config.files.proxy is not None and not config.files.proxy.startswith(("http://", "https://")):
        raise ConfigError(f"{path}: [files] proxy is a URL like http://proxy:3128, found {config.files.proxy!r}")
    wrong = [name for name in config.env if not name or "=" in name]
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]!r} is no name of an environment variable")
    return config
