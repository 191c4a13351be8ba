"""Starts the keepers of a node, and ends them with all that they started.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any, Final

from agentd import keeper as keeper_program
from agentd import staging
from agentd.containment import Containment
from agentd.environment import PATH
from agentd.noted import note
from agentd.processes import KILL_PATIENCE_S, ContainmentError, ProcessProof, descendants, kill_until_none, proof_of
from wire.spec import Needs

_PR_SET_CHILD_SUBREAPER: Final = 36
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_NAME_MAX: Final = 100
_PROBE_S: Final = 60.0
_SPEAKER: Final = re.compile(r"^keeper \d+: ")
_PYC_HEADER_BYTES: Final = 16
"""The magic number, and what says when it is out of date: looked at by imports alone."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Who a keeper is, and what holds it in; as it stands here, the keeper is as we are.

    uid      the user it becomes before its first command: the job's, or 0, which keeps root and its commands elevated
    gid      that user's group; None: of the same number
    private  the directory below the keeper's base that holds the job's own /tmp, /var/tmp and /dev/shm, all of it ours
             alone; None: it shares the machine's, and its namespaces
    needs    what its commands may not exceed together, where the kernel can see to it
    """

    uid: int | None = None
    gid: int | None = None
    private: str | None = None
    needs: Needs = field(default_factory=Needs)

    def settings(self, root: str) -> list[str]:
        """What the keeper is told of it; `root` is the node's."""
        said = [] if self.uid is None else [f"uid={self.uid}", f"gid={self.uid if self.gid is None else self.gid}"]
        if self.private is not None:
            said += [f"private={self.private}", f"root={root}"]
        if self.needs.memory_bytes is not None:
            said.append(f"memory={self.needs.memory_bytes}")
        return said


@dataclass(frozen=True, slots=True)
class KeeperRecord:
    """What a dead keeper's record file says: `ended` messages in their order, acked ones perhaps among them, and the
    key that was started and never ended."""

    ended: list[dict[str, Any]]
    started: str | None


