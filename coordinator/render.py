"""Words and tables for people: durations, ages, sizes, aligned columns, colours. Pure: text in, text out.

Nothing here decides where text goes; `cli.output` does. Whatever came from a cluster passes `plain` before it is shown.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from wire.columns import cut_to, screen_width

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
GAP: Final = "  "
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|\+00:00)", re.ASCII)


class Colour(enum.Enum):
    """SGR codes; the names say what they are used for."""

    GOOD = "32"
    BAD = "31"
    BUSY = "36"
    WARN = "33"
    FAINT = "2"
    BOLD = "1"


COLOUR_OF: Final[dict[str, Colour]] = {
    **dict.fromkeys(("success", "succeeded", "released", "prepared", "idle"), Colour.GOOD),
    **dict.fromkeys(
        ("failure", "failed", "barred", "release_failed", "start_failed", "lost", "unusable", "unreached"), Colour.BAD
    ),
    **dict.fromkeys(("running", "preparing", "releasing", "terminating", "joining", "starting", "active"), Colour.BUSY),
    **dict.fromkeys(("cancelled", "skipped", "waived", "draining", "drained", "disabled", "disabling"), Colour.WARN),
    "-": Colour.FAINT,
}
"""One colour a word, wherever it stands."""


def paint(text: str, colour: Colour | None) -> str:
    return text if colour is None or not text else f"\x1b[{colour.value}m{text}\x1b[0m"


def plain(text: str) -> str:
    """Without control characters: what a task or a node said must not move the cursor of whoever looks at it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for c in text)


def plain_lines(text: str) -> list[str]:
    """The lines of an output, each made printable; tabs become spaces and a last empty line is left out."""
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [plain(line.expandtabs(8)) for line in lines]


def duration(seconds: float) -> str:
    """`0.3s`, `12s`, `3m20s`, `2h05m`, `3d4h`: two units at most, the way the language writes them."""
    if seconds < 0:
        seconds = 0.0
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR}h"


def size(count: float) -> str:
    """`512 B`, `4.0 KiB`, `1.5 GiB`."""
    for unit in _SIZE_UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_SIZE_UNITS[-1]}"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `8 tasks`, `20,000 tasks`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def wall(text: object) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None when there is none (or none that can be read)."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    return _days(year, month, day) * _DAY + hour * _HOUR + minute * _MINUTE + second + float(match[7] or 0)


def _days(year: int, month: int, day: int) -> int:
    """From 1970-01-01 in the Gregorian calendar; a year begins in March, so that the leap day is its last."""
    year -= month < 3
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def age(text: object, now: float) -> str:
    """How long ago a time was, `-` when it is not known."""
    then = wall(text)
    return "-" if then is None else duration(now - then)


def span(first: object, last: object, now: float) -> str:
    """How long something took, or has taken so far when `last` is not known."""
    begun = wall(first)
    if begun is None:
        return "-"
    ended = wall(last)
    return duration((now if ended is None else ended) - begun)


@dataclass(frozen=True)
class Column:
    """`right`: numbers. `flexible`: may be cut to fit a terminal (texts for people, never ids)."""

    title: str
    right: bool = False
    flexible: bool = False


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[object]], *, width: int | None = None, colour: bool = False
) -> list[str]:
    """Aligned lines with a header. With a `width`, flexible columns are cut so that a line fits, if it can."""
    cells = [["-" if cell is None or cell == "" else plain(str(cell)) for cell in row] for row in rows]
    widths = [
        max(len(column.title), *(screen_width(row[n]) for row in cells)) if cells else len(column.title)
        for n, column in enumerate(columns)
    ]
    if width is not None:
        _shrink(columns, widths, width)
    lines = [_line(columns, [c.title for c in columns], widths, None if not colour else Colour.BOLD)]
    lines += [_line(columns, row, widths, None, colour=colour) for row in cells]
    return lines


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    for n, column in enumerate(columns):
        if excess > 0 and column.flexible:
            cut = min(excess, max(0, widths[n] - max(len(column.title), 12)))
            widths[n] -= cut
            excess -= cut


def _line(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    whole: Colour | None,
    *,
    colour: bool = False,
) -> str:
    parts = []
    for n, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        text = shorten(cell, widths[n]) if column.flexible else cell
        padding = " " * (widths[n] - screen_width(text))
        shown = paint(text, COLOUR_OF.get(text)) if colour else text
        parts.append(padding + shown if column.right else shown + ("" if n == len(columns) - 1 else padding))
    return paint(GAP.join(parts).rstrip(), whole)


def shorten(text: str, width: int) -> str:
    """At most `width` columns, with an ellipsis where something was cut."""
    return text if screen_width(text) <= width else cut_to(text, width - 1) + "…"


def pairs(rows: Iterable[tuple[str, object]], *, colour: bool = False) -> list[str]:
    """`Name:  value` lines, aligned; what is unknown or empty is left out."""
    known = [(name, plain(str(value))) for name, value in rows if value is not None and value != ""]
    width = max((len(name) for name, _ in known), default=0) + 1
    return [f"{name + ':':<{width}}  {paint(v, COLOUR_OF.get(v)) if colour else v}" for name, v in known]


def joined(names: Sequence[str], last: str = "or") -> str:
    """`a`, `a or b`, `a, b or c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
