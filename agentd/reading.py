"""Reading files below a node's root for people: regular files only, in pieces, of whom they may be of.

What lies there was put there by jobs: links are not followed, mounts not entered, nothing but a regular file is opened,
and opening waits for nobody. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from agentd.beneath import DIRECTORY, PATH, FilesError, closing, open_beneath, reopened, sentence, shown
from wire.messages import NOTHING_WRITTEN, KeptStream

TAIL_BYTES: Final = 64 << 10
PIECE_LIMIT: Final = 512 << 10
LISTING_LIMIT: Final = 10_000
LISTING_BYTES: Final = 900 << 10
"""Of one listing, so that it fits a frame, also as it is told to people: whatever jobs call their files."""
_ROW_BYTES: Final = 60
"""What an entry takes there beside its name."""
PATH_CHARS: Final = 4096
_FAR: Final = 2**62
PRIVATE: Final = ".agent"
"""The agent's own directory below the root; nobody reads it through us."""

Owners = Callable[[int], bool]
"""Whether what is read may be this user's, if it is not the agent's."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file from `offset`; `size` is the file's; `end`: there is no more just now."""

    content: bytes
    offset: int
    size: int
    end: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """(name, is directory, size, wall time of change), sorted by name; `truncated`: there are more."""

    entries: list[tuple[str, bool, int, float]]
    truncated: bool


class Reading:
    """What may be read below the directory `root` is a handle of."""

    def __init__(self, root: int) -> None:
        self._root = root

    def piece(self, path: str, offset: int, limit: int, owners: Owners | None = None) -> Piece:
        """At most `limit` bytes of a regular file below the root; a negative offset counts from the end. Without
        `owners` it may be anybody's. Raises FilesError."""
        limit = max(0, min(limit, PIECE_LIMIT))
        with self._opened(path, "read", owners) as held:
            if not stat.S_ISREG(os.fstat(held).st_mode):
                raise FilesError(f"Could not read {path}: it is no regular file.")
            with closing(_without_waiting(held, path)) as fd:
                size = os.fstat(fd).st_size
                start = min(offset, _FAR) if offset >= 0 else max(0, size + offset)
                content = os.pread(fd, limit, start)
                return Piece(content, start, size, start + len(content) >= size)

    def tail(self, path: str, limit: int = TAIL_BYTES, owners: Owners | None = None) -> KeptStream:
        """The last bytes of a regular file below the root, and its size; nothing when it can't be read."""
        try:
            read = self.piece(path, -limit, limit, owners)
        except FilesError:
            return NOTHING_WRITTEN
        return KeptStream(read.size, b"", read.content)

    def listing(self, path: str, limit: int = LISTING_LIMIT, owners: Owners | None = None) -> Listing:
        """The first `limit` entries of a directory below the root, by name; fewer where names are long. Raises
        FilesError."""
        with self._opened(path, "list", owners) as held:
            if not stat.S_ISDIR(os.fstat(held).st_mode):
                raise FilesError(f"Could not list {path}: it is no directory.")
            with closing(reopened(held, DIRECTORY & ~os.O_NOFOLLOW)) as fd:
                top = os.path.samestat(os.fstat(fd), os.fstat(self._root))
                with os.scandir(fd) as entries:
                    names = heapq.nsmallest(
                        limit + 1, (entry.name for entry in entries if not (top and entry.name == PRIVATE))
                    )
                told = _fitting(names[:limit])
                rows = [row for name in told if (row := _row(fd, name)) is not None]
        return Listing(rows, len(names) > len(told))

    @contextlib.contextmanager
    def _opened(self, path: str, doing: str, owners: Owners | None) -> Iterator[int]:
        """A handle of what `path` names below the root, good for looking at it only."""
        if len(path) > PATH_CHARS:
            raise FilesError(f"Could not {doing} {path[:100]}…: no path is as long as this.")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if parts[:1] == [PRIVATE]:
            raise FilesError(f"Could not {doing} {path}: it is the agent's own.")
        above, _, name = path.rstrip("/").rpartition("/")
        if path.startswith("/") and not above:
            above = "/"  # refused below, as any path that is not relative
        try:
            with (
                closing(open_beneath(self._root, above, PATH | os.O_DIRECTORY, one_mount=True)) as parent,
                closing(open_beneath(parent, name, PATH, one_mount=True)) as held,
            ):
                if owners is not None and not _may_be_read(os.fstat(held), os.fstat(parent), owners):
                    raise FilesError(f"Could not {doing} {path}: it is another user's.")
                yield held
        except OSError as error:
            raise FilesError(sentence(error, f"{doing} {path}"), isinstance(error, FileNotFoundError)) from error


def _without_waiting(held: int, path: str) -> int:
    try:
        return reopened(held, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.EAGAIN:  # a lease of fcntl(2)
            raise FilesError(f"Could not read {path}: a process of its owner keeps it closed to others.") from None
        raise


def _may_be_read(found: os.stat_result, parent: os.stat_result, owners: Owners) -> bool:
    """Also what is the agent's, unless it may be somewhere else, secret, and only have got another name here: where
    others may make names, and the kernel lets anybody make another one for any file."""
    if owners(found.st_uid):
        return True
    ours = os.geteuid()
    if found.st_uid != ours or stat.S_ISDIR(found.st_mode):
        return found.st_uid == ours
    if parent.st_uid == ours and not parent.st_mode & 0o022:
        return True
    return found.st_nlink == 1 and (bool(found.st_mode & 0o004) or _links_are_protected())


def _links_are_protected() -> bool:
    """Whether nobody can make another name for a file that he can't write."""
    try:
        with open("/proc/sys/fs/protected_hardlinks", "rb") as file:
            return file.read().strip() == b"1"
    except OSError:
        return False


def _fitting(names: list[str]) -> list[str]:
    """The first of these, as many as one listing can tell."""
    size = 0
    for number, name in enumerate(names):
        size += len(shown(name).encode()) + _ROW_BYTES
        if size > LISTING_BYTES:
            return names[:number]
    return names


def _row(directory: int, name: str) -> tuple[str, bool, int, float] | None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return shown(name), stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime
