"""Files that commands of a job bring in, on their way from the coordinator to where the agent keeps them: piece by
piece, one at a time, going on where a break or a restart left off. Pure; durable is only what lies on the disk.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agentd.desk import Desk
from agentd.environment import HeldFile, held_files
from agentd.events import PieceTaken, TakePiece
from agentd.model import Job
from wire.messages import BlobPiece, BlobWanted
from wire.spec import Command

TRIES: Final = 3
AGAIN_S: Final = 1.0
"""After the disk refused a piece, or what came was something else."""
OUT_OF_CONTACT: Final = "DownloadFailed: the coordinator, which has the file {path}, is out of contact."


@dataclass(slots=True)
class _Coming:
    """The files of one job that are not all here yet."""

    left: deque[HeldFile]
    held: int | None = None
    """Bytes of the first one that are here, once the disk was asked."""
    looking: int | None = None
    """The turn in which the disk was asked, until it answers."""
    tries: int = 0
    again_at: float | None = None


@dataclass(slots=True)
class _Shelf:
    """What is known of a job's files in this life."""

    here: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    """digest → why it can't be had."""


class Bringing:
    """Invariant: at most one piece is asked for at a time, and it is the next of its file."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._coming: dict[str, _Coming] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._asked: tuple[str, str] | None = None
        self._turn = 0
        """Which question to the disk this is: what it answers of an earlier round's files is of no use."""

    def begin(self, job: Job) -> bool:
        """The job's directories are there: see to its files. Whether some are not here yet."""
        name = job.body.job
        shelf = self._shelves.setdefault(name, _Shelf())
        shelf.missing.clear()
        left = deque(file for file in held_files(job) if file.digest not in shelf.here)
        if not left:
            return False
        self._coming[name] = _Coming(left)
        self._look(name)
        return True

    def under_way(self, job: str) -> bool:
        return job in self._coming

    def forget(self, job: str) -> None:
        """The job's files are removed, or about to be."""
        self._coming.pop(job, None)
        self._shelves.pop(job, None)

    def disconnected(self) -> None:
        self._asked = None

    def misses(self, job: str) -> bool:
        """Whether a file of the job could not be brought here."""
        shelf = self._shelves.get(job)
        return shelf is not None and bool(shelf.missing)

    def lacking(self, job: str, command: Command) -> str | None:
        """Why a file of this command can't be brought in here; None: all are here."""
        shelf = self._shelves.get(job)
        if shelf is None or not shelf.missing:
            return None
        reasons = (shelf.missing.get(file.digest) for file in command.files if file.digest is not None)
        return next((reason for reason in reasons if reason is not None), None)

    # ---- pieces

    def piece(self, message: BlobPiece) -> str | None:
        """One came; the job of which all is here, or known to be missing, by now."""
        coming = self._coming.get(message.job)
        awaited = self._asked == (message.job, message.digest)
        if awaited:
            self._asked = None
        if not awaited or coming is None or coming.looking is not None or coming.left[0].digest != message.digest:
            return None
        if message.refused is not None or not message.content or message.offset != coming.held:
            reason = message.refused or "the coordinator answered with another piece."
            return self._miss(message.job, f"DownloadFailed: {coming.left[0].path}: {reason}")
        self._look(message.job, message.offset, message.content)
        return None

    def taken(self, event: PieceTaken) -> str | None:
        """The disk has taken a piece, or said what it has; the job of which all is here, or known to be missing."""
        coming = self._coming.get(event.job)
        if coming is None or coming.looking != event.turn:
            return None
        coming.looking = None
        if event.failure is not None:
            coming.tries += 1
            if coming.tries >= TRIES:
                return self._miss(event.job, event.failure)
            coming.held, coming.again_at = None, self._desk.now.boottime + AGAIN_S
            return None
        if event.whole:
            self._shelves[event.job].here.add(event.digest)
            return self._next(event.job)
        coming.held = event.held
        return None

    def _look(self, job: str, offset: int = 0, content: bytes = b"") -> None:
        coming = self._coming[job]
        self._turn += 1
        coming.looking, coming.again_at = self._turn, None
        file = coming.left[0]
        self._desk.ready.chores.append(
            TakePiece(job, file.digest, self._turn, file.size, offset, content, file.path, closed=file.closed)
        )

    def _miss(self, job: str, reason: str) -> str | None:
        self._shelves[job].missing[self._coming[job].left[0].digest] = reason
        return self._next(job)

    def _next(self, job: str) -> str | None:
        coming = self._coming[job]
        coming.left.popleft()
        coming.held, coming.tries = None, 0
        if coming.left:
            self._look(job)
            return None
        del self._coming[job]
        return job

    # ---- time

    def advance(self) -> None:
        """Ask for the next piece, and the disk again."""
        for job, coming in self._coming.items():
            if coming.again_at is not None and self._desk.now.boottime >= coming.again_at:
                self._look(job)
            wanted = coming.held is not None and coming.looking is None
            if wanted and self._asked is None and self._desk.joined:
                self._asked = (job, coming.left[0].digest)
                self._desk.send(BlobWanted(job, coming.left[0].digest, coming.held or 0))

    def give_up(self, job: str) -> bool:
        """Nobody can be asked, and the job is to be released: what is not here is missing. Whether that ends it."""
        coming = self._coming.get(job)
        if coming is None or self._desk.joined or coming.looking is not None:
            return False
        shelf = self._shelves[job]
        shelf.missing.update({file.digest: OUT_OF_CONTACT.format(path=file.path) for file in coming.left})
        del self._coming[job]
        return True

    def next_due(self) -> list[float]:
        return [coming.again_at for coming in self._coming.values() if coming.again_at is not None]
