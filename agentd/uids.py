"""The users of jobs: each job on a node has a uid of its own, leased from a reserved range of this machine.

All agents of a machine share one file of leases, so that no uid is ever two jobs' at once; one that a job had is given
to another only after `release`, which is said when nothing of the job is left. Everything here blocks: call it in a
thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agentd.processes import now_s

FIRST: Final = 1_879_048_192
"""Above what distributions and container tools hand out, below what is negative as a signed number."""
COUNT: Final = 65_536
LEASES: Final = "/var/lib/poolkeeper-uids/leases.json"
LEAST: Final = 1001
"""What is below is the system's or a person's, whatever a configuration says."""
MAX_UID: Final = 2**32 - 2
PATIENCE_S: Final = 10.0
"""For the other agents of the machine to let go of the leases."""
_LOOK_S: Final = 0.005
_NOBODY: Final = 65_534
_MAX_BYTES: Final = 64 << 20
_SUBORDINATE: Final = ("/etc/subuid", "/etc/subgid")
_MAPS: Final = ("/proc/self/uid_map", "/proc/self/gid_map")


class UidsError(Exception):
    """No user can be had, or the machine is not fit for it; the text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Range:
    """The uids that are jobs' here; each is the gid of its own group as well. The last one is no job's: its processes
    kill those of the others (see `uidkill`)."""

    first: int = FIRST
    count: int = COUNT

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    def __contains__(self, uid: int) -> bool:
        return self.first <= uid <= self.last

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A uid that is a job's on the node whose root has this incarnation. `reason`: why it is quarantined, if it is."""

    uid: Annotated[int, msgspec.Meta(ge=1, le=MAX_UID)]
    incarnation: str
    root: str
    job: str
    reason: str | None = None


