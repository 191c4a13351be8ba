"""Where facts and remarks go: facts on stdout, everything else on stderr, colour only where somebody looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TextIO

from coordinator.cli.failure import Failure
from coordinator.render import Colour, Column, joined, paint, plain
from coordinator.render import table as table_of

DEFAULT_WIDTH: Final = 80


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def in_colour(stream: TextIO) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal behind a stream; None where nothing needs to be cut to fit."""
    if not is_terminal(stream):
        return None
    try:
        return max(40, os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH)
    except OSError:
        return DEFAULT_WIDTH


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, as wide and as colourful as stdout is."""
    return table_of(columns, rows, width=width_of(sys.stdout), colour=in_colour(sys.stdout))


def say(*lines: str) -> None:
    """Facts."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


class _Drawing:
    """What must be taken back before anything else goes to the terminal: there is one terminal."""

    clear: Callable[[], None] = staticmethod(lambda: None)


def drawing(clear: Callable[[], None] | None) -> None:
    """Somebody draws on the terminal from now on (or no more): `clear` takes it back."""
    _Drawing.clear = staticmethod(clear or (lambda: None))


def remark(text: str) -> None:
    """Anything that is no fact: progress, notes, questions."""
    _Drawing.clear()
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    remark(f"{paint('warning', Colour.WARN) if in_colour(sys.stderr) else 'warning'}: {text}")


def emit(document: Any) -> None:
    """One JSON document; a list has one element a line."""
    if isinstance(document, list):
        emit_each(document)
    else:
        say(as_json(document, indent=2))


def emit_each(elements: Iterable[Any]) -> None:
    """One JSON array of any length, written as its elements come."""
    opened = False
    for element in elements:
        sys.stdout.write((",\n" if opened else "[\n") + as_json(element))
        opened = True
    sys.stdout.write("\n]\n" if opened else "[]\n")


def as_json(document: Any, indent: int | None = None) -> str:
    import json

    return json.dumps(document, ensure_ascii=False, indent=indent, default=_jsonable)


def _jsonable(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def report(failure: Failure, *, as_document: bool) -> None:
    """Say on stderr why a command ends."""
    sys.stderr.write(as_json(failure.document()) + "\n" if as_document else sentence(failure, in_colour(sys.stderr)))
    sys.stderr.flush()


def sentence(failure: Failure, colour: bool) -> str:
    head = paint("error", Colour.BAD) if colour else "error"
    text = f"{head}: {_paragraph(failure.message)}\n"
    return text + (f"  {_paragraph(failure.help)}\n" if failure.help else "")


def _paragraph(text: str) -> str:
    return "\n  ".join(plain(line) for line in text.splitlines())


def nearest(names: list[str]) -> str | None:
    """The way out of a name that does not exist."""
    return f"did you mean {joined([plain(n) for n in names[:3]])}?" if names else None
