"""A node's machine: clock, disk, processes, keepers and the agent; what can be done to it, power cord included."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from agentd import events
from agentd import keeper as k
from agentd.model import NodeConfig
from tests.simulator.agent import AgentDaemon
from tests.simulator.agent import Observer as AgentObserver
from tests.simulator.disk import Disk
from tests.simulator.identities import Wallet, certificate_of
from tests.simulator.invariants import require
from tests.simulator.keepers import KeeperProcess
from tests.simulator.network import Network
from tests.simulator.processes import Identity, Processes, Tree, identity_of
from tests.simulator.society import HOME, Credentials
from tests.simulator.staging import Staging
from tests.simulator.users import Users
from tests.simulator.workload import Kind
from tests.simulator.world import Clock, World
from wire.messages import START_JOB, Cleanliness, KeptStream, TaskOutput

DISK_SIZE: Final = 1 << 40
PHASE_DIRECTORIES: Final = {"jobpreparation", "jobrelease"}
KEEP_SLACK_S: Final = 30.0
"""So much longer than `keep` says may a directory be there while its job goes on."""
STICKY: Final = 0.1
"""Of the jobs leave something in `shared/` for ever."""
FICKLE: Final = 0.15
BALKS_WITHIN_S: Final = 10.0
BALKS_MAX: Final = 40
"""Grants that come within so long to a machine that gives all of them back: some at a time, some times in a row."""
OWN_DIRECTORIES: Final = {"home", "tmp", "dirs"}


class Observer(AgentObserver, Protocol):
    """Who is told of what happens on machines."""

    def spawning(self, machine: Machine, keeper: KeeperProcess, who: Identity, staged: bool) -> None: ...
    def sees(self, machine: Machine, who: Identity, gpus: str | None) -> None: ...
    def staging(self, machine: Machine, key: str) -> None: ...
    def spawn_refused(self, who: Identity) -> None: ...
    def process(self, what: str, tree: Tree) -> None: ...
    def not_let_in(self, machine: Machine) -> None: ...
    def is_held_off(self, machine: Machine) -> bool: ...
    def signalled(self, trees: list[Tree]) -> None: ...
    def keeper_died(self, host: str, keeper: str, left: list[Tree]) -> None: ...


class Machine:
    """One node. Without power nothing of it happens; its disk stays."""

    def __init__(
        self, world: World, network: Network, observer: Observer, config: NodeConfig, clock: Clock, host: str = ""
    ) -> None:
        self.world = world
        self.network = network
        self.observer = observer
        self.config = config
        self.name = host or config.node
        self.node = config.node
        self.clock = clock
        self.disk = Disk(self.name)
        self.incarnation = config.incarnation
        self.processes = Processes(world, self.name, observer.process)
        self.keepers: dict[str, KeeperProcess] = {}
        """Of this boot, alive or dead."""
        self.agent: AgentDaemon | None = None
        self.wallet: Wallet | None = None
        """By what it is known, where the coordinator is not on this machine."""
        self.users: Users | None = None
        """Where jobs run as users of their own."""
        self.lives = 0
        self.overstates = False
        """The coordinator is told, or believes, that it elevates: then only its own word is left."""
        self.fickle = False
        """Whoever runs it changes its mind about elevation, when its agent is started anew."""
        self.balking = False
        """It gives back at once all work that comes, and its agent does not hear of it."""
        self._balked: list[float] = []
        """When, lately."""
        self.powered = True
        self.suspended = False
        self.room: int | None = None
        """Bytes free on its disk, when that is not all of it."""
        self.agent_wanted = True
        """Its supervisor starts it again."""
        self.on_agent_gone: Callable[[Machine], None] | None = None
        self.staging = Staging(self.name)
        self._ends: dict[int, str] = {}
        self._pids = 1000
        self._coming = ""
        self._spared_at: dict[str, float] = {}
        """Jobs of which something last kept directories from going, when."""
        self._full_at = 0.0
        self._rounds: set[tuple[str, int]] = set()
        """Those that were ever open here: what an earlier round left is late from the next one's opening on."""

    @property
    def disk_full(self) -> bool:
        return self.disk.full

    # ---- the agent

    def balks(self) -> bool:
        """Whether the work that comes just now goes back. Who does so is not given work again and again."""
        if not self.balking:
            return False
        now = self.world.now
        self._balked = [*(at for at in self._balked if now - at < BALKS_WITHIN_S), now]
        count = len(self._balked)
        require(count <= BALKS_MAX, "I19", f"{self.name} gave back {count} grants within {BALKS_WITHIN_S:g} s")
        return True

    def start_agent(self) -> None:
        if not self.powered or self.suspended or (self.agent is not None and self.agent.alive):
            return
        self.world.note(self.name, f"agent starts in {self.clock.boot}")
        self.lives += 1
        if self.fickle and self.world.chance(FICKLE):
            self.config = msgspec.structs.replace(self.config, elevation=not self.config.elevation)
        config = msgspec.structs.replace(self.config, life=f"{self.name}-{self.lives}")
        agent = AgentDaemon(self.world, self.clock, self.disk, self.network, self, self.observer, config, self.name)
        self.agent = agent
        agent.on_crash = self._agent_gone
        agent.start()
        if self.room is not None:
            agent.post(events.DiskSeen(self.room, DISK_SIZE))

    def set_room(self, room: int | None) -> None:
        """So many bytes are free on its disk from now on; None: as many as ever."""
        self.room = room
        if self.agent is not None and self.agent.alive:
            self.agent.post(events.DiskSeen(DISK_SIZE if room is None else room, DISK_SIZE))

    def _agent_gone(self) -> None:
        if self.on_agent_gone is not None:
            self.on_agent_gone(self)

    def supervise(self) -> None:
        """Its supervisor starts it, now and whenever it dies."""
        self.agent_wanted = True
        self.start_agent()

    def kill_agent(self) -> None:
        if self.agent is not None and self.agent.alive:
            self.agent.die("killed")

    # ---- who it is

    def credentials(self) -> Credentials:
        return HOME if self.wallet is None else self.wallet.certificate

    def renewed(self, certificate: bytes) -> None:
        assert self.wallet is not None
        self.wallet.certificate = certificate_of(certificate)

    def not_let_in(self) -> None:
        self.observer.not_let_in(self)

    # ---- what keepers need

    def before_spawn(self, keeper: KeeperProcess, argv: list[str], directory: str, *, staged: bool) -> None:
        who = identity_of(argv)
        fresh = staged or directory not in self.disk.directories
        require(fresh, "fresh directory", f"{who.kind.value} {who.task or ''} starts in {directory} again", who.job)
        came = self.staging.came.get(directory) is True
        require(came or not staged, "files", f"{directory} starts though its files did not come", who.job)
        self.observer.spawning(self, keeper, who, staged)
        if self.users is not None and not keeper.elevated:
            self.users.of(who.job, self.name)
        self.disk.directories[directory] = None
        self._coming = directory

    def sees(self, argv: list[str], env: dict[bytes, bytes]) -> None:
        gpus = env.get(b"CUDA_VISIBLE_DEVICES")
        self.observer.sees(self, identity_of(argv), None if gpus is None else gpus.decode())

    def stage(self, keeper: KeeperProcess, spawn: k.Spawn) -> int:
        """Start what brings a command's files into its fresh directory."""
        job, directory = spawn.directory.partition("/")[0], spawn.directory
        require(directory not in self.disk.directories, "fresh directory", f"files come to {directory} again", job)
        lasts_s, comes, missing = self.staging.fate(self.world.seed, spawn)
        require(missing is None, "files", f"{directory} begins on {self.name} without {missing}", job)
        self.observer.staging(self, spawn.key)
        self.staging.came[directory] = comes
        self.disk.directories[directory] = self.world.now
        kind = {"prep": Kind.PREPARATION, "release": Kind.RELEASE}.get(spawn.key.partition(".")[0], Kind.TASK)
        return self.processes.stage(keeper.name, job, kind, lasts_s, 0 if comes else 1)

    def take_piece(self, chore: events.TakePiece) -> events.PieceTaken:
        if self.disk.full:
            return events.PieceTaken(chore.job, chore.digest, chore.turn, failure="DiskFull: no space left on device.")
        taken = self.staging.take(chore.job, chore.digest, chore.offset, chore.content, chore.size)
        return events.PieceTaken(chore.job, chore.digest, chore.turn, *taken)

    def spawn_refused(self, argv: list[str]) -> None:
        self.observer.spawn_refused(identity_of(argv))

    def signalled(self, keeper: str) -> None:
        latest = self.processes.latest.get(keeper)
        trees = [tree for tree in self.processes.trees if tree.keeper == keeper]
        if latest is not None and latest not in trees:
            trees.append(latest)  # it may have ended while its keeper made up its mind
        self.observer.signalled(trees)

    def keeper_exited(self, keeper: KeeperProcess) -> None:
        left = [tree for tree in self.processes.trees if tree.keeper == keeper.name]
        self.observer.keeper_died(self.name, keeper.name, left)
        if self.agent is not None and self.agent.alive:
            keeper.drain()
            self.agent.keeper_died(keeper.name)

    # ---- what the agent needs

    def start_keeper(self, name: str, elevated: bool) -> None:
        self._pids += 1
        self.keepers[name] = KeeperProcess(self, name, self.disk.file(f"keeper-{name}"), self._pids, elevated)

    def forget_keeper(self, name: str) -> None:
        """Its record file goes."""
        self.keepers.pop(name, None)
        self.disk.files.pop(f"keeper-{name}", None)

    def is_empty(self, keepers: list[str]) -> bool:
        return not any(self.processes.children(name) for name in keepers)

    def resists(self, keepers: list[str], job: str = "") -> str | None:
        """The job of a process, of these keepers or of this job, that can't be killed just now."""
        for tree in self.processes.trees:
            mine = tree.keeper in keepers or tree.who.job == job
            if mine and any(process.held for process in tree.processes.values()):
                return tree.who.job
        return None

    def kill_left(self, keeper: str) -> None:
        self.signalled(keeper)
        self.processes.kill_leaf(keeper)

    def kill_job(self, job: str) -> bool:
        """Kill all that is alive of a job; True when nothing is."""
        trees = self.processes.of_job(job)
        self.observer.signalled(trees)
        for tree in trees:
            for pid in list(tree.processes):
                self.processes.kill(pid, signal.SIGKILL)
        return not self.processes.of_job(job)

    def make_job(self, chore: events.MakeJob) -> str | None:
        if self.disk.full:
            return "no space left on device"
        if self.users is not None and (refusal := self.users.lease(chore.job)) is not None:
            return refusal
        for name in chore.discard:
            for path in self.disk.below(f"{chore.job}/{name}"):
                del self.disk.directories[path]
        for name in chore.fresh:
            for path in self.disk.below(f"{chore.job}/dirs/{name}"):
                del self.disk.directories[path]
        for name in (*sorted(OWN_DIRECTORIES), *(f"dirs/{name}" for name in chore.dirs)):
            self.disk.directories.setdefault(f"{chore.job}/{name}", None)
        return None

    def make_start(self, chore: events.MakeStart) -> str | None:
        if self.disk.full:
            return "no space left on device"
        if self.users is not None and (refusal := self.users.lease(START_JOB)) is not None:
            return refusal
        for path in [path for path in self.disk.directories if path == chore.directory]:
            del self.disk.directories[path]
        if chore.directory == START_JOB:
            for path in self.disk.below(START_JOB):
                del self.disk.directories[path]
        return None

    def clean_job(self, chore: events.CleanJob) -> events.JobCleaned:
        """Remove what nothing keeps. A job whose last file is gone has no user here any more."""
        kept_s = self._remove(chore)
        self.staging.removed(chore.job)
        if self.users is None:
            return events.JobCleaned(chore.job, (), kept_s)
        live = self.processes.of_job(chore.job)
        require(not live, "I16", f"{live and live[0]} lives while its job is cleaned up on {self.name}", chore.job)
        if chore.job not in self.users.leases:
            return events.JobCleaned(chore.job, (), kept_s)
        left = ["shared/x can't be taken over"] if self._sticks(chore.job) else []
        if left:
            self.users.quarantined[chore.job] = left[0]
        elif kept_s is None:
            del self.users.leases[chore.job]
        clean = Cleanliness(files=left, uid=self.users.leases[chore.job] if left else None)
        return events.JobCleaned(chore.job, tuple(left), kept_s, clean)

    def read_outputs(self, chore: events.ReadOutputs) -> events.OutputsRead:
        """Of those whose directory is there."""
        there = [row for row in chore.rows if row.directory in self.disk.directories]
        wrote = KeptStream(3, b"out", b"")
        found = [TaskOutput(row.job, row.group, row.index, row.attempt, wrote, wrote) for row in there]
        return events.OutputsRead(chore.turn, found, len(chore.rows))

    def overdue(self, chore: events.FindOverdue) -> events.OverdueFound:
        """What runs, and what nobody stamped, looks as if it had ended long ago: so it does to who trusts a disk."""
        names: list[str] = []
        waits: list[float] = []
        for name in dict.fromkeys(path.split("/")[1] for path in self.disk.below(chore.job) if "/" in path):
            keep_s = chore.keep_s.get(name.split("-")[0])
            if keep_s is None or name in OWN_DIRECTORIES:
                continue
            ended = [self.disk.directories[path] or 0.0 for path in self.disk.below(f"{chore.job}/{name}")]
            left = max(ended) + keep_s - self.world.now
            if left > 0:
                waits.append(left)
            else:
                names.append(name)
        return events.OverdueFound(chore.job, names[: chore.limit], min(waits, default=None))

    def discard_tasks(self, chore: events.DiscardTasks) -> None:
        for name in chore.names:
            directory = f"{chore.job}/{name}"
            lives = [used for used in self._ends.values() if used == directory or used.startswith(directory + "/")]
            require(not lives, "keep", f"{lives} on {self.name} goes under the task that runs in it", chore.job)
            for path in self.disk.below(directory):
                del self.disk.directories[path]

    def spare(self) -> None:
        """Outputs of these jobs are still to be read, or they have just come back: nothing of them is late just now."""
        if self.agent is not None:
            ledger = self.agent.core.ledger
            owed = [row.job for rows in ledger.owed.values() for row in rows]
            opened = {(name, number) for name, held in ledger.jobs.items() for number in held.rounds}
            owed += sorted(name for name, _ in opened - self._rounds)
            self._rounds |= opened
            self._spared_at.update(dict.fromkeys(owed, self.world.now))

    def kept_too_long(self) -> list[str]:
        """Directories of tasks that should be gone, of jobs that the agent holds open."""
        agent, now = self.agent, self.world.now
        if agent is None or agent.stopped or self.disk.full or now - max(agent.born, agent.resumed_at) < KEEP_SLACK_S:
            self._full_at = now if self.disk.full else self._full_at
            return []
        again = {grant.job for grant in agent.core.ledger.grants.values() if grant.attempt > 1}
        self._spared_at.update(dict.fromkeys(again, now))
        found = []
        for path, ended in self.disk.directories.items():
            job, _, name = path.partition("/")
            held = None if job == START_JOB else agent.core.ledger.jobs.get(job)
            if ended is None or held is None or not any(r.open for r in held.rounds.values()):
                continue
            keeps = {group.name: group.command.keep_ms / 1000 for group in held.spec.groups}
            keep_s = keeps.get(name.split("/")[0].split("-")[0], math.inf)
            whole = self.disk.below(f"{job}/{name.split('/')[0]}")
            latest = max(now if (at := self.disk.directories[each]) is None else at for each in whole)
            due = max(latest + 1.1 * keep_s, self._spared_at.get(job, 0.0), self._full_at)
            if now - due > KEEP_SLACK_S:
                found.append(path)
        return found

    def _sticks(self, job: str) -> bool:
        """Whether the job has left something in `shared/` that nobody gets rid of, as a few jobs do."""
        return random.Random(f"{self.world.seed} {self.name} {job}").random() < STICKY

    def _remove(self, chore: events.CleanJob) -> float | None:
        """The seconds until the next is due, if something is kept."""
        kept: list[float] = []
        for path in self.disk.below(chore.job):
            left = self._keeps(chore, path)
            if left is not None and left > 0:
                kept.append(left)
            else:
                del self.disk.directories[path]
        return max(kept) if kept else None

    def _keeps(self, chore: events.CleanJob, path: str) -> float | None:
        if path == START_JOB:
            return None
        top = path.split("/")[1]
        if top in OWN_DIRECTORIES:
            return None
        group = top if top in PHASE_DIRECTORIES else top.split("-")[0]
        ended = self.disk.directories[path]
        keep_s = chore.keep_s.get(group)
        if keep_s is None or ended is None:
            return None
        return ended + keep_s - self.world.now

    # ---- processes, for the observer

    def spawned(self, tree: Tree) -> None:
        """The directory of the command that has just been spawned is known until it ends."""
        self._ends[tree.number] = self._coming

    def ended(self, tree: Tree) -> None:
        directory = self._ends.pop(tree.number)
        if directory in self.disk.directories:
            self.disk.directories[directory] = self.world.now

    # ---- what happens to machines

    def lose_power(self) -> None:
        """Everything that was in memory is gone; unsynced tails of files too."""
        if not self.powered:
            return
        self.world.note(self.name, "loses power")
        self.network.vanish(self.name)
        self.powered = False
        if self.agent is not None:
            self.agent.die("lost with its machine")
        for keeper in self.keepers.values():
            if keeper.alive:
                keeper.alive = False
                keeper.stop()
                self.observer.keeper_died(self.name, keeper.name, [])
        self.keepers.clear()
        self.processes.power_off()
        for file in self.disk.files.values():
            file.power_loss(self.world)

    def boot(self) -> None:
        if self.powered:
            return
        if self.observer.is_held_off(self):
            self.world.after(1.0, self.boot)
            return
        self.powered = True
        self.suspended = False
        self.processes.frozen = False
        self.network.appear(self.name)
        self.clock.reboot()
        self.world.note(self.name, f"boots as {self.clock.boot}")
        self.start_agent()

    def replace_root(self, incarnation: str) -> None:
        """Powered off, its root directory is replaced: another incarnation of the node."""
        assert not self.powered
        self.disk.wiped()
        self.incarnation = incarnation
        if self.users is not None:
            self.users = Users()
        self.config = msgspec.structs.replace(self.config, incarnation=incarnation)
        if self.wallet is not None:
            self.wallet.lose()
        self.world.note(self.name, f"has a new root {incarnation}")

    def suspend(self) -> None:
        if not self.powered or self.suspended:
            return
        self.world.note(self.name, "is suspended")
        self.suspended = True
        self.processes.freeze()
        if self.agent is not None and self.agent.alive:
            self.agent.stop()
        for keeper in self.keepers.values():
            keeper.stop()

    def wake(self) -> None:
        if not self.suspended:
            return
        self.world.note(self.name, "wakes")
        self.suspended = False
        self.processes.thaw()
        for keeper in self.keepers.values():
            if keeper.alive:
                keeper.resume()
        if self.agent is not None and self.agent.alive:
            self.agent.resume()
        else:
            self.start_agent()
