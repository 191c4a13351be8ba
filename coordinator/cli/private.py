"""The state directory of one `run`, and the list by which a later `run` finds what a dead machine left.

A directory belongs to a living `run` as long as its `run.lock` is locked. `run.json` tells which daemons it needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from coordinator.cli import output, removal
from coordinator.cli.failure import Failure, failed, misused, reason_of
from coordinator.cli.places import user_state

LOCK: Final = "run.lock"
PLAN: Final = "run.json"
NODES: Final = "nodes"
LOGS: Final = "logs"
_OWN_PREFIXES: Final = ("run.", "coordinator.", "coordinator-", "ledger.", "journal.")
_OWN_NAMES: Final = frozenset({NODES, LOGS, "blobs", "tails", "ballast", "lock"})
_MAX_PLAN: Final = 1_000_000


@dataclass(frozen=True)
class Agent:
    """One node of an embedded cluster."""

    pool: str
    name: str
    slots: int | None


class StateDirectory:
    """A state directory held by this process."""

    def __init__(self, path: str, lock: int, made: bool) -> None:
        self.path = path
        self.made = made
        """Whether the directory itself is ours to remove."""
        self._lock = lock
        self._entry: str | None = None

    def inside(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def plan(self, agents: list[Agent]) -> None:
        """Write down which daemons belong here, then list the directory where a later `run` looks."""
        plan = {"state": self.path, "made": self.made, "agents": [asdict(agent) for agent in agents]}
        _write(self.inside(PLAN), plan)
        for name in (NODES, LOGS):
            os.mkdir(self.inside(name), 0o700)
        try:
            os.makedirs(_registry(), mode=0o700, exist_ok=True)
            entry = os.path.join(_registry(), f"{secrets.token_hex(8)}.json")
            _write(entry, {"state": self.path})
            self._entry = entry
        except OSError as error:
            output.warn(f"{_registry()}: {reason_of(error)}; if this machine dies, no later run will find {self.path}")

    def listed_as(self, entry: str) -> StateDirectory:
        self._entry = entry
        return self

    def forget(self) -> None:
        """Take the directory off the list: nothing in it is owed."""
        if self._entry is not None and os.path.exists(self._entry):
            os.unlink(self._entry)

    def release(self) -> None:
        """Let go of the directory as it is."""
        os.close(self._lock)

    def remove(self) -> list[str]:
        """Remove what was made here; gives what could not be."""
        names = _entries(self.path)
        strangers = frozenset() if self.made else frozenset(n for n in names if not _is_own(n))
        left = removal.remove_entries(self.path, strangers)
        if self.made and not left:
            try:
                os.rmdir(self.path)
            except OSError as error:
                left.append(f"{self.path}: {reason_of(error)}")
        if not left:
            self.forget()
        self.release()
        return left


def _is_own(name: str) -> bool:
    return name in _OWN_NAMES or name.startswith(_OWN_PREFIXES)


def create(chosen: str | None) -> StateDirectory:
    """The directory that was asked for (empty or absent), or a fresh one that only this user can enter."""
    try:
        path, made = (tempfile.mkdtemp(prefix="poolkeeper-", dir=_base()), True) if chosen is None else _chosen(chosen)
        held = lock(path)
    except OSError as error:
        raise failed(f"no state directory at {chosen or _base()}: {reason_of(error)}") from None
    if held is None:
        raise misused(f"{path} is in use by another run")
    return StateDirectory(path, held, made)


def _base() -> str:
    """Where temporary directories go that should survive a reboot: a release that is still owed stands in there."""
    if os.environ.get("TMPDIR"):
        return tempfile.gettempdir()
    return "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()


def _chosen(chosen: str) -> tuple[str, bool]:
    path = os.path.abspath(chosen)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise misused(f"--state {chosen} is no directory")
    if not os.path.lexists(path):
        os.makedirs(path, mode=0o700)
        os.chmod(path, 0o700)
        return path, True
    if _entries(path):
        raise misused(f"--state {chosen} is not empty", "name a directory that is empty or does not exist yet")
    return path, False


def _entries(path: str) -> list[str]:
    return os.listdir(path)


def lock(path: str) -> int | None:
    """Hold a directory; None when another process does. Raises OSError."""
    fd = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _write(path: str, document: dict[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(fd)


# ---- what other runs left


def _registry() -> str:
    return os.path.join(user_state(), "runs")


def abandoned() -> Iterator[tuple[StateDirectory, list[Agent]]]:
    """Directories of runs that are no more, each held by this process from now on; stale entries are dropped."""
    try:
        entries = sorted(name for name in os.listdir(_registry()) if name.endswith(".json"))
    except OSError:  # nothing was ever listed
        return
    for name in entries:
        entry = os.path.join(_registry(), name)
        found = _abandoned(entry)
        if found is not None:
            yield found


def _abandoned(entry: str) -> tuple[StateDirectory, list[Agent]] | None:
    try:
        path = str(_read(entry)["state"])
        if not os.path.isdir(path):
            os.unlink(entry)
            return None
        if os.stat(path).st_uid != os.getuid():
            return None
        plan = _read(os.path.join(path, PLAN))
        agents = [Agent(str(a["pool"]), str(a["name"]), a["slots"]) for a in plan["agents"]]
        held = lock(path)
    except (OSError, ValueError, KeyError, TypeError, Failure) as error:
        output.warn(f"{entry} tells of an earlier run, but can't be read: {error}; remove it if nothing is owed there")
        return None
    if held is None:
        return None
    return StateDirectory(path, held, bool(plan.get("made"))).listed_as(entry), agents


def _read(path: str) -> dict[str, Any]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, encoding="utf-8") as file:
        document = json.loads(file.read(_MAX_PLAN))
    if not isinstance(document, dict):
        raise failed(f"{path} holds no plan of a run")
    return document
