"""From the text of a literal to its value: numbers with units, dates, and quoted texts (escapes, `${ }`, dedenting)."""

from __future__ import annotations

import datetime
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dsl.values import Duration, Size
from wire.bounds import MAX_INT
from wire.near import near

if TYPE_CHECKING:
    from fractions import Fraction

DURATION_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SIZE_UNITS: Final = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
UNIT_HELP: Final = "durations end in ms, s, m, h or d; sizes in B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"

MEANT: Final = {
    "min": "m", "mins": "m", "minute": "m", "minutes": "m", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms",
    "b": "B", "kb": "kB", "KB": "kB", "mb": "MB", "gb": "GB", "tb": "TB", "K": "KiB", "Ki": "KiB", "kib": "KiB",
    "M": "MiB", "Mi": "MiB", "mib": "MiB", "G": "GiB", "Gi": "GiB", "gib": "GiB", "T": "TiB", "Ti": "TiB",
    "tib": "TiB", "g": "GiB", "k": "kB", "w": "d",
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]+)")
_BAD_NUMBER: Final = re.compile(r"(\d[\d_]*(?:\.\d+)?)([A-Za-z]+)\Z")


class LiteralError(ValueError):
    """A literal without a value; the message says why."""


def integer(text: str) -> int:
    digits = text.replace("_", "")
    if len(digits.lstrip("0")) > 19 or int(digits) > MAX_INT:
        raise LiteralError(f"the number does not fit: the largest is {MAX_INT}")
    return int(digits)


def decimal(text: str) -> float:
    value = float(text.replace("_", ""))
    if value in (float("inf"), float("-inf")):
        raise LiteralError("the number does not fit")
    return value


def duration(text: str) -> Duration:
    total: int | Fraction = 0
    before = None
    for number, unit in _PART.findall(text.replace("_", "")):
        length = DURATION_UNITS[unit]
        if before is not None and length >= before:
            raise LiteralError("units go from large to small: `1h30m`")
        total, before = total + _exact(number) * length, length
    if total.denominator != 1:
        raise LiteralError("the finest duration is 1ms")
    return Duration(_fitting(int(total)))


def size(text: str) -> Size:
    number, unit = _PART.findall(text.replace("_", ""))[0]
    total = _exact(number) * SIZE_UNITS[unit]
    if total.denominator != 1:
        raise LiteralError("a size is a whole number of bytes")
    return Size(_fitting(int(total)))


def date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise LiteralError(f"there is no day {text}") from None


def _exact(number: str) -> int | Fraction:
    if len(number) > 40:
        raise LiteralError("the number does not fit")
    if number.isdecimal():
        return int(number)
    from fractions import Fraction  # few numbers have a point

    return Fraction(number)


def _fitting(number: int) -> int:
    if number > MAX_INT:
        raise LiteralError("the number does not fit")
    return number


def explain_bad_number(text: str) -> tuple[int, str, str, str]:
    """What is wrong with a malformed number: where in it, the message, a note, and the right text if it is known."""
    match = _BAD_NUMBER.match(text)
    if match:
        number, unit = match[1], match[2]
        known = [*DURATION_UNITS, *SIZE_UNITS]
        meant = MEANT.get(unit) or next(iter(near(unit, known)), "")
        if unit == "w":
            number = str(int(_exact(number.replace("_", "")) * 7))
        right = f"{number}{meant}" if meant else ""
        return len(match[1]), f"unknown unit `{unit}`", f"write `{right}`" if right else "", right
    if "T" in text and re.match(r"\d{4}-\d\d-\d\d", text):
        return 0, f"`{text}` is no value: a date has no time of day", f"write `{text[:10]}`", text[:10]
    return 0, f"`{text}` is no number", "", ""


# ---- quoted texts


@dataclass(frozen=True, slots=True)
class Hole:
    """`${source}` in a text: the offsets of the whole, and of what stands between the braces."""

    start: int
    end: int
    inner_start: int
    inner_end: int


