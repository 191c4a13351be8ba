"""One pass over a file: parse, hold against the schema, evaluate, compile; each diagnostic once, in file order."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from dsl import ast
from dsl.beside import ReadBeside
from dsl.blocks import Reader, crowded_lines
from dsl.compile import Compiler
from dsl.diagnostics import Diagnostic, Lines, Place, Report, Severity
from dsl.expressions import Evaluator
from dsl.names import Names
from dsl.parser import MAX_SOURCE, parse, parse_value
from dsl.result import Compiled
from dsl.sources import Sources

_ALLOW: Final = re.compile(r"#\s*batch:\s*allow\s+(B\d{3}(?:[\s,]+B\d{3})*)\s*\Z")


MAX_TOLD: Final = 100
"""Diagnostics of one file; nobody reads more at once."""


def normalised(text: str) -> str:
    """The text that offsets count in: without a byte order mark, lines ending in one character."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def compile_source(
    text: str,
    name: str,
    params: dict[str, str] | None,
    read_file: Callable[[str], bytes],
    read_beside: ReadBeside | None = None,
    *,
    execute: bool,
    jobs_needed: bool = True,
) -> Compiled:
    """`params` None: nobody gave values, and none is missed."""
    text = normalised(text)
    report = Report(name)
    refusal = _unreadable(text, report)
    if refusal:
        return Compiled(name, None, {}, report.found)
    with _collector_off():
        sources = Sources(report, read_file, read_beside)
        return _compile(text, report, params, sources, execute=execute, jobs_needed=execute and jobs_needed)


def _compile(
    text: str, report: Report, params: dict[str, str] | None, sources: Sources, *, execute: bool, jobs_needed: bool
) -> Compiled:
    file = parse(text, report)
    lines = Lines(text)
    syntax = len(report.found)
    evaluator = Evaluator(report, sources.text, sources.table)
    reader = Reader(report, execute=execute, spoilt=lambda place: _touches(file, lines, place.start, place.end))
    whole = reader.file(file)
    file = replace(file, lost=file.lost | reader.lost)
    names = Names(file, params, report, reader, evaluator, lambda given: parse_value(given, Report(report.file)))
    names.evaluate_all()
    compiler = Compiler(report, reader, evaluator, names, file, sources)
    document = compiler.document(whole, jobs_needed=jobs_needed)
    crowded_lines(report, text, reader.read)
    compiler.unused_lets()
    report.found[syntax:] = [found for found in report.found[syntax:] if not _is_echo(found, file, lines)]
    diagnostics = _tidy(report.found, file, lines)
    errors = any(diagnostic.is_error for diagnostic in diagnostics)
    spans = {path: lines.range(*at) for path, at in compiler.offsets.items()}
    kept = None if errors or params is None else document
    return Compiled(report.file, kept, spans, diagnostics, compiler.files.beside, compiler.offsets)


def _touches(file: ast.File, lines: Lines, start: int, end: int) -> bool:
    """Whether a mistake of syntax is on one of the lines from `start` to `end`."""
    if not file.spoilt:
        return False
    first, last = lines.position(start)[0], lines.position(end)[0]
    return any(first <= line <= last for line in file.spoilt)


def _is_echo(found: Diagnostic, file: ast.File, lines: Lines) -> bool:
    """What is wrong beside a mistake of syntax is most likely made by it."""
    return found.span is not None and _touches(file, lines, found.span.start, found.span.end)


def _unreadable(text: str, report: Report) -> bool:
    if len(text) > MAX_SOURCE:
        report.error("B007", f"the file is larger than {MAX_SOURCE // 2**20} million characters", None)
        return True
    at = text.find("\0")
    if at >= 0:
        report.error("B007", "the file holds a NUL character: it is no text", Place(at, at + 1))
        return True
    return False


@contextmanager
def _collector_off() -> Iterator[None]:
    """A tree of many small nodes and no garbage: collecting while it grows only costs time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _tidy(found: list[Diagnostic], file: ast.File, lines: Lines) -> list[Diagnostic]:
    """In the order of the file, each once, without the warnings that a comment on their line allows."""
    allowed = _allowed(file, lines)
    kept: dict[tuple[object, ...], Diagnostic] = {}
    for diagnostic in found:
        span = diagnostic.span
        if not diagnostic.is_error and span and (lines.position(span.start)[0], diagnostic.code) in allowed:
            continue
        kept.setdefault((diagnostic.code, span, diagnostic.message), diagnostic)
    told = sorted(kept.values(), key=lambda one: (one.span.start, one.span.end) if one.span else (-1, -1))
    if len(told) <= MAX_TOLD:
        return told
    more = len(told) - MAX_TOLD
    place = told[MAX_TOLD].span
    severity = Severity.ERROR if any(one.is_error for one in told[MAX_TOLD:]) else Severity.WARNING
    return [*told[:MAX_TOLD], Diagnostic("B000", severity, f"{more} more mistakes from here on are not shown", place)]


def _allowed(file: ast.File, lines: Lines) -> set[tuple[int, str]]:
    """(line, code) of every `# batch: allow B404`."""
    allowed: set[tuple[int, str]] = set()
    for comment in file.comments:
        match = _ALLOW.match(comment.text)
        if match:
            line = lines.position(comment.start)[0]
            allowed |= {(line, code) for code in re.findall(r"B\d{3}", match[1])}
    return allowed
