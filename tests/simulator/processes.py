"""The processes of one machine: what commands really do there, and the only truth the invariants believe.

A command is a main process and what it leaves behind. Its parent is a keeper, which is the subreaper of all of it:
what is orphaned becomes the keeper's child, and what the keeper leaves when it dies stays in the keeper's leaf.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.simulator.workload import PROGRAM, Character, Kind
from tests.simulator.world import Timer, World

FOREVER_S: Final = 1e9


class SpawnRefusedError(OSError):
    """The program could not be started; nothing of it ever ran."""


@dataclass(frozen=True)
class Identity:
    """Who a command is, as its own argv says."""

    job: str
    node: str
    kind: Kind
    task: str | None
    index: int | None
    attempt: int | None
    character: Character


def identity_of(argv: Sequence[str]) -> Identity:
    """Read back what `workload.command` wrote: an argv that does not fit was rendered wrongly."""
    program, kind, job, node, *rest = argv
    assert program == PROGRAM, f"not a command of this workload: {argv!r}"
    if kind == Kind.TASK.value:
        task, index, attempt, character = rest
        return Identity(job, node, Kind.TASK, task, int(index), int(attempt), Character.parse(character))
    (character,) = rest
    return Identity(job, node, Kind(kind), None, None, None, Character.parse(character))


@dataclass(eq=False)
class Process:
    pid: int
    tree: Tree
    main: bool
    ignores_term: bool
    left_s: float
    exit_code: int | None
    exit_signal: int | None
    since: float
    timer: Timer | None = None
    dying: bool = False
    held: bool = False
    """It waits for something that can't be interrupted: it ends afterwards."""


@dataclass(eq=False)
class Tree:
    """One attempt: everything that came of one spawn."""

    number: int
    host: str
    """The machine it really is on; by its argv it may be on another, if one is a copy."""
    who: Identity
    keeper: str
    incarnation: str
    boot: str
    spawned_at: float
    spawned_boottime: float
    processes: dict[int, Process] = field(default_factory=dict)
    main_exit: tuple[int | None, int | None] | None = None
    """(exit code, signal) of the main process, by itself or by a kill."""
    natural: bool = True
    """Nobody sent it a signal."""
    exited_at: float | None = None
    ended_at: float | None = None
    powered_off: bool = False
    stages: bool = False
    """It brings files in for a command, and nobody is told of it."""
    stuck: bool = False
    """Some of it could not be killed for a while."""

    @property
    def alive(self) -> bool:
        return bool(self.processes)

    @property
    def succeeded(self) -> bool:
        return self.main_exit == (0, None) and not self.powered_off

    def __str__(self) -> str:
        who = self.who
        task = f" {who.task} attempt {who.attempt}" if who.task is not None else ""
        return f"{who.kind.value} of {who.job}{task} on {self.host} ({self.keeper}, #{self.number})"


