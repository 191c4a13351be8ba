"""Control groups of both versions: where ours may be, what each of them limits, and how a group is killed and removed.

Groups are made below the group that we are in, never elsewhere, and nobody is moved out of the group that he is in: its
accounting is not ours. The one exception is said at `enable`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import select
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentd.processes import KILL_PATIENCE_S, ContainmentError, now_s

SUBGROUP: Final = "agent"
"""Beside our groups in a delegated one: where the agent itself lives. Also the `DelegateSubgroup=` of its unit."""
PERIOD_US: Final = 100_000
"""Over which a share of processors is counted."""
_GONE: Final = (errno.ENOENT, errno.ENODEV)


class Controller(enum.Enum):
    """What the kernel can limit for a group; the values are its names for them."""

    PIDS = "pids"
    MEMORY = "memory"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a keeper and all below it may use together; None: no limit."""

    pids: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None

    def of(self, controller: Controller) -> float | None:
        match controller:
            case Controller.PIDS:
                return self.pids
            case Controller.MEMORY:
                return self.memory_bytes
            case Controller.CPU:
                return self.cpus


# ---- what is written to limit something: (file, text, whether a kernel may lack the file)


def _settings_1(controller: Controller, limit: float) -> list[tuple[str, str, bool]]:
    match controller:
        case Controller.PIDS:
            return [("pids.max", f"{limit:.0f}", False)]
        case Controller.MEMORY:  # memory alone first: the sum with swap may not be less
            return [(f"memory.{kind}limit_in_bytes", f"{limit:.0f}", kind != "") for kind in ("", "memsw.")]
        case Controller.CPU:
            return [
                ("cpu.cfs_period_us", str(PERIOD_US), False),
                ("cpu.cfs_quota_us", str(_quota_us(limit)), False),
                ("cpu.shares", str(max(2, round(1024 * limit))), True),
            ]


def _settings_2(controller: Controller, limit: float) -> list[tuple[str, str, bool]]:
    match controller:
        case Controller.PIDS:
            return [("pids.max", f"{limit:.0f}", False)]
        case Controller.MEMORY:
            return [("memory.max", f"{limit:.0f}", False), ("memory.swap.max", "0", True)]
        case Controller.CPU:
            weight = min(10_000, max(1, round(100 * limit)))
            return [("cpu.max", f"{_quota_us(limit)} {PERIOD_US}", False), ("cpu.weight", str(weight), True)]


def _quota_us(cpus: float) -> int:
    return max(1000, round(cpus * PERIOD_US))  # the kernel's least


OOM_FILES: Final = ("memory.events", "memory.oom_control")
"""Of version 2 and of version 1; either has a line `oom_kill N`."""


# ---- groups


