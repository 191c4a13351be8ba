"""What is kept of commands' output, so that it outlives node and directory: in a file of its own beside the log.

None of it is read at start or held in memory. It goes with its job; where it grows too large the oldest goes first, and
that is remembered. Everything here blocks but `answer`: call it in its thread.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import trio

from coordinator.logs import piece, words
from coordinator.sessions import KeptOutput, Lookup, OutputsSaid
from wire.ledger import StoreError
from wire.messages import KeptStream, Message, OutputsTaken, Refused, Reply
from wire.writer import WriterThread, writer_thread

FILE: Final = "outputs.sqlite"
MIB: Final = 1024 * 1024
ROW_BYTES: Final = 512
"""Counted for each output beside its bytes: many small ones fill a disk too."""
MAX_WAITING: Final = 64 * MIB
"""Bytes that wait to be kept: more is let go."""
_AT_ONCE: Final = 64
"""Of the oldest, looked at together when room is made."""
_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS output (seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL,
    grp INTEGER NOT NULL, idx INTEGER NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL,
    bytes INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS output_whose ON output (job, grp, idx, attempt)",
    "CREATE INDEX IF NOT EXISTS output_job ON output (job, seq)",
    "CREATE INDEX IF NOT EXISTS output_owner ON output (owner, seq)",
    "CREATE TABLE IF NOT EXISTS content (seq INTEGER PRIMARY KEY, stdout BLOB NOT NULL, stderr BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS dropped (job TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
)
_STREAM: Final = msgspec.msgpack.Decoder(KeptStream)


_WHOSE: Final = "job = ? AND grp = ? AND idx = ? AND attempt = ?"


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[outputs]` of the configuration: how much is kept of a job, of all jobs of a submitter, in all."""

    job_mib: int = 64
    owner_mib: int = 256
    total_mib: int = 1024


class Found(NamedTuple):
    """An output, if it is there, and how many of its job were dropped for newer ones."""

    stream: KeptStream | None
    dropped: int


