"""What `after` says: its forms, names and axes, and that no task waits for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsl import ast
from dsl.blocks import Reader, Setting
from dsl.diagnostics import Report
from dsl.schema import AFTER_STATES
from dsl.sweeps import SweepReading
from wire.bounds import MAX_AFTER, MAX_PAIRED
from wire.near import did_you_mean


@dataclass(slots=True)
class TaskNames:
    """A task as others refer to it."""

    name: str
    position: int
    sweep: SweepReading
    damaged: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of `after` as it was read; without axes it is about all of the task's sweep."""

    task: str
    when: str = "succeeded"
    axes: tuple[str, ...] = ()


class Dependencies:
    """The `after` options of one job."""

    def __init__(self, report: Report, reader: Reader, tasks: dict[str, TaskNames], lost: frozenset[str]) -> None:
        self._report = report
        self._reader = reader
        self._tasks = tasks
        self._lost = lost
        self._edges: dict[str, dict[str, ast.Node]] = {}

    def read(self, task: TaskNames, setting: Setting) -> list[dict[str, Any]]:
        """What this task waits for, as the document has it, each thing once."""
        node = setting.node.value
        parts = node.items if isinstance(node, ast.ListOf) else [node]
        if len(parts) > MAX_AFTER:
            self._report.error("B202", f"`after` names at most {MAX_AFTER} tasks", node)
            return []
        found: dict[tuple[str, str, frozenset[str]], _Element] = {}
        for part in parts:
            element = self._part(task, part)
            if element is not None:
                found.setdefault((element.task, element.when, frozenset(element.axes)), element)
        if sum(bool(element.axes) for element in found.values()) > MAX_PAIRED:
            self._report.error("B202", f"`after` pairs by value with at most {MAX_PAIRED} tasks", node)
        if self._tasks.get(task.name) is task:
            self._edges[task.name] = {element.task: setting.node for element in found.values()}
        return [
            {"group": self._tasks[element.task].position, "when": element.when, "axes": list(element.axes)}
            for element in found.values()
        ]

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

    def _part(self, task: TaskNames, node: ast.Expr) -> _Element | None:
        """An element; None when it names no task."""
        when, whole = "succeeded", node
        positions: list[ast.Expr] = []
        if isinstance(node, ast.Get):
            if node.name not in AFTER_STATES:
                note = did_you_mean(node.name, AFTER_STATES)
                help_ = "`x` waits for success, `x.done` for the end, `x.failed` for a failure"
                self._report.error("B110", f"`after` knows no `.{node.name}`", node, note=note, help=help_)
                return None
            when, node = node.name, node.target
        if isinstance(node, ast.Index):
            positions = node.positions
            node = node.target
        if isinstance(node, ast.Broken):
            return None
        if not isinstance(node, ast.Ref):
            help_ = "write `after = other`, `other.done`, `other.failed`, `other[axis]` or a list of these"
            self._report.error("B201", "`after` takes names of tasks", node, help=help_)
            return None
        if not self._known(node, task.name):
            return None
        if when == "failed" and self._tasks[node.name].optional:
            help_ = f"wait for its end, however it was: `{node.name}.done`"
            message = f"`{node.name}` is optional: its failure counts for no `after`"
            self._report.error("B305", message, whole, help=help_)
        return _Element(node.name, when, self._axes(task, node.name, positions))

    def _known(self, node: ast.Ref, task: str) -> bool:
        if node.name in self._tasks:
            return True
        if node.name not in self._lost and "task" not in self._reader.unnamed:
            note = did_you_mean(node.name, [name for name in self._tasks if name != task])
            self._report.error("B110", f"unknown task `{node.name}`", node, note=note)
        return False

    def _axes(self, task: TaskNames, other: str, positions: list[ast.Expr]) -> tuple[str, ...]:
        """The names between the brackets."""
        its = self._tasks[other]
        found: list[str] = []
        for position in positions:
            if isinstance(position, ast.Broken):
                continue
            if not isinstance(position, ast.Ref):
                help_ = f"write `{other}[axis]` with an axis of both"
                self._report.error("B302", f"`{other}[…]` takes names of axes", position, help=help_)
                continue
            name = position.name
            if name in found:
                self._report.error("B302", f"`{other}[…]` names the axis `{name}` twice", position)
                continue
            found.append(name)
            for owner, names in ((other, its), (task.name, task)):
                if name not in names.sweep.worths and not names.damaged:
                    note = did_you_mean(name, names.sweep.worths)
                    axes = ", ".join(f"`{axis}`" for axis in names.sweep.worths) or "none"
                    message = f"`{other}[{name}]`: `{owner}` has no axis `{name}`"
                    self._report.error("B302", message, position, note=note, help=f"axes of `{owner}`: {axes}")
                    break
        return tuple(found)
