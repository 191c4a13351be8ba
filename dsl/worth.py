"""What is known of an expression: its value, a tree that the node finishes for each task, or only its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dsl import operators
from dsl.values import WORDS, Type, Value, plain, show, text, type_of

RUN_TYPES: Final = {
    "job.id": Type.STRING, "job.name": Type.STRING, "task.id": Type.STRING, "task.index": Type.INT,
    "node.id": Type.STRING, "attempt": Type.INT,
}  # fmt: skip
"""Known when it runs."""
OF_TASKS: Final = frozenset({"task.id", "task.index"})
OF_JOBS: Final = frozenset({"job.id", "job.name"})
RUN_ROOTS: Final = frozenset({"job", "task", "node"})


@dataclass(frozen=True, slots=True)
class Constant:
    value: Value

    @property
    def type(self) -> Type | None:
        return type_of(self.value)


@dataclass(frozen=True, slots=True)
class Varying:
    """Known when it runs: a plain tree, its type, and the name that makes it vary, for messages."""

    tree: Any
    type: Type | None
    because: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A param without a value yet, or what is left of a mistake; `type` as far as it is known."""

    type: Type | None = None


Worth = Constant | Varying | Unknown


@dataclass(slots=True)
class Scope:
    """The names an expression sees. `run` are the run-time names that are allowed here."""

    names: Mapping[str, Callable[[], Worth]]
    run: frozenset[str] = frozenset()
    lenient: bool = False
    """A declaration may have been dropped by recovery: unknown names are not reported."""
    lost: frozenset[str] = frozenset()
    used: set[str] = field(default_factory=set)


def element_type(worth: Worth) -> Type | None:
    """The type that all elements of a known list have."""
    if not isinstance(worth, Constant) or not isinstance(worth.value, list):
        return None
    kinds = {type_of(item) for item in worth.value}
    return kinds.pop() if len(kinds) == 1 else None


def as_operand(worth: Worth) -> Any:
    match worth:
        case Constant(value=value):
            return _as_tree(plain(value))
        case Varying(tree=tree):
            return tree
        case _:
            raise TypeError("an unknown value has no tree")


def _as_tree(value: Any) -> Any:
    return ["list", *map(_as_tree, value)] if isinstance(value, list) else value


def tree_of(worth: Constant | Varying) -> Any:
    """The plain tree of what is known: for a constant its text, as the command will see it; null stays null."""
    if isinstance(worth, Varying):
        return worth.tree
    return None if worth.value is None else text(worth.value)


def in_range(tree: Any, values: range) -> Any:
    """`x in 1..500 by 10` as comparisons: a range is never counted out."""
    low, high = sorted((values.start, values.start + max(0, operators.count(values) - 1) * values.step))
    if operators.count(values) == 0:
        return False
    inside = ["op", "and", ["op", ">=", tree, low], ["op", "<=", tree, high]]
    if abs(values.step) == 1:
        return inside
    return ["op", "and", inside, ["op", "==", ["op", "%", ["op", "-", tree, low], abs(values.step)], 0]]


def why(*parts: Worth) -> str:
    return next((part.because for part in parts if isinstance(part, Varying)), "")


def join(parts: list[Any]) -> Any:
    """One text tree of parts, neighbouring literals joined."""
    joined: list[Any] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif isinstance(part, list) and part[0] == "text":
            joined.extend(part[1:])
        elif part != "":
            joined.append(part)
    if not joined:
        return ""
    if len(joined) == 1 and isinstance(joined[0], str):
        return joined[0]
    return ["text", *joined]


def describe(worth: Worth) -> str:
    """What was found, for messages: `size 4GiB`, `a string`."""
    if isinstance(worth, Constant):
        kind = type_of(worth.value)
        return "null" if kind is Type.NULL else f"{kind.value} `{show(worth.value)}`"
    return WORDS[worth.type] if worth.type else "something else"