def become_subreaper() -> None:
    """From here on what a killed keeper orphans becomes our child (as long as we live), so that it is found even if
    it cleared its environment. For a process that has no children but keepers."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_CHILD_SUBREAPER")


AS_WE_ARE: Final = Fence()


class Starter:
    """The keepers below one agent directory: `<agent>/keepers/<name>.record`, `.record2` and `.log`, and the socket
    `<agent>/door/keepers.sock` that the caller listens on. `adopts`: we are the subreaper of the keepers."""

    def __init__(
        self,
        agent_directory: str,
        boot: str,
        containment: Containment,
        *,
        nofile: tuple[int, int] | None = None,
        idle_exit_s: float = 600.0,
        adopts: bool = False,
    ) -> None:
        self._agent = Path(agent_directory)
        self._boot = boot
        self._containment = containment
        self._nofile = nofile
        self._idle_exit_s = idle_exit_s
        self._adopts = adopts
        self._lock = threading.Lock()
        self._children: set[int] = set()
        (self._agent / "keepers").mkdir(mode=0o700, exist_ok=True)
        self.door.mkdir(mode=0o700, exist_ok=True)
        # A keeper that became a job's user passes through it by the handle it has; to others what is above it is shut.
        self.door.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self._program = _compiled(self._agent)

    @property
    def door(self) -> Path:
        """The directory of the socket that keepers connect to."""
        return self._agent / "door"

    def start(self, keeper: str, job: str, base: str, fence: Fence = AS_WE_ARE) -> ProcessProof:
        """Start a keeper whose items' directories are below `base`. It connects by itself, or says in its log why it
        can't be held as `fence` says, and ends. Raises ContainmentError."""
        leaves = self._containment.leaves(job, keeper, fence.needs)
        settings = keeper_program.Settings(
            [
                f"keeper={keeper}",
                f"boot={self._boot}",
                f"base={base}",
                f"door={self.door}",
                f"record={self.record_file(keeper)}",
                *(f"leaf={leaf}" for leaf in leaves.directories),
                *(f"oom={file}" for file in leaves.oom),
                *fence.settings(os.path.realpath(self._agent.parent)),
                "nofile=" + (f"{self._nofile[0]}:{self._nofile[1]}" if self._nofile else ""),
                f"idle_exit_s={self._idle_exit_s}",
            ]
        )
        python = _base_interpreter()
        log = os.open(self._file(keeper, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            with self._lock:
                pid = os.posix_spawn(
                    python,
                    [python, "-I", "-S", self._program, *settings.arguments()],
                    {"LANG": "C.UTF-8"},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                        (os.POSIX_SPAWN_DUP2, log, 2),
                    ],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=_IGNORED_BY_PYTHON,
                )
                self._children.add(pid)
        except OSError as error:
            raise ContainmentError(f"Could not start a keeper: {error.strerror}.") from error
        finally:
            os.close(log)
        # Our child: its number can't change hands before we reap it.
        return proof_of(pid, self._boot) or ProcessProof(pid, 0, self._boot)

    def kill(self, keeper: str, job: str, proof: ProcessProof | None, patience_s: float = KILL_PATIENCE_S) -> int:
        """End a keeper and all that it started, whatever state it is in; the number that would not die. Also to be
        called for a keeper that is dead already: then what it left is killed."""
        survivors = self._containment.kill_keeper(job, keeper, proof, patience_s)
        if proof is not None:
            self._reap(proof.pid, dead=survivors == 0)
        if self._adopts:
            survivors += kill_until_none(self._adopted, self._boot, patience_s)
        return survivors

    def record(self, keeper: str) -> KeeperRecord:
        """What the record of a dead keeper says."""
        return KeeperRecord(*keeper_program.read_record(*self._records(keeper)))

    def recorded_process(self, keeper: str) -> ProcessProof | None:
        """The process that keeps this record, as only itself can have written there."""
        identity = keeper_program.read_identity(*self._records(keeper))
        return None if identity is None else ProcessProof(*identity)

    def _records(self, keeper: str) -> list[bytes]:
        found = []
        for half in ("record", "record2"):
            with contextlib.suppress(FileNotFoundError):
                found.append(Path(self._file(keeper, half)).read_bytes())
        return found

    def last_words(self, keeper: str) -> str:
        """The end of what a keeper complained about, for a reason; empty in the usual case."""
        try:
            lines = Path(self._file(keeper, "log")).read_bytes()[-500:].decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return " ".join(_SPEAKER.sub("", line) for line in lines).strip()

    def forget(self, keeper: str) -> None:
        """Remove the files of a keeper that is dead and whose record was taken."""
        for ending in ("record", "record2", "log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(keeper, ending))

    def record_file(self, keeper: str) -> str:
        """Where a keeper records what it starts and what ended."""
        return self._file(keeper, "record")

    def _file(self, keeper: str, ending: str) -> str:
        if not keeper or "/" in keeper or keeper.startswith(".") or len(keeper) > _NAME_MAX:
            raise ContainmentError(f"{keeper!r} is no name for a keeper.")
        return str(self._agent / "keepers" / f"{keeper}.{ending}")

    def _reap(self, pid: int, dead: bool) -> None:
        """Collect a keeper that is our child; one of an earlier life of the agent is not. `dead`: it is, or about to
        be, and is waited for."""
        with self._lock:
            if pid not in self._children:
                return
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, 0 if dead else os.WNOHANG)[0] == 0:
                    return
            self._children.discard(pid)

    def _adopted(self) -> list[tuple[int, int]]:
        """What became our child because its keeper died, with all below it; what of it is dead is reaped."""
        with self._lock:
            ours = os.getpid()
            for pid in _children_of(ours) - self._children:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            found = []
            for pid in _children_of(ours) - self._children:
                proof = proof_of(pid, self._boot)
                found += descendants(pid) if proof is None else [(pid, proof.starttime), *descendants(pid)]
            return found


def _children_of(pid: int) -> set[int]:
    children: set[int] = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            children.update(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text("ascii").split()))
    return children


