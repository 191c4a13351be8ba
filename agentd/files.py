"""Everything on disk below a node's root: its layout, jobs' directories, the trash, and reading for people.

All is done below directory handles; nothing follows a link, nothing is deleted where it stands: it is renamed into the
trash and deleted from there in small steps. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import heapq
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

TAIL_BYTES: Final = 64 << 10
PIECE_LIMIT: Final = 512 << 10
LISTING_LIMIT: Final = 10_000
PRIVATE: Final = ".agent"
"""The agent's own directory below the root; nobody reads it through us."""
PRIVATE_JOB: Final = "private"
PRIVATE_ELEVATED: Final = "private-elevated"
PHASE_DIRECTORIES: Final = ("jobpreparation", "jobrelease")
_MAKE_TRIES: Final = 5
_SWEEP_TOGETHER_S: Final = 60.0
_DEEP: Final = 40
"""Directories deeper than this in the trash are moved to its top before they are deleted."""


class FilesError(Exception):
    """Something on disk could not be done; the text is a sentence for people. `missing`: there is no such file."""

    def __init__(self, reason: str, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


_MEANINGS: Final = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is no directory",
    errno.ELOOP: "it is, or leads through, a link, and links are not followed here",
    errno.EXDEV: "it leads out of the node's root or into another file system",
    errno.EACCES: "the node's user may not",
    errno.EPERM: "the node's user may not",
    errno.ENOSPC: "no space is left on the node's disk",
    errno.EDQUOT: "the disk quota of the node's user is used up",
    errno.EROFS: "the file system is read-only",
    errno.EBUSY: "something is mounted there",
    errno.ENAMETOOLONG: "a name in it is too long",
}


def sentence(error: OSError, doing: str) -> str:
    """An error of the system in words: what was being done, and why it could not be."""
    meaning = _MEANINGS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return f"Could not {doing}: {meaning}."


# ---- opening


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_SYS_OPENAT2: Final = 437
_NO_XDEV: Final = 0x01
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_BENEATH: Final = 0x08
_INSIDE: Final = _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Raises OSError; ENOSYS where the kernel has no such call."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _libc.syscall(
        _SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def _can_openat2() -> bool:
    try:
        os.close(_openat2(-100, ".", os.O_PATH, 0))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


_OPENAT2: Final = _can_openat2()


def open_beneath(directory: int, path: str, flags: int, *, openat2: bool = _OPENAT2) -> int:
    """Open `path` below a directory handle, through no link and never out of it. Raises OSError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    if "\0" in path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if openat2:
        return _openat2(directory, "/".join(parts) or ".", flags | os.O_NOFOLLOW, _INSIDE)
    here = os.dup(directory)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        try:
            below = os.open(part, (flags | os.O_NOFOLLOW | os.O_CLOEXEC) if last else _DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = below
    if parts and flags & os.O_PATH and stat.S_ISLNK(os.fstat(here).st_mode):
        os.close(here)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return here


def _open_same_mount(parent: int, name: str, flags: int, *, openat2: bool = _OPENAT2) -> int:
    """Open the directory `name`, unless something is mounted on it (EXDEV) or it is a link (ELOOP, ENOTDIR)."""
    flags |= os.O_DIRECTORY | os.O_NOFOLLOW
    if openat2:
        return _openat2(parent, name, flags, _INSIDE | _NO_XDEV)
    fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=parent)
    if _mount_of(fd) != _mount_of(parent):
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def _mount_of(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _make_directory(parent: int, name: str, mode: int) -> int:
    """The directory `name`, made if it is not there, opened. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
        with _closing(os.open(name, _DIRECTORY, dir_fd=parent)) as fd:
            os.fchmod(fd, mode)  # whatever the umask
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _make_root(root: str, job_users: bool) -> None:
    """Raises OSError."""
    if not job_users:
        os.makedirs(root, mode=0o755, exist_ok=True)
        return
    umask = os.umask(0o022)
    try:
        os.makedirs(root, mode=0o755, exist_ok=True)
    finally:
        os.umask(umask)


@dataclass(frozen=True, slots=True)
class _Whose:
    """Mode, owner and group of a directory that is made; None: ours."""

    mode: int
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def of_job(cls, user: int | None, alone: int, shared: int) -> _Whose:
        """Ours, with the mode `alone`, or `shared` with the job's group."""
        return cls(alone) if user is None else cls(shared, None, user)


