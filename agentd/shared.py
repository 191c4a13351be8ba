"""What the user of a job that is gone left in `shared/` becomes the agent's, so that the user can be another job's.

Others work in `shared/` meanwhile and may move anything there: entries are looked at and changed through handles only,
and what may have a name elsewhere is left alone and said. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from agentd.beneath import DIRECTORY, PATH, change_mode, change_owner, closing, meaning, open_entry, shown, unfix

SAID: Final = 20
"""So many of what is left are named; the rest is counted."""
_PASSES: Final = 5
_LISTS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_ODD: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class _Level:
    """A directory on the way down: what it is, and which of its directories were not entered yet."""

    name: str
    identity: tuple[int, int]
    below: list[str]


class Takeover:
    """One job user's files below a directory, taken over step by step. Holds one directory open at a time, however
    deep: the way back up is `..`, if that is where we came from."""

    def __init__(self, top: int, uid: int, path: str = "shared") -> None:
        """`top` is a handle of the directory, which stays the caller's; `path` is for sentences."""
        if uid == os.geteuid() or uid == 0:
            raise ValueError(f"user {uid} is no job's")
        self._top = top
        self._uid = uid
        self._path = path
        self._ours = (os.geteuid(), os.getegid())
        self._passes = 0
        self._here = -1
        self._entries: os._ScandirIterator[str] | None = None
        self._way: list[_Level] = []
        self._left: list[str] = []
        self._left_count = 0
        self._taken_in_pass = 0
        self.taken = 0
        self._begin()

    def close(self) -> None:
        """Let go."""
        self._leave()
        if self._here >= 0:
            os.close(self._here)
            self._here = -1

    @property
    def left(self) -> list[str]:
        """What could not be taken over, in sentences."""
        more = self._left_count - len(self._left)
        return [*self._left, *([f"{more} more entries of {self._path} are left."] if more else [])]

    def step(self, steps: int) -> bool:
        """Look at no more than `steps` entries; whether there is more to do. Raises OSError."""
        while steps > 0 and self._here >= 0:
            if self._entries is not None:
                entry = next(self._entries, None)
                if entry is None:
                    self._leave()
                else:
                    self._look(entry)
            elif self._way[-1].below:
                self._descend(self._way[-1].below.pop())
            else:
                self._ascend()
            steps -= 1
        return self._here >= 0

    # ---- the walk

    def _begin(self) -> None:
        self._passes += 1
        self._left, self._left_count, self._taken_in_pass = [], 0, 0
        self._enter(os.open(".", DIRECTORY, dir_fd=self._top), "")

    def _enter(self, fd: int, name: str) -> None:
        if self._here >= 0:
            os.close(self._here)
        self._here = fd
        self._way.append(_Level(name, _identity(fd), []))
        self._entries = os.scandir(fd)

    def _leave(self) -> None:
        if self._entries is not None:
            self._entries.close()
            self._entries = None

    def _look(self, entry: os.DirEntry[str]) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if self._uid in (found.st_uid, found.st_gid):
            self._take(entry.name)
        if stat.S_ISDIR(found.st_mode):
            self._way[-1].below.append(entry.name)

    def _descend(self, name: str) -> None:
        try:
            fd = open_entry(self._here, name, DIRECTORY)
        except OSError:
            return  # gone, no directory any more, or a mount, which the administrator made
        self._enter(fd, name)

    def _ascend(self) -> None:
        done = self._way.pop()
        if not self._way:
            self._end_pass()
            return
        up = os.open("..", DIRECTORY, dir_fd=self._here)
        os.close(self._here)
        self._here = up
        if _identity(up) != self._way[-1].identity:
            where = "/".join([self._path, *(shown(level.name) for level in self._way[1:]), shown(done.name)])
            self._way.clear()
            self._end_pass(f"{where} was moved while it was looked at.")

    def _end_pass(self, moved: str | None = None) -> None:
        """What was taken or moved may have hidden more: another look."""
        os.close(self._here)
        self._here = -1
        if moved is None and self._taken_in_pass == 0:
            return
        if self._passes < _PASSES:
            self._begin()
        elif moved is not None:
            self._say(moved)

    # ---- one entry

    def _take(self, name: str) -> None:
        try:
            with closing(open_entry(self._here, name, PATH)) as held:
                found = os.fstat(held)
                if self._uid not in (found.st_uid, found.st_gid):
                    return
                if not stat.S_ISDIR(found.st_mode) and found.st_nlink != 1:
                    self._say(f"{self._where(name)} has {found.st_nlink} names, so that it may be somewhere else too.")
                    return
                try:
                    self._change(held, found)
                except PermissionError:
                    if not unfix(held):
                        raise
                    self._change(held, found)
                self.taken += 1
                self._taken_in_pass += 1
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"{self._where(name)} could not be taken over: {meaning(error)}.")

    def _change(self, held: int, found: os.stat_result) -> None:
        """First no more rights for who runs it, or of this user by name; then ours. Raises OSError."""
        if not stat.S_ISLNK(found.st_mode):
            if found.st_mode & _ODD:
                change_mode(held, stat.S_IMODE(found.st_mode) & ~_ODD)
            for each in _LISTS:
                with contextlib.suppress(OSError):  # there is none, or this file system has none
                    os.removexattr(f"/proc/self/fd/{held}", each)
        owner = self._ours[0] if found.st_uid == self._uid else -1
        group = self._ours[1] if found.st_gid == self._uid else -1
        change_owner(held, owner, group)

    def _where(self, name: str) -> str:
        return "/".join([self._path, *(shown(level.name) for level in self._way[1:]), shown(name)])

    def _say(self, sentence: str) -> None:
        self._left_count += 1
        if len(self._left) < SAID:
            self._left.append(sentence)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
