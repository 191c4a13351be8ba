"""Which operator takes which types and what comes out: one table, used for constants and, by type alone, for what is
known only when a task runs."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dsl.values import Duration, Size, Table, Type, Value, type_of
from wire.bounds import MAX_INT

if TYPE_CHECKING:
    from fractions import Fraction

Signature = tuple[str, Type, Type]


class NoValue(ValueError):
    """The operation is meant for these types and has no value for these values."""


NUMBERS: Final = (Type.INT, Type.FLOAT)
_ORDERED: Final = (Type.INT, Type.FLOAT, Type.STRING, Type.DATE, Type.DURATION, Type.SIZE)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MEMBERSHIP: Final = ("in", "not in")


def _number(left: Type, right: Type) -> Type:
    return Type.INT if left is right is Type.INT else Type.FLOAT


def _results() -> dict[Signature, Type]:
    """The result type of every arithmetic operation that there is."""
    table: dict[Signature, Type] = {}
    for left in NUMBERS:
        for right in NUMBERS:
            for sign in ("+", "-", "*"):
                table[sign, left, right] = _number(left, right)
            table["/", left, right] = Type.FLOAT
        table["*", Type.DURATION, left] = table["*", left, Type.DURATION] = Type.DURATION
        table["*", Type.SIZE, left] = table["*", left, Type.SIZE] = Type.SIZE
        table["/", Type.DURATION, left] = Type.DURATION
        table["/", Type.SIZE, left] = Type.SIZE
    for sign in ("//", "%"):
        table[sign, Type.INT, Type.INT] = Type.INT
    for measure in (Type.DURATION, Type.SIZE):
        table["+", measure, measure] = table["-", measure, measure] = measure
        table["%", measure, measure] = measure
        table["//", measure, measure] = Type.INT
        table["//", measure, Type.INT] = measure
        table["/", measure, measure] = Type.FLOAT
    table["+", Type.STRING, Type.STRING] = Type.STRING
    table["+", Type.LIST, Type.LIST] = Type.LIST
    table["+", Type.DATE, Type.DURATION] = table["-", Type.DATE, Type.DURATION] = Type.DATE
    table["-", Type.DATE, Type.DATE] = Type.DURATION
    return table


RESULTS: Final = _results()


def result_type(sign: str, left: Type, right: Type) -> Type | None:
    """What comes out, or None when the operator does not take these types."""
    if sign in ("and", "or"):
        return Type.BOOL if left is right is Type.BOOL else None
    if sign in ("==", "!="):
        same = left is right or (left in NUMBERS and right in NUMBERS) or Type.NULL in (left, right)
        return Type.BOOL if same else None
    if sign in _COMPARE:
        comparable = left in _ORDERED and (left is right or (left in NUMBERS and right in NUMBERS))
        return Type.BOOL if comparable else None
    if sign in _MEMBERSHIP:
        fits = right is Type.LIST or (right is Type.RANGE and left in NUMBERS) or left is right is Type.STRING
        return Type.BOOL if fits else None
    return RESULTS.get((sign, left, right))


def compute(sign: str, left: Any, right: Any) -> Value:
    """The value of an operation whose types `result_type` accepted. Raises NoValue."""
    if sign in _COMPARE:
        return _COMPARE[sign](left, right)
    if sign in _MEMBERSHIP:
        return _contains(left, right) is (sign == "in")
    if sign in ("/", "//", "%") and _magnitude(right) == 0:
        raise NoValue("division by zero")
    if isinstance(left, datetime.date):
        if isinstance(right, Duration):
            return _shift(left, right, -1 if sign == "-" else 1)
        return Duration((left - right).days * 86_400_000)
    if isinstance(left, str):
        return f"{left}{right}"
    if isinstance(left, list):
        return [*left, *right]
    if isinstance(left, Duration | Size) or isinstance(right, Duration | Size):
        return _measure(sign, left, right)
    number: Value = _fitting(_arithmetic(sign, left, right))
    return number


def _divide(left: Any, right: Any) -> Any:
    whole = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return left // right if whole else left / right


_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip


def _arithmetic(sign: str, left: Any, right: Any) -> Any:
    try:
        return _ARITHMETIC[sign](left, right)
    except OverflowError:
        raise NoValue("the result does not fit") from None


def _measure(sign: str, left: Any, right: Any) -> Value:
    """Durations and sizes: exact on their base units, and a measure again where the table says so."""
    kind = Duration if Duration in (type(left), type(right)) else Size
    exact = _exact(sign, _magnitude(left), _magnitude(right))
    if type(left) is type(right) and sign in ("/", "//"):
        return int(exact) if exact.denominator == 1 else float(exact)
    if exact.denominator != 1 and sign != "/":
        unit = "1ms" if kind is Duration else "1B"
        raise NoValue(f"the result is no multiple of {unit}")
    return kind(int(_fitting(int(exact))))


def _exact(sign: str, left: Fraction, right: Fraction) -> int | Fraction:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // right
        case "%":
            return left % right
        case _:
            return left / right


def _magnitude(value: Value) -> Fraction:
    from fractions import Fraction  # few files compute with measures

    match value:
        case Duration(ms=count) | Size(bytes=count):
            return Fraction(count)
        case int() | float():
            return Fraction(value)
        case _:
            return Fraction(1)


def _shift(day: datetime.date, length: Duration, sign: int) -> datetime.date:
    days, rest = divmod(length.ms, 86_400_000)
    if rest:
        raise NoValue("a date moves by whole days")
    try:
        return day + datetime.timedelta(days=sign * days)
    except OverflowError:
        raise NoValue("there is no such day") from None


def _contains(item: Value, among: Value) -> bool:
    if isinstance(among, list):
        return any(type_of(other) == type_of(item) and other == item for other in among)
    if isinstance(among, range):
        return item in among
    return isinstance(among, str) and isinstance(item, str) and item in among


def _fitting(number: Any) -> Any:
    if isinstance(number, int) and abs(number) > MAX_INT:
        raise NoValue("the result does not fit in 64 bits")
    if isinstance(number, float) and (number != number or abs(number) == float("inf")):
        raise NoValue("the result does not fit")
    return number


def negate(value: Value) -> Value:
    match value:
        case Duration(ms=ms):
            return Duration(-ms)
        case int() | float():
            return -value
        case _:
            raise NoValue("nothing to negate")


NEGATED: Final = (Type.INT, Type.FLOAT, Type.DURATION)


def length(value: Value) -> int:
    match value:
        case str() | list():
            return len(value)
        case range():
            return count(value)
        case Table(rows=rows):
            return len(rows)
        case _:
            raise NoValue("no length")


def count(values: range) -> int:
    """`len` for a range of any size."""
    if values.step > 0:
        return max(0, (values.stop - values.start + values.step - 1) // values.step)
    return max(0, (values.start - values.stop - values.step - 1) // -values.step)


MEASURED: Final = (Type.STRING, Type.LIST, Type.RANGE, Type.TABLE)
ORDERED: Final = _ORDERED
