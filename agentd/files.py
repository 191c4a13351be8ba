"""Everything on disk below a node's root: its layout, and jobs' directories from their making to their going.

All is done below directory handles; nothing follows a link, nothing is deleted where it stands: it goes to the trash.
Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentd.beneath import DIRECTORY, FilesError, closing, open_beneath, open_entry, plain, sentence, shown
from agentd.cgroups import unescaped
from agentd.held import HeldFiles
from agentd.reading import LISTING_LIMIT, PRIVATE, TAIL_BYTES, Listing, Owners, Piece, Reading
from agentd.trash import Trash
from wire.messages import KeptStream

PRIVATE_JOB: Final = "private"
PRIVATE_ELEVATED: Final = "private-elevated"
PHASE_DIRECTORIES: Final = ("jobpreparation", "jobrelease")
STARTUP: Final = "startup"
"""Of the pool's start: below the root, and as a job's where it has what jobs have."""
_MAKE_TRIES: Final = 5
_SWEEP_TOGETHER_S: Final = 60.0


def _make_directory(parent: int, name: str, mode: int) -> int:
    """The directory `name`, made if it is not there, opened. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
        with closing(os.open(name, DIRECTORY, dir_fd=parent)) as fd:
            os.fchmod(fd, mode)  # whatever the umask
    return os.open(name, DIRECTORY, dir_fd=parent)


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


