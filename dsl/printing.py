"""Diagnostics for people: the source line with what is wrong underlined, the way compilers do; one line; or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from dsl.diagnostics import Diagnostic, Lines, Span, as_data
from wire.columns import screen_width

WIDTH: Final = 160
"""Columns of a source line that are shown; a longer one is cut around the mark."""


def rendered(diagnostics: list[Diagnostic], sources: Mapping[str, str], form: str) -> str:
    match form:
        case "human":
            lines = _lines_of(sources)
            return "".join(f"{human(diagnostic, lines)}\n" for diagnostic in diagnostics)
        case "short":
            lines = _lines_of(sources)
            return "".join(f"{short(diagnostic, lines)}\n" for diagnostic in diagnostics)
        case "json":
            return json.dumps(all_as_data(diagnostics, sources), ensure_ascii=False, indent=2) + "\n"
    raise ValueError(f"no such format: {form}")


def all_as_data(diagnostics: list[Diagnostic], sources: Mapping[str, str]) -> list[dict[str, Any]]:
    lines = _lines_of(sources)
    return [as_data(one, lines.get(one.span.file) if one.span else None) for one in diagnostics]


def _lines_of(sources: Mapping[str, str]) -> dict[str, Lines]:
    """Offsets count in the text without a byte order mark and with lines that end in one character."""
    return {name: Lines(text.removeprefix("\ufeff").replace("\r\n", "\n")) for name, text in sources.items()}


def short(diagnostic: Diagnostic, lines: Mapping[str, Lines]) -> str:
    where = ""
    if diagnostic.span is not None and diagnostic.span.file in lines:
        line, column = lines[diagnostic.span.file].position(diagnostic.span.start)
        where = f"{diagnostic.span.file}:{line}:{column}: "
    note = f" ({diagnostic.note})" if diagnostic.note else ""
    return _visible(f"{where}{diagnostic.severity.value}[{diagnostic.code}]: {diagnostic.message}{note}")


def human(diagnostic: Diagnostic, lines: Mapping[str, Lines]) -> str:
    """One diagnostic with the lines it is about."""
    head = _visible(f"{diagnostic.severity.value}[{diagnostic.code}]: {diagnostic.message}")
    span = diagnostic.span
    if span is None or span.file not in lines:
        extra = [text for text in (diagnostic.note, diagnostic.help) if text]
        return "\n".join([head, *(_visible(f"  = help: {text}") for text in extra), ""])
    source = lines[span.file]
    marks = [(span, diagnostic.note, "^")]
    marks += [(other.span, other.message, "-") for other in diagnostic.related if other.span.file == span.file]
    numbers = [source.position(mark.start)[0] for mark, _, _ in marks]
    gutter = len(str(max(numbers)))
    line, column = source.position(span.start)
    out = [head, f"{' ' * gutter}--> {_visible(span.file)}:{line}:{column}", f"{' ' * gutter} |"]
    before = 0
    for number in sorted(set(numbers)):
        if before and number > before + 1:
            out.append("...")
        out += _marked_line(
            source, number, gutter, [mark for mark, at in zip(marks, numbers, strict=True) if at == number]
        )
        before = number
    if diagnostic.help:
        out += [f"{' ' * gutter} |", _visible(f"{' ' * gutter} = help: {diagnostic.help}")]
    return "\n".join([*out, ""])


def _marked_line(source: Lines, number: int, gutter: int, marks: list[tuple[Span, str, str]]) -> list[str]:
    text = source.line(number)
    starts = [source.position(span.start)[1] - 1 for span, _, _ in marks]
    cut = max(0, min(starts) - WIDTH // 2) if len(text) > WIDTH else 0
    shown = text[cut : cut + WIDTH]
    lead = "…" if cut else ""
    tail = "…" if cut + WIDTH < len(text) else ""
    out = [f"{number:>{gutter}} | {lead}{_visible(shown)}{tail}".rstrip()]
    for (span, message, sign), start in sorted(zip(marks, starts, strict=True), key=lambda pair: pair[1]):
        end_line, end_column = source.position(span.end)
        end = end_column - 1 if end_line == number else len(text)
        start, end = min(max(start - cut, 0), len(shown)), min(max(end - cut, 0), len(shown))
        indent = " " * (len(lead) + _width(shown[:start]))
        mark = sign * max(1, _width(shown[start:end]))
        out.append(f"{' ' * gutter} | {indent}{mark} {_visible(message)}".rstrip())
    return out


def _width(text: str) -> int:
    """Columns on a terminal."""
    return screen_width(text) + 3 * text.count("\t")


def _visible(text: str) -> str:
    """What a source holds must not steer the terminal: control characters are shown, tabs are four columns."""
    text = text.replace("\t", "    ")
    if text.isprintable():
        return text
    return "".join(_picture(letter) for letter in text)


def _picture(letter: str) -> str:
    code = ord(letter)
    if code < 0x20:
        return chr(0x2400 + code)
    return letter if letter.isprintable() or letter == " " else "\ufffd"
