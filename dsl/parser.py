"""Text to tree: LALR with a lexer that never fails, driven by our own loop so that parsing goes on after a mistake.

The only module that knows lark. lark makes the tables (kept in a private directory of the user, never at a place where
somebody else could put them) and the tokens; the loop below feeds them and hands what does not fit to `dsl.recovery`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import lark
from lark.parsers.lalr_analysis import Shift

from dsl import ast, layout, literals, recovery
from dsl.cache import private_directory, read_sealed, write_sealed
from dsl.diagnostics import Lines, Place, Placed, Report
from dsl.machine import Machine, Tables
from dsl.tokens import BROKEN, END, Token
from dsl.tree import Tree

MAX_SOURCE: Final = 16 * 1024 * 1024
"""Characters of one file."""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WITHIN_A_VALUE: Final = ("B002", "B008", "B009", "B020")
"""Mistakes that spoil one value and nothing around it."""
_DECLARING: Final = ("param", "let", "secret")
_COMMENT: Final = re.compile(r"#[^\n]*")


class Front:
    """lark's tables and lexer, and the callbacks that make the nodes. One for a process; it is not reentrant."""

    def __init__(self) -> None:
        self.tree = Tree()
        self._lark = _load(self.tree)
        self._tables: dict[str, Tables] = {}

    def tables(self, start: str) -> Tables:
        if start not in self._tables:
            conf = self._lark.parse_interactive("", start=start).parser_state.parse_conf
            self._tables[start] = Tables(conf.states, conf.start_state, conf.end_state, conf.callbacks, Shift)
        return self._tables[start]

    def lex(self, text: str) -> list[Any]:
        interactive = self._lark.parse_interactive(text, start="file")
        return list(interactive.lexer_thread.lex(interactive.parser_state))  # type: ignore[no-untyped-call]


@cache
def front() -> Front:
    return Front()


def parse(text: str, report: Report) -> ast.File:
    """The tree of a file. Mistakes are reported; what they spoilt is missing from the tree and marked in it."""
    made = front()
    tree = made.tree
    tree.report = report
    tree.placeholder = lambda hole: _placeholder(made, text, hole, report)
    words = _tokens(made.lex(text), len(text))
    before = len(report.found)
    tokens = layout.mend(words, report)
    places: list[Placed] = [
        found.span for found in report.found[before:] if found.span is not None and found.code not in _WITHIN_A_VALUE
    ]
    machine = Machine(made.tables("file"))
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
    return ast.File(items, _comments(text, words), frozenset(lost), spoilt, undeclared)


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
    node = _run_interpolation(made, _tokens(made.lex(text), len(text)))
    return node.expr if isinstance(node, ast.Placeholder) and node.width is None else None


def _placeholder(made: Front, text: str, hole: literals.Hole, report: Report) -> ast.Placeholder:
    """Parse what stands between `${` and `}`, in place: its nodes have offsets into the whole file."""
    tokens = _tokens(made.lex(text[hole.inner_start : hole.inner_end]), hole.inner_end - hole.inner_start)
    for token in tokens:
        token.start += hole.inner_start
        token.end += hole.inner_start
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
    machine = Machine(made.tables("interpolation"))
    for token in tokens:
        if token.type in ("STRING", "TRIPLE") or not machine.feed(token):
            return token
    result: ast.Placeholder = machine.result()
    return result


def _tokens(words: list[Any], length: int) -> list[Token]:
    """Our tokens of lark's, with the end of the file as the last one."""
    tokens: list[Token] = []
    line, end_line = 0, 1
    for word in words:
        # A token is the first of its line when the one before it ended on an earlier line.
        tokens.append(
            Token(word.type, str(word), word.start_pos, word.end_pos, word.line, word.column, word.line > line)
        )
        line = end_line = word.end_line
    tokens.append(Token(END, "", length, length, end_line + 1, 0, True))
    return tokens


def _comments(text: str, words: list[Token]) -> list[ast.Comment]:
    """Comments stand in the gaps between tokens."""
    comments: list[ast.Comment] = []
    at = 0
    for token in words:
        if token.start > at:
            found = _COMMENT.finditer(text, at, token.start)
            comments.extend(ast.Comment(match.start(), match.end(), match[0]) for match in found)
        at = token.end
    return comments


# ---- lark's tables


def grammar() -> str:
    return Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")


def build(tree: Tree | None, **options: Any) -> lark.Lark:
    return lark.Lark(
        grammar(), parser="lalr", lexer="basic", start=["file", "interpolation", "bad"], keep_all_tokens=True,
        maybe_placeholders=False, transformer=tree, **options,
    )  # fmt: skip


def _load(tree: Tree) -> lark.Lark:
    """The parser, its tables from the cache if they are there. lark's own `cache=` is not used: it writes in place."""
    directory = private_directory()
    if directory is None:
        return build(tree)
    key = f"{grammar()}\0{lark.__version__}\0{sys.version}"
    path = directory / f"grammar-{hashlib.sha256(key.encode()).hexdigest()[:32]}.tables"
    kept = read_sealed(path)
    if kept is not None:
        tables = pickle.loads(kept)
        restored: lark.Lark = lark.Lark._load_from_dict(  # type: ignore[no-untyped-call]
            tables["data"], tables["memo"], transformer=tree
        )
        return restored
    made = build(tree)
    content = io.BytesIO()
    made.save(content)
    write_sealed(path, content.getvalue())
    return made
