"""Deletion that nothing in the deleted tree can lead astray.

What goes is first renamed into the trash, where its owner can't reach it by any path, and deleted from there in small
steps: below handles, never through a link, never onto a mount, whatever else moves the tree meanwhile. What can't be
deleted stays and is said. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import Final

from agentd.beneath import DIRECTORY, PATH, change_mode, closing, meaning, open_entry, shown, unfix

_DEEP: Final = 40
"""Directories deeper than this are moved to the top of the trash before they are deleted."""
_FAILURES: Final = 5_000
"""So many entries of one tree that can't be deleted cost no step: each call meets them again, and comes to what is
behind them. Of a tree with more the rest is left with them."""
_AGAIN: Final = 3
"""How often a directory that something appears in is emptied."""
_BETWEEN: Final = "~"
"""In the name of what lies in the trash, after the job it was of; no job's name holds it."""

Failure = tuple[str, str]
"""(path below where it was met, why it could not be removed)."""


class _PausedError(Exception):
    """The steps of this call are used up."""


class _HopelessError(Exception):
    """Too much of one tree can't be deleted; the text says why."""


class _Round:
    """One call of `empty`: so many entries are looked at; `job` marks what is moved to the top."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.job = ""
        self._failures = 0

    def begin(self, name: str) -> None:
        """The next tree."""
        self.job = name.partition(_BETWEEN)[0]
        self._failures = 0

    def fail(self, failure: Failure) -> None:
        """An entry stays."""
        self.left += 1
        self._failures += 1
        if self._failures > _FAILURES:
            raise _HopelessError(failure[1])

    def take(self) -> None:
        if self.left <= 0:
            raise _PausedError
        self.left -= 1


class Trash:
    """A directory of what is to be deleted. `path` is for sentences only. Several threads may call it at once."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._stuck: dict[str, Failure] = {}
        """Not to be removed: not tried again before `retry`."""

    def discard(self, parent: int, name: str, job: str = "") -> None:
        """Rename into the trash, as what was this job's; nothing there is fine. Raises OSError."""
        target = f"{job}{_BETWEEN}{secrets.token_hex(8)}"

        def rename() -> None:
            os.rename(name, target, src_dir_fd=parent, dst_dir_fd=self._fd)

        try:
            rename()
        except FileNotFoundError:
            return
        except PermissionError:
            # A fixed entry; or a directory that its owner may not write, which can't change its parent.
            if not _loosened(parent, name):
                raise
            rename()

    def empty(self, steps: int, job: str | None = None) -> bool:
        """Delete, of this job's or all, looking at no more than `steps` entries; whether there is more to do. What
        can't be deleted stays (see `leftovers`)."""
        this = _Round(steps)
        try:
            for name in self._names(job):
                if name not in self._stuck:
                    failure = self._removed(name, this)
                    if failure is not None:
                        self._stuck[name] = failure
        except _PausedError:
            return True
        return any(name not in self._stuck for name in self._names(job))  # what was deep was moved to the top

    def holds(self, job: str) -> bool:
        """Whether something of this job is not deleted yet, or can't be."""
        return any(True for _ in self._names(job))

    def leftovers(self, job: str | None = None) -> list[str]:
        """What of this job, or at all, can't be deleted as far as is known, in sentences."""
        stuck = dict(self._stuck)  # other threads delete meanwhile
        there = set(self._names(job))
        for name in stuck if job is None else ():
            if name not in there:
                self._stuck.pop(name, None)
        return [
            f"{self._path}/{shown(where)} could not be removed: {reason}."
            for name, (where, reason) in sorted(stuck.items())
            if name in there
        ]

    def retry(self, job: str) -> None:
        """Somebody may have removed what kept this job's from being deleted."""
        for name in self._names(job):
            self._stuck.pop(name, None)

    def _names(self, job: str | None) -> list[str]:
        names = os.listdir(self._fd)
        return names if job is None else [name for name in names if name.partition(_BETWEEN)[0] == job]

    # ---- one entry and what is below it

    def _removed(self, name: str, this: _Round) -> Failure | None:
        """A whole tree of the trash."""
        this.begin(name)
        try:
            return self._remove(self._fd, name, this, 0)
        except _HopelessError as error:
            return name, str(error)

    def _remove(self, parent: int, name: str, this: _Round, depth: int) -> Failure | None:
        this.take()
        try:
            os.unlink(name, dir_fd=parent)
            return None
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            pass
        except PermissionError as error:  # also of a fixed directory
            if not _is_directory(parent, name):
                return self._insist(lambda: os.unlink(name, dir_fd=parent), parent, name, error)
        except OSError as error:
            return name, meaning(error)
        if depth > _DEEP:
            return self._raise(parent, name, this)
        return self._remove_directory(parent, name, this, depth)

    @staticmethod
    def _insist(act: Callable[[], None], parent: int, name: str, error: OSError) -> Failure | None:
        """Do it again when what forbade it is taken away, if it can be."""
        if not _loosened(parent, name):
            return name, meaning(error)
        try:
            act()
        except FileNotFoundError:
            return None
        except OSError as again:
            return name, meaning(again)
        return None

    def _raise(self, parent: int, name: str, this: _Round) -> Failure | None:
        target = f"{this.job}{_BETWEEN}{secrets.token_hex(8)}"

        def rename() -> None:
            os.rename(name, target, src_dir_fd=parent, dst_dir_fd=self._fd)

        try:
            rename()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            return self._insist(rename, parent, name, error)
        except OSError as error:
            return name, meaning(error)
        return None

    def _remove_directory(self, parent: int, name: str, this: _Round, depth: int) -> Failure | None:
        for _ in range(_AGAIN):
            try:
                fd = _open_to_empty(parent, name)
            except FileNotFoundError:
                return None
            except OSError as error:
                return name, "something is mounted there" if error.errno == errno.EXDEV else meaning(error)
            with closing(fd):
                failure = self._empty(fd, this, depth)
            if failure is not None:
                return f"{name}/{failure[0]}", failure[1]
            try:
                os.rmdir(name, dir_fd=parent)
                return None
            except FileNotFoundError:
                return None
            except PermissionError as error:
                return self._insist(lambda: os.rmdir(name, dir_fd=parent), parent, name, error)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    return name, meaning(error)
        return name, "something appears in it again and again"

    def _empty(self, fd: int, this: _Round, depth: int) -> Failure | None:
        first = None
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    failure = self._remove(fd, entry.name, this, depth + 1)
                    if failure is not None:
                        this.fail(failure)
                        first = first or failure
        except OSError as error:
            return first or (".", meaning(error))
        return first


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _loosened(parent: int, name: str) -> bool:
    """Take away what may keep an entry from being removed or moved: flags of its directory and of itself, and missing
    rights of its owner, if it is a directory. Whether anything was."""
    loosened = unfix(parent)
    try:
        fd = open_entry(parent, name, PATH)
    except OSError:
        return loosened  # a mount: left as it is
    with closing(fd):
        loosened = unfix(fd) or loosened
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
            try:
                change_mode(fd, 0o700)
            except PermissionError:
                return loosened  # another user's
            loosened = True
    return loosened


def _open_to_empty(parent: int, name: str) -> int:
    """A handle of a directory that its entries can be removed by. Raises OSError."""
    try:
        fd = open_entry(parent, name, DIRECTORY)
    except PermissionError:
        _loosened(parent, name)
        fd = open_entry(parent, name, DIRECTORY)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        try:
            os.fchmod(fd, 0o700)
        except PermissionError:
            _fixed_or_anothers(fd)
    return fd


def _fixed_or_anothers(fd: int) -> None:
    """Rights of a fixed directory can be changed when it is no longer; of another user's, what can be removed is."""
    if unfix(fd):
        os.fchmod(fd, 0o700)
