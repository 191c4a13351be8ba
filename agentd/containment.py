"""What holds a job's processes together on this node, what they may use, and how all of them end.

Two levels. `cgroup`: every keeper and all below it live in a leaf of cgroup v2, which the kernel kills as a whole.
`subreaper`: a keeper is the parent of all that its commands orphan, so its descendants are all there is; when it is
dead they are found by the marks in their environment, by the groups of cgroup v1 and by the job's user, as far as
there are any. Limits come from whichever version has the controllers. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agentd.cgroups import (
    OOM_FILES,
    Cgroup,
    Controller,
    Hierarchy,
    Limits,
    enable,
    is_ours,
    parent_of,
    remember,
    remembered,
    unified_parents,
)
from agentd.model import START_MARK
from agentd.processes import (
    KILL_PATIENCE_S,
    ContainmentError,
    ProcessProof,
    alive_of,
    kill_marked,
    kill_tree,
    kill_until_none,
    marked,
    of_uid,
)
from agentd.uidkill import kill_uid
from agentd.uids import Range
from wire.messages import START_JOB
from wire.spec import Needs

PROBE_S: Final = 10.0
KEEPER_MARK: Final = "BATCH_KEEPER"
"""In the environment of every command: the id of its keeper."""
PIDS_MAX: Final = 4096
"""Processes and threads that a keeper and all below it may have at once, unless the administrator says otherwise."""
KEEPER_BYTES: Final = 16 << 20
"""Beyond what its commands need: for the keeper itself, which lives in the same group."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Level(enum.Enum):
    """How well processes are held; shown as a node attribute."""

    CGROUP = "cgroup"
    SUBREAPER = "subreaper"


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a job on this node: living processes, and groups that would not go."""

    processes: int
    cgroups: list[str]


@dataclass(frozen=True, slots=True)
class Leaves:
    """The groups of a keeper. It enters each `directories` entry by writing 0 to its `cgroup.procs`. The line
    `oom_kill N` of each file in `oom` counts what the kernel killed in them for want of memory."""

    directories: tuple[str, ...] = ()
    oom: tuple[str, ...] = ()


def job_marks(job: str, root: str) -> dict[str, str]:
    """What every command of a job (or of the pool's start) on the node with this root has in its environment."""
    own = {START_MARK: "true"} if job == START_JOB else {"BATCH_JOB_ID": job}
    return {**own, "BATCH_NODE_ROOT_DIR": root}


class Containment:
    """The node's way of holding, limiting and killing processes. `base` is its group of cgroup v2, None without;
    `users` the range of job users, if jobs have some here, and `user_of` tells a job's."""

    def __init__(
        self,
        root: str,
        boot: str,
        base: str | None,
        others: Sequence[Hierarchy] = (),
        *,
        controllers: frozenset[Controller] = frozenset(),
        pids_max: int = PIDS_MAX,
        users: Range | None = None,
        user_of: Callable[[str], int | None] | None = None,
    ) -> None:
        self._root = root
        self._boot = boot
        self._pids_max = pids_max
        self._users = users
        self._user_of = user_of
        unified = [Hierarchy(base, True, controllers, kills=True)] if base else []
        self.hierarchies = (*unified, *others)
        self._making = threading.Lock()  # a group is not removed as empty while a leaf is made in it
        self.base = base

    @property
    def memory(self) -> str:
        """To be given to the next life's `probe` as `before`."""
        return remember(self.hierarchies)

    @property
    def level(self) -> Level:
        return Level.SUBREAPER if self.base is None else Level.CGROUP

    @property
    def limits(self) -> list[str]:
        """What the kernel enforces here, of `pids`, `memory` and `cpu`."""
        enforced = {controller for hierarchy in self.hierarchies for controller in hierarchy.controllers}
        return [controller.value for controller in Controller if controller in enforced]

    # ---- leaves

    def leaves(self, job: str, keeper: str, needs: Needs | None = None) -> Leaves:
        """Make the groups that a keeper of this job enters first thing, with their limits set: none where there are no
        cgroups. Raises ContainmentError."""
        _plain(job), _plain(keeper)
        needs = needs or Needs()
        memory = None if needs.memory_bytes is None else needs.memory_bytes + KEEPER_BYTES
        limits = Limits(self._pids_max, memory, needs.cpus)
        with self._making:
            made = [hierarchy.make(job, keeper, limits) for hierarchy in self.hierarchies if hierarchy.needed(limits)]
        files = [f"{leaf}/{name}" for leaf in made for name in OOM_FILES if memory is not None]
        return Leaves(tuple(made), tuple(file for file in files if os.path.exists(file)))

    # ---- ending

    def kill_keeper(
        self, job: str, keeper: str, proof: ProcessProof | None, patience_s: float = KILL_PATIENCE_S
    ) -> int:
        """Kill a keeper and all below it, also when it is stopped or dead already; the number that would not die.

        A dead keeper's processes have a new parent. With cgroups they are still in its leaves; without, they are found
        by the keeper's mark, unless they cleared their environment (see `spawn.Starter` for these).
        """
        survivors = 0
        if self.base is not None:  # at one moment: chains of forks outrun a walk, and fill the machine meanwhile
            survivors = self._kill_groups(_plain(job), _plain(keeper), patience_s)
        if proof is not None:  # stopped first, so that it takes nothing that we kill for an end
            survivors += kill_tree(proof, self._boot, patience_s)
        if self.base is None:
            survivors = max(survivors, self._kill_groups(_plain(job), _plain(keeper), patience_s))
        if survivors and self._users is not None and self._user_of is not None:
            user = self._user_of(job)
            survivors = survivors if user is None else self.kill_user(user, patience_s)
        marks = {"BATCH_NODE_ROOT_DIR": self._root, KEEPER_MARK: keeper}
        return survivors + kill_marked(marks, self._boot, patience_s, self._whose(job, None))

    def kill_job(self, job: str, uid: int | None = None, patience_s: float = KILL_PATIENCE_S) -> int:
        """Kill every process of a job on this node, keepers included; the number that would not die. 0 means that
        the last one is dead: the release may start. `uid`: the job's own user here, if it has one."""
        survivors = self.kill_user(uid, patience_s) if uid is not None and self.base is None else 0
        survivors += self._kill_groups(_plain(job), None, patience_s)
        if uid is not None and self.base is not None and of_uid(uid):
            survivors += self.kill_user(uid, patience_s)
        marks = job_marks(job, self._root)
        return survivors + kill_marked(marks, self._boot, patience_s, self._whose(job, uid))

    def kill_user(self, uid: int, patience_s: float = KILL_PATIENCE_S) -> int:
        """Kill every process of a job's user, wherever it hides; the number that would not die."""
        if self._users is None:
            raise ContainmentError(f"User {uid} is not killed: jobs have no users of their own here.")
        return kill_uid(uid, self._users, patience_s)

    def _whose(self, job: str, uid: int | None) -> frozenset[int] | None:
        """Whose processes a job's marks tell something of; None: anybody's, as all jobs are of one user."""
        if self._users is None:
            return None
        if uid is None and self._user_of is not None:
            uid = self._user_of(job)
        return frozenset({os.geteuid()} if uid is None else {os.geteuid(), uid})

    def _kill_groups(self, job: str, keeper: str | None, patience_s: float) -> int:
        groups = [(hierarchy, hierarchy.group(job, keeper)) for hierarchy in self.hierarchies]
        survivors = 0
        for hierarchy, group in groups:
            if hierarchy.kills:
                survivors += group.kill(patience_s)
        listed = [group for hierarchy, group in groups if not hierarchy.kills]
        if listed:
            survivors = max(survivors, kill_until_none(lambda: _alive_in(listed), self._boot, patience_s))
        if survivors == 0:
            with self._making:
                for hierarchy, group in groups:
                    group.remove()
                    hierarchy.remove_empty(job)
        return survivors

    # ---- looking

    def alive(self, job: str, uid: int | None = None) -> int:
        """How many processes of a job are alive on this node, as far as groups, marks and its user tell."""
        found = {pid for pid, _ in marked(job_marks(job, self._root), self._whose(job, uid))}
        found |= {pid for pid, _ in _alive_in([hierarchy.group(_plain(job)) for hierarchy in self.hierarchies])}
        if uid is not None:
            found |= {pid for pid, _ in of_uid(uid)}
        return len(found)

    def left(self, job: str, uid: int | None = None) -> Left:
        """What is left of a job whose processes were killed."""
        groups = [hierarchy.group(_plain(job)).path for hierarchy in self.hierarchies]
        return Left(self.alive(job, uid), [path for path in groups if os.path.exists(path)])

    def remove_base(self) -> None:
        """The node leaves: its groups go, if nothing lives in them."""
        with self._making:
            for hierarchy in self.hierarchies:
                Cgroup(hierarchy.base).remove()


def _alive_in(groups: Iterable[Cgroup]) -> list[tuple[int, int]]:
    return alive_of([pid for group in groups for pid in group.pids()])


def _plain(name: str) -> str:
    """A name that is one plain component of a path."""
    if not _PLAIN.fullmatch(name):
        raise ContainmentError(f"{name!r} is no name for a cgroup.")
    return name


# ---- what there is here


def probe(
    root: str,
    incarnation: str,
    boot: str,
    before: str | None = None,
    *,
    pids_max: int = PIDS_MAX,
    users: Range | None = None,
    user_of: Callable[[str], int | None] | None = None,
) -> Containment:
    """The best containment there is here: a group is used only after a process was in a child of it, and, for killing,
    was killed through it.

    `before` is what an earlier life of the agent used (`Containment.memory`); keepers may live there.
    """
    name = f"poolkeeper-{_plain(incarnation)[:16]}"
    earlier = remembered(before or "")
    base, controllers = _probe_unified(name, earlier.get(""))
    others = []
    for controller in Controller:
        if controller not in controllers:
            found = _probe_legacy(name, controller, earlier.get(controller.value))
            if found is not None:
                others.append(found)
    return Containment(
        root, boot, base, others, controllers=controllers, pids_max=pids_max, users=users, user_of=user_of
    )


def _probe_unified(name: str, earlier: str | None) -> tuple[str | None, frozenset[Controller]]:
    bases = [earlier] if earlier and is_ours(earlier, unified=True) else []
    for base in (*bases, *(f"{parent}/{name}" for parent in unified_parents())):
        try:
            controllers = enable(os.path.dirname(base), Controller)
        except (ContainmentError, OSError):
            controllers = frozenset()
        hierarchy = Hierarchy(base, True, controllers, kills=True)
        if _works(hierarchy):
            return base, controllers
    return None, frozenset()


def _probe_legacy(name: str, controller: Controller, earlier: str | None) -> Hierarchy | None:
    bases = [earlier] if earlier and is_ours(earlier, unified=False, controller=controller) else []
    parent = parent_of(controller)
    for base in (*bases, *([f"{parent}/{name}"] if parent is not None else [])):
        hierarchy = Hierarchy(base, False, frozenset({controller}))
        if _works(hierarchy):
            return hierarchy
    return None


_PROBE: Final = """
import os, sys
os.write(os.open(sys.argv[1] + "/cgroup.procs", os.O_WRONLY), b"0")
os.write(1, b"in")
os.read(0, 1)
"""
_TRIED: Final = Limits(pids=64, memory_bytes=1 << 30, cpus=1.0)


def _works(hierarchy: Hierarchy) -> bool:
    """Whether a group below `base` takes its limits, a process can enter it and is killed with it: tried with one."""
    name = f"probe-{os.getpid()}"
    try:
        leaf = Cgroup(hierarchy.make(name, "leaf", _TRIED))
        with _inside(leaf) as child:
            if child.stdout is None or child.stdout.read(2) != b"in":
                return False
            if not hierarchy.kills:
                return child.pid in leaf.pids()
            return leaf.kill(PROBE_S) == 0 and child.wait(PROBE_S) == -signal.SIGKILL
    except (ContainmentError, OSError, subprocess.TimeoutExpired):
        return False
    finally:
        hierarchy.group(name).remove()
        hierarchy.remove_empty(name)


@contextlib.contextmanager
def _inside(leaf: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROBE, leaf.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={},
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
