"""`after = x[v, w]`: which elements of two sweeps belong together, by the values of some of their axes.

A *key* is one combination of those values that the source (`x`) has, as a number. Axes may stand in another order, be
zipped on one side only, and have values that the other side lacks: what counts is the text of a value, as commands see
it. Sets of tasks are arithmetic runs (`range`), never lists of pairs: a key has few of them, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import gcd, prod

from wire.sweep import Axis, Sweep, text_of

Texts = tuple[str, ...]
Positions = range | list[int]


class _Seen:
    """An axis seen by some of its names: what stands at a position, and where that stands. What is equal there has one
    number."""

    def __init__(self, axis: Axis, names: frozenset[str]) -> None:
        self.axis = axis
        self.names = tuple(name for name in axis.names if name in names)
        self.values = axis.values if isinstance(axis.values, range) else None
        self._texts: list[Texts] = []
        self._numbers: dict[Texts, int] = {}
        self._where: list[list[int]] = []
        self._at: list[int] = []
        if self.values is None:
            self._read([axis.names.index(name) for name in self.names])

    def _read(self, places: list[int]) -> None:
        for position in range(len(self.axis.values)):
            row = self.axis.row(position)
            texts = tuple(text_of(row[place]) for place in places)
            number = self._numbers.setdefault(texts, len(self._texts))
            if number == len(self._texts):
                self._texts.append(texts)
                self._where.append([])
            self._where[number].append(position)
            self._at.append(number)

    @property
    def size(self) -> int:
        """How many different values there are."""
        return len(self._texts) if self.values is None else len(self.values)

    @property
    def most(self) -> int:
        """How often a value stands there at most."""
        return 1 if self.values is not None else max(map(len, self._where))

    def number(self, position: int) -> int:
        return position if self.values is not None else self._at[position]

    def texts(self, number: int) -> Texts:
        return self._texts[number] if self.values is None else (str(self.values[number]),)

    def find(self, texts: Texts) -> int | None:
        """The number of a value."""
        return self._numbers.get(texts) if self.values is None else self.axis.position(texts)

    def positions(self, number: int) -> Positions:
        return range(number, number + 1) if self.values is not None else _run(self._where[number])


class _Side:
    """One sweep, seen by the names that pair it. `dims`: (stride, length, what is seen of the axis) of each axis."""

    def __init__(self, sweep: Sweep, names: frozenset[str]) -> None:
        self.sweep = sweep
        self.dims: list[tuple[int, int, _Seen | None]] = []
        stride = 1
        for axis in reversed(sweep.axes):
            seen = _Seen(axis, names) if names.intersection(axis.names) else None
            self.dims.append((stride, len(axis.values), seen))
            stride *= len(axis.values)
        self.dims.reverse()
        self.keyed = [dim for dim in self.dims if dim[2] is not None]
        self.free = prod(length for _, length, seen in self.dims if seen is None)
        """Elements of one combination of single positions."""

    def texts(self, index: int) -> dict[str, str]:
        """What pairs an element, by name."""
        found: dict[str, str] = {}
        for stride, length, seen in self.keyed:
            assert seen is not None
            found.update(zip(seen.names, seen.texts(seen.number(index // stride % length)), strict=True))
        return found

    def runs(self, texts: dict[str, str]) -> Iterator[range]:
        """The elements with these values."""
        chosen: list[Positions] = []
        for _, length, seen in self.dims:
            number = None if seen is None else seen.find(tuple(texts[name] for name in seen.names))
            if seen is not None and number is None:
                return
            chosen.append(range(length) if seen is None or number is None else seen.positions(number))
        yield from self.product(chosen)

    def product(self, chosen: Sequence[Positions]) -> Iterator[range]:
        """The elements with one of the chosen positions on each axis, in as few runs as a product allows."""
        parts: list[Positions] = [range(1)]
        for (stride, _, _), positions in zip(self.dims, chosen, strict=True):
            part: Positions = (
                range(positions.start * stride, positions.stop * stride, positions.step * stride)
                if isinstance(positions, range)
                else [position * stride for position in positions]
            )
            joined = _joined(parts[-1], part)
            if joined is None:
                parts.append(part)
            else:
                parts[-1] = joined
        longest = max((len(part), at) for at, part in enumerate(parts) if isinstance(part, range))[1]
        run = parts.pop(longest)
        assert isinstance(run, range)
        for offsets in product(*parts):
            start = sum(offsets)
            yield range(run.start + start, run.stop + start, run.step)


class Pairing:
    """Elements of `target` and those of `source` that have the same values on `axes`."""

    def __init__(self, source: Sweep, target: Sweep, axes: Sequence[str]) -> None:
        names = frozenset(axes)
        self._source, self._target = _Side(source, names), _Side(target, names)
        self.size = source.size
        self.alike = names.issuperset(source.names) and _are_alike(source, target)
        """Each element is paired with the one of its own index."""
        self._weights: list[int] = []
        weight = 1
        for _, _, seen in reversed(self._source.keyed):
            self._weights.insert(0, weight)
            weight *= seen.size if seen is not None else 1
        self.keys = weight
        self.most = self._source.free * prod(seen.most for _, _, seen in self._source.keyed if seen is not None)
        """Elements of the source that have one key, at most."""

    def key_of(self, index: int) -> int:
        """The key of an element of the source."""
        if self.alike:
            return index
        key = 0
        for weight, (stride, length, seen) in zip(self._weights, self._source.keyed, strict=True):
            assert seen is not None
            key += weight * seen.number(index // stride % length)
        return key

    def key_for(self, index: int) -> int | None:
        """The key that an element of the target waits for; None: the source has no element with its values."""
        if self.alike:
            return index
        texts, key = self._target.texts(index), 0
        for weight, (_, _, seen) in zip(self._weights, self._source.keyed, strict=True):
            assert seen is not None
            number = seen.find(tuple(texts[name] for name in seen.names))
            if number is None:
                return None
            key += weight * number
        return key

    def values(self, index: int) -> dict[str, str]:
        """What an element of the target asks for, by name, as text."""
        return self._target.texts(index)

    def count(self, key: int) -> int:
        """How many elements of the source have the key: at least one."""
        if self.most == self._source.free:
            return self.most
        numbers = self._numbers(key)
        seens = [seen for _, _, seen in self._source.keyed if seen is not None]
        each = [len(seen.positions(number)) for seen, number in zip(seens, numbers, strict=True)]
        return self._source.free * prod(each)

    def elements(self, key: int) -> Iterator[range]:
        """The elements of the source with this key."""
        return self._source.runs(self._texts(key)) if not self.alike else iter((range(key, key + 1),))

    def targets(self, key: int) -> Iterator[range]:
        """The elements of the target that wait for it: none, one or many."""
        return self._target.runs(self._texts(key)) if not self.alike else iter((range(key, key + 1),))

    def paired(self) -> Iterator[range]:
        """All elements of the target that have some in the source."""
        seens = [seen for _, _, seen in self._source.keyed if seen is not None]
        homes = [_home(seen, self._target) for seen in seens]
        if None in homes:  # rows of the source against several axes of the target: no product says which exist
            for key in range(self.keys):
                yield from self.targets(key)
            return
        chosen: list[Positions] = []
        for _, length, seen in self._target.dims:
            others = [source for source, home in zip(seens, homes, strict=True) if home is seen]
            chosen.append(range(length) if seen is None else _matching(seen, others))
        if all(chosen):
            yield from self._target.product(chosen)

    def _numbers(self, key: int) -> list[int]:
        found = []
        for weight in self._weights:
            number, key = divmod(key, weight)
            found.append(number)
        return found

    def _texts(self, key: int) -> dict[str, str]:
        texts: dict[str, str] = {}
        for number, (_, _, seen) in zip(self._numbers(key), self._source.keyed, strict=True):
            assert seen is not None
            texts.update(zip(seen.names, seen.texts(number), strict=True))
        return texts


def _are_alike(one: Sweep, other: Sweep) -> bool:
    if [axis.names for axis in one.axes] != [axis.names for axis in other.axes]:
        return False
    return all(_same_values(left, right) for left, right in zip(one.axes, other.axes, strict=True))


def _same_values(one: Axis, other: Axis) -> bool:
    if isinstance(one.values, range) and isinstance(other.values, range):
        return one.values == other.values
    if len(one.values) != len(other.values):
        return False
    return all(_texts_at(one, at) == _texts_at(other, at) for at in range(len(one.values)))


def _texts_at(axis: Axis, position: int) -> Texts:
    return tuple(text_of(value) for value in axis.row(position))


def _home(seen: _Seen, side: _Side) -> _Seen | None:
    """The axis of the other side that has all of these names, if one does."""
    return next((other for _, _, other in side.keyed if other and set(seen.names) <= set(other.names)), None)


def _matching(seen: _Seen, others: list[_Seen]) -> Positions:
    """Where on an axis of the target every one of these axes of the source has the value too."""
    if seen.values is not None and len(others) == 1:
        [other] = others
        if other.values is not None:
            return _in_both(seen.values, other.values)
        found = (seen.find(other.texts(number)) for number in range(other.size))
        return _run(sorted(position for position in found if position is not None))
    places = [[seen.names.index(name) for name in other.names] for other in others]
    matched: list[int] = []
    for number in range(seen.size):
        texts = seen.texts(number)
        if all(
            other.find(tuple(texts[at] for at in place)) is not None
            for other, place in zip(others, places, strict=True)
        ):
            matched += seen.positions(number)
    return _run(sorted(matched))


def _in_both(values: range, others: range) -> range:
    """The positions in `values` whose value is in `others` too."""
    step, stride = values.step, abs(others.step)
    common = gcd(step, stride)
    behind = others.start - values.start
    if not values or not others or behind % common:
        return range(0)
    period = stride // common
    first = behind // common * pow(step // common, -1, period) % period
    ends = (others[0] - values.start, others[-1] - values.start)
    near, far = sorted(ends) if step > 0 else sorted((-ends[0], -ends[1]))
    lowest, highest = max(0, -(-near // abs(step))), far // abs(step)
    first += max(0, -(-(lowest - first) // period)) * period
    return range(first, max(first, min(len(values), highest + 1)), period)


def _run(positions: list[int]) -> Positions:
    """As a range, where they are one."""
    if len(positions) == 1:
        return range(positions[0], positions[0] + 1)
    if not positions:
        return range(0)
    step = positions[1] - positions[0]
    run = range(positions[0], positions[-1] + 1, step)
    return run if len(run) == len(positions) and list(run) == positions else positions


def _joined(outer: Positions, inner: Positions) -> range | None:
    """Both as one run of sums, where that is one."""
    if not isinstance(outer, range) or not isinstance(inner, range):
        return None
    if len(outer) == 1:
        return range(inner.start + outer.start, inner.stop + outer.start, inner.step)
    if len(inner) == 1:
        return range(outer.start + inner.start, outer.stop + inner.start, outer.step)
    if outer.step != len(inner) * inner.step:
        return None
    start = outer.start + inner.start
    return range(start, start + len(outer) * outer.step, inner.step)
