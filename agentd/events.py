"""What happens to a node's core, and what it wants done: `Event` in, `Ready` out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from agentd.dialogue import FromKeeper, ItemEnded, ToKeeper
from agentd.records import Owed, Purpose, Record
from wire.messages import Cleanliness, FromNode, KeptStream, Message, ShellEnded, TaskOutput
from wire.spec import Needs

# ---- events: the coordinator


@dataclass(frozen=True, slots=True)
class Connected:
    """A session opened (the handshake is done)."""

    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the coordinator. ReadFile and ListFiles never come here: the shell serves them."""

    message: Message


@dataclass(frozen=True, slots=True)
class Disconnected:
    reason: str = ""


# ---- events: keepers


@dataclass(frozen=True, slots=True)
class KeeperSaid:
    """A message of a keeper whose identity the shell has proven. The first one is its `hello`; right after it come
    again all of its reports that were never acked."""

    keeper: str
    said: FromKeeper


@dataclass(frozen=True, slots=True)
class KeeperDead:
    """The keeper's process is dead (or never came to be: `reason` says why), and so is, by now, all that it had
    started. `ends` and `started` (starts without an end) are what its record file holds, acked or not."""

    keeper: str
    started: frozenset[str] = frozenset()
    ends: tuple[ItemEnded, ...] = ()
    reason: str = ""


# ---- events: what the shell was asked for


@dataclass(frozen=True, slots=True)
class JobEmptied:
    """The answer to EmptyJob: no process of the job is left on this node."""

    job: str


@dataclass(frozen=True, slots=True)
class JobDirectoryMade:
    """The answer to MakeJob and MakeStart; `failure` says why it could not be done."""

    job: str
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class JobCleaned:
    """The answer to CleanJob: `leftovers` could not be removed; something is kept for `kept_s` seconds more. `clean`:
    all that was found of the job afterwards, the leftovers among it."""

    job: str
    leftovers: tuple[str, ...] = ()
    kept_s: float | None = None
    clean: Cleanliness | None = None


@dataclass(frozen=True, slots=True)
class PieceTaken:
    """The answer to TakePiece: so many bytes are held, `whole` when they are all and have the digest; `failure` says
    why nothing could be taken, beginning with its kind."""

    job: str
    digest: str
    turn: int
    held: int = 0
    whole: bool = False
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class TailsRead:
    """The answer to ReadTails."""

    keeper: str
    key: str
    stdout: KeptStream
    stderr: KeptStream


@dataclass(frozen=True, slots=True)
class TerminalOpened:
    """The answer to OpenTerminal; `failure` says why there is none."""

    shell: int
    device: str | None
    failure: str = ""


# ---- events: the node itself


@dataclass(frozen=True, slots=True)
class StoreState:
    """The disk refused commits (`full`), or takes them again: meanwhile only heartbeats and leases go out."""

    full: bool


@dataclass(frozen=True, slots=True)
class DiskSeen:
    """So many bytes are free for what stands below the root, of `size`."""

    free: int
    size: int


@dataclass(frozen=True, slots=True)
class Unkillable:
    """Processes of the job resist being killed; it is tried again until KeeperDead of the keeper, or JobEmptied."""

    job: str
    keeper: str | None = None


@dataclass(frozen=True, slots=True)
class Terminated:
    """SIGTERM: stop now, leave tasks to their keepers."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """SIGINT: leave the node clean; a second one is SIGTERM."""


@dataclass(frozen=True, slots=True)
class LifelineCut:
    """`run`, which started this embedded agent, is dead."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline passed, or just time."""


@dataclass(frozen=True, slots=True)
class OutputsRead:
    """The answer to ReadOutputs: of the first `taken` rows, but those of which nothing is there."""

    turn: int
    outputs: list[TaskOutput]
    taken: int


@dataclass(frozen=True, slots=True)
class OverdueFound:
    """The answer to FindOverdue: some that are overdue; the next one is in `next_s` seconds (None: there is none)."""

    job: str
    names: list[str]
    next_s: float | None


@dataclass(frozen=True, slots=True)
class TasksDiscarded:
    """The answer to DiscardTasks."""

    job: str


Event = (
    Connected | Received | Disconnected | KeeperSaid | KeeperDead | JobEmptied | JobDirectoryMade | JobCleaned
    | OutputsRead | OverdueFound | TasksDiscarded | PieceTaken | TailsRead | TerminalOpened | StoreState | DiskSeen
    | Unkillable
    | Terminated | Interrupted | LifelineCut | Tick
)  # fmt: skip


# ---- what the core wants done


@dataclass(frozen=True, slots=True)
class StartKeeper:
    """Start a keeper process of this name. Answered by its hello, or by KeeperDead. `elevated`: it stays root; else
    it becomes the job's user. `needs`: what its commands may not exceed, where the kernel can see to it."""

    keeper: str
    job: str
    purpose: Purpose
    elevated: bool = False
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True)
class SurveyKeeper:
    """After a restart: a keeper of an earlier life of the agent. If its process is alive let it connect, else kill
    what it left and answer KeeperDead."""

    keeper: str
    job: str
    purpose: Purpose
    elevated: bool = False
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True)
class KillKeeper:
    """Kill this keeper and all that it started; answered by KeeperDead."""

    keeper: str
    job: str


