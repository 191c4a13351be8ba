"""Single-line breaks of promises, applied in memory to one function at a time: the simulator must notice each."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """The one line `old` (indentation aside) of a package's functions becomes `new`, wherever it stands."""

    name: str
    package: str
    old: str
    new: str
    first: int = 0
    """The first seed to try."""
    size: str = "rough"


class NotApplicableError(AssertionError):
    """The source no longer has the line, or has it twice: write the break anew, it stands for a promise."""


@dataclass(frozen=True)
class _Place:
    module: str
    function: str
    line: int


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The break, while the block runs. Raises NotApplicableError."""
    place = _find(mutation)
    function = _function(place)
    broken = compile(_replaced(place, mutation), f"<broken: {mutation.name}>", "exec", dont_inherit=True)
    code, intact = _code_of(broken, place.function), function.__code__
    if code.co_freevars != intact.co_freevars:
        raise NotApplicableError(f"{mutation.name}: {place.function} is a closure that the break changes")
    if code.co_code == intact.co_code and code.co_consts == intact.co_consts and code.co_names == intact.co_names:
        raise NotApplicableError(f"{mutation.name}: the break changes nothing")
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = intact


def _find(mutation: Mutation) -> _Place:
    places = [place for place, line in _lines_of(mutation.package) if line == mutation.old]
    if len(places) != 1:
        where = f"the functions of {mutation.package}"
        raise NotApplicableError(f"{mutation.name}: {where} have {len(places)} lines {mutation.old!r}, one is needed")
    return places[0]


@cache
def _lines_of(package: str) -> tuple[tuple[_Place, str], ...]:
    """Every line of every function of a package, as it stands on the disk."""
    found: list[tuple[_Place, str]] = []
    for path in sorted((ROOT / package).glob("*.py")):
        source = path.read_text("utf-8")
        lines = source.splitlines()
        module = f"{package}.{path.stem}"
        for name, node in _functions(ast.parse(source)):
            found += [(_Place(module, name, n), lines[n].strip()) for n in range(node.lineno, node.end_lineno or 0)]
    return tuple(found)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods with their qualified names; what is nested deeper belongs to them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _function(place: _Place) -> FunctionType:
    found: Any = importlib.import_module(place.module)
    for part in place.function.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    assert isinstance(found, FunctionType)
    return found


def _replaced(place: _Place, mutation: Mutation) -> str:
    """The module's text with the one line changed."""
    package, _, stem = place.module.partition(".")
    lines = (ROOT / package / f"{stem}.py").read_text("utf-8").splitlines()
    line = lines[place.line]
    lines[place.line] = line[: len(line) - len(line.lstrip())] + mutation.new
    return "\n".join(lines) + "\n"


def _code_of(module: CodeType, path: str) -> CodeType:
    """The code of a function by its qualified name, in a compiled module."""
    waiting = [module]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == path:
            return code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    raise NotApplicableError(f"no {path} in the compiled module")
