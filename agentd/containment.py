"""What proves that a process is the one it was, what holds a job's processes together, and how all of them end.

Two levels. `cgroup`: every keeper and all below it live in a leaf of cgroup v2, which the kernel kills as a whole.
`subreaper`: a keeper is the parent of all that its commands orphan, so its descendants are all there is; when it is
dead they are found by the marks in their environment. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import hashlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from wire.clock import boot_clock

KILL_PATIENCE_S: Final = 10.0
"""How long killing may take before the survivors are called stuck."""
PROBE_S: Final = 10.0
KEEPER_MARK: Final = "BATCH_KEEPER"
"""In the environment of every command: the id of its keeper."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


_clock: Final = boot_clock("")


def _now_s() -> float:
    return _clock().boottime


class Level(enum.Enum):
    """How well processes are held; shown as a node attribute."""

    CGROUP = "cgroup"
    SUBREAPER = "subreaper"


class ContainmentError(Exception):
    """Something about processes could not be done; the text is a sentence for people."""


# ---- identity


@dataclass(frozen=True, slots=True)
class ProcessProof:
    """A process, so that another with its number is never taken for it."""

    pid: int
    starttime: int
    boot: str


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    state: str
    starttime: int

    @property
    def dead(self) -> bool:
        return self.state in "ZX"


def _stat(pid: int) -> _Stat | None:
    """What /proc says of a process, or None when there is none (any more)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(int(fields[1]), fields[0].decode("ascii"), int(fields[19]))


def proof_of(pid: int, boot: str) -> ProcessProof | None:
    """The proof of a process that is alive, to be made while its number can't have changed hands."""
    stat = _stat(pid)
    return None if stat is None or stat.dead else ProcessProof(pid, stat.starttime, boot)


def open_process(proof: ProcessProof, boot: str) -> int | None:
    """A pidfd of exactly that process, or None when it is over. The caller closes it."""
    if proof.boot != boot:
        return None
    try:
        fd = os.pidfd_open(proof.pid)
    except ProcessLookupError:
        return None
    stat = _stat(proof.pid)
    if stat is None or stat.dead or stat.starttime != proof.starttime:
        os.close(fd)
        return None
    return fd


def _send(fd: int, signum: int) -> None:
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return


# ---- the boot


