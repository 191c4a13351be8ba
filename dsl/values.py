"""The values of the language and their types; how they read as text, and how they travel in a spec document."""

from __future__ import annotations

import datetime
import enum
import json
from dataclasses import dataclass
from typing import Any

from wire.sweep import text_of


class Type(enum.Enum):
    """What a value is; the texts stand in messages and after the `:` of a param."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STRING = "string"
    DATE = "date"
    DURATION = "duration"
    SIZE = "size"
    LIST = "list"
    RANGE = "range"
    TABLE = "table"
    NULL = "null"


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    ms: int


@dataclass(frozen=True, slots=True, order=True)
class Size:
    bytes: int


@dataclass(frozen=True, slots=True)
class Table:
    """What `csv` gives: rows of texts under named columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Value = int | float | bool | str | datetime.date | Duration | Size | list[Any] | range | Table | None

_TYPES: dict[type, Type] = {
    int: Type.INT,
    float: Type.FLOAT,
    bool: Type.BOOL,
    str: Type.STRING,
    datetime.date: Type.DATE,
    Duration: Type.DURATION,
    Size: Type.SIZE,
    list: Type.LIST,
    range: Type.RANGE,
    Table: Type.TABLE,
    type(None): Type.NULL,
}

WORDS: dict[Type, str] = {
    Type.INT: "an int",
    Type.FLOAT: "a float",
    Type.BOOL: "a bool",
    Type.STRING: "a string",
    Type.DATE: "a date",
    Type.DURATION: "a duration",
    Type.SIZE: "a size",
    Type.LIST: "a list",
    Type.RANGE: "a range",
    Type.TABLE: "the rows of a csv file",
    Type.NULL: "null",
}


NO_TEXT = frozenset({Type.RANGE, Type.TABLE})
"""Types whose values are for `for` only: no command sees them as text."""


def type_of(value: Value) -> Type:
    return _TYPES[type(value)]


def plain(value: Value) -> Any:
    """The value as it travels: what a template's operators compute with, and what `text` reads from."""
    match value:
        case Duration(ms=ms):
            return ms // 1000 if ms % 1000 == 0 else ms / 1000
        case Size(bytes=count):
            return count
        case datetime.date():
            return value.isoformat()
        case range():
            return list(value)
        case list():
            return [plain(item) for item in value]
        case Table(rows=rows):
            return [list(row) for row in rows]
        case _:
            return value


def text(value: Value) -> str:
    """The value as a command sees it: a duration in seconds, a size in bytes, a list as JSON, null empty."""
    return text_of(plain(value))


def show(value: Value) -> str:
    """The value as a person would write it, shortened, for messages."""
    match value:
        case Duration(ms=ms):
            return show_duration(ms)
        case Size(bytes=count):
            return show_size(count)
        case str():
            written = json.dumps(value, ensure_ascii=False)
        case list():
            written = "[" + ", ".join(show(item) for item in value[:5]) + (", …]" if len(value) > 5 else "]")
        case range():
            last = value[-1] if value else value.stop
            written = f"{value.start}..{last}" + (f" by {value.step}" if value.step != 1 else "")
        case Table(columns=columns):
            written = f"csv with the columns {', '.join(columns)}"
        case None:
            return "null"
        case _:
            written = text(value)
    return written if len(written) <= 60 else written[:59] + "…"


def show_duration(ms: int) -> str:
    if ms == 0:
        return "0s"
    sign, ms = ("-" if ms < 0 else ""), abs(ms)
    written = ""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, ms = divmod(ms, length)
        written += f"{count}{unit}" if count else ""
    return sign + written


def show_size(count: int) -> str:
    for unit, length in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % length == 0:
            return f"{count // length}{unit}"
    return f"{count}B"
