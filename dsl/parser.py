"""Text to tree: the words of `dsl.lexer`, fed to an LALR automaton by our own loop, so that parsing goes on after a
mistake. What does not fit is handed to `dsl.recovery`."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from dsl import ast, layout, literals, recovery
from dsl.diagnostics import Lines, Place, Placed, Report
from dsl.lexer import Lexer
from dsl.machine import Machine, makers
from dsl.tables import tables
from dsl.tokens import BROKEN, END, Token
from dsl.tree import Tree

MAX_SOURCE: Final = 16 * 1024 * 1024
"""Characters of one file."""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WITHIN_A_VALUE: Final = ("B002", "B008", "B009", "B020")
"""Mistakes that spoil one value and nothing around it."""
_DECLARING: Final = ("param", "let", "secret")


class Front:
    """The grammar's tables with the callbacks that make the nodes. One for a process; it is not reentrant."""

    def __init__(self) -> None:
        self.tree = Tree()
        self._tables = tables()
        self._made_by = makers(self._tables.rules, self.tree)
        self.words = Lexer(self._tables).words

    def machine(self, start: str) -> Machine:
        return Machine(self._tables, self._made_by, start)


@cache
def front() -> Front:
    return Front()


def parse(text: str, report: Report) -> ast.File:
    """The tree of a file. Mistakes are reported; what they spoilt is missing from the tree and marked in it."""
    made = front()
    tree = made.tree
    tree.report = report
    tree.placeholder = lambda hole: _placeholder(made, text, hole, report)
    words, comments = made.words(text, 0, len(text))
    before = len(report.found)
    tokens = layout.mend(words, report)
    places: list[Placed] = [
        found.span for found in report.found[before:] if found.span is not None and found.code not in _WITHIN_A_VALUE
    ]
    machine = made.machine("file")
    lost, mended = recovery.drive(machine, tokens, text, report)
    places.extend(mended)
    for token in words:
        if token.type in BROKEN:
            lost |= set(_WORD.findall(token.text))
    lines = Lines(text)
    spoilt = _spoilt(places, lines)
    for line in spoilt:
        lost |= set(_WORD.findall(lines.line(line)))
    undeclared = any(lines.line(line).lstrip().startswith(_DECLARING) for line in spoilt)
    items = machine.result() if machine.finished else []
    return ast.File(items, comments, frozenset(lost), spoilt, undeclared)


def _spoilt(places: list[Placed], lines: Lines) -> frozenset[int]:
    """The lines that mistakes of syntax are on."""
    spoilt: set[int] = set()
    for place in places:
        first, last = lines.position(place.start)[0], lines.position(place.end)[0]
        spoilt.update(range(first, min(last, first + 3) + 1))
    return frozenset(spoilt)


def parse_value(text: str, report: Report) -> ast.Expr | None:
    """One expression on its own, as `--param` may hold; None when it is none."""
    made = front()
    made.tree.report = report
    made.tree.placeholder = lambda hole: _placeholder(made, text, hole, report)
    words, _ = made.words(text, 0, len(text))
    node = _run_interpolation(made, words)
    return node.expr if isinstance(node, ast.Placeholder) and node.width is None else None


def _placeholder(made: Front, text: str, hole: literals.Hole, report: Report) -> ast.Placeholder:
    """Parse what stands between `${` and `}`, in place: its nodes have offsets into the whole file."""
    tokens, _ = made.words(text, hole.inner_start, hole.inner_end)
    found = _run_interpolation(made, tokens)
    if isinstance(found, ast.Placeholder):
        return ast.Placeholder(hole.start, hole.end, found.expr, found.width, depth=found.expr.depth)
    if found.type in ("STRING", "TRIPLE", "BAD_STRING") and found.text.startswith('"'):
        report.error("B009", "`${ }` holds no double quote", found, help="quote with ' inside `${ }`")
    elif found.type == END:
        place = Place(hole.start, hole.end)
        empty = not text[hole.inner_start : hole.inner_end].strip()
        report.error("B009", "this `${ }` is empty" if empty else "this `${ }` is incomplete", place)
    else:
        report.error("B009", f"unexpected `{found.text[:40]}` in `${{ }}`", found)
    return ast.Placeholder(hole.start, hole.end, ast.Broken(hole.start, hole.end), None)


def _run_interpolation(made: Front, tokens: list[Token]) -> ast.Placeholder | Token:
    """The parsed placeholder, or the token that did not fit."""
    machine = made.machine("interpolation")
    for token in tokens:
        if token.type in ("STRING", "TRIPLE") or not machine.feed(token):
            return token
    result: ast.Placeholder = machine.result()
    return result
