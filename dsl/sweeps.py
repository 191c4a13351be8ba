"""The axes of a task: from `for` to ranges and lists of plain values, without ever counting out their product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dsl import ast
from dsl.blocks import Reader
from dsl.diagnostics import Report
from dsl.expressions import Evaluator
from dsl.names import too_long
from dsl.operators import count
from dsl.sources import column_help
from dsl.values import Table, Type, Value, plain, show, text, type_of
from dsl.worth import Constant, Scope, Unknown, Varying, Worth, describe
from wire.bounds import MAX_AXES, MAX_AXIS_VALUES, MAX_TASKS
from wire.near import did_you_mean

LARGE: Final = 10_000_000
"""So many tasks are allowed, and told."""
_AXIS_TYPES: Final = (Type.INT, Type.FLOAT, Type.BOOL, Type.STRING, Type.DATE, Type.DURATION, Type.SIZE)


@dataclass(slots=True)
class SweepReading:
    """The axes as they travel, and what their names are worth in the task. Without `complete` a value is unknown."""

    axes: list[dict[str, Any]] = field(default_factory=list)
    worths: dict[str, Worth] = field(default_factory=dict)
    places: dict[str, ast.Name] = field(default_factory=dict)
    size: int = 1
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of one axis: a range, or rows (one column for a plain axis) with a type for each column."""

    range: range | None = None
    rows: list[tuple[Value, ...]] | None = None
    types: tuple[Type | None, ...] = ()


