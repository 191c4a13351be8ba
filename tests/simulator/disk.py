"""A machine's disk as the daemons use it: logs of records, and directories. What is not synced may go with the power.

A log takes transactions: what `commit` returned from is there after any crash. A crash during a commit leaves all of
the transaction or nothing of it, which one is chance (a torn tail that the store has to recognise and drop).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulator.world import World


class DiskFullError(OSError):
    """The commit did not happen; the same transaction may be tried again."""


class Fate(enum.Enum):
    """What the crash left of the transaction that was being written."""

    WRITTEN = "written"
    TORN = "torn"


Row = tuple[str, bytes]
"""(scope, record)"""


@dataclass(frozen=True)
class Part:
    """One batch: older rows of the scopes in `forget` go, then `rows` are added."""

    rows: Sequence[Row]
    forget: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Transaction:
    """Batches in their order; all of them or nothing."""

    parts: Sequence[Part]

    @property
    def empty(self) -> bool:
        return not any(part.rows or part.forget for part in self.parts)


@dataclass
class RecordLog:
    """One store: rows in order of their transactions, and a counter that never gives a number twice."""

    name: str
    rows: list[Row] = field(default_factory=list)
    commits: int = 0
    version: int = 0
    """Counts over wiped disks too."""
    numbers: int = 0
    writing: Transaction | None = None
    row_numbers: list[int] = field(default_factory=list)
    """Of the rows; none is given twice."""
    last_row: int = 0

    def begin(self, transaction: Transaction) -> None:
        assert self.writing is None, f"{self.name}: one writer at a time"
        self.writing = transaction

    def commit(self) -> None:
        assert self.writing is not None, f"{self.name}: nothing to commit"
        for part in self.writing.parts:
            if part.forget:
                numbered = zip(self.row_numbers, self.rows, strict=True)
                self.row_numbers = [number for number, row in numbered if row[0] not in part.forget]
                self.rows = [row for row in self.rows if row[0] not in part.forget]
            self.rows.extend(part.rows)
            self.row_numbers.extend(range(self.last_row + 1, self.last_row + 1 + len(part.rows)))
            self.last_row += len(part.rows)
        self.commits += 1
        self.version += 1
        self.writing = None

    def crash(self, fate: Fate) -> None:
        """The process or the machine died: a transaction that was under way is there wholly or not at all."""
        if self.writing is not None and fate is Fate.WRITTEN:
            self.commit()
        self.writing = None

    def next_number(self) -> int:
        """Durable at once, never the same again."""
        self.numbers += 1
        return self.numbers


@dataclass
class AppendFile:
    """A file that is appended to and never synced: it survives its writer, but its tail goes with the power."""

    name: str
    lines: list[bytes] = field(default_factory=list)
    torn: bool = False

    def append(self, line: bytes) -> None:
        self.lines.append(line)

    def rewrite(self, lines: list[bytes]) -> None:
        self.lines = lines

    def content(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)[: -1 if self.torn else None]

    def power_loss(self, world: World) -> None:
        """Some of the tail is gone; the last line that is left may be torn."""
        kept = world.random.randint(0, len(self.lines))
        torn = self.lines[kept : kept + 1] if world.chance(0.5) else []
        del self.lines[kept:]
        if torn:
            self.lines.append(torn[0][: world.random.randint(0, len(torn[0]))])
            self.torn = True


@dataclass
class Disk:
    """One machine's disk: logs by name, files by name, and the directories that commands were given."""

    machine: str
    logs: dict[str, RecordLog] = field(default_factory=dict)
    files: dict[str, AppendFile] = field(default_factory=dict)
    directories: dict[str, float | None] = field(default_factory=dict)
    """Below the workitems directory; when the command in it ended, None while it lives (or holds no command)."""
    full: bool = False
    short: bool = False
    """It takes commits by giving up its ballast, and says so."""
    refusals: int = 0

    def copy(self, machine: str) -> Disk:
        """As another machine would have it."""
        twin = Disk(machine, directories=dict(self.directories))
        for name, log in self.logs.items():
            twin.logs[name] = RecordLog(
                f"{machine}:{name}", list(log.rows), log.commits, log.version, log.numbers,
                row_numbers=list(log.row_numbers), last_row=log.last_row,
            )  # fmt: skip
        for name, file in self.files.items():
            twin.files[name] = AppendFile(f"{machine}:{name}", list(file.lines), file.torn)
        return twin

    def log(self, name: str) -> RecordLog:
        return self.logs.setdefault(name, RecordLog(f"{self.machine}:{name}"))

    def file(self, name: str) -> AppendFile:
        return self.files.setdefault(name, AppendFile(f"{self.machine}:{name}"))

    def below(self, top: str) -> list[str]:
        return sorted(path for path in self.directories if path == top or path.startswith(top + "/"))

    def wiped(self) -> None:
        """The root directory was replaced."""
        for log in self.logs.values():
            log.rows.clear()
            log.row_numbers.clear()
            log.version += 1
        self.files.clear()
        self.directories.clear()