class Outputs:
    """The open file. Invariant: what is kept is within the bounds, but for one output."""

    def __init__(self, connection: sqlite3.Connection, path: Path, bounds: Bounds) -> None:
        self._do = connection.execute
        self._connection = connection
        self._path = path
        self._bounds = bounds
        with self._told():
            self._owners = self._sums("owner")
            self._jobs = self._sums("job")
        self._total = sum(self._jobs.values())

    @classmethod
    def open(cls, path: Path, bounds: Bounds) -> Outputs:
        """Open or make it. What can't be read any more is begun anew: none of it is needed. Raises StoreError."""
        try:
            try:
                connection = _connected(path)
            except sqlite3.DatabaseError:
                for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                    name.unlink(missing_ok=True)
                connection = _connected(path)
        except (sqlite3.Error, OSError) as error:
            raise _failed(path, error) from None
        return cls(connection, path, bounds)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _sums(self, whose: str) -> dict[str, int]:
        rows = self._do(f"SELECT {whose}, sum(bytes) FROM output GROUP BY {whose}")  # a column's name of ours
        return {str(name): int(size) for name, size in rows}

    # ---- in

    def keep(self, outputs: Sequence[KeptOutput]) -> None:
        """Keep these, in place of what was kept of the same attempts; durable when it returns. Raises StoreError."""
        with self._transaction():
            for output in outputs:
                self._remove(self._rows(_WHOSE, output.job, output.group, output.index, output.attempt))
                self._add(output)
                self._make_room(output)

    def _add(self, output: KeptOutput) -> None:
        streams = (output.stdout, output.stderr)
        size = ROW_BYTES + sum(len(stream.head) + len(stream.tail) for stream in streams)
        key = (output.job, output.group, output.index, output.attempt, output.owner, size)
        made = self._do("INSERT INTO output (job, grp, idx, attempt, owner, bytes) VALUES (?, ?, ?, ?, ?, ?)", key)
        packed = [msgspec.msgpack.encode(stream) for stream in streams]
        self._do("INSERT INTO content VALUES (?, ?, ?)", (made.lastrowid, *packed))
        self._count(output.job, output.owner, size)

    def _count(self, job: str, owner: str, size: int) -> None:
        for sums, name in ((self._jobs, job), (self._owners, owner)):
            sums[name] = sums.get(name, 0) + size
            if not sums[name]:
                del sums[name]
        self._total += size

    def _make_room(self, latest: KeptOutput) -> None:
        """The oldest goes: of the job, of its owner, of all."""
        bounds = self._bounds
        while self._jobs.get(latest.job, 0) > bounds.job_mib * MIB and self._drop("job = ?", latest.job):
            pass
        while self._owners.get(latest.owner, 0) > bounds.owner_mib * MIB and self._drop("owner = ?", latest.owner):
            pass
        while self._total > bounds.total_mib * MIB and self._drop("seq > ?", 0):
            pass

    def _rows(self, which: str, *values: str | int) -> list[tuple[int, str, str, int]]:
        """`which` is text of ours."""
        return self._do(f"SELECT seq, job, owner, bytes FROM output WHERE {which}", values).fetchall()

    def _drop(self, which: str, value: str | int) -> bool:
        """The oldest of these goes, but never the very latest; whether there was any."""
        rows = self._rows(f"{which} AND seq < (SELECT max(seq) FROM output) ORDER BY seq LIMIT 1", value)
        self._remove(rows)
        for _, job, _, _ in rows:
            self._do("INSERT INTO dropped VALUES (?, 1) ON CONFLICT (job) DO UPDATE SET count = count + 1", (job,))
        return bool(rows)

    def _remove(self, rows: Sequence[tuple[int, str, str, int]]) -> None:
        for seq, job, owner, size in rows:
            self._do("DELETE FROM output WHERE seq = ?", (seq,))
            self._do("DELETE FROM content WHERE seq = ?", (seq,))
            self._count(job, owner, -size)

    # ---- out

    def find(self, lookup: Lookup) -> Found:
        """What was kept of the output that is asked for. Raises StoreError."""
        with self._told():
            row = self._do(
                f"SELECT {'stderr' if lookup.stderr else 'stdout'} FROM output JOIN content USING (seq) WHERE {_WHOSE}",
                (lookup.job, lookup.group, lookup.index, lookup.attempt),
            ).fetchone()
            dropped = self._do("SELECT count FROM dropped WHERE job = ?", (lookup.job,)).fetchone()
        return Found(None if row is None else _STREAM.decode(row[0]), 0 if dropped is None else int(dropped[0]))

    def forget(self, job: str) -> None:
        """The job is gone, and so is this. Raises StoreError."""
        with self._transaction():
            while rows := self._rows("job = ? LIMIT ?", job, _AT_ONCE):
                self._remove(rows)
            self._do("DELETE FROM dropped WHERE job = ?", (job,))

    def retain(self, jobs: Collection[str]) -> None:
        """After a start: what is of other jobs goes. Raises StoreError."""
        with self._told():
            dropped = [str(job) for (job,) in self._do("SELECT job FROM dropped")]
        for job in {*self._jobs, *dropped}.difference(jobs):
            self.forget(job)

    # ---- the file

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        sums = dict(self._jobs), dict(self._owners), self._total
        with self._told():
            self._do("BEGIN IMMEDIATE")
            try:
                yield
                self._do("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._do("ROLLBACK")
                self._jobs, self._owners, self._total = sums
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise _failed(self._path, error) from None


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for statement in _SCHEMA:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _failed(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} can't be used: {error}.")


# ---- its thread


class Keeping:
    """What nodes and people want of the outputs, done one after the other on a thread of its own. What the disk has no
    room for is not kept. Invariant: what goes with a job is asked to go after all that is to be kept of it."""

    def __init__(self, writer: WriterThread[Outputs], send: Callable[[int, Message], None], log: Any) -> None:
        self._writer = writer
        self._send = send
        self._log = log
        self._asked, self._work = trio.open_memory_channel[OutputsSaid | Lookup | str](math.inf)
        self._speaking: set[int] = set()
        self._bytes = 0

    def take(self, said: OutputsSaid) -> bool:
        """Have it kept, then answered; False: the one before it is not answered yet."""
        if said.session in self._speaking:
            return False
        self._speaking.add(said.session)
        if self._bytes > MAX_WAITING:
            self._log.error("outputs come faster than they can be kept", dropped=len(said.outputs))
            said = replace(said, outputs=[])
        self._bytes += _size(said)
        self._asked.send_nowait(said)
        return True

    def find(self, lookup: Lookup) -> None:
        """Have a request answered."""
        self._asked.send_nowait(lookup)

    def forget(self, job: str) -> None:
        self._asked.send_nowait(job)

    async def run(self) -> None:
        """For ever."""
        async for asked in self._work:
            match asked:
                case OutputsSaid():
                    await self._keep(asked)
                case Lookup():
                    await self._find(asked)
                case _:
                    await self._try(partial(Outputs.forget, job=asked))

    async def _keep(self, said: OutputsSaid) -> None:
        if said.outputs:
            await self._try(lambda outputs: outputs.keep(said.outputs))
        self._bytes -= _size(said)
        self._speaking.discard(said.session)
        self._send(said.session, OutputsTaken(said.number))

    async def _find(self, lookup: Lookup) -> None:
        try:
            found = await self._writer.do(lambda outputs: outputs.find(lookup))
        except StoreError as error:
            self._send(lookup.session, Refused(request=lookup.request, code=lookup.code, message=str(error)))
        else:
            self._send(lookup.session, answer(lookup, found))

    async def _try(self, act: Callable[[Outputs], None]) -> bool:
        try:
            await self._writer.do(act)
        except StoreError as error:
            self._log.error("outputs can't be kept", reason=str(error))
            return False
        return True


def _size(said: OutputsSaid) -> int:
    return sum(len(stream.head) + len(stream.tail) for kept in said.outputs for stream in (kept.stdout, kept.stderr))


@asynccontextmanager
async def open_outputs(state: Path, bounds: Bounds, jobs: Collection[str]) -> AsyncIterator[WriterThread[Outputs]]:
    """The outputs of a state directory, those of other jobs gone. Raises StoreError."""
    async with writer_thread(lambda: Outputs.open(state / FILE, bounds), Outputs.close) as writer:
        await writer.do(lambda outputs: outputs.retain(jobs))
        yield writer


# ---- what is said of it


def answer(lookup: Lookup, found: Found) -> Reply | Refused:
    """The reply to who asked: the piece, or why there is none."""
    stream = found.stream
    if stream is None:
        why = f"{lookup.sentence}, and nothing was kept here"
        if found.dropped:
            why = f"{lookup.sentence}; {found.dropped} outputs of the job were dropped here for newer ones ([outputs])"
        if lookup.follow and not lookup.said.get("last"):
            return Reply(lookup.request, {"content": b"", "size": 0, "end": True, "why": why, **lookup.said})
        return Refused(request=lookup.request, code=lookup.code, message=why)
    body = piece(stream, lookup.offset, lookup.limit)
    return Reply(lookup.request, {**body, "kept": words(stream), "why": lookup.sentence, **lookup.said})
