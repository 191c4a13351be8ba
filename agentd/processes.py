"""Processes: what proves that one is the one it was, what is below it, whose it is, and how many of them are ended.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from wire.clock import boot_clock

KILL_PATIENCE_S: Final = 10.0
"""How long killing may take before the survivors are called stuck."""

Find = Callable[[], list[tuple[int, int]]]
"""Looks for processes: (pid, starttime) of each that is alive."""

_clock: Final = boot_clock("")


def now_s() -> float:
    """Seconds since the boot, sleep included."""
    return _clock().boottime


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
class Stat:
    """What the kernel says of a process."""

    parent: int
    state: str
    starttime: int

    @property
    def dead(self) -> bool:
        return self.state in "ZX"


def stat_of(pid: int) -> Stat | None:
    """What /proc says of a process, or None when there is none (any more)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Stat(int(fields[1]), fields[0].decode("ascii"), int(fields[19]))


def proof_of(pid: int, boot: str) -> ProcessProof | None:
    """The proof of a process that is alive, to be made while its number can't have changed hands."""
    stat = stat_of(pid)
    return None if stat is None or stat.dead else ProcessProof(pid, stat.starttime, boot)


def open_process(proof: ProcessProof, boot: str) -> int | None:
    """A pidfd of exactly that process, or None when it is over. The caller closes it."""
    if proof.boot != boot:
        return None
    try:
        fd = os.pidfd_open(proof.pid)
    except ProcessLookupError:
        return None
    stat = stat_of(proof.pid)
    if stat is None or stat.dead or stat.starttime != proof.starttime:
        os.close(fd)
        return None
    return fd


def _send(fd: int, signum: int) -> None:
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return


# ---- finding


def every_pid() -> Iterator[int]:
    """The number of every process that we can see."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _table() -> dict[int, Stat]:
    return {pid: stat for pid in every_pid() if (stat := stat_of(pid)) is not None}


def alive_of(pids: list[int]) -> list[tuple[int, int]]:
    """Those of these processes that are alive."""
    stats = ((pid, stat_of(pid)) for pid in pids)
    return [(pid, stat.starttime) for pid, stat in stats if stat is not None and not stat.dead]


def descendants(root: int) -> list[tuple[int, int]]:
    """Every living process below `root`, parents first."""
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


def of_uid(uid: int) -> list[tuple[int, int]]:
    """Every living process that is this user's in any of the four ways in which it can be."""
    return alive_of([pid for pid in every_pid() if uid in _uids(pid)])


def _uids(pid: int) -> tuple[int, ...]:
    """Real, effective, saved and file system user. The owner of /proc/PID won't do: it hides behind root."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next((line for line in file if line.startswith(b"Uid:")), b"Uid:")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(map(int, line.split()[1:]))


def marked(marks: dict[str, str], whose: frozenset[int] | None = None) -> list[tuple[int, int]]:
    """Every living process whose environment holds all of `marks`, except ourselves and what we descend from; with
    `whose` only of these users: anybody can forge a mark. Processes of other users can't be looked into unless we are
    root."""
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    spared = set(_ancestry(os.getpid()))
    found = []
    for pid in every_pid():
        if pid in spared:
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                entries = set(file.read().split(b"\0"))
        except OSError:
            continue  # over by now, or another user's
        if wanted <= entries and (whose is None or not whose.isdisjoint(_uids(pid))):
            found.append(pid)
    return alive_of(found)


def _ancestry(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        stat = stat_of(pid)
        pid = 0 if stat is None else stat.parent


# ---- ending


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
            survivors = 0 if wait_over(fd, patience_s) else 1
        return survivors
    finally:
        os.close(fd)


def kill_until_none(find: Find, boot: str, patience_s: float, clean_rounds: int = 1) -> int:
    """Kill what `find` finds until it found nothing `clean_rounds` times in a row: one walk through /proc is no
    snapshot, and a chain of forks could slip through it."""
    deadline = now_s() + patience_s
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
        if now_s() > deadline:
            return len(found)
        time.sleep(0.001)


def wait_over(fd: int, patience_s: float) -> bool:
    """Whether the process of a pidfd has ended in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience_s * 1000))


def kill_marked(
    marks: dict[str, str], boot: str, patience_s: float = KILL_PATIENCE_S, whose: frozenset[int] | None = None
) -> int:
    """Kill every process with these marks (see `marked`); the number that would not die."""
    if not marks:
        raise ContainmentError("Nothing is killed by no mark at all.")
    return kill_until_none(lambda: marked(marks, whose), boot, patience_s, clean_rounds=1)
