"""What `after` says: its forms, names and axes, and that no task waits for itself."""

from __future__ import annotations

from dataclasses import dataclass

from dsl import ast
from dsl.blocks import Reader, Setting
from dsl.diagnostics import Report
from dsl.schema import AFTER_STATES
from dsl.sweeps import SweepReading
from wire.bounds import MAX_AFTER
from wire.near import did_you_mean


@dataclass(slots=True)
class TaskNames:
    """A task as others refer to it."""

    name: str
    position: int
    sweep: SweepReading
    damaged: bool


class Dependencies:
    """The `after` options of one job."""

    def __init__(self, report: Report, reader: Reader, tasks: dict[str, TaskNames], lost: frozenset[str]) -> None:
        self._report = report
        self._reader = reader
        self._tasks = tasks
        self._lost = lost
        self._edges: dict[str, dict[str, ast.Node]] = {}

    def read(self, task: TaskNames, setting: Setting) -> list[int]:
        """The positions of the tasks that this one waits for."""
        node = setting.node.value
        parts = node.items if isinstance(node, ast.ListOf) else [node]
        if len(parts) > MAX_AFTER:
            self._report.error("B202", f"`after` names at most {MAX_AFTER} tasks", node)
            return []
        found: dict[str, ast.Node] = {}
        for part in parts:
            name = self._part(task, part)
            if name:
                found.setdefault(name, setting.node)
        if self._tasks.get(task.name) is task:
            self._edges[task.name] = found
        return [self._tasks[name].position for name in found]

    def cycles(self) -> None:
        """Report each cycle once, at the `after` of its first task."""
        state: dict[str, int] = {}
        for start in self._edges:
            path: list[str] = []
            stack = [(start, iter(self._edges.get(start, {})))] if start not in state else []
            if stack:
                state[start] = 1
                path.append(start)
            while stack:
                task, rest = stack[-1]
                following = next(rest, None)
                if following is None:
                    state[task] = 2
                    path.pop()
                    stack.pop()
                elif following not in state:
                    state[following] = 1
                    path.append(following)
                    stack.append((following, iter(self._edges.get(following, {}))))
                elif state[following] == 1:
                    self._cycle(path[path.index(following) :])

    def _cycle(self, around: list[str]) -> None:
        start = min(range(len(around)), key=lambda at: self._tasks[around[at]].position)
        around = around[start:] + around[:start]
        places = [self._edges[task][other] for task, other in zip(around, [*around[1:], around[0]], strict=True)]
        related = tuple(
            found
            for task, place in zip(around[1:], places[1:], strict=True)
            for found in self._report.related(place, f"`{task}` waits here")
        )
        message = f"dependency cycle: {' → '.join([*around, around[0]])}"
        note = "a task can't wait for itself" if len(around) == 1 else ""
        self._report.error("B301", message, places[0], note=note, related=related)

    # ---- one element

    def _part(self, task: TaskNames, node: ast.Expr) -> str:
        """The task that an element names; empty when it names none."""
        plain = True
        place = node
        positions: list[ast.Expr] = []
        if isinstance(node, ast.Get):
            if node.name not in AFTER_STATES:
                note = did_you_mean(node.name, AFTER_STATES)
                help_ = "`x` waits for success, `x.done` for the end, `x.failed` for a failure"
                self._report.error("B110", f"`after` knows no `.{node.name}`", node, note=note, help=help_)
                return ""
            node, plain = node.target, False
        if isinstance(node, ast.Index):
            positions, plain = node.positions, False
            node = node.target
        if isinstance(node, ast.Broken):
            return ""
        if not isinstance(node, ast.Ref):
            help_ = "write `after = other`, `other.done`, `other.failed`, `other[axis]` or a list of these"
            self._report.error("B201", "`after` takes names of tasks", node, help=help_)
            return ""
        if not self._known(node, task.name):
            return ""
        if positions:
            self._axes(task, node.name, positions)
        if not plain:
            self._reader.unsupported(place, "`after` with `.done`, `.failed` or `[…]`")
        return node.name

    def _known(self, node: ast.Ref, task: str) -> bool:
        if node.name in self._tasks:
            return True
        if node.name not in self._lost and "task" not in self._reader.unnamed:
            note = did_you_mean(node.name, [name for name in self._tasks if name != task])
            self._report.error("B110", f"unknown task `{node.name}`", node, note=note)
        return False

    def _axes(self, task: TaskNames, other: str, positions: list[ast.Expr]) -> None:
        its = self._tasks[other]
        for position in positions:
            if isinstance(position, ast.Broken):
                continue
            if not isinstance(position, ast.Ref):
                help_ = f"write `{other}[axis]` with an axis of both"
                self._report.error("B302", f"`{other}[…]` takes names of axes", position, help=help_)
                continue
            name = position.name
            for owner, names in ((other, its), (task.name, task)):
                if name not in names.sweep.worths and not names.damaged:
                    note = did_you_mean(name, names.sweep.worths)
                    axes = ", ".join(f"`{axis}`" for axis in names.sweep.worths) or "none"
                    message = f"`{other}[{name}]`: `{owner}` has no axis `{name}`"
                    self._report.error("B302", message, position, note=note, help=f"axes of `{owner}`: {axes}")
                    break
