"""The seam to the language: files in, documents or diagnostics out. The language is imported when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coordinator.cli import output
from coordinator.cli.failure import Exit, Failure
from coordinator.cli.sources import Source
from coordinator.render import Colour, count_of, paint

if TYPE_CHECKING:
    import dsl

MAX_NAMED: Final = 64 * 1024 * 1024
"""Bytes that are read of a file which a source names; the language takes less."""

Plain = dict[str, Any]
"""A diagnostic as `check --format json` prints it."""


@dataclass
class Compiled:
    """What a file means, ready to be submitted."""

    source: Source
    document: Plain
    spans: dict[str, list[int]]
    beside: dict[str, str]
    """sha256 → path as written, of what has to be uploaded before."""
    made: dsl.Compiled

    @property
    def digest(self) -> str:
        """Of what the file means: the same for the same meaning."""
        return str(self.made.digest)


def checked(source: Source) -> Checked:
    """All that is wrong with a file, values of params left open."""
    import dsl
    from dsl.beside import reader

    read_beside = reader(directory_of(source))
    return Checked(source, dsl.check_text(source.text, source.name, read_file=beside(source), read_beside=read_beside))


def compiled(
    source: Source, params: dict[str, str], *, pools_needed: bool, as_document: bool, jobs_needed: bool = True
) -> Compiled:
    """The document of a file. Diagnostics go to stderr; with errors among them a Failure ends the command.

    `pools_needed`: no live cluster has the pools that the file does not declare. `jobs_needed`: it is to be run.
    """
    import dsl
    from dsl.beside import reader

    read_beside = reader(directory_of(source))
    made = dsl.compile_text(
        source.text, source.name, params, read_file=beside(source), read_beside=read_beside, execute=True,
        jobs_needed=jobs_needed,
    )  # fmt: skip
    found = list(made.diagnostics)
    if pools_needed and made.document is not None:
        found += _undeclared(made)
    here = Checked(source, found)
    if here.errors or made.document is None:
        raise here.failure(as_document=as_document)
    if found and not as_document:
        sys.stderr.write(here.rendered(short=False, colour=output.in_colour(sys.stderr)))
    return Compiled(source, made.document, made.spans, made.beside, made)


def _undeclared(made: dsl.Compiled) -> list[dsl.Diagnostic]:
    declared = {pool["name"] for pool in (made.document or {})["pools"]}
    return [
        made.refusal(
            f"job/{job['name']}/pool",
            f"pool `{job['pool']}` is not declared in this file",
            "B110",
            f"`run` starts the pools of its file: add `pool {job['pool']} {{ }}`, or `submit` to a cluster that has it",
        )
        for job in (made.document or {})["jobs"]
        if job["pool"] not in declared
    ]


def refused(source: Source, plain: list[Plain], *, as_document: bool) -> Failure:
    """What a coordinator found wrong with a file, told like what was found here."""
    from dsl import Diagnostic, Severity, Span

    found = []
    for one in plain:
        span = one.get("span")
        place = None
        if span is not None:
            place = Span(source.name, _offset(source.text, span["start"]), _offset(source.text, span["end"]))
        severity = Severity(one.get("severity", "error"))
        found.append(Diagnostic(str(one["code"]), severity, str(one["message"]), place, help=one.get("help") or ""))
    return Checked(source, found).failure(as_document=as_document)


def _offset(text: str, position: dict[str, int]) -> int:
    """Where a line and a column are, counted the way diagnostics count."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    before = lines[: max(0, position["line"] - 1)]
    return min(sum(len(line) + 1 for line in before) + position["column"] - 1, len(text))


@dataclass
class Checked:
    """The diagnostics of a file."""

    source: Source
    found: list[dsl.Diagnostic]

    @property
    def errors(self) -> int:
        return sum(diagnostic.is_error for diagnostic in self.found)

    def documents(self) -> list[Plain]:
        from dsl.printing import all_as_data

        return all_as_data(self.found, {self.source.name: self.source.text})

    def rendered(self, *, short: bool, colour: bool) -> str:
        from dsl.printing import rendered

        text = rendered(self.found, {self.source.name: self.source.text}, "short" if short else "human")
        return "".join(_coloured(line) for line in text.splitlines(keepends=True)) if colour else text

    def failure(self, *, as_document: bool) -> Failure:
        """The end of a command whose file is wrong. For people the diagnostics are printed at once."""
        message = f"{self.source.name} has {count_of(self.errors, 'error')}; nothing was started"
        if as_document:
            return Failure(Exit.USAGE, "invalid_file", message, None, self.documents())
        sys.stderr.write(self.rendered(short=False, colour=output.in_colour(sys.stderr)))
        return Failure(Exit.USAGE, "invalid_file", message)


def _coloured(line: str) -> str:
    for word, colour in (("error[", Colour.BAD), ("warning[", Colour.WARN)):
        if line.startswith(word):
            head, bracket, rest = line.partition("]")
            return paint(head + bracket, colour) + rest
    return line


def directory_of(source: Source) -> str:
    """Where a source stands."""
    return (os.path.dirname(source.path) if source.path else "") or "."


def beside(source: Source) -> Callable[[str], bytes]:
    """Reads what a source names, relative to where it stands."""
    directory = directory_of(source)

    def read(path: str) -> bytes:
        with open(os.path.join(directory, path), "rb") as file:
            return file.read(MAX_NAMED)

    return read
