"""The record log of both daemons: one SQLite file, rows `(scope, kind, body)` in the order they were committed.

One process at a time, one thread of it. WAL with `synchronous=FULL`: what `commit` returned from survives a power cut.
A full disk is told apart from every other failure, because it passes; a ballast file beside the log is given up for
room when it happens. Where others write to the same disk and would take that room at once, more is kept inside of the
log's own files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

BALLAST_BYTES: Final = 4 * 1024 * 1024
INSIDE_BYTES: Final = 1024 * 1024
_WAL_BYTES: Final = 5 * 1024 * 1024
"""More than SQLite lets it grow to before it writes it back: 1,000 pages."""
_LOOK_EVERY: Final = 256
_APPLICATION_ID: Final = 0x504B4C47  # "PKLG"
_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE record
        (seq INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL);
    CREATE INDEX record_scope ON record (scope);
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "CREATE TABLE room (filler BLOB);",
)
"""Forward steps; `PRAGMA user_version` says how many were taken. Never edit one that was released: append."""


class StoreError(Exception):
    """The log can't be used. The text says what happened, where, and what to do."""


class StoreHeld(StoreError):
    """Another process has the log open."""


class StoreDamaged(StoreError):
    """The file is no record log, or a torn one."""


class StoreFull(StoreError):
    """No room on the disk: nothing of the commit was written; try the same again later."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record: what it is forgotten with, what it is, and its bytes."""

    scope: str
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Rows with their numbers, which grow and are never given twice; `end`: none follows. `last`: the highest given."""

    rows: Sequence[tuple[int, Row]]
    end: bool
    last: int


_PAGE: Final = """
    SELECT seq, scope, kind, CASE kind WHEN ? THEN x'' ELSE body END FROM record WHERE seq >= ? {} ORDER BY seq
