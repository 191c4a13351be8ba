"""A group of tasks as an index space: from an index to its values and names, and back, without ever listing it.

Pure and free of dependencies: the language counts with it, the coordinator lists with it, the agent renders with it.
Language: several axes are the product, last fastest; a zipped axis carries several names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Scalar = int | str | bool | float | None

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*\Z")
_BARE_IN_LABEL: Final = re.compile(r"[^\s,\[\]\"/#\x00-\x1f\x7f]+\Z")
MAX_TASK_ID_BYTES: Final = 64
MAX_LABEL: Final = 200
"""Characters between the brackets of a label; a longer one says the index instead."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its names (several when rows are zipped) and its values: a range, or a list of scalars or rows."""

    names: tuple[str, ...]
    values: range | Sequence[Any]

    def row(self, position: int) -> tuple[Scalar, ...]:
        """The values at `position`, one for each name."""
        value: Any = self.values[position]
        return tuple(value) if len(self.names) > 1 else (value,)

    def position(self, row: tuple[str, ...]) -> int | None:
        """Where the row with these texts stands on this axis, or None."""
        if isinstance(self.values, range):
            try:
                number = int(row[0])
                return self.values.index(number) if str(number) == row[0] else None
            except ValueError:
                return None
        for position in range(len(self.values)):
            if tuple(text_of(value) for value in self.row(position)) == row:
                return position
        return None


def axis_from_plain(plain: dict[str, Any]) -> Axis:
    """The axis of a spec document: `{"names": [...], "range": [first, last, step]}` or `{"names", "values": [...]}`."""
    names = tuple(plain["names"])
    if plain.get("range") is not None:
        first, last, step = plain["range"]
        return Axis(names, range(first, last + (1 if step > 0 else -1), step))
    return Axis(names, plain["values"])


def text_of(value: Any) -> str:
    """A value as a command sees it: ints decimal, bools `true`/`false`, lists as JSON, null empty."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "" if value is None else str(value)


class Sweep:
    """The index space of one group of tasks. Invariant: index 0..size-1 maps one-to-one to names and values."""

    def __init__(self, group: str, axes: Sequence[Axis]) -> None:
        self.group = group
        self.axes = tuple(axes)
        self.names: tuple[str, ...] = tuple(name for axis in self.axes for name in axis.names)
        size = 1
        for axis in self.axes:
            size *= len(axis.values)
        self.size = size
        self._plain: bool | None = None

    def values(self, index: int) -> tuple[Scalar, ...]:
        """The values of all axis names at `index`, in declaration order (mixed radix, last axis fastest)."""
        rows: list[tuple[Scalar, ...]] = []
        for axis in reversed(self.axes):
            index, position = divmod(index, len(axis.values))
            rows.append(axis.row(position))
        return tuple(value for row in reversed(rows) for value in row)

    def label(self, index: int) -> str:
        """The task's name for people: `price[17,fx]`, or `report` for a group without axes. Whatever its values hold,
        it is one line and names one task: what is no plain word is quoted, what is very long is told by its index."""
        if not self.axes:
            return self.group
        inside = ",".join([_in_label(text_of(value)) for value in self.values(index)])
        return f"{self.group}[{inside}]" if len(inside) <= MAX_LABEL else f"{self.group}#{index}"

    def task_id(self, index: int) -> str:
        """The task's directory and `BATCH_TASK_ID`: `price-17-fx` where its values allow, else `price-i<index>`."""
        if not self.axes:
            return self.group
        if self._speaks_plainly():
            return "-".join((self.group, *(text_of(value) for value in self.values(index))))
        return f"{self.group}-i{index}"

    def find(self, name: str) -> int | None:
        """The index of `price[17,fx]`, `price-17-fx`, `price-i5` or `price#5`, or None when there is none."""
        if name == self.group and not self.axes:
            return 0
        rest = name[len(self.group) :]
        if not name.startswith(self.group) or not self.axes:
            return None
        if rest.startswith("#") and _is_number(rest[1:]):
            return self._within(int(rest[1:]))
        if rest.startswith("[") and rest.endswith("]"):
            return self._index_of(_split_label(rest[1:-1]))
        if rest.startswith("-i") and _is_number(rest[2:]) and not self._speaks_plainly():
            return self._within(int(rest[2:]))
        if rest.startswith("-") and self._speaks_plainly():
            return self._index_of(_split_plain(rest[1:], len(self.names)))
        return None

    def _within(self, index: int) -> int | None:
        return index if index < self.size else None

    def _index_of(self, texts: list[str]) -> int | None:
        if len(texts) != len(self.names):
            return None
        index = 0
        for axis in self.axes:
            row, texts = tuple(texts[: len(axis.names)]), texts[len(axis.names) :]
            position = axis.position(row)
            if position is None:
                return None
            index = index * len(axis.values) + position
        return index

    def _speaks_plainly(self) -> bool:
        if self._plain is None:
            self._plain = self._longest_id() <= MAX_TASK_ID_BYTES
        return self._plain

    def _longest_id(self) -> int:
        """Bytes of the longest id of the group, or a number over the limit when some value is no plain name."""
        length = len(self.group)
        for axis in self.axes:
            if isinstance(axis.values, range):
                if not axis.values:
                    continue
                if min(axis.values[0], axis.values[-1]) < 0:
                    return MAX_TASK_ID_BYTES + 1
                length += 1 + len(str(max(axis.values[0], axis.values[-1])))
                continue
            longest = 0
            for position in range(len(axis.values)):
                texts = [text_of(value) for value in axis.row(position)]
                if not all(_PLAIN_NAME.match(text) for text in texts):
                    return MAX_TASK_ID_BYTES + 1
                longest = max(longest, sum(len(text) + 1 for text in texts))
            length += longest
        return length


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _in_label(text: str) -> str:
    plain = text.isprintable()
    return text if plain and _BARE_IN_LABEL.match(text) else json.dumps(text, ensure_ascii=not plain)


_LABEL_PART: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^,"]*')


def _split_label(inside: str) -> list[str]:
    """The texts between the brackets of a label: bare, or quoted as JSON; none when they are malformed."""
    parts: list[str] = []
    at = 0
    while True:
        match = _LABEL_PART.match(inside, at)
        if match is None:
            return []
        try:
            parts.append(json.loads(match[0]) if match[0].startswith('"') else match[0])
        except ValueError:
            return []
        at = match.end()
        if at == len(inside):
            return parts
        if inside[at] != ",":
            return []
        at += 1


def _split_plain(text: str, parts: int) -> list[str]:
    """Split on `-`; plain values hold none, so the number of parts must fit."""
    pieces = text.split("-")
    return pieces if len(pieces) == parts else []