@dataclass(frozen=True, slots=True)
class Tenant:
    """A job that directories are made for: `user` is the uid of its commands, None: ours."""

    job: str
    user: int | None = None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`leftovers` could not be removed, in sentences; `kept_s`: the next kept directory is due in so many seconds.
    `mounts`: where something was mounted among it."""

    leftovers: list[str]
    kept_s: float | None
    mounts: list[str] = field(default_factory=list)


# ---- the root


class NodeFiles:
    """The directories below one root, made if they are not there; locked, so that one agent at a time has them."""

    def __init__(self, root: str, *, job_users: bool = False) -> None:
        """`job_users`: jobs run as users of their own, who must be able to reach what is theirs. Raises FilesError."""
        try:
            _make_root(root, job_users)
            self.root = os.path.realpath(root)
            self._root = os.open(self.root, DIRECTORY)
            self._agent = _make_directory(self._root, PRIVATE, 0o700)
            self._lock = self._take_lock()
            self.shared = _make_directory(self._root, "shared", 0o1777)
            os.close(_make_directory(self._root, STARTUP, 0o755))
            self._workitems = _make_directory(self._root, "workitems", 0o755)
            if job_users:
                os.fchmod(self._workitems, 0o711)
            self._trash_fd = _make_directory(self._root, "trash", 0o700)
            self._scripts = _make_directory(self._root, "scripts", 0o711)
            self.incarnation = self._incarnation()
        except OSError as error:
            raise FilesError(sentence(error, f"set up the node's root {root}")) from error
        self.trash = Trash(self._trash_fd, f"{self.root}/trash")
        self.reading = Reading(self._root)
        self.held = HeldFiles(self._scripts)

    @property
    def agent_directory(self) -> str:
        """The agent's own directory, mode 0700."""
        return f"{self.root}/{PRIVATE}"

    @property
    def scripts(self) -> str:
        """Where jobs' scripts are, and what brings in their files: for passing through."""
        return f"{self.root}/scripts"

    @property
    def workitems(self) -> str:
        """The base directory of keepers of jobs; of the start task's keeper it is `root`."""
        return f"{self.root}/workitems"

    def close(self) -> None:
        """Unlock and let go."""
        for fd in (self._scripts, self._trash_fd, self.shared, self._workitems, self._lock, self._agent, self._root):
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
            tenant = Tenant(plain(job), user)
            with closing(self._made(self._workitems, job, _Whose.of_job(user, 0o750, 0o1770), tenant)) as here:
                for path in discard:
                    self._discard_path(here, path, job)
                self._make_below(here, dirs, fresh, tenant)
                if elevated:
                    self._make_private(here, PRIVATE_ELEVATED, tenant)
                    with closing(os.open(PRIVATE_ELEVATED, DIRECTORY, dir_fd=here)) as held:
                        os.close(self._made(held, "home", _Whose(0o700), tenant))
                for name in set(PHASE_DIRECTORIES).intersection(elevated):
                    self._discard_if_of(here, name, tenant)
            with closing(self._made(self._scripts, job, _Whose.of_job(user, 0o700, 0o710), tenant)) as held:
                for name, text in scripts.items():
                    closed = user is None or name in elevated
                    mode = 0o500 if name in elevated else 0o700 if user is None else 0o550
                    self._write(held, plain(name), text, mode, group=None if closed else user)
        except OSError as error:
            raise FilesError(sentence(error, f"make the directories of job {job}")) from error
        except FilesError as error:
            raise FilesError(f"Could not make the directories of job {job}: {error}") from None

    def _make_below(self, here: int, dirs: Collection[str], fresh: Collection[str], tenant: Tenant) -> None:
        user = tenant.user
        for name in ("home", "tmp"):
            os.close(self._made(here, name, _Whose(0o700, user, user), tenant))
        if user is not None:
            self._make_private(here, PRIVATE_JOB, tenant)
        with closing(self._made(here, "dirs", _Whose.of_job(user, 0o750, 0o750), tenant)) as held:
            for name in fresh:
                self._discard(held, plain(name), tenant.job)
            for name in dirs:
                whose = _Whose(0o750) if user is None else _Whose(0o700, user, user)
                os.close(self._made(held, plain(name), whose, tenant))

    def _make_private(self, here: int, name: str, tenant: Tenant) -> None:
        """What commands see as /tmp, /var/tmp and /dev/shm; they come there by mounts alone."""
        with closing(self._made(here, name, _Whose(0o700), tenant)) as held:
            for below in ("tmp", "vartmp", "shm"):
                os.close(self._made(held, below, _Whose(0o1777), tenant))

    def _made(self, parent: int, name: str, whose: _Whose, tenant: Tenant) -> int:
        """The directory `name`, made if it is not there, opened. The job may have put something of its
        own in its place: that goes to the trash. Raises OSError, FilesError."""
        for _ in range(_MAKE_TRIES):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                held = self._as_made(parent, name, whose, tenant)
                if held is not None:
                    return held
                self._discard(parent, name, tenant.job)
                continue
            # Nobody can have swapped it: where others may write the directory is sticky, and this entry is ours.
            fd = os.open(name, DIRECTORY, dir_fd=parent)
            if whose.gid is not None:
                os.fchown(fd, -1 if whose.uid is None else whose.uid, whose.gid)
            os.fchmod(fd, whose.mode)
            return fd
        raise FilesError(f"something else is put in the place of {name} again and again.")

    @staticmethod
    def _as_made(parent: int, name: str, whose: _Whose, tenant: Tenant) -> int | None:
        """The directory that was made, opened; None: the job has put something there. Raises FilesError if it is
        neither."""
        kind = "a directory"
        try:
            fd = os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            owner, kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid, "a link or a file"
        else:
            owner = os.fstat(fd).st_uid
            if owner == (os.geteuid() if whose.uid is None else whose.uid):
                return fd
            os.close(fd)
        if tenant.user is not None and owner == tenant.user:
            return None
        raise FilesError(
            f"there is {kind} of user {owner} in the place of {name}. Of a job that a node holds the user is not "
            "changed ([users] in the agent's configuration)."
        )

    def _discard_if_of(self, here: int, name: str, tenant: Tenant) -> None:
        """A directory of an elevated command that is not ours was put there by another command of the job."""
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            return
        if tenant.user is not None and (found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode)):
            self._discard(here, name, tenant.job)

    def make_start(
        self, directory: str, scripts: Mapping[str, str], *, user: int | None = None, elevated: bool = False
    ) -> None:
        """As `make_job`, for an attempt of the pool's start in `directory` (`startup`, a later one below it), which
        anybody may list. What is there goes to the trash, and with `startup` all else of earlier ones. Raises
        FilesError."""
        tenant = Tenant(STARTUP, user)
        try:
            if directory == STARTUP:
                for parent in (self._root, self._workitems, self._scripts):
                    self._discard(parent, STARTUP, STARTUP)
            whose = _Whose(0o755) if elevated or user is None else _Whose(0o755, user, user)
            with closing(self._made(self._root, STARTUP, whose, tenant)) as here:
                if directory != STARTUP:
                    self._discard_path(here, directory.removeprefix(f"{STARTUP}/"), STARTUP)
        except OSError as error:
            raise FilesError(sentence(error, f"make {STARTUP}")) from error
        self.make_job(STARTUP, (), scripts, user=user, elevated=(STARTUP,) if elevated else ())

    def script_path(self, job: str, name: str) -> str:
        """Where `make_job` put a script."""
        return f"{self.root}/scripts/{job}/{name}"

    def clean_job(self, job: str, keep_s: Mapping[str, float], now: float) -> Cleaned:
        """Move the job's directory to the trash, but what is to be kept: `keep_s` maps a group's name,
        `jobpreparation` or `jobrelease` to the seconds that its directories stay after they ended. Scripts go too.
        To be called again when something that was kept is due."""
        mounts = self._mounts_below(f"{self.workitems}/{plain(job)}")
        leftovers: list[str] = []
        due: float | None = None
        try:
            self._discard(self._scripts, job, job)
            if any(seconds > 0 for seconds in keep_s.values()):
                due, kept = self._discard_overdue(job, keep_s, now)
                leftovers += kept
            if due is None:
                self._discard(self._workitems, job, job)
            if job == STARTUP:
                self._discard(self._root, STARTUP, job)
                os.close(_make_directory(self._root, STARTUP, 0o755))
        except OSError as error:
            leftovers.append(sentence(error, f"remove workitems/{job}"))
        return Cleaned(leftovers, due, mounts)

    def _discard_overdue(self, job: str, keep_s: Mapping[str, float], now: float) -> tuple[float | None, list[str]]:
        """Discard all of a job's entries that are not to be kept (any more); when the next one is due."""
        waits: list[float] = []
        leftovers = []
        try:
            here = os.open(job, DIRECTORY, dir_fd=self._workitems)
        except FileNotFoundError:
            return None, []
        with closing(here):
            for name in os.listdir(here):
                # The directory of a task is its group's name, or that and `-...`; a group's name holds no `-`.
                keep = keep_s.get(name.split("-", 1)[0])
                left = 0.0 if keep is None else self._ended(here, name, now) + keep - now
                if left > 0:
                    waits.append(left)
                    continue
                try:
                    self._discard(here, name, job)
                except OSError as error:
                    leftovers.append(sentence(error, f"remove workitems/{job}/{shown(name)}"))
        # A sweep looks at all that is kept, so many ends in a row are swept together.
        due = max(min(waits), min(0.1 * max(waits), _SWEEP_TOGETHER_S), 0.05) if waits else None
        return due, leftovers

    def overdue(self, job: str, keep_s: Mapping[str, float], now: float, limit: int) -> tuple[list[str], float | None]:
        """Directories of a job's tasks that ended longer ago than their group's `keep_s`, at most `limit`; in how many
        seconds the next one is due. What runs looks as if it had ended when it began. Raises FilesError, OSError."""
        names: list[str] = []
        next_s: float | None = None
        try:
            here = os.open(plain(job), DIRECTORY, dir_fd=self._workitems)
        except FileNotFoundError:
            return [], None
        with closing(here), os.scandir(here) as entries:
            for entry in entries:
                keep = keep_s.get(entry.name.split("-", 1)[0])
                if keep is None:
                    continue
                stamp = entry.stat(follow_symlinks=False).st_mtime
                left = (stamp if stamp <= now < stamp + keep else self._ended(here, entry.name, now)) + keep - now
                if left > 0:
                    next_s = left if next_s is None else min(left, next_s)
                elif len(names) < limit:
                    names.append(entry.name)
                else:
                    return names, 0.0
        return names, next_s

    def discard_tasks(self, job: str, names: Collection[str]) -> None:
        """Move these of a job's directories to the trash, all that can be. Raises FilesError for others, OSError."""
        try:
            here = os.open(plain(job), DIRECTORY, dir_fd=self._workitems)
        except FileNotFoundError:
            return
        with closing(here):
            failures = []
            for name in names:
                try:
                    self._discard(here, plain(name), job)
                except OSError as error:
                    failures.append(sentence(error, f"remove workitems/{job}/{shown(name)}"))
        if failures:
            more = f" Nor {len(failures) - 1} other of its directories." if len(failures) > 1 else ""
            raise FilesError(failures[0] + more)

    @staticmethod
    def _ended(parent: int, name: str, now: float) -> float:
        """When the last attempt in a command's directory ended: its keeper stamped the attempt's directory then. Of a
        job that set its own stamps to the future it was now, from now on."""
        try:
            fd = open_entry(parent, name, DIRECTORY)
        except OSError:
            return 0.0  # nothing that a keeper made
        with closing(fd):
            with os.scandir(fd) as entries:
                stamps = [
                    entry.stat(follow_symlinks=False).st_mtime
                    for entry in entries
                    if entry.name.startswith("attempt-") and entry.is_dir(follow_symlinks=False)
                ]
            latest = max([os.fstat(fd).st_mtime, *stamps])
            if latest <= now:
                return latest
            os.utime(fd, (now, now))
            for entry in os.listdir(fd):
                if entry.startswith("attempt-"):  # a directory: of a file the stamp may be somebody else's
                    with contextlib.suppress(OSError), closing(open_entry(fd, entry, DIRECTORY)) as attempt:
                        os.utime(attempt, (now, now))
            return now

    def _mounts_below(self, path: str) -> list[str]:
        """Where something is mounted in a directory: it is left where it is, and nothing in it is touched."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [unescaped(line.split(" ")[4]) for line in file]
        return [shown(point) for point in points if point.startswith(path + "/")]

    def holds_jobs(self) -> bool:
        """Whether anything of a job is below the root, in the trash included. Raises OSError."""
        return bool(os.listdir(self._workitems) or os.listdir(self._trash_fd))

    # ---- the trash

    def _discard_path(self, here: int, path: str, job: str) -> None:
        parent, _, name = path.rpartition("/")
        try:
            fd = open_beneath(here, parent, DIRECTORY)
        except FileNotFoundError:
            return
        with closing(fd):
            self._discard(fd, plain(name), job)

    def _discard(self, parent: int, name: str, job: str) -> None:
        """Raises OSError."""
        self.trash.discard(parent, name, job)

    def empty_trash(self, steps: int = 2000) -> bool:
        """Delete from the trash, looking at no more than `steps` entries; whether there is more to do."""
        return self.trash.empty(steps)

    def leftovers(self) -> list[str]:
        """What is in the trash for good, as far as is known, in sentences."""
        return self.trash.leftovers()

    # ---- reading, for people

    def read_piece(self, path: str, offset: int, limit: int, owners: Owners | None = None) -> Piece:
        """See `Reading.piece`."""
        return self.reading.piece(path, offset, limit, owners)

    def ends(self, path: str, head: int, tail: int, owners: Owners | None = None) -> tuple[int, bytes, bytes] | None:
        """Size, first and last bytes of a regular file below the root, none of them twice; None: it can't be read."""
        try:
            first = self.reading.piece(path, 0, head, owners)
            start = max(len(first.content), first.size - tail)
            rest = self.reading.piece(path, start, min(tail, max(0, first.size - start)), owners)
        except FilesError:
            return None
        return first.size, first.content, rest.content

    def tail(self, path: str, limit: int = TAIL_BYTES, owners: Owners | None = None) -> KeptStream:
        """See `Reading.tail`."""
        return self.reading.tail(path, limit, owners)

    def list_directory(self, path: str, limit: int = LISTING_LIMIT, owners: Owners | None = None) -> Listing:
        """See `Reading.listing`."""
        return self.reading.listing(path, limit, owners)
