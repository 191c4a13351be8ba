"""Single-line breaks of promises, applied in memory to one function at a time: the simulator must notice each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Mutation:
    """In `function` of `module` the line `old` (once, indentation aside) becomes `new`."""

    name: str
    module: str
    function: str
    old: str
    new: str
    first: int = 0
    """The first seed to try."""
    size: str = "short"


class NotApplicableError(AssertionError):
    """The source no longer has the line: write the mutation anew, it protects a promise."""


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The break, while the block runs. Raises NotApplicableError."""
    module = importlib.import_module(mutation.module)
    function = _function(module, mutation.function)
    source = Path(inspect.getsourcefile(module) or "").read_text("utf-8")
    broken = compile(_replaced(source, function, mutation), f"<broken: {mutation.name}>", "exec", dont_inherit=True)
    code = _code_of(broken, mutation.function)
    intact = function.__code__
    if code.co_freevars != intact.co_freevars:
        raise NotApplicableError(f"{mutation.name}: {mutation.function} is a closure that the break changes")
    if code.co_code == intact.co_code and code.co_consts == intact.co_consts and code.co_names == intact.co_names:
        raise NotApplicableError(f"{mutation.name}: the break changes nothing")
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = intact


def _function(module: Any, path: str) -> FunctionType:
    found: Any = module
    for part in path.split("."):
        found = inspect.getattr_static(found, part, None)
        if found is None:
            raise NotApplicableError(f"{module.__name__} has no {path}")
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if not isinstance(found, FunctionType):
        raise NotApplicableError(f"{module.__name__}.{path} is no function")
    return found


def _replaced(source: str, function: FunctionType, mutation: Mutation) -> str:
    """The module's text with the one line changed."""
    lines = source.splitlines()
    block, first = inspect.getsourcelines(function)
    places = [n for n in range(first - 1, first - 1 + len(block)) if lines[n].strip() == mutation.old]
    if len(places) != 1:
        where = f"{mutation.module}.{mutation.function}"
        raise NotApplicableError(f"{mutation.name}: {where} has {len(places)} lines {mutation.old!r}, one is needed")
    line = lines[places[0]]
    lines[places[0]] = line[: len(line) - len(line.lstrip())] + mutation.new
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