class _Leases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file; `next` is where the search for a free uid goes on, so that none comes back soon. `first` and
    `count` are the range that all agents of the machine agree on while a uid of it is leased."""

    next: int
    leases: list[Lease]
    first: int = 0
    count: int = 0


class Uids:
    """The leases of one node among those of the machine. Safe to call from several threads.

    A job has one uid at most that is not quarantined. One that is belongs to nobody, not even to the job if it comes
    back: what is left there may be of another one that had its name."""

    def __init__(self, path: str, among: Range, incarnation: str, root: str, *, patience_s: float = PATIENCE_S) -> None:
        """Raises UidsError when the range or the file can't be used."""
        refuse_range(among)
        self._path = path
        self._among = among
        self._incarnation = incarnation
        self._root = root
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        with self._locked() as directory:
            self._sweep(directory)
            known = self._read(directory)
            self._agree(known)
            adopted = [self._adopted(lease) for lease in known.leases]
            if adopted != known.leases:
                self._write(directory, known.next, adopted)
            self._held = {lease.job: lease.uid for lease in adopted if self._is_held(lease)}

    def _agree(self, known: _Leases) -> None:
        """Raises UidsError if agents of this machine give out different ranges: one's killing user might be another
        one's job, and users of a job that is held must stay in the range."""
        theirs = Range(known.first, known.count)
        if known.leases and theirs not in (Range(0, 0), self._among):
            raise UidsError(
                f"[users] first and count: the users for jobs on this machine are {theirs}, not {self._among}, and "
                f"{len(known.leases)} of them are in use, as {self._path} says. All agents of a machine share one "
                "range (or each has one and leases of its own); it can be changed when no user of it is in use."
            )

    def _adopted(self, lease: Lease) -> Lease:
        """What another node had whose root stood where ours does is ours to look after."""
        if lease.root != self._root or lease.incarnation == self._incarnation:
            return lease
        reason = lease.reason or "The node that it was on was replaced."
        return msgspec.structs.replace(lease, incarnation=self._incarnation, reason=reason)

    def _is_held(self, lease: Lease) -> bool:
        return lease.incarnation == self._incarnation and lease.reason is None

    def is_jobs(self, uid: int) -> bool:
        """Whether it is one of the users for jobs, whoever's it is now."""
        return uid in self._among

    def of(self, job: str) -> int | None:
        """The job's uid here, if it has one."""
        return self._held.get(job)

    def lease(self, job: str) -> int:
        """The job's uid here, from now on if it had none; durable when this returns. Raises UidsError."""
        with self._locked() as directory:
            known = self._read(directory)
            for lease in known.leases:
                if self._is_held(lease) and lease.job == job:
                    self._held[job] = lease.uid
                    return lease.uid
            uid = self._free(known)
            lease = Lease(uid, self._incarnation, self._root, job)
            self._write(directory, uid + 1, [*known.leases, lease])
            self._held[job] = uid
            return uid

    def release(self, uid: int) -> None:
        """Nothing of the job that had this uid here is left: it may be another job's. Raises UidsError."""
        with self._locked() as directory:
            known = self._read(directory)
            left = [lease for lease in known.leases if (lease.incarnation, lease.uid) != (self._incarnation, uid)]
            if len(left) < len(known.leases):
                self._write(directory, known.next, left)
            self._forget(uid)

    def quarantine(self, uid: int, reason: str) -> None:
        """Something of the job that had this uid here is left: it is nobody's until it is released. Raises
        UidsError."""
        with self._locked() as directory:
            known = self._read(directory)
            for n, lease in enumerate(known.leases):
                if (lease.incarnation, lease.uid) == (self._incarnation, uid) and lease.reason != reason:
                    known.leases[n] = msgspec.structs.replace(lease, reason=reason)
                    self._write(directory, known.next, known.leases)
            self._forget(uid)

    def leases(self) -> list[Lease]:
        """This node's leases. Raises UidsError."""
        with self._locked() as directory:
            return [lease for lease in self._read(directory).leases if lease.incarnation == self._incarnation]

    def _forget(self, uid: int) -> None:
        for job in [job for job, held in self._held.items() if held == uid]:
            del self._held[job]

    def _free(self, known: _Leases) -> int:
        taken = {lease.uid for lease in known.leases}
        start = known.next if known.next in self._among else self._among.first
        jobs = self._among.count - 1
        for step in range(jobs):
            uid = self._among.first + (start - self._among.first + step) % jobs
            if uid not in taken and not _is_account(uid):
                return uid
        quarantined = sum(lease.reason is not None for lease in known.leases)
        raise UidsError(
            f"All {jobs} users for jobs ({self._among}) are taken on this machine, {quarantined} of them "
            f"because something of their job is left; give the agent a larger range ([users] count)."
        )

    # ---- the file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The directory of the file, while no other agent (and no other thread) looks at it. Raises UidsError."""
        where, name = os.path.split(self._path)
        try:
            with self._lock, _directory(where) as directory:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                lock = os.open(f"{name}.lock", flags, 0o600, dir_fd=directory)
                try:
                    self._take(lock)
                    yield directory
                finally:
                    os.close(lock)
        except OSError as error:
            raise UidsError(
                f"The leases of jobs' users in {self._path} can't be kept: {error.strerror or error}; "
                "see [users] leases in the agent's configuration."
            ) from error

    def _take(self, lock: int) -> None:
        """Raises UidsError when another agent does not let go of it: one that was stopped must not stop them all."""
        deadline = now_s() + self._patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if now_s() >= deadline:
                    raise UidsError(
                        f"Another agent of this machine has held {self._path}.lock for {self._patience_s:g} s: it was "
                        "stopped, or its disk does not answer."
                    ) from None
                time.sleep(_LOOK_S)
            else:
                return

    def _sweep(self, directory: int) -> None:
        """What an agent that was killed had begun to write goes."""
        for name in os.listdir(directory):
            if name.startswith(f".{os.path.basename(self._path)}."):
                os.unlink(name, dir_fd=directory)

    def _read(self, directory: int) -> _Leases:
        name = os.path.basename(self._path)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return _Leases(self._among.first, [])
        with open(fd, "rb") as file:
            _refuse_wide(os.fstat(fd), self._path, stat.S_IFREG)
            content = file.read(_MAX_BYTES + 1)
        try:
            known = msgspec.json.decode(content, type=_Leases)
            uids = {lease.uid for lease in known.leases}
            if len(uids) < len(known.leases):
                raise msgspec.ValidationError("a user is leased twice")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UidsError(
                f"{self._path} is damaged ({error}): which users of jobs are in use on this machine is not known. "
                "Restore it; or, when no process and no file of a user in the range is left, remove it."
            ) from error
        return known

    def _write(self, directory: int, following: int, leases: list[Lease]) -> None:
        """Whole or not at all, and durable."""
        known = _Leases(following, leases, self._among.first, self._among.count)
        name = os.path.basename(self._path)
        fresh = f".{name}.{secrets.token_hex(4)}"
        fd = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
        )
        try:
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(known))
                file.flush()
                os.fsync(fd)
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=directory)
            raise
        os.fsync(directory)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    """A handle of the directory, made if it is not there: ours alone. Raises OSError, UidsError."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _refuse_wide(os.fstat(fd), path, stat.S_IFDIR)
        yield fd
    finally:
        os.close(fd)


def _refuse_wide(found: os.stat_result, path: str, kind: int) -> None:
    """Whoever could change the leases could become another job's user."""
    if stat.S_IFMT(found.st_mode) != kind or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise UidsError(
            f"{path} must be the agent's user's alone (chown {os.geteuid()}, chmod go=): it says whose users are whose."
        )