def _plain(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise FilesError(f"{name!r} is no name for a directory.")
    return name


# ---- answers


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


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`leftovers` could not be removed, in sentences; `kept_s`: the next kept directory is due in so many seconds."""

    leftovers: list[str]
    kept_s: float | None


@dataclass(slots=True)
class _Budget:
    """How many more entries may be looked at before the deletion pauses."""

    steps: int
    leftovers: list[str] = field(default_factory=list)

    def take(self) -> None:
        if self.steps <= 0:
            raise _PausedError
        self.steps -= 1


class _PausedError(Exception):
    """The steps are used up; the rest is for the next call."""


# ---- the root


class NodeFiles:
    """The directories below one root, made if they are not there; locked, so that one agent at a time has them."""

    def __init__(self, root: str, *, job_users: bool = False) -> None:
        """`job_users`: jobs run as users of their own, who must be able to reach what is theirs. Raises FilesError."""
        try:
            _make_root(root, job_users)
            self.root = os.path.realpath(root)
            self._root = os.open(self.root, _DIRECTORY)
            self._agent = _make_directory(self._root, PRIVATE, 0o700)
            self._lock = self._take_lock()
            os.close(_make_directory(self._root, "shared", 0o1777))
            os.close(_make_directory(self._root, "startup", 0o755))
            self._workitems = _make_directory(self._root, "workitems", 0o755)
            if job_users:
                os.fchmod(self._workitems, 0o711)
            self._trash = _make_directory(self._root, "trash", 0o700)
            self._scripts = _make_directory(self._root, "scripts", 0o711)
            self.incarnation = self._incarnation()
        except OSError as error:
            raise FilesError(sentence(error, f"set up the node's root {root}")) from error
        self._stuck: set[str] = set()  # in the trash, not to be removed: not tried again in this life

    @property
    def agent_directory(self) -> str:
        """The agent's own directory, mode 0700."""
        return f"{self.root}/{PRIVATE}"

    @property
    def workitems(self) -> str:
        """The base directory of keepers of jobs; of the start task's keeper it is `root`."""
        return f"{self.root}/workitems"

    def close(self) -> None:
        """Unlock and let go."""
        for fd in (self._scripts, self._trash, self._workitems, self._lock, self._agent, self._root):
            os.close(fd)

    def _take_lock(self) -> int:
        if os.fstat(self._agent).st_uid != os.geteuid():
            raise FilesError(f"{self.root}/{PRIVATE} belongs to another user; an agent runs as the user who made it.")
        fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._agent)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise FilesError(f"Another agent runs on {self.root}; give this one another --root.") from None
        return fd

    def _incarnation(self) -> str:
        """The random id of this root, made once and for all."""
        with contextlib.suppress(FileNotFoundError):
            with open(
                os.open("incarnation", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._agent), encoding="ascii"
            ) as file:
                found = file.read().strip()
            if found:
                return found
        made = secrets.token_hex(16)
        self._write(self._agent, "incarnation", made + "\n", 0o600, sync=True)
        return made

    def _write(
        self, parent: int, name: str, text: str, mode: int, sync: bool = False, group: int | None = None
    ) -> None:
        """Write a file whole or not at all."""
        fresh = f".{name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(fresh, flags, mode, dir_fd=parent)
        try:
            with open(fd, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
                file.write(text)
                file.flush()
                if group is not None:
                    os.fchown(fd, -1, group)
                os.fchmod(fd, mode)
                if sync:
                    os.fsync(fd)
            os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=parent)
            raise
        if sync:
            os.fsync(parent)

    # ---- jobs

    def make_job(
        self,
        job: str,
        dirs: Collection[str],
        scripts: Mapping[str, str],
        discard: Collection[str] = (),
        fresh: Collection[str] = (),
        *,
        user: int | None = None,
        elevated: Collection[str] = (),
    ) -> None:
        """Make `workitems/<job>/` with home, tmp and dirs, and its scripts (name -> text, executable). What of it is
        there stays, but `discard` (paths below the job's directory) goes to the trash, and the dirs in `fresh` are
        emptied. `user`: the uid that the job's commands run as, None for ours; those in `elevated` (named as scripts
        are) run as us, and what is theirs is out of its reach. Raises FilesError."""
        try:
            _plain(job)
            with _closing(self._made(self._workitems, job, _Whose.of_job(user, 0o750, 0o1770), user)) as here:
                for path in discard:
                    self._discard_path(here, path)
                self._make_below(here, dirs, fresh, user)
                if elevated:
                    self._make_private(here, PRIVATE_ELEVATED, user)
                    with _closing(os.open(PRIVATE_ELEVATED, _DIRECTORY, dir_fd=here)) as held:
                        os.close(self._made(held, "home", _Whose(0o700), user))
                for name in set(PHASE_DIRECTORIES).intersection(elevated):
                    self._discard_if_of(here, name, user)
            with _closing(self._made(self._scripts, job, _Whose.of_job(user, 0o700, 0o710), user)) as held:
                for name, text in scripts.items():
                    closed = user is None or name in elevated
                    mode = 0o500 if name in elevated else 0o700 if user is None else 0o550
                    self._write(held, _plain(name), text, mode, group=None if closed else user)
        except OSError as error:
            raise FilesError(sentence(error, f"make the directories of job {job}")) from error
        except FilesError as error:
            raise FilesError(f"Could not make the directories of job {job}: {error}") from None

    def _make_below(self, here: int, dirs: Collection[str], fresh: Collection[str], user: int | None) -> None:
        for name in ("home", "tmp"):
            os.close(self._made(here, name, _Whose(0o700, user, user), user))
        if user is not None:
            self._make_private(here, PRIVATE_JOB, user)
        with _closing(self._made(here, "dirs", _Whose.of_job(user, 0o750, 0o750), user)) as held:
            for name in fresh:
                self._discard(held, _plain(name))
            for name in dirs:
                whose = _Whose(0o750) if user is None else _Whose(0o700, user, user)
                os.close(self._made(held, _plain(name), whose, user))

    def _make_private(self, here: int, name: str, user: int | None) -> None:
        """What commands see as /tmp, /var/tmp and /dev/shm; they come there by mounts alone."""
        with _closing(self._made(here, name, _Whose(0o700), user)) as held:
            for below in ("tmp", "vartmp", "shm"):
                os.close(self._made(held, below, _Whose(0o1777), user))

    def _made(self, parent: int, name: str, whose: _Whose, user: int | None) -> int:
        """The directory `name`, made if it is not there, opened. The job with this user may have put something of its
        own in its place: that goes to the trash. Raises OSError, FilesError."""
        for _ in range(_MAKE_TRIES):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                held = self._as_made(parent, name, whose, user)
                if held is not None:
                    return held
                self._discard(parent, name)
                continue
            # Nobody can have swapped it: where others may write the directory is sticky, and this entry is ours.
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            if whose.gid is not None:
                os.fchown(fd, -1 if whose.uid is None else whose.uid, whose.gid)
            os.fchmod(fd, whose.mode)
            return fd
        raise FilesError(f"something else is put in the place of {name} again and again.")

    @staticmethod
    def _as_made(parent: int, name: str, whose: _Whose, user: int | None) -> int | None:
        """The directory that was made, opened; None: the job has put something there. Raises FilesError if it is
        neither."""
        kind = "a directory"
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            owner, kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid, "a link or a file"
        else:
            owner = os.fstat(fd).st_uid
            if owner == (os.geteuid() if whose.uid is None else whose.uid):
                return fd
            os.close(fd)
        if user is not None and owner == user:
            return None
        raise FilesError(
            f"there is {kind} of user {owner} in the place of {name}. Of a job that a node holds the user is not "
            "changed ([users] in the agent's configuration)."
        )

    def _discard_if_of(self, here: int, name: str, user: int | None) -> None:
        """A directory of an elevated command that is not ours was put there by another command of the job."""
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            return
        if user is not None and (found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode)):
            self._discard(here, name)

    def script_path(self, job: str, name: str) -> str:
        """Where `make_job` put a script."""
        return f"{self.root}/scripts/{job}/{name}"

    def clean_job(self, job: str, keep_s: Mapping[str, float], now: float) -> Cleaned:
        """Move the job's directory to the trash, but what is to be kept: `keep_s` maps a group's name,
        `jobpreparation` or `jobrelease` to the seconds that its directories stay after they ended. Scripts go too.
        To be called again when something that was kept is due."""
        leftovers = self._mounts_below(f"{self.workitems}/{_plain(job)}")
        due: float | None = None
        try:
            self._discard(self._scripts, job)
            if any(seconds > 0 for seconds in keep_s.values()):
                due, kept = self._discard_overdue(job, keep_s, now)
                leftovers += kept
            if due is None:
                self._discard(self._workitems, job)
        except OSError as error:
            leftovers.append(sentence(error, f"remove workitems/{job}"))
        return Cleaned(leftovers, due)

    def _discard_overdue(self, job: str, keep_s: Mapping[str, float], now: float) -> tuple[float | None, list[str]]:
        """Discard all of a job's entries that are not to be kept (any more); when the next one is due."""
        waits: list[float] = []
        leftovers = []
        try:
            here = os.open(job, _DIRECTORY, dir_fd=self._workitems)
        except FileNotFoundError:
            return None, []
        with _closing(here):
            for name in os.listdir(here):
                # The directory of a task is its group's name, or that and `-...`; a group's name holds no `-`.
                keep = keep_s.get(name.split("-", 1)[0])
                left = 0.0 if keep is None else self._ended(here, name) + keep - now
                if left > 0:
                    waits.append(left)
                    continue
                try:
                    self._discard(here, name)
                except OSError as error:
                    leftovers.append(sentence(error, f"remove workitems/{job}/{name}"))
        # A sweep looks at all that is kept, so many ends in a row are swept together.
        due = max(min(waits), min(0.1 * max(waits), _SWEEP_TOGETHER_S), 0.05) if waits else None
        return due, leftovers

    @staticmethod
    def _ended(parent: int, name: str) -> float:
        """When the last attempt in a command's directory ended: its keeper stamped the attempt's directory then."""
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime
        with _closing(fd), os.scandir(fd) as entries:
            attempts = [
                entry.stat(follow_symlinks=False).st_mtime for entry in entries if entry.name.startswith("attempt-")
            ]
            return max([os.fstat(fd).st_mtime, *attempts])

    # ---- the trash

    def _discard_path(self, here: int, path: str) -> None:
        parent, _, name = path.rpartition("/")
        try:
            fd = open_beneath(here, parent, _DIRECTORY)
        except FileNotFoundError:
            return
        with _closing(fd):
            self._discard(fd, _plain(name))

    def _discard(self, parent: int, name: str) -> None:
        """Rename into the trash; nothing there is fine. Raises OSError."""
        target = f"{name[:100]}.{secrets.token_hex(6)}"
        try:
            os.rename(name, target, src_dir_fd=parent, dst_dir_fd=self._trash)
        except FileNotFoundError:
            return
        except PermissionError:  # a directory that its owner may not write can't change its parent
            self._open_up(parent, name)
            os.rename(name, target, src_dir_fd=parent, dst_dir_fd=self._trash)

    @staticmethod
    def _open_up(parent: int, name: str) -> None:
        """Give the owner all rights on a directory, through a handle that can't be another file's."""
        with _closing(_open_same_mount(parent, name, os.O_PATH)) as fd:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)

    def empty_trash(self, steps: int = 2000) -> bool:
        """Delete from the trash, looking at no more than `steps` entries; whether there is more to do. What can't be
        deleted stays (see `leftovers`)."""
        budget = _Budget(steps)
        try:
            for name in os.listdir(self._trash):
                if name not in self._stuck and not self._remove(self._trash, name, budget, 0):
                    self._stuck.add(name)
        except _PausedError:
            return True
        # What was too deep was moved to the top of the trash meanwhile.
        return any(name not in self._stuck for name in os.listdir(self._trash))

    def leftovers(self) -> list[str]:
        """What is in the trash for good, as far as is known, in sentences."""
        return [f"{self.root}/trash/{name} could not be removed." for name in sorted(self._stuck)]

    def _remove(self, parent: int, name: str, budget: _Budget, depth: int) -> bool:
        """Remove a file or a whole directory; False when something of it is left."""
        budget.take()
        try:
            os.unlink(name, dir_fd=parent)
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                return False
        if depth > _DEEP:
            os.rename(name, f"deep.{secrets.token_hex(6)}", src_dir_fd=parent, dst_dir_fd=self._trash)
            return True
        try:
            fd = self._open_to_empty(parent, name)
        except OSError:
            return False  # a mount, or another user's
        with _closing(fd):
            emptied = self._empty(fd, budget, depth)
        if not emptied:
            return False
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            return False
        return True

    def _open_to_empty(self, parent: int, name: str) -> int:
        try:
            fd = _open_same_mount(parent, name, os.O_RDONLY)
        except PermissionError:
            self._open_up(parent, name)
            fd = _open_same_mount(parent, name, os.O_RDONLY)
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            with contextlib.suppress(PermissionError):  # another user's: what can be removed will be
                os.fchmod(fd, 0o700)
        return fd

    def _empty(self, fd: int, budget: _Budget, depth: int) -> bool:
        emptied = True
        with os.scandir(fd) as entries:
            for entry in entries:
                emptied = self._remove(fd, entry.name, budget, depth + 1) and emptied
        return emptied

    def _mounts_below(self, path: str) -> list[str]:
        """What is mounted in a directory: it is left where it is, and nothing in it is touched."""
        found = []
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                point = _unescaped(line.split(" ")[4])
                if point.startswith(path + "/"):
                    found.append(f"Something is mounted on {point}; it stays, and with it the directory.")
        return found

    # ---- reading, for people

    def read_piece(self, path: str, offset: int, limit: int) -> Piece:
        """At most `limit` bytes of a regular file below the root; a negative offset counts from the end. Raises
        FilesError."""
        limit = max(0, min(limit, PIECE_LIMIT))
        with self._opened(path, "read") as held:
            if not stat.S_ISREG(os.fstat(held).st_mode):
                raise FilesError(f"Could not read {path}: it is no regular file.")
            with _closing(os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)) as fd:
                size = os.fstat(fd).st_size
                start = offset if offset >= 0 else max(0, size + offset)
                content = os.pread(fd, limit, start)
                return Piece(content, start, size, start + len(content) >= size)

    def tail(self, path: str, limit: int = TAIL_BYTES) -> bytes:
        """The last bytes of a regular file below the root; nothing when it can't be read."""
        try:
            return self.read_piece(path, -limit, limit).content
        except FilesError:
            return b""

    def list_directory(self, path: str, limit: int = LISTING_LIMIT) -> Listing:
        """The first `limit` entries of a directory below the root, by name. Raises FilesError."""
        with self._opened(path, "list") as held:
            if not stat.S_ISDIR(os.fstat(held).st_mode):
                raise FilesError(f"Could not list {path}: it is no directory.")
            with _closing(os.open(f"/proc/self/fd/{held}", _DIRECTORY & ~os.O_NOFOLLOW)) as fd:
                top = os.path.samestat(os.fstat(fd), os.fstat(self._root))
                with os.scandir(fd) as entries:
                    names = heapq.nsmallest(
                        limit + 1, (entry.name for entry in entries if not (top and entry.name == PRIVATE))
                    )
                rows = [row for name in names[:limit] if (row := _row(fd, name)) is not None]
        return Listing(rows, len(names) > limit)

    @contextlib.contextmanager
    def _opened(self, path: str, doing: str) -> Iterator[int]:
        """A handle of what `path` names below the root, good for looking at it only."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if parts[:1] == [PRIVATE]:
            raise FilesError(f"Could not {doing} {path}: it is the agent's own.")
        try:
            fd = open_beneath(self._root, path, _PATH)
        except OSError as error:
            raise FilesError(sentence(error, f"{doing} {path}"), isinstance(error, FileNotFoundError)) from error
        with _closing(fd):
            try:
                yield fd
            except OSError as error:
                raise FilesError(sentence(error, f"{doing} {path}")) from error


def _row(directory: int, name: str) -> tuple[str, bool, int, float] | None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return shown, stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime


def _unescaped(path: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal numbers."""
    for code in ("040", "011", "012", "134"):
        path = path.replace("\\" + code, chr(int(code, 8)))
    return path