def boot_identity(boot_id_file: str | None = None) -> str:
    """A short text that differs from boot to boot, also for containers: the kernel's boot id (or what `boot_id_file`
    holds), our pid namespace, when its first process began, and when its root directory was born."""
    first = _stat(1)
    parts = [
        _read_text(boot_id_file or "/proc/sys/kernel/random/boot_id"),
        _link("/proc/self/ns/pid"),
        str(first.starttime) if first is not None else "",
        _birth("/"),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ContainmentError(f"Could not read the boot id from {path}: {error.strerror}.") from error


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # no such namespace on this kernel: the rest has to tell


class _Statx(ctypes.Structure):
    _fields_ = [
        ("mask", ctypes.c_uint32),
        ("skipped", ctypes.c_uint8 * 76),
        ("birth_s", ctypes.c_int64),
        ("birth_ns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 164),
    ]


_STATX_BTIME: Final = 0x800
_AT_FDCWD: Final = -100


def _birth(path: str) -> str:
    """When a file was born, or empty where system or file system do not tell."""
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    found = _Statx()
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, ctypes.byref(found)) != 0:
        return ""
    return f"{found.birth_s}.{found.birth_ns:09}" if found.mask & _STATX_BTIME else ""


# ---- a keeper's tree, without cgroups


def _table() -> dict[int, _Stat]:
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None:
                table[int(name)] = stat
    return table


def descendants(root: int) -> list[tuple[int, int]]:
    """(pid, starttime) of every living process below `root`, parents first."""
    table = _table()
    below: dict[int, list[int]] = {}
    for pid, stat in table.items():
        below.setdefault(stat.parent, []).append(pid)
    found: list[int] = []
    fringe = [root]
    while fringe:
        fringe = [child for pid in fringe for child in below.get(pid, ())]
        found.extend(fringe)
    return [(pid, table[pid].starttime) for pid in found if not table[pid].dead]


def kill_tree(keeper: ProcessProof, boot: str, patience_s: float = KILL_PATIENCE_S) -> int:
    """Kill all below a keeper while it is stopped (so that what is orphaned stays below it), then itself.

    The number of processes that would not die; the keeper is left stopped above them then, so that they can be found
    again. 0 also when the keeper was dead already.
    """
    fd = open_process(keeper, boot)
    if fd is None:
        return 0
    try:
        _send(fd, signal.SIGSTOP)
        survivors = kill_until_none(lambda: descendants(keeper.pid), boot, patience_s, clean_rounds=3)
        if survivors == 0:
            _send(fd, signal.SIGKILL)
            survivors = 0 if _wait_over(fd, patience_s) else 1
        return survivors
    finally:
        os.close(fd)


def kill_until_none(
    find: Callable[[], list[tuple[int, int]]], boot: str, patience_s: float, clean_rounds: int = 1
) -> int:
    """Kill what `find` finds until it found nothing `clean_rounds` times in a row: one walk through /proc is no
    snapshot, and a chain of forks could slip through it."""
    deadline = _now_s() + patience_s
    clean = 0
    while True:
        found = find()
        if not found:
            clean += 1
            if clean >= clean_rounds:
                return 0
            continue
        clean = 0
        for pid, starttime in found:
            fd = open_process(ProcessProof(pid, starttime, boot), boot)
            if fd is not None:
                _send(fd, signal.SIGKILL)
                os.close(fd)
        if _now_s() > deadline:
            return len(found)
        time.sleep(0.001)


def _wait_over(fd: int, patience_s: float) -> bool:
    """Whether the process of a pidfd has ended in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience_s * 1000))


# ---- the last resort: marks in the environment


def marked(marks: dict[str, str]) -> list[tuple[int, int]]:
    """(pid, starttime) of every living process whose environment holds all of `marks`, except ourselves and what we
    descend from. Processes of other users can't be looked into unless we are root."""
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    spared = set(_ancestry(os.getpid()))
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in spared:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                entries = set(file.read().split(b"\0"))
        except OSError:
            continue  # over by now, or another user's
        stat = _stat(int(name)) if wanted <= entries else None
        if stat is not None and not stat.dead:
            found.append((int(name), stat.starttime))
    return found


def _ancestry(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        stat = _stat(pid)
        pid = 0 if stat is None else stat.parent


def kill_marked(marks: dict[str, str], boot: str, patience_s: float = KILL_PATIENCE_S) -> int:
    """Kill every process with these marks (see `marked`); the number that would not die."""
    if not marks:
        raise ContainmentError("Nothing is killed by no mark at all.")
    return kill_until_none(lambda: marked(marks), boot, patience_s, clean_rounds=1)


def job_marks(job: str, root: str) -> dict[str, str]:
    """What every command of a job on the node with this root has in its environment."""
    return {"BATCH_JOB_ID": job, "BATCH_NODE_ROOT_DIR": root}


# ---- cgroups


class Cgroup:
    """One directory of the cgroup v2 tree."""

    def __init__(self, path: str) -> None:
        self.path = path

    def make(self) -> None:
        """Make it and what is above it. Raises ContainmentError."""
        for _ in range(5):  # what is empty above may be removed at the same moment
            try:
                os.makedirs(self.path, exist_ok=True)
                return
            except FileNotFoundError as error:
                refused: OSError = error
            except OSError as error:
                refused = error
                break
        raise ContainmentError(f"Could not make the cgroup {self.path}: {refused.strerror}.") from refused

    def populated(self) -> bool:
        """Whether a process lives in it or below."""
        try:
            with open(f"{self.path}/cgroup.events", encoding="ascii") as file:
                return "populated 1" in file.read()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return False
            raise

    def kill(self, patience_s: float = KILL_PATIENCE_S) -> int:
        """Kill all in it and below and wait until none is left; the number that would not die."""
        try:
            with open(f"{self.path}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return 0
            raise ContainmentError(f"Could not kill the cgroup {self.path}: {error.strerror}.") from error
        return 0 if self._wait_empty(patience_s) else max(1, len(self.pids()))

    def _wait_empty(self, patience_s: float) -> bool:
        deadline = _now_s() + patience_s
        try:
            fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while self.populated():
                left = deadline - _now_s()
                if left <= 0:
                    return False
                poll.poll(min(left, 0.05) * 1000)  # the kernel wakes us; the bound is for kernels that do not
                os.pread(fd, 4096, 0)
            return True
        except OSError as error:
            if error.errno == errno.ENODEV:
                return True
            raise
        finally:
            os.close(fd)

    def pids(self) -> list[int]:
        """Every process in it and below."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            try:
                with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                    found.extend(int(line) for line in file)
            except OSError:
                continue  # removed under the walk
        return found

    def remove(self) -> bool:
        """Remove it and what is below; False when a process is still in it."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


# ---- what a node has


class Containment:
    """The node's way of holding and killing processes. `base` is its cgroup, None without."""

    def __init__(self, root: str, boot: str, base: str | None) -> None:
        self._root = root
        self._boot = boot
        self._base = base

    @property
    def base(self) -> str | None:
        """To be given to the next life's `probe` as `remembered`."""
        return self._base

    @property
    def level(self) -> Level:
        return Level.SUBREAPER if self._base is None else Level.CGROUP

    def leaf(self, job: str, keeper: str) -> str | None:
        """Make the cgroup that a keeper of this job enters first thing, and return its path; None without cgroups."""
        if self._base is None:
            return None
        leaf = Cgroup(f"{self._base}/{_plain(job)}/{_plain(keeper)}")
        leaf.make()
        return leaf.path

    def kill_keeper(
        self, job: str, keeper: str, proof: ProcessProof | None, patience_s: float = KILL_PATIENCE_S
    ) -> int:
        """Kill a keeper and all below it, also when it is stopped or dead already; the number that would not die.

        A dead keeper's processes have a new parent. With cgroups they are still in its leaf; without, they are found
        by the keeper's mark, unless they cleared their environment (see `spawn.Starter` for these).
        """
        survivors = 0 if proof is None else kill_tree(proof, self._boot, patience_s)
        if self._base is not None:
            leaf = Cgroup(f"{self._base}/{_plain(job)}/{_plain(keeper)}")
            survivors = leaf.kill(patience_s)
            if survivors == 0:
                leaf.remove()
                self._remove_empty(job)
        marks = {"BATCH_NODE_ROOT_DIR": self._root, KEEPER_MARK: keeper}
        return survivors + kill_marked(marks, self._boot, patience_s)

    def kill_job(self, job: str, patience_s: float = KILL_PATIENCE_S) -> int:
        """Kill every process of a job on this node, keepers included; the number that would not die. 0 means that
        the last one is dead: the release may start."""
        survivors = 0
        if self._base is not None:
            cgroup = Cgroup(f"{self._base}/{_plain(job)}")
            survivors = cgroup.kill(patience_s)
            if survivors == 0:
                cgroup.remove()
                self._remove_empty(job)
        return survivors + kill_marked(job_marks(job, self._root), self._boot, patience_s)

    def alive(self, job: str) -> int:
        """How many processes of a job are alive on this node, as far as cgroup and marks tell."""
        found = {pid for pid, _ in marked(job_marks(job, self._root))}
        if self._base is not None:
            found.update(Cgroup(f"{self._base}/{_plain(job)}").pids())
        return len(found)

    def _remove_empty(self, job: str) -> None:
        """A node without keepers has no cgroups, however its agent ends."""
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(f"{self._base}/{job}")
        with contextlib.suppress(OSError):
            os.rmdir(f"{self._base}")

    def remove_base(self) -> None:
        """The node leaves: its cgroup goes, if nothing lives in it."""
        if self._base is not None:
            Cgroup(self._base).remove()


def _plain(name: str) -> str:
    """A name that is one plain component of a path."""
    if not _PLAIN.fullmatch(name):
        raise ContainmentError(f"{name!r} is no name for a cgroup.")
    return name


def probe(root: str, incarnation: str, boot: str, remembered: str | None = None) -> Containment:
    """The best containment there is here: a cgroup is used only after a child in one was killed through it.

    `remembered` is the path that an earlier life of the agent used (`Containment.base`); keepers may live there.
    """
    name = f"poolkeeper-{_plain(incarnation)[:16]}"
    for candidate in _candidates(name, remembered):
        works = _works(candidate)
        with contextlib.suppress(OSError):  # keepers live in it
            os.rmdir(candidate)
        if works:
            return Containment(root, boot, candidate)
    return Containment(root, boot, None)


def _candidates(name: str, remembered: str | None) -> Iterable[str]:
    mounts = _cgroup2_mounts()
    if remembered and os.path.isdir(remembered) and any(remembered.startswith(mount + "/") for mount in mounts):
        yield remembered
    for mount in mounts:
        own = _own_cgroup()
        if own is not None:
            yield f"{mount}{own.rstrip('/')}/{name}"


def _cgroup2_mounts() -> list[str]:
    mounts = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                if rest.split(" ")[0] == "cgroup2" and fields.split(" ")[3] == "/":
                    mounts.append(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4]))
    except OSError:
        return []
    return mounts


def _own_cgroup() -> str | None:
    """Our own cgroup in the v2 tree."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("0::"):
                    path = line[3:].rstrip("\n")
                    return None if "/../" in path + "/" else path
    except OSError:
        return None
    return None


_PROBE: Final = """
import os, sys
os.write(os.open(sys.argv[1] + "/cgroup.procs", os.O_WRONLY), b"0")
os.write(1, b"in")
os.read(0, 1)
"""


def _works(base: str) -> bool:
    """Whether a process can enter a child of `base` and is killed with it, tried with one."""
    leaf = Cgroup(f"{base}/probe-{os.getpid()}")
    try:
        leaf.make()
    except ContainmentError:
        return False
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROBE, leaf.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={},
    )  # fmt: skip
    try:
        if child.stdout is None or child.stdout.read(2) != b"in":
            return False
        killed = leaf.kill(PROBE_S) == 0
        return killed and child.wait(PROBE_S) == -signal.SIGKILL
    except (ContainmentError, OSError, subprocess.TimeoutExpired):
        return False
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        leaf.remove()
