"""Texts that differ from task to task: what the language leaves symbolic and the node fills in.

An expression is plain JSON, so a sweep stays one small tree from the file to the node:

    "literal" | 17 | true | null          itself
    ["axis", n]                           the n-th axis name's value (`Sweep.names` order)
    ["run", NAME]                         known when it runs: job.id job.name task.id task.index node.id attempt
    ["dir", NAME]                         the path of the job's directory NAME on this node
    ["text", e, e, ...]                   concatenation of texts
    ["pad", e, width]                     an int, zero-padded
    ["op", OP, a, b]                      + - * / // % == != < <= > >= in "not in" and or
    ["not", e]  ["neg", e]  ["if", cond, then, else]  ["index", list, i]  ["list", e, ...]
    ["call", NAME, e, ...]                len min max

`check` refuses what is malformed (a coordinator trusts no client); `evaluate` may then assume the shape.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wire.bounds import MAX_ARGUMENT_BYTES, MAX_INT
from wire.sweep import Scalar, text_of

RUN_NAMES: Final = frozenset({"job.id", "job.name", "task.id", "task.index", "node.id", "attempt"})
MAX_DEPTH: Final = 64
MAX_LENGTH: Final = 1024 * 1024
"""Characters of a text, or elements of a list."""

Expr = Any
"""A plain JSON tree as described above; typed where it is checked, by `check`."""


class TemplateError(ValueError):
    """An expression that is malformed, or that has no value for this task (`1 // 0`, an index out of range)."""


def _divide(left: Any, right: Any) -> Any:
    whole = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return left // right if whole else left / right


def _add(left: Any, right: Any) -> Any:
    """Numbers, texts or lists. What grows without end is refused: a node trusts no expression."""
    if _is_number(left) and _is_number(right):
        return _fitting(left + right)
    if type(left) is type(right) and isinstance(left, str | list):
        if len(left) + len(right) > MAX_LENGTH:
            raise ValueError("the value grows too long")
        return left + right
    raise TypeError(f"{type(left).__name__} and {type(right).__name__} do not add")


def _numeric(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator of numbers alone: `*` repeats no text, `%` formats none."""

    def operate(left: Any, right: Any) -> Any:
        if not (_is_number(left) and _is_number(right)):
            raise TypeError(f"{type(left).__name__} and {type(right).__name__} are no two numbers")
        return _fitting(compute(left, right))

    return operate


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fitting(number: Any) -> Any:
    if isinstance(number, int) and abs(number) > MAX_INT:
        raise OverflowError("the number does not fit in 64 bits")
    if isinstance(number, float) and not math.isfinite(number):
        raise OverflowError("the number does not fit")
    return number


OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": _add,
    "-": _numeric(operator.sub),
    "*": _numeric(operator.mul),
    "/": _numeric(_divide),
    "//": _numeric(operator.floordiv),
    "%": _numeric(operator.mod),
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda needle, hay: needle in hay,
    "not in": lambda needle, hay: needle not in hay,
}
CALLS: Final[Mapping[str, Callable[..., Any]]] = {"len": len, "min": min, "max": max}
_ARITY: Final[Mapping[str, int]] = {"pad": 2, "op": 3, "not": 1, "neg": 1, "if": 3, "index": 2}


class Scope:
    """The values one task's expressions see."""

    __slots__ = ("axes", "dirs", "run")

    def __init__(self, axes: Sequence[Scalar], run: Mapping[str, Scalar], dirs: Mapping[str, str]) -> None:
        self.axes = axes
        self.run = run
        self.dirs = dirs


def render(expr: Expr, scope: Scope) -> str:
    """The text of `expr` for one task. Raises TemplateError when it has none that a command can be given."""
    if isinstance(expr, str):
        return expr
    text = text_of(evaluate(expr, scope))
    if len(text) > MAX_ARGUMENT_BYTES // 4 and len(text.encode("utf-8", "surrogatepass")) > MAX_ARGUMENT_BYTES:
        raise TemplateError(f"the text is longer than the {MAX_ARGUMENT_BYTES} bytes that a command can be given")
    return text