@dataclass(frozen=True, slots=True)
class BadText:
    """A mistake inside a text."""

    start: int
    end: int
    code: str
    message: str
    help: str = ""


ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


class Body:
    """The inside of a quoted text, dedented if it was tripled, that remembers where each character came from."""

    def __init__(self, source: str, start: int, tripled: bool) -> None:
        self.text = source
        self._here = [0]
        self._there = [start]
        if tripled:
            self._dedent(source, start)

    def offset(self, position: int) -> int:
        """Where in the file the character at `position` stands."""
        piece = bisect_right(self._here, position) - 1
        return self._there[piece] + position - self._here[piece]

    def _dedent(self, source: str, start: int) -> None:
        lines = source.split("\n")
        if len(lines) == 1:
            return
        offsets = [start]
        for line in lines:
            offsets.append(offsets[-1] + len(line) + 1)
        first = 0
        if not lines[0].strip():
            first = 1  # the text begins on the line after the quotes
        if not lines[-1].strip():
            lines[-1] = ""  # the closing quotes stand on a line of their own
        margin = _margin(lines[1:])
        kept: list[str] = []
        self._here, self._there, at = [], [], 0
        for number, line in enumerate(lines[first:], first):
            cut = len(margin) if number and line.startswith(margin) else 0
            body = line[cut:] if cut or number == 0 or line.strip() else ""
            self._here.append(at)
            self._there.append(offsets[number] + cut)
            kept.append(body)
            at += len(body) + 1
        self.text = "\n".join(kept)


def _margin(lines: list[str]) -> str:
    """The white space that all lines with text on them begin with."""
    margin: str | None = None
    for line in lines:
        if not line.strip():
            continue
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        if margin is None:
            margin = indent
            continue
        common = 0
        while common < min(len(margin), len(indent)) and margin[common] == indent[common]:
            common += 1
        margin = margin[:common]
    return margin or ""


def pieces(body: Body) -> Iterator[str | Hole | BadText]:
    """A text in double quotes, taken apart: plain parts with the escapes resolved, `${ }` holes, and mistakes."""
    text, at, plain = body.text, 0, 0
    while True:
        match = _SPECIAL.search(text, at)
        if match is None:
            yield text[plain:]
            return
        here = match.start()
        if text.startswith("\\", here):
            yield text[plain:here]
            letter = text[here + 1 : here + 2]
            if letter in ESCAPES and letter:
                yield ESCAPES[letter]
            else:
                shown = "a line end" if letter in ("\n", "") else f"`\\{letter}`"
                yield BadText(
                    body.offset(here), body.offset(here) + 2, "B008", f"{shown} is no escape",
                    "the escapes are \\n, \\t, \\\" and \\\\; in 'single quotes' a backslash is a backslash",
                )  # fmt: skip
            at = plain = here + 2
            continue
        if text.startswith("$${", here):
            yield text[plain:here] + "${"
            at = plain = here + 3
            continue
        yield text[plain:here]
        close = _closing_brace(text, here + 2)
        if close < 0:
            line_end = text.find("\n", here)
            stop = line_end if line_end >= 0 else len(text)
            yield BadText(
                body.offset(here), body.offset(here) + 2, "B009", "this `${` has no `}`",
                "write `$${` for the two characters themselves",
            )  # fmt: skip
            at = plain = stop
            continue
        yield Hole(body.offset(here), body.offset(close) + 1, body.offset(here + 2), body.offset(close))
        at = plain = close + 1


_SPECIAL: Final = re.compile(r"\\|\$?\$\{")


def _closing_brace(text: str, at: int) -> int:
    """The first `}` on this line outside a 'raw' text, or -1."""
    quoted = False
    for position in range(at, len(text)):
        letter = text[position]
        if letter == "\n":
            return -1
        if letter == "'":
            quoted = not quoted
        elif letter == "}" and not quoted:
            return position
    return -1