class Processes:
    """The process table of one machine."""

    def __init__(self, world: World, machine: str, observe: Callable[[str, Tree], None]) -> None:
        self.world = world
        self.machine = machine
        self.observe = observe
        """Told `spawned`, `exited` (the main process) and `ended` (nothing is left)."""
        self.trees: list[Tree] = []
        """Those with a live process."""
        self.on_exit: dict[str, Callable[[int, int | None, int | None], None]] = {}
        """By keeper: told of every dead child (SIGCHLD)."""
        self.latest: dict[str, Tree] = {}
        """By keeper: what it spawned last."""
        self.frozen = False
        self._pids = 100
        self._numbers = 0
        self._tries: dict[tuple[str, str, str], int] = {}

    # ---- starting

    def spawn(self, keeper: str, argv: Sequence[str], incarnation: str, boot: str, boottime: float) -> int:
        """Start a command under a keeper; the pid of its main process. Raises SpawnRefusedError."""
        who = identity_of(argv)
        rng = random.Random(f"{self.world.seed}/{self.machine}/{who.job}/{who.kind.value}/{who.task}/{self._try(who)}")
        character = who.character
        if rng.random() < character.unstartable:
            raise SpawnRefusedError(2, "no such program")
        self._numbers += 1
        tree = Tree(self._numbers, self.machine, who, keeper, incarnation, boot, self.world.now, boottime)
        self.trees.append(tree)
        self.latest[keeper] = tree
        duration = rng.uniform(*character.duration_s)
        code, by_signal = self._fate(rng, who)
        if rng.random() < character.hang:
            duration = FOREVER_S
        ignores = rng.random() < character.ignores_term
        main = self._add(tree, main=True, ignores_term=ignores, lasts_s=duration, code=code, by_signal=by_signal)
        if rng.random() < character.daemon:
            for _ in range(rng.randint(1, 2)):
                lasts = rng.choice((0.5, 5.0, FOREVER_S))
                self._add(tree, main=False, ignores_term=ignores, lasts_s=lasts, code=0, by_signal=None)
        self.observe("spawned", tree)
        return main.pid

    def stage(self, keeper: str, job: str, kind: Kind, lasts_s: float, code: int) -> int:
        """Start what brings a command's files in: a process of the job that is none of its commands."""
        self._numbers += 1
        who = Identity(job, self.machine, kind, None, None, None, Character())
        tree = Tree(self._numbers, self.machine, who, keeper, "", "", self.world.now, 0.0, stages=True)
        self.trees.append(tree)
        return self._add(tree, main=True, ignores_term=False, lasts_s=lasts_s, code=code, by_signal=None).pid

    def _try(self, who: Identity) -> int:
        key = (who.job, who.kind.value, who.task or who.node)
        self._tries[key] = self._tries.get(key, 0) + 1
        return self._tries[key]

    def _fate(self, rng: random.Random, who: Identity) -> tuple[int | None, int | None]:
        character = who.character
        tries = who.attempt if who.attempt is not None else self._tries[(who.job, who.kind.value, who.node)]
        if who.node in character.bad_nodes or tries <= character.fail_first:
            return 3, None
        if rng.random() < character.fail:
            return rng.choice((1, 75, 137)), None
        if rng.random() < character.signalled:
            return None, int(signal.SIGSEGV)
        return 0, None

    def _add(
        self, tree: Tree, main: bool, ignores_term: bool, lasts_s: float, code: int | None, by_signal: int | None
    ) -> Process:
        self._pids += 1
        process = Process(self._pids, tree, main, ignores_term, lasts_s, code, by_signal, self.world.now)
        tree.processes[process.pid] = process
        if lasts_s < FOREVER_S:
            process.timer = self.world.after(lasts_s, self._dies, process)
        return process

    # ---- ending

    def kill(self, pid: int, number: int) -> bool:
        """Send a signal. False: there is no such process."""
        process = self._find(pid)
        if process is None:
            return False
        if number == signal.SIGKILL or not process.ignores_term:
            self._strike(process, number)
        return True

    def _strike(self, process: Process, number: int) -> None:
        if process.main:
            process.tree.natural = False
        if process.dying and number != signal.SIGKILL:
            return
        process.dying = True
        process.exit_code, process.exit_signal = None, int(number)
        process.left_s = self.world.between(0.0005, 0.01)
        if process.timer is not None:
            process.timer.cancel()
        process.since = self.world.now
        if not self.frozen and not process.held:
            process.timer = self.world.after(process.left_s, self._dies, process)

    def stick(self, tree: Tree) -> None:
        """From now on nothing of it ends, whatever is sent to it."""
        tree.stuck = True
        for process in tree.processes.values():
            if process.timer is not None:
                process.timer.cancel()
                process.timer = None
                process.left_s = max(0.0, process.left_s - (self.world.now - process.since))
            process.held = True

    def unstick(self, tree: Tree) -> None:
        for process in tree.processes.values():
            if process.held:
                process.held, process.since = False, self.world.now
                if not self.frozen and process.left_s < FOREVER_S / 2:
                    process.timer = self.world.after(process.left_s, self._dies, process)

    def _find(self, pid: int) -> Process | None:
        for tree in self.trees:
            if pid in tree.processes:
                return tree.processes[pid]
        return None

    def _dies(self, process: Process) -> None:
        tree = process.tree
        if process.pid not in tree.processes:
            return
        del tree.processes[process.pid]
        if process.main:
            tree.main_exit = (process.exit_code, process.exit_signal)
            tree.exited_at = self.world.now
            if not tree.stages:
                self.observe("exited", tree)
        if not tree.processes:
            self._over(tree)
        told = self.on_exit.get(tree.keeper)
        if told is not None:
            told(process.pid, process.exit_code, process.exit_signal)

    def _over(self, tree: Tree) -> None:
        tree.ended_at = self.world.now
        self.trees.remove(tree)
        if not tree.stages:
            self.observe("ended", tree)

    # ---- what a keeper and its agent can see and do

    def children(self, keeper: str) -> list[int]:
        """All live processes below a keeper, in order of birth."""
        return sorted(pid for tree in self.trees if tree.keeper == keeper for pid in tree.processes)

    def kill_leaf(self, keeper: str) -> None:
        """cgroup.kill: all of a keeper's processes at once."""
        for pid in self.children(keeper):
            self.kill(pid, signal.SIGKILL)

    def of_job(self, job: str) -> list[Tree]:
        return [tree for tree in self.trees if tree.who.job == job]

    # ---- the machine

    def freeze(self) -> None:
        """Suspend: nothing runs, nothing dies."""
        self.frozen = True
        for tree in self.trees:
            for process in tree.processes.values():
                if process.timer is not None:
                    process.timer.cancel()
                    process.timer = None
                if not process.held:
                    process.left_s = max(0.0, process.left_s - (self.world.now - process.since))

    def thaw(self) -> None:
        self.frozen = False
        for tree in self.trees:
            for process in tree.processes.values():
                process.since = self.world.now
                if process.left_s < FOREVER_S / 2 and not process.held:
                    process.timer = self.world.after(process.left_s, self._dies, process)

    def power_off(self) -> None:
        for tree in list(self.trees):
            for process in tree.processes.values():
                if process.timer is not None:
                    process.timer.cancel()
            if tree.main_exit is None:
                tree.natural = False
                tree.powered_off = True
            tree.processes.clear()
            self._over(tree)
        self.on_exit.clear()
        self.latest.clear()
