"""What is wrong with a file, as data: the one record that checks make, and that terminals, programs and editors show.

Positions are character offsets into the source; line and column are computed when somebody looks.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Protocol


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Span:
    """The half-open range of characters `start` to `end` of a file."""

    file: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Related:
    """Another place that belongs to the story, with what it says there."""

    span: Span
    message: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that repairs the mistake: the text to put in the place of `span`."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake, told once. `note` stands under the marked text; `span` is None when no place is at fault."""

    code: str
    severity: Severity
    message: str
    span: Span | None
    note: str = ""
    related: tuple[Related, ...] = ()
    help: str = ""
    edit: Edit | None = None

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR


class Placed(Protocol):
    """Anything with a place in the source: a node of the tree, a token's stand-in."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A bare range of characters."""

    start: int
    end: int


class Lines:
    """Where lines begin in one source: from an offset to a line and a column, both counted from 1."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, without its end."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end]

    def range(self, start: int, end: int) -> list[int]:
        """`[line, column, end_line, end_column]`, the end exclusive."""
        return [*self.position(start), *self.position(end)]


@dataclass(slots=True)
class Report:
    """Collects the diagnostics of one file. Checks never raise for a user's mistake: they report it and go on."""

    file: str
    found: list[Diagnostic] = field(default_factory=list)

    def span(self, place: Placed) -> Span:
        return Span(self.file, place.start, place.end)

    def error(self, code: str, message: str, place: Placed | None, **more: Any) -> None:
        self._add(code, Severity.ERROR, message, place, more)

    def warning(self, code: str, message: str, place: Placed | None, **more: Any) -> None:
        self._add(code, Severity.WARNING, message, place, more)

    def related(self, place: Placed, message: str) -> tuple[Related, ...]:
        return (Related(self.span(place), message),)

    def edit(self, place: Placed, text: str) -> Edit:
        return Edit(self.span(place), text)

    def _add(self, code: str, severity: Severity, message: str, place: Placed | None, more: dict[str, Any]) -> None:
        self.found.append(Diagnostic(code, severity, message, self.span(place) if place else None, **more))


def as_data(diagnostic: Diagnostic, lines: Lines | None) -> dict[str, Any]:
    """The JSON form. Without the source the offsets cannot be told as lines, so the span is null."""

    def place(span: Span | None) -> dict[str, Any] | None:
        if span is None or lines is None:
            return None
        (line, column), (end_line, end_column) = lines.position(span.start), lines.position(span.end)
        return {
            "file": span.file,
            "start": {"line": line, "column": column},
            "end": {"line": end_line, "column": end_column},
        }

    edit = diagnostic.edit
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "span": place(diagnostic.span),
        "note": diagnostic.note,
        "related": [{"span": place(other.span), "message": other.message} for other in diagnostic.related],
        "help": diagnostic.help,
        "edit": None if edit is None else {"span": place(edit.span), "text": edit.text},
    }