class Sweeps:
    def __init__(self, report: Report, evaluator: Evaluator, reader: Reader) -> None:
        self._report = report
        self._evaluator = evaluator
        self._reader = reader

    def read(self, block: ast.Block, scope: Scope, taken: Callable[[str], ast.Node | None]) -> SweepReading:
        """The sweep of a task's header. `taken` gives where a name is declared already."""
        reading = SweepReading()
        if len(block.axes) > MAX_AXES:
            self._report.error("B707", f"a sweep has at most {MAX_AXES} axes", block.axes[MAX_AXES])
            reading.complete = False
            return reading
        for axis in block.axes:
            self._axis(axis, scope, reading, taken)
        if reading.complete and reading.size > MAX_TASKS:
            place = ast.Node(block.axes[0].start, block.axes[-1].end)
            self._report.error("B705", f"this sweep has {reading.size} tasks: at most {MAX_TASKS}", place)
        elif reading.complete and reading.size > LARGE:
            place = ast.Node(block.axes[0].start, block.axes[-1].end)
            self._report.warning("B702", f"this sweep has {reading.size} tasks", place)
        return reading

    def _axis(
        self, axis: ast.Axis, scope: Scope, reading: SweepReading, taken: Callable[[str], ast.Node | None]
    ) -> None:
        first = sum(len(made["names"]) for made in reading.axes)
        inner = Scope({**scope.names, **_sealed(reading)}, lenient=scope.lenient, lost=scope.lost, used=scope.used)
        values = self._values(axis, inner)
        for position, name in enumerate(axis.names):
            before = reading.places.get(name.text)
            declared = taken(name.text)
            if before is not None:
                related = self._report.related(before, "the first one")
                self._report.error("B703", f"two axes are named `{name.text}`", name, related=related)
                reading.complete = False
            elif declared is not None:
                related = self._report.related(declared, "declared here")
                self._report.error("B111", f"`{name.text}` is declared twice", name, related=related)
            else:
                self._reader.name(name, "sweep variable")
            reading.places[name.text] = name
            kind = values.types[position] if values and position < len(values.types) else None
            known: Worth = Varying(["axis", first + position], kind, name.text)
            reading.worths[name.text] = known if values else Unknown(kind)
        if values is None:
            reading.complete = False
            return
        made, size = self._plain(axis, values)
        reading.axes.append(made)
        reading.size *= size

    # ---- values

    def _values(self, axis: ast.Axis, scope: Scope) -> _Values | None:
        worth = self._evaluator.evaluate(axis.values, scope)
        if isinstance(worth, Varying):
            message = f"the values of an axis are known before tasks run: `{worth.because}` is not"
            self._report.error(
                "B209", message, axis.values, help="rows that belong together are zipped: `for (a, b) in`"
            )
            return None
        if isinstance(worth, Unknown):
            if worth.type not in (Type.LIST, Type.RANGE, Type.TABLE, None):
                self._no_axis(axis, worth)
            return None
        match worth.value:
            case range() as values:
                return self._range(axis, values)
            case Table() as table:
                return self._table(axis, table)
            case list() as items:
                return self._listed(axis, items)
        self._no_axis(axis, worth)
        return None

    def _no_axis(self, axis: ast.Axis, worth: Worth) -> None:
        message = f"an axis takes a range, a list or `csv(…)`, found {describe(worth)}"
        self._report.error("B707", message, axis.values)

    def _range(self, axis: ast.Axis, values: range) -> _Values | None:
        if axis.zipped:
            self._report.error(
                "B707", f"{len(axis.names)} names take rows of so many values, a range has none", axis.values
            )
            return None
        if count(values) == 0:
            note = "the last value is below the first" if values.step > 0 else "the last value is above the first"
            help_ = (
                "a range that goes down says so: `5..1 by -1`"
                if values.step == 1 and values.start > values.stop
                else ""
            )
            self._report.error("B701", f"this axis is empty: {_range_text(values)}", axis.values, note=note, help=help_)
            return None
        return _Values(range=values, types=(Type.INT,))

    def _table(self, axis: ast.Axis, table: Table) -> _Values | None:
        positions: list[int] = []
        for name in axis.names:
            if name.text not in table.columns:
                note = did_you_mean(name.text, table.columns)
                self._report.error(
                    "B707", f"the csv has no column `{name.text}`", name, note=note, help=column_help(table.columns)
                )
                return None
            positions.append(table.columns.index(name.text))
        rows: list[tuple[Value, ...]] = [tuple(row[at] for at in positions) for row in table.rows]
        return self._rows(axis, rows)

    def _listed(self, axis: ast.Axis, items: list[Value]) -> _Values | None:
        if not axis.zipped:
            return self._rows(axis, [(item,) for item in items])
        rows: list[tuple[Value, ...]] = []
        for position, item in enumerate(items):
            if not isinstance(item, list) or len(item) != len(axis.names):
                message = f"a row has {len(axis.names)} values, found {describe(Constant(item))}"
                self._report.error("B707", message, _element(axis.values, position))
                return None
            rows.append(tuple(item))
        return self._rows(axis, rows)

    def _rows(self, axis: ast.Axis, rows: list[tuple[Value, ...]]) -> _Values | None:
        report = self._report
        if not rows:
            report.error("B701", "this axis is empty", axis.values)
            return None
        if len(rows) > MAX_AXIS_VALUES:
            report.error("B707", f"this axis lists {len(rows)} values: at most {MAX_AXIS_VALUES}", axis.values)
            return None
        seen: dict[tuple[str, ...], int] = {}
        for position, row in enumerate(rows):
            place = _element(axis.values, position)
            for name, value in zip(axis.names, row, strict=True):
                if type_of(value) not in _AXIS_TYPES:
                    help_ = "" if axis.zipped else "rows are taken apart by as many names: `for (a, b) in`"
                    message = f"a value of an axis is one text or number, found {describe(Constant(value))}"
                    report.error("B707", message, place, help=help_ if isinstance(value, list) else "")
                    return None
                if too_long(report, text(value), place, name.text):
                    return None
            texts = tuple(text(value) for value in row)
            if texts in seen:
                first = _element(axis.values, seen[texts])
                related = () if first is axis.values else report.related(first, "the first one")
                shown = show(row[0]) if len(row) == 1 else f"({', '.join(show(value) for value in row)})"
                message = f"{shown} stands twice on this axis"
                report.error("B706", message, place, related=related, help="each task needs a name of its own")
                return None
            seen[texts] = position
        kinds = [{type_of(row[column]) for row in rows} for column in range(len(axis.names))]
        return _Values(rows=rows, types=tuple(kind.pop() if len(kind) == 1 else None for kind in kinds))

    def _plain(self, axis: ast.Axis, values: _Values) -> tuple[dict[str, Any], int]:
        names = [name.text for name in axis.names]
        if values.range is not None:
            whole = values.range
            size = count(whole)
            last = whole.start + (size - 1) * whole.step
            step = whole.step if size > 1 else 1
            return {"names": names, "range": [whole.start, last, step], "values": None}, size
        rows = values.rows or []
        listed: list[Any] = [[plain(value) for value in row] for row in rows]
        if not axis.zipped:
            listed = [row[0] for row in listed]
        return {"names": names, "range": None, "values": listed}, len(rows)


def _sealed(reading: SweepReading) -> dict[str, Callable[[], Worth]]:
    """The axes before this one: seen, so that the message is about order and not about an unknown name."""
    return {name: known_as(worth) for name, worth in reading.worths.items()}


def known_as(worth: Worth) -> Callable[[], Worth]:
    """What a scope holds for a name whose worth is known."""
    return lambda: worth


def _element(values: ast.Expr, position: int) -> ast.Expr:
    """The place of one element where it is written out, else of all."""
    if isinstance(values, ast.ListOf) and position < len(values.items):
        return values.items[position]
    return values


def _range_text(values: range) -> str:
    last = values.stop - (1 if values.step > 0 else -1)
    return f"{values.start}..{last}" + (f" by {values.step}" if values.step != 1 else "")