def run_names(expr: Expr) -> frozenset[str]:
    """The names known when it runs that a checked expression asks for."""
    if not isinstance(expr, list):
        return frozenset()
    if expr[0] == "run":
        return frozenset((expr[1],))
    return frozenset().union(*(run_names(part) for part in expr[1:]))


def varies_by_task(expr: Expr) -> bool:
    """Whether the text can differ between two tasks of one group on one node."""
    if not isinstance(expr, list):
        return False
    if expr[0] == "axis":
        return True
    if expr[0] == "run":
        return expr[1] in ("task.id", "task.index", "attempt")
    return any(varies_by_task(part) for part in expr[1:])


def evaluate(expr: Expr, scope: Scope) -> Any:
    """The value of a checked expression. Raises TemplateError when it has none."""
    if not isinstance(expr, list):
        return expr
    try:
        return _evaluate(expr, scope)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TemplateError(f"{expr[0]}: {error}") from error


def _evaluate(expr: list[Any], scope: Scope) -> Any:
    match expr:
        case ["axis", number]:
            return scope.axes[number]
        case ["text", *parts]:
            return "".join([part if isinstance(part, str) else text_of(evaluate(part, scope)) for part in parts])
        case ["run", name]:
            return scope.run[name]
        case ["dir", name]:
            return scope.dirs[name]
        case ["pad", part, width]:
            return f"{evaluate(part, scope):0{width}d}"
        case ["op", "and", left, right]:
            return evaluate(left, scope) and evaluate(right, scope)
        case ["op", "or", left, right]:
            return evaluate(left, scope) or evaluate(right, scope)
        case ["op", name, left, right]:
            return OPERATORS[name](evaluate(left, scope), evaluate(right, scope))
        case ["not", part]:
            return not evaluate(part, scope)
        case ["neg", part]:
            return -evaluate(part, scope)
        case ["if", condition, then, otherwise]:
            return evaluate(then if evaluate(condition, scope) else otherwise, scope)
        case ["index", items, position]:
            return evaluate(items, scope)[evaluate(position, scope)]
        case ["list", *parts]:
            return [evaluate(part, scope) for part in parts]
        case ["call", name, *arguments]:
            return CALLS[name](*[evaluate(argument, scope) for argument in arguments])
    raise TemplateError(f"unknown form {expr[0]!r}")


def check(expr: Expr, axes: int, dirs: frozenset[str], depth: int = 0) -> None:
    """Refuse an expression that `evaluate` could not take. Raises TemplateError with the reason."""
    if not isinstance(expr, list):
        if not isinstance(expr, str | int | float | bool | None):
            raise TemplateError(f"a {type(expr).__name__} is no literal")
        try:
            _fitting(expr)
        except OverflowError as error:
            raise TemplateError(str(error)) from None
        return
    if depth > MAX_DEPTH:
        raise TemplateError(f"nested deeper than {MAX_DEPTH}")
    if not expr or not isinstance(expr[0], str):
        raise TemplateError("a form starts with its name")
    form, parts = expr[0], expr[1:]
    match form, parts:
        case "axis", [int(number)] if 0 <= number < axes and number is not True and number is not False:
            return
        case "run", [str(name)] if name in RUN_NAMES:
            return
        case "dir", [str(name)] if name in dirs:
            return
        case "text" | "list", _:
            pass
        case "call", [str(name), _, *_] if name in CALLS:
            parts = parts[1:]
        case "op", [str(name), _, _] if name in OPERATORS or name in ("and", "or"):
            parts = parts[1:]
        case "pad", [_, int(width)] if 0 < width <= 64 and width is not True:
            parts = parts[:1]
        case "not" | "neg" | "if" | "index", _ if len(parts) == _ARITY[form]:
            pass
        case _:
            raise TemplateError(f"malformed form {form!r}")
    for part in parts:
        check(part, axes, dirs, depth + 1)