class Cgroup:
    """One directory of a hierarchy."""

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

    def write(self, file: str, text: str) -> None:
        """Raises OSError."""
        fd = os.open(f"{self.path}/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)

    def words(self, file: str) -> set[str]:
        """What a list of the kernel holds; nothing when there is no such file."""
        try:
            with open(f"{self.path}/{file}", encoding="ascii") as opened:
                return set(opened.read().split())
        except OSError:
            return set()

    def populated(self) -> bool:
        """Whether a process lives in it or below (version 2)."""
        try:
            with open(f"{self.path}/cgroup.events", encoding="ascii") as file:
                return "populated 1" in file.read()
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise

    def kill(self, patience_s: float = KILL_PATIENCE_S) -> int:
        """Kill all in it and below and wait until none is left; the number that would not die (version 2)."""
        try:
            self.write("cgroup.kill", "1")
        except OSError as error:
            if error.errno in _GONE:
                return 0
            raise ContainmentError(f"Could not kill the cgroup {self.path}: {error.strerror}.") from error
        return 0 if self._wait_empty(patience_s) else max(1, len(self.pids()))

    def _wait_empty(self, patience_s: float) -> bool:
        deadline = now_s() + patience_s
        try:
            fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while self.populated():
                left = deadline - now_s()
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


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The node's own group in one hierarchy: `base`/<job>/<keeper> are its leaves. `kills`: the kernel kills a group of
    it as a whole, which version 2 does."""

    base: str
    unified: bool
    controllers: frozenset[Controller]
    kills: bool = False

    def group(self, job: str, keeper: str | None = None) -> Cgroup:
        return Cgroup(f"{self.base}/{job}" if keeper is None else f"{self.base}/{job}/{keeper}")

    def needed(self, limits: Limits) -> bool:
        """Whether a leaf here would do anything for a keeper with these limits."""
        return self.kills or any(limits.of(controller) is not None for controller in self.controllers)

    def make(self, job: str, keeper: str, limits: Limits) -> str:
        """The path of a keeper's leaf with these limits set. Raises ContainmentError."""
        leaf = self.group(job, keeper)
        if self.unified and self.controllers:
            for path in (self.base, f"{self.base}/{job}"):
                Cgroup(path).make()
                pass_down(Cgroup(path), self.controllers)
        leaf.make()
        settings = _settings_2 if self.unified else _settings_1
        for controller in sorted(self.controllers, key=lambda one: one.value):
            limit = limits.of(controller)
            for file, text, optional in settings(controller, limit) if limit is not None else ():
                try:
                    leaf.write(file, text)
                except OSError as error:
                    if optional and isinstance(error, FileNotFoundError):
                        continue
                    if controller is Controller.CPU and error.errno == errno.EINVAL:
                        continue  # version 1, and a group above has less: that holds
                    raise ContainmentError(
                        f"Could not limit the {controller.value} of the cgroup {leaf.path} ({file} to {text}): "
                        f"{error.strerror}."
                    ) from error
        return leaf.path

    def remove_empty(self, job: str) -> None:
        """A node without keepers has no cgroups, however its agent ends."""
        for path in (f"{self.base}/{job}", self.base):
            with contextlib.suppress(OSError):  # not empty, or gone
                os.rmdir(path)


# ---- where


@dataclass(frozen=True, slots=True)
class Mount:
    """A hierarchy as it is mounted here. `root`: the group that its top shows."""

    point: str
    root: str
    unified: bool
    options: frozenset[str]


def unescaped(path: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def mounts_of(mountinfo: Iterable[str]) -> Iterator[Mount]:
    """The hierarchies in the lines of a `mountinfo`."""
    for line in mountinfo:
        fields, _, rest = line.rstrip("\n").partition(" - ")
        kind, _, options = (*rest.split(" ", 2), "", "")[:3]
        if kind in ("cgroup", "cgroup2"):
            words = fields.split(" ")
            yield Mount(unescaped(words[4]), unescaped(words[3]), kind == "cgroup2", frozenset(options.split(",")))


def own_groups(membership: Iterable[str]) -> dict[str, str]:
    """Controller -> the path of our group, of the lines of /proc/self/cgroup; the empty one is version 2's."""
    found = {}
    for line in membership:
        _, controllers, path = line.rstrip("\n").split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def place_in(mount: Mount, path: str) -> str | None:
    """Where a group is below a mount, or None when it is not to be seen there."""
    if "/../" in path + "/":
        return None  # outside of our namespace
    root = mount.root.rstrip("/")
    if path != root and not path.startswith(root + "/"):
        return None
    return (mount.point.rstrip("/") + path[len(root) :]).rstrip("/")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:
        return []


def mounts() -> list[Mount]:
    """The hierarchies mounted here."""
    return list(mounts_of(_lines("/proc/self/mountinfo")))


def unified_parents() -> list[str]:
    """The groups of version 2 that ours may be made in: the delegated one that we are in, else our own."""
    path = own_groups(_lines("/proc/self/cgroup")).get("")
    places = [place_in(mount, path) for mount in mounts() if mount.unified and path is not None]
    return [_delegated_above(place) for place in places if place is not None]


def _delegated_above(own: str) -> str:
    above, _, name = own.rpartition("/")
    return above if name == SUBGROUP and not is_delegated(own) and is_delegated(above) else own


def parent_of(controller: Controller) -> str | None:
    """The group of version 1 that ours may be made in for this controller: our own."""
    path = own_groups(_lines("/proc/self/cgroup")).get(controller.value)
    for mount in mounts():
        if not mount.unified and controller.value in mount.options and path is not None:
            place = place_in(mount, path)
            if place is not None:
                return place
    return None


def groups_above(controller: Controller) -> Iterator[str]:
    """The group that we are in and those above it as far as they are to be seen, whose limits are ours: of version 2,
    and of version 1 for this controller."""
    own = own_groups(_lines("/proc/self/cgroup"))
    for mount in mounts():
        path = own.get("" if mount.unified else controller.value)
        if path is None or not (mount.unified or controller.value in mount.options):
            continue
        place = place_in(mount, path)
        while place is not None and place.startswith(mount.point):
            yield place
            place = None if place == mount.point else os.path.dirname(place)


# ---- controllers of version 2


def is_delegated(group: str) -> bool:
    """Whether who manages the tree (systemd with `Delegate=`) gave this group away, and says so."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def pass_down(group: Cgroup, controllers: Iterable[Controller]) -> frozenset[Controller]:
    """Let the children of a group be limited; which controllers they have now."""
    names = group.words("cgroup.subtree_control")
    for controller in controllers:
        if controller.value not in names:
            with contextlib.suppress(OSError):
                group.write("cgroup.subtree_control", f"+{controller.value}")
    names = group.words("cgroup.subtree_control")
    return frozenset(controller for controller in controllers if controller.value in names)


def enable(parent: str, wanted: Iterable[Controller]) -> frozenset[Controller]:
    """Of `wanted`, what the children of `parent` can be limited in, switched on there if the group is ours to change.

    A group with controllers for its children may hold no process itself. So where the group was given to us and we
    alone live in it, we go one down. Not in a service's own group: its next start would be refused while our keepers
    live (its unit has `DelegateSubgroup=agent`, and we are one down already).
    """
    group = Cgroup(parent)
    offered = group.words("cgroup.controllers")
    possible = [controller for controller in wanted if controller.value in offered]
    have = group.words("cgroup.subtree_control")
    if not possible or all(controller.value in have for controller in possible) or not is_delegated(parent):
        return frozenset(controller for controller in possible if controller.value in have)
    inside = group.words("cgroup.procs")
    if inside and not parent.endswith(".service") and inside == {str(os.getpid())}:
        below = Cgroup(f"{parent}/{SUBGROUP}")
        below.make()
        below.write("cgroup.procs", "0")
        inside = group.words("cgroup.procs")
    return frozenset() if inside else pass_down(group, possible)


# ---- what an earlier life had


def remembered(text: str) -> Mapping[str, str]:
    """Of what `remember` wrote: controller (empty: version 2) -> base. A path alone is an older agent's."""
    pairs = (line.partition("=")[::2] if "=" in line.split("/")[0] else ("", line) for line in text.splitlines())
    return {name: base for name, base in pairs if base.startswith("/")}


def remember(hierarchies: Iterable[Hierarchy]) -> str:
    """What the next life is to know: keepers may live in these groups, wherever the agent itself will be."""
    lines = []
    for hierarchy in hierarchies:
        names = [""] if hierarchy.unified else sorted(controller.value for controller in hierarchy.controllers)
        lines += [f"{name}={hierarchy.base}" for name in names]
    return "\n".join(lines)


def is_ours(base: str, *, unified: bool, controller: Controller | None = None) -> bool:
    """Whether a remembered base is still in a hierarchy of that kind."""
    return os.path.isdir(base) and any(
        mount.unified == unified
        and (controller is None or controller.value in mount.options)
        and base.startswith(mount.point.rstrip("/") + "/")
        for mount in mounts()
    )