# ---- the range


def refuse_range(
    among: Range,
    *,
    accounts: Iterable[tuple[str, int]] | None = None,
    subordinate: Sequence[str] = _SUBORDINATE,
    maps: Sequence[str] = _MAPS,
) -> None:
    """Raises UidsError unless nobody else uses these numbers: as far as it is told by this machine's `accounts` (None:
    all users and groups), the files of its containers' users, and the `maps` of the container that we may be in."""
    if among.first < LEAST or among.count < 2 or among.last > MAX_UID or _NOBODY in among:
        raise UidsError(
            f"[users] first and count: {among} is no range of users for jobs: it takes two users at least, none below "
            f"{LEAST}, and not {_NOBODY}."
        )
    bounds = [("an account", number) for number in (among.first, among.last) if _is_account(number)]
    for name, number in (*(_accounts() if accounts is None else accounts), *bounds):
        if number in among:
            raise UidsError(
                f"[users] first and count: {name} ({number}) is among the users for jobs, {among}; "
                "a job would have its files. Choose a range that no account and no group is in."
            )
    for path in subordinate:
        for name, start, count in _subordinate(path):
            if start <= among.last and among.first < start + count:
                raise UidsError(
                    f"[users] first and count: {path} gives {start} to {start + count - 1} to {name}, and some of "
                    f"these are users for jobs, {among}. Choose a range of their own for jobs."
                )
    for path in maps:
        if not _is_mapped(path, among):
            raise UidsError(
                f"[users] first and count: the container that the agent runs in has no users {among} ({path}). "
                'Choose a range within its own, or say mode = "same".'
            )


def _accounts() -> Iterator[tuple[str, int]]:
    for user in pwd.getpwall():
        yield f"user {user.pw_name}", user.pw_uid
    for group in grp.getgrall():
        yield f"group {group.gr_name}", group.gr_gid


def _is_account(number: int) -> bool:
    """Also of a directory service that does not list its accounts."""
    for look in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            look(number)
            return True
    return False


def _subordinate(path: str) -> Iterator[tuple[str, int, int]]:
    """(user, first, count) of ranges that users may give to their containers."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_BYTES).splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            yield parts[0], int(parts[1]), int(parts[2])


def _is_mapped(path: str, among: Range) -> bool:
    """Whether the user namespace we are in has all of these numbers."""
    try:
        with open(path, encoding="ascii") as file:
            rows = sorted((int(inside), int(count)) for inside, _, count in map(str.split, file))
    except FileNotFoundError:
        return True  # a kernel without user namespaces
    reached = among.first
    for inside, count in rows:
        if inside <= reached < inside + count:
            reached = inside + count
    return reached > among.last


# ---- the way to the root


def refuse_way(root: str) -> None:
    """Raises UidsError unless jobs' users can enter `root`, and nobody but root can swap it. (What is closed above it,
    keepers show their jobs another way round.)"""
    real = Path(os.path.realpath(root))
    if not real.stat().st_mode & stat.S_IXOTH:
        raise UidsError(
            f"{real} is closed to others, so that jobs could not run as users of their own there: chmod o+x {real}, or "
            'say mode = "same" in [users]: then all jobs run as the agent\'s user.'
        )
    for here in (real, *real.parents):
        found = here.stat()
        if found.st_uid != 0 or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise UidsError(
                f"{here} is not root's alone: who can write there could put other programs in the place of a job's "
                f"below {root}. Give --root another place."
            )