@dataclass(frozen=True, slots=True)
class ForgetKeeper:
    """What the dead keeper knew is durable here: its record file may go."""

    keeper: str


@dataclass(frozen=True, slots=True)
class EmptyJob:
    """Kill whatever is alive of a job whose keepers are all gone; answered by JobEmptied once nothing is."""

    job: str


@dataclass(frozen=True, slots=True)
class MakeJob:
    """Make `workitems/<job>/` with home, tmp and `dirs`; write `scripts` (name -> text, executable) below
    `scripts/<job>/`; move `discard` (names below the job's directory) to the trash; empty `fresh` dirs.

    `elevated` names commands, as `scripts` does, that run as root: their scripts and directories are root's, and what
    of the job stands in the place of such a directory goes to the trash. Other commands run as the job's user, which
    is leased for it if it has none here."""

    job: str
    dirs: tuple[str, ...]
    scripts: dict[str, str]
    discard: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    elevated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MakeStart:
    """As MakeJob, for an attempt of the pool's start: `directory` (below the root) is moved to the trash, and with
    `startup` itself all that earlier ones left. Answered by JobDirectoryMade for `START_JOB`."""

    directory: str
    scripts: dict[str, str]
    elevated: bool = False


@dataclass(frozen=True, slots=True)
class CleanJob:
    """Remove the job's directory but what is to be kept: `keep_s` maps a group's name, `jobpreparation` or
    `jobrelease` to the seconds its directories stay after they ended. An empty one keeps nothing. Scripts go too."""

    job: str
    keep_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class TakePiece:
    """Put a piece of a file behind those that lie with the job's scripts, if it is the next one; a piece of nothing
    only asks. `turn` comes back with the answer. `path` is where the file will land, for people. `closed`: only
    root's commands may read it."""

    job: str
    digest: str
    turn: int
    size: int
    offset: int
    content: bytes
    path: str
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ReadTails:
    """Read the last 64 KiB of stdout.txt and stderr.txt in `directory` (below the root); missing files are empty."""

    keeper: str
    key: str
    directory: str


@dataclass(frozen=True, slots=True)
class ReadOutputs:
    """Read the first `head` and the last `tail` bytes of both outputs in each directory; of those that succeeded the
    last `success` bytes."""

    turn: int
    rows: list[Owed]
    head: int
    tail: int
    success: int


@dataclass(frozen=True, slots=True)
class FindOverdue:
    """Look for directories of the job's tasks (`keep_s`: by group) that ended longer ago than that, at most `limit`."""

    job: str
    keep_s: dict[str, float]
    limit: int


@dataclass(frozen=True, slots=True)
class DiscardTasks:
    """Move these of the job's directories to the trash."""

    job: str
    names: list[str]


@dataclass(frozen=True, slots=True)
class OpenTerminal:
    """Make a pseudo-terminal for the job's user (root's for `elevated`); answered by TerminalOpened."""

    shell: int
    job: str
    elevated: bool
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class EndTerminal:
    """The shell is over: send what it still wrote, then `said`; None: nobody listens. No answer."""

    shell: int
    said: ShellEnded | None


Chore = EmptyJob | MakeJob | MakeStart | CleanJob | TakePiece | ReadTails | ReadOutputs | FindOverdue | DiscardTasks


class Leave(enum.Enum):
    """Why the agent ends."""

    STOPPED = "stopped"  # SIGTERM: keepers live on
    DEPARTED = "departed"  # nothing is owed
    REFUSED = "refused"  # the coordinator will not have this node
    REVOKED = "revoked"  # the coordinator will not have it by this key: another one needs another token


@dataclass(slots=True)
class Ready:
    """All that the shell must do, in this order."""

    records: list[Record] = field(default_factory=list)
    """Committed in one transaction BEFORE anything below (but `at_once`) is done."""
    forget: list[str] = field(default_factory=list)
    """Scopes whose older rows go in the same transaction, before the new ones are added (`records.scope_of`)."""
    at_once: list[Message | tuple[str, ToKeeper]] = field(default_factory=list)
    """What promises nothing durable, sent even while the disk is full: heartbeats to the coordinator, leases and
    pings to keepers."""
    messages: list[FromNode] = field(default_factory=list)
    """To the coordinator, in this order; dropped when that session is over."""
    epoch: int = 0
    """Of the session that `messages`, `at_once` and `hang_up` are for."""
    keepers: list[StartKeeper | SurveyKeeper | KillKeeper | ForgetKeeper] = field(default_factory=list)
    said: list[tuple[str, ToKeeper]] = field(default_factory=list)
    """(keeper, message), in this order; dropped when that keeper is dead."""
    chores: list[Chore | OpenTerminal | EndTerminal] = field(default_factory=list)
    """Work on processes and directories; each is answered by an event, in whatever order."""
    hang_up: str | None = None
    """Close that session after `messages`, with this reason, and connect again."""
    leave: Leave | None = None
    """End after everything above is done."""
    leave_reason: str = ""