def isolation_refused(uid: int) -> str | None:
    """Why a keeper can't be given namespaces of its own and become this user here, in a sentence; None: it can. Tried
    with a process."""
    return _once(f"probe={uid}", "try what keepers do for users of jobs")


def remove_keys(uid: int, users: str = "/proc/key-users") -> list[str]:
    """Remove the keys that the kernel keeps for a user of whom nothing runs any more; why that failed, in sentences.
    Only users who have some, as told in `users`, cost more than a look."""
    try:
        table = Path(users).read_text("ascii")
    except OSError:
        return []  # this kernel keeps no keys
    rows = (line.partition(":") for line in table.splitlines())
    counts = {name.strip(): numbers.split() for name, _, numbers in rows}
    if counts.get(str(uid), ["", "0/0"])[1].startswith("0/"):
        return []
    refused = _once(f"keys={uid}", f"remove the keys of user {uid}")
    return [] if refused is None else [refused]


def _once(argument: str, doing: str) -> str | None:
    """Run the keeper's program for one thing; why it could not, in a sentence."""
    try:
        tried = subprocess.run(
            [_base_interpreter(), "-I", "-S", keeper_program.__file__, argument],
            stdin=subprocess.DEVNULL, capture_output=True, env={"LANG": "C.UTF-8"}, cwd="/",
            timeout=_PROBE_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Could not {doing}: {error}."
    if tried.returncode == 0:
        return None
    words = _SPEAKER.sub("", tried.stderr.decode("utf-8", "replace").strip())
    return words or f"Could not {doing}: the process that tried it ended with status {tried.returncode}."


def staging_program(scripts: str, wanted: str | None, *, job_users: bool) -> tuple[str, ...]:
    """The command that brings files in, and its program in a directory that every job's user can pass through: our own
    files may stand where only we can go. Raises OSError."""
    target = os.path.join(scripts, "staging.py")
    if not note(Path(target), Path(staging.__file__).read_bytes(), 0o444):
        target = staging.__file__  # another release's stands there: ours can be reached by some at least
    return (wanted or _python_for_all(job_users), "-I", "-S", target)


def _python_for_all(job_users: bool) -> str:
    """Our own interpreter where every user may execute it, else the system's."""
    ours = _base_interpreter()
    if not job_users or _is_for_all(ours):
        return ours
    places = (f"{directory}/python3" for directory in PATH.split(":"))
    return next((place for place in places if _is_for_all(os.path.realpath(place))), ours)


def _is_for_all(program: str) -> bool:
    """Whether every user can get there, and execute it."""
    here = program
    try:
        while here != "/":
            if not os.stat(here).st_mode & 0o001:
                return False
            here = os.path.dirname(here)
    except OSError:
        return False
    return True


def _base_interpreter() -> str:
    """The interpreter itself, not the entry of a virtual environment: it starts faster and needs no site."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _compiled(directory: Path) -> str:
    """The keeper's program, compiled once: a file run by path is compiled at each start otherwise. (`py_compile` takes
    half a file for a whole one where the disk is full.)"""
    source = keeper_program.__file__
    target = directory / f"keeper-{sys.implementation.cache_tag}.pyc"
    try:
        code = compile(Path(source).read_bytes(), source, "exec", dont_inherit=True)
        whole = note(target, MAGIC_NUMBER + bytes(_PYC_HEADER_BYTES - len(MAGIC_NUMBER)) + marshal.dumps(code))
    except OSError:
        return source
    return str(target) if whole else source


def open_files_limit() -> tuple[int, int]:
    """The limit of open files as it is now; to be read before it is raised, and given to `Starter`."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_open_files_limit() -> None:
    """Allow ourselves as many open files as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