"""

Batch = tuple[Sequence[Row], Sequence[str]]
"""Rows to add and scopes whose older rows go first."""


class Ledger:
    """An open log. Invariant: `commit` is all or nothing, and durable when it returns."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: int, ballast_bytes: int, inside_bytes: int
    ) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._inside_bytes = inside_bytes
        self._commits = 0
        self._keep_room_inside()
        self._ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
        self._ballast.restore()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        migrations: Sequence[str] = MIGRATIONS,
        ballast_bytes: int = BALLAST_BYTES,
        inside_bytes: int = 0,
    ) -> Ledger:
        """Open or make the log, with its directory. `inside_bytes`: room to be kept inside of its files, where the
        disk has it. Raises StoreHeld, StoreDamaged, StoreFull, StoreError."""
        _make_directory(path.parent)
        lock = _lock(path)
        try:
            _take_room_back(path)
            connection = _connect(path, migrations)
        except OSError as error:
            os.close(lock)
            raise translated_os(error, path) from None
        except BaseException:
            os.close(lock)
            raise
        return cls(path, connection, lock, ballast_bytes, inside_bytes)

    def load(self) -> Iterator[Row]:
        """Every row, oldest first."""
        with self._told():
            for scope, kind, body in self._connection.execute("SELECT scope, kind, body FROM record ORDER BY seq"):
                yield Row(scope, kind, body)

    def load_as(self, decode: Callable[[bytes], T], way_out: str) -> list[T]:
        """Every record, oldest first. Raises StoreDamaged, with the way out, for a row that `decode` can't take."""
        loaded: list[T] = []
        for row in self.load():
            try:
                loaded.append(decode(row.body))
            except (msgspec.DecodeError, ValueError) as error:
                raise StoreDamaged(
                    f"{self.path} holds a {row.kind} that this release can't read ({error}). {way_out}"
                ) from None
        return loaded

    def page(
        self, first: int, scopes: Sequence[str] = (), *, without_body: str = "", rows: int = 256, size: int = 64 * 1024
    ) -> Page:
        """Rows numbered `first` and up in their order, of these scopes or of all: so many, of about so many bytes, at
        most, one at least. Bodies of the kind `without_body` are left out. Raises StoreError."""
        with self._told(), contextlib.ExitStack() as stack:
            asked: list[tuple[str, tuple[object, ...]]] = [(_PAGE.format(""), (without_body, first))]
            if scopes:
                asked = [(_PAGE.format("AND scope = ?"), (without_body, first, scope)) for scope in scopes]
            cursors = [
                stack.enter_context(contextlib.closing(self._connection.execute(query, terms)))
                for query, terms in asked
            ]
            found: list[tuple[int, Row]] = []
            held, end = 0, True
            for number, scope, kind, body in heapq.merge(*cursors):
                if found and (len(found) >= rows or held >= size):
                    end = False
                    break
                found.append((number, Row(scope, kind, body)))
                held += len(body)
            last = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        return Page(found, end, 0 if last is None else int(last[0]))

    def commit(self, rows: Sequence[Row], forget: Sequence[str] = ()) -> bool:
        """Forget the older rows of these scopes, then add `rows`, in one transaction. Raises StoreFull, StoreError."""
        return self.commit_all([(rows, forget)])

    def commit_all(self, batches: Iterable[Batch]) -> bool:
        """Several batches in their order, in one transaction; all or nothing. True: it is durable, but room is short
        now, so take on nothing new. Raises StoreFull, StoreError."""
        batches = list(batches)
        if not self._making_room(lambda: self._write(batches)):
            self._ballast.restore()
        self._commits += 1
        if self._commits % _LOOK_EVERY == 0:
            self._keep_room_inside()
        return not self._ballast.held

    def reserve(self, name: str, count: int = 1) -> int:
        """Durably take `count` numbers of the counter `name`; the first of them (from 1). None is given twice.
        Raises StoreFull, StoreError."""
        self._making_room(lambda: self._count(name, count))
        return self._counted(name) - count + 1

    def _count(self, name: str, count: int) -> None:
        with self._transaction():
            self._connection.execute(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, count),
            )

    def _counted(self, name: str) -> int:
        with self._told():
            row = self._connection.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _making_room(self, write: Callable[[], None]) -> bool:
        """Do it, for the ballast's room if there is no other; whether that was needed. Raises StoreFull, StoreError."""
        try:
            write()
        except StoreFull:
            if not self._ballast.give_up():
                raise
            write()
            return True
        return False

    def _keep_room_inside(self) -> None:
        """Free pages inside of the log, and a write-ahead file as long as it gets: what is written into them takes
        nothing of the disk, which others may keep full. Where there is no room now, another time."""
        if not self._inside_bytes:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            do = self._connection.execute
            free = do("PRAGMA freelist_count").fetchone()[0] * do("PRAGMA page_size").fetchone()[0]
            disk = os.statvfs(self.path)
            if free < self._inside_bytes // 2 and disk.f_bavail * disk.f_frsize > 8 * self._inside_bytes:
                do("INSERT INTO room VALUES (zeroblob(?))", (self._inside_bytes,))
                do("PRAGMA wal_checkpoint").fetchone()  # only what is written back takes its place on the disk
            do("DELETE FROM room")
            fd = os.open(_ahead(self.path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.posix_fallocate(fd, 0, _WAL_BYTES)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Give the log back. What was committed is durable already."""
        if self._inside_bytes:  # SQLite removes its write-ahead file, and with it the room
            with contextlib.suppress(OSError):
                os.link(_ahead(self.path), _kept(self.path))
        with contextlib.suppress(sqlite3.Error):  # a checkpoint that fails here is made by the next open
            self._connection.close()
        os.close(self._lock)

    def _write(self, batches: Iterable[Batch]) -> None:
        with self._transaction():
            for rows, forget in batches:
                if forget:
                    self._connection.executemany("DELETE FROM record WHERE scope = ?", [(scope,) for scope in forget])
                self._connection.executemany(
                    "INSERT INTO record (scope, kind, body) VALUES (?, ?, ?)",
                    [(row.scope, row.kind, row.body) for row in rows],
                )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error


def _ahead(path: Path) -> Path:
    """SQLite's write-ahead file."""
    return path.with_name(path.name + "-wal")


def _kept(path: Path) -> Path:
    """Where its room is while nobody has the log open."""
    return path.with_name(path.name + ".room")


def _take_room_back(path: Path) -> None:
    """Let the next write-ahead file be the last one, emptied: without a header there is nothing in it."""
    kept = _kept(path)
    try:
        if not _ahead(path).exists():
            fd = os.open(kept, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(fd, bytes(4096), 0)
                os.fdatasync(fd)
            finally:
                os.close(fd)
            os.rename(kept, _ahead(path))
    except FileNotFoundError:
        return
    finally:
        kept.unlink(missing_ok=True)


class Ballast:
    """Room kept for the moment when there is none."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self.held = False

    def restore(self) -> None:
        """Put the ballast back, if the disk has that much room again."""
        if self.held:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, max(1, self._size))
            self.held = True
        except OSError:
            self._path.unlink(missing_ok=True)  # half a ballast only takes the room that is missing
        finally:
            os.close(fd)

    def give_up(self) -> bool:
        """Free the room; whether there was any to free."""
        held, self.held = self.held, False
        self._path.unlink(missing_ok=True)
        return held


def _make_directory(path: Path) -> None:
    """Make it if it is missing, durably: what is synced inside is lost with a directory that was not."""
    if path.is_dir():
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise translated_os(error, path) from None


def _lock(path: Path) -> int:
    """An exclusive lock beside the log, held as long as the descriptor is open."""
    beside = path.with_name(path.name + ".lock")
    try:
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise translated_os(error, beside) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise StoreHeld(
            f"{path.parent} is in use by {f'process {holder}' if holder else 'another process'}. "
            "Stop that one first, or choose another directory."
        ) from None
    with contextlib.suppress(OSError):  # the process id is a courtesy; a full disk must not refuse the lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def _connect(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise translated_os(error, path) from None
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        # Exclusive locking keeps WAL's index in memory: no shared-memory file whose pages a full disk can't back.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _check(connection, path)
        _migrate(connection, path, migrations)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise _translated(error, path) from error
    except StoreError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if identity != _APPLICATION_ID and not (identity == 0 and empty):
        raise StoreDamaged(f"{path} is an SQLite file of something else. Choose another directory.")
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise _damaged(path, str(finding))


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Take the steps that are missing, each in a transaction with its number."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise StoreError(
            f"{path} was written by a newer release (schema {version}, this one knows {len(migrations)}). "
            "Install that release again, or choose another directory."
        )
    for number in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[number].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _damaged(path: Path, finding: str) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is damaged ({finding.splitlines()[0][:200]}). Move it and its -wal file away; then put a copy back in "
        f"its place (`cp COPY {path}`), or what can still be read (`sqlite3 DAMAGED .recover | sqlite3 {path}`), or "
        f"start without what it held."
    )


def _translated(error: sqlite3.Error, path: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary == sqlite3.SQLITE_FULL:
        return StoreFull(f"no room left on the disk of {path}. Free some; the commit is tried again until then.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if primary == sqlite3.SQLITE_IOERR and (reason := _room_refused(path)) is not None:
        return StoreFull(f"no room left for {path} ({reason}). Free some; the commit is tried again until then.")
    return StoreError(f"{path} can't be used: {error} ({getattr(error, 'sqlite_errorname', 'no code')}).")


def _room_refused(path: Path) -> str | None:
    """Why one more page can't be written beside the log for want of room (quota, file size limit), or None.

    SQLite says only "disk I/O error" there; a broken disk must not be taken for a full one.
    """
    trial = path.with_name(path.name + ".trial")
    try:
        fd = os.open(trial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for beside in (path, path.with_name(path.name + "-wal")):
                end = beside.stat().st_size if beside.exists() else 0
                os.pwrite(fd, bytes(4096), end)
        finally:
            os.close(fd)
    except OSError as error:
        return error.strerror if error.errno in _FULL_ERRNOS else None
    finally:
        trial.unlink(missing_ok=True)
    return None


def translated_os(error: OSError, path: Path) -> StoreError:
    """An error of the file system as ours."""
    if error.errno in _FULL_ERRNOS:
        return StoreFull(f"no room left on the disk of {path}: {error.strerror}. Free some and try again.")
    return StoreError(f"{path} can't be used: {error.strerror}. Choose a directory you may write.")
