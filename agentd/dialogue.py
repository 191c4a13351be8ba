"""What agent and keeper say to each other: one type a message, one JSON object a packet, tagged by `op`.

`docs/design.md` tells what each means. The keeper itself reads and writes plain dicts, as it imports nothing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wire.messages import Outcome

VERSION: Final = 2
"""What keepers that are started now understand, as `agentd/keeper.py` says of itself."""
UNDERSTOOD: Final = range(VERSION - 1, VERSION + 2)
"""Keepers of these versions are let finish what they were given; they are given nothing new unless of our own."""
Text = str | int | None
"""A text of a command: itself, or the number of the item's value that stands here."""


class _Said(msgspec.Struct, frozen=True, tag_field="op", kw_only=True):
    """Base; the tag is `op`. Unknown fields are let pass: a keeper may be one version older or newer."""


# ---- agent -> keeper


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What brings a command's files in, in its work directory and as its user, before it starts."""

    argv: list[str]
    env: dict[str, str | int]
    timeout_s: float


class Template(_Said, frozen=True, tag="template"):
    id: str
    argv: list[str | int]
    env: dict[str, str | int]
    timeout_s: float | None
    stop_signal: int
    stop_grace_s: float
    leave_running: bool
    leased: bool
    stage: Stage | None = None
    terminal: str | None = None
    """The device of a shell; its items' directories are there already."""


class RunItems(_Said, frozen=True, tag="run"):
    """Queue these: (key, template, values, directory below the workitems directory)."""

    items: list[tuple[str, str, list[str], str]]


class RecallItems(_Said, frozen=True, tag="recall"):
    keys: list[str] | None


class StopItem(_Said, frozen=True, tag="stop"):
    key: str
    reason: str


class LeaseUntil(_Said, frozen=True, tag="lease"):
    """`until` in seconds of boottime."""

    until: float | None


class AckReports(_Said, frozen=True, tag="ack"):
    seq: int


class Ping(_Said, frozen=True, tag="ping"):
    n: int


class Retire(_Said, frozen=True, tag="finish"):
    grace_s: float


ToKeeper = Template | RunItems | RecallItems | StopItem | LeaseUntil | AckReports | Ping | Retire


# ---- keeper -> agent


class KeeperHello(_Said, frozen=True, tag="hello"):
    version: int
    keeper: str
    pid: int
    boot: str
    starttime: int
    queue: list[str] = []
    running: str | None = None
    leftovers: bool = False
    seq: int = 0


class ItemEnded(_Said, frozen=True, tag="ended"):
    seq: int
    key: str
    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    cpu_s: float = 0.0
    max_rss_bytes: int = 0
    leftovers: bool = False


class ItemStarted(_Said, frozen=True, tag="started"):
    key: str
    at: float


class ItemsRecalled(_Said, frozen=True, tag="recalled"):
    keys: list[str]
    seq: int = 0


class Pong(_Said, frozen=True, tag="pong"):
    n: int


class KeeperGone(_Said, frozen=True, tag="gone"):
    survivors: int = 0
    seq: int = 0


class KeeperStuck(_Said, frozen=True, tag="stuck"):
    """Killing does not help: a process of this keeper waits for something that can't be interrupted."""

    key: str | None = None


FromKeeper = KeeperHello | ItemEnded | ItemStarted | ItemsRecalled | Pong | KeeperGone | KeeperStuck

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[FromKeeper]] = msgspec.json.Decoder(FromKeeper)


def encode(said: ToKeeper) -> bytes:
    return _ENCODER.encode(said)


def decode(packet: bytes | bytearray | memoryview) -> FromKeeper:
    """Raises msgspec.DecodeError (or ValidationError) for what no keeper says."""
    return _DECODER.decode(packet)


def ended_from_plain(plain: dict[str, Any]) -> ItemEnded:
    """The `ended` line of a keeper's record file. Raises msgspec.ValidationError."""
    return msgspec.convert(plain, ItemEnded, strict=False)
