"""What the user asked for, as it travels: the typed face of the plain document that `dsl.compile` makes.

The document is canonical JSON data (`{"format": 1, "pools": [...], "jobs": [...]}`); daemons convert it to these
structs and refuse what does not fit. Durations are int milliseconds (`_ms`), sizes int bytes, texts that depend on
the task are expressions of `wire.template`. Every field stands in the document, defaults included.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

FORMAT = 1


class Placement(enum.Enum):
    SPREAD = "spread"
    PACK = "pack"


class Sharing(enum.Enum):
    FAIR = "fair"
    FIFO = "fifo"


class Elevation(enum.Enum):
    FORBIDDEN = "forbidden"
    ALLOWED = "allowed"


class Finish(enum.Enum):
    WHEN_DONE = "when_done"
    MANUAL = "manual"


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base: immutable, and nothing unknown slips through."""


class Backoff(_Spec, frozen=True):
    """Exponential with full jitter: attempt n waits a random part of `first_ms * 2**(n-1)`, at most `cap_ms`."""

    first_ms: int
    cap_ms: int


class ExitCause(enum.Enum):
    """What ends a command beside its own exit."""

    TIMEOUT = "timeout"
    OOM = "oom"
    INPUT = "input"
    """Its files could not be brought in."""
    ELSE = "else"
    """Every failure."""


class ExitAction(enum.Enum):
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    STOP = "stop"
    """It failed, and its job ends."""


class ExitArm(_Spec, frozen=True, kw_only=True):
    """`75, 130..139 => retry(times = 2)`: what these ends mean. `wire.arms` says which arm matches."""

    codes: list[tuple[int, int]] = []
    """(first, last) exit codes."""
    signals: list[int] = []
    causes: list[ExitCause] = []
    action: ExitAction
    times: int | None = None
    """So many retries, counted for this arm alone; None: those of the command."""
    backoff: Backoff | None = None
    """Between the retries of this arm; None: as the command's."""
    elsewhere: bool = False
    """Again on another node, where one could take it."""


class FileSpec(_Spec, frozen=True, kw_only=True):
    """A file that lands in the command's work directory before it runs. Exactly one of `text`, `digest`, `url`."""

    path: str
    """Below the work directory, never outside."""
    text: Any = None
    """An expression of `wire.template`."""
    digest: str | None = None
    """The sha256 (hex) of a blob that the coordinator holds: a file that lay beside the submitted one."""
    size_bytes: int | None = None
    """Of that blob."""
    url: Any = None
    """An expression of `wire.template`: `http://` or `https://`."""
    sha256: str | None = None
    """What the content at `url` must hash to (hex)."""
    mode: int | None = None
    """Permission bits; None: as the file beside the submitted one has them, 0o640 for others."""


class Command(_Spec, frozen=True, kw_only=True):
    """What start, preparation, release and each task share. Exactly one of `argv` and `script` is set."""

    argv: list[Any] | None = None
    script: str | None = None
    env: dict[str, Any] = {}
    lets: dict[str, str] = {}
    """Lets that the script names, as text; they reach the command under their own names, like params."""
    timeout_ms: int | None = None
    """Per attempt; None is no limit."""
    retries: int | None = 0
    """Attempts after the first; None is without limit."""
    backoff: Backoff | None = None
    elevated: bool = False
    stop_signal: int = 15
    stop_grace_ms: int = 10_000
    arms: list[ExitArm] = []
    """What its ends mean; where none matches, 0 is a success and all else is retried while `retries` last."""
    keep_ms: int = 0
    """How long the command's directory stays after it ended."""
    files: list[FileSpec] = []


class Preparation(_Spec, frozen=True, kw_only=True):
    command: Command
    wait: bool = True
    rerun_after_reboot: bool = True
    parallel: int | None = None


class Release(_Spec, frozen=True, kw_only=True):
    command: Command
    parallel: int | None = None


class DirSpec(_Spec, frozen=True):
    """A directory per node and job, removed after release. `fresh` empties it before each preparation attempt."""

    name: str
    size_bytes: int | None = None
    fresh: bool = False


class AxisSpec(_Spec, frozen=True):
    """See `wire.sweep.axis_from_plain`: exactly one of `range` (first, last, step; both ends in) and `values`."""

    names: list[str]
    range: tuple[int, int, int] | None = None
    values: list[Any] | None = None


class Needs(_Spec, frozen=True):
    """What one task holds while it runs, exclusively, and may not exceed where the node can enforce it."""

    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpus: int | None = None
    """Whole ones: a GPU is one task's at a time."""
    labels: list[str] = []
    """What the node must be; takes nothing of it. `name` or `name=value`."""
    others: dict[str, float] = {}
    """Of resources that nodes declare by name."""

    def __hash__(self) -> int:
        return hash((self.cpus, self.memory_bytes, self.disk_bytes, self.gpus))


class When(enum.Enum):
    """When a dependency is met."""

    SUCCEEDED = "succeeded"
    """All of them succeeded (`after = x`)."""
    DONE = "done"
    """All of them ended, however (`x.done`)."""
    FAILED = "failed"
    """One of them failed for good (`x.failed`)."""


class After(_Spec, frozen=True):
    """One element of `after`."""

    group: int
    """Position in `JobSpec.groups`."""
    when: When = When.SUCCEEDED
    axes: list[str] = []
    """Names of axes of both: only the elements with this task's values there. Empty: all of the group."""


class GroupSpec(_Spec, frozen=True, kw_only=True):
    """One `task` block: a group of `Sweep(name, axes).size` tasks."""

    name: str
    axes: list[AxisSpec] = []
    command: Command
    slots: int = 1
    needs: Needs = Needs()
    optional: bool = False
    """Its failure is recorded, and counts neither for `after` nor for the result."""
    if TYPE_CHECKING:
        after: list[After] = []
    else:
        after: list[After | int] = []
    """What must hold before. Stored by an earlier version, a bare number stands for all of that group's success."""

    def __post_init__(self) -> None:
        if any(isinstance(element, int) for element in self.after):
            read = [After(element) if isinstance(element, int) else element for element in self.after]
            msgspec.structs.force_setattr(self, "after", read)


class JobSpec(_Spec, frozen=True, kw_only=True):
    name: str
    pool: str
    priority: int = 0
    timeout_ms: int | None = None
    finish: Finish = Finish.WHEN_DONE
    on_end: list[Any] | None = None
    """An argv that the coordinator's machine runs, at least once, when the job is over, if it is allowed there."""
    stop_after: int | None = None
    """`on_failure = stop(after = n)`: end the job when so many tasks failed for good; None continues."""
    parallel: int | None = None
    release_grace_ms: int = 900_000
    env: dict[str, Any] = {}
    values: dict[str, str] = {}
    """Params as texts, null ones left out: every command of the job sees them as environment variables."""
    dirs: list[DirSpec] = []
    preparation: Preparation | None = None
    release: Release | None = None
    groups: list[GroupSpec] = []


class PoolSpec(_Spec, frozen=True, kw_only=True):
    """A `pool` block. Options that the block does not name are None: as a claim on a live pool they claim nothing."""

    name: str
    nodes: int | None = None
    slots: int | None = None
    placement: Placement | None = None
    sharing: Sharing | None = None
    elevation: Elevation | None = None
    lost_after_ms: int | None = None
    start: Command | None = None


class SpecDocument(_Spec, frozen=True, kw_only=True):
    format: int = FORMAT
    pools: list[PoolSpec] = []
    jobs: list[JobSpec] = []


DEFAULT_LOST_AFTER_MS = 900_000
