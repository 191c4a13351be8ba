"""What belongs together by value, against every pair asked one by one."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.pairing import Pairing
from tests.coordinator.sweeping import axes, names_of
from wire.sweep import Axis, Sweep, axis_from_plain, text_of


def sweep(plain: list[dict[str, Any]]) -> Sweep:
    return Sweep("g", [axis_from_plain(each) for each in plain])


def by_values(of: Sweep, names: list[str]) -> dict[tuple[str, ...], list[int]]:
    """The elements of each combination of values."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index in range(of.size):
        own = dict(zip(of.names, map(text_of, of.values(index)), strict=True))
        found.setdefault(tuple(own[name] for name in names), []).append(index)
    return found


def flat(runs: Any) -> list[int]:
    return sorted(index for run in runs for index in run)


@settings(max_examples=300)
@given(axes(), axes(), st.data())
def test_pairs_are_those_of_equal_texts(one: list[Any], other: list[Any], data: st.DataObject) -> None:
    names = sorted(set(names_of(one)) & set(names_of(other)))
    if not names:
        return
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    source, target = sweep(one), sweep(other)
    pairing = Pairing(source, target, chosen)
    sources, targets = by_values(source, chosen), by_values(target, chosen)
    assert pairing.keys == len(sources)
    assert pairing.most == max(map(len, sources.values()))
    for values, elements in sources.items():
        key = pairing.key_of(elements[0])
        assert {pairing.key_of(index) for index in elements} == {key}
        assert pairing.count(key) == len(elements)
        assert flat(pairing.elements(key)) == elements
        assert flat(pairing.targets(key)) == targets.get(values, [])
    for values, elements in targets.items():
        expected = pairing.key_of(sources[values][0]) if values in sources else None
        assert {pairing.key_for(index) for index in elements} == {expected}
    paired = [index for values, elements in targets.items() if values in sources for index in elements]
    assert flat(pairing.paired()) == sorted(paired)


@settings(max_examples=300)
@given(*[st.builds(range, st.integers(-30, 30), st.integers(-30, 30), st.integers(-9, 9).filter(bool))] * 2)
def test_ranges_meet_where_they_have_the_same_numbers(one: range, other: range) -> None:
    if not one or not other:
        return
    pairing = Pairing(Sweep("s", [Axis(("n",), other)]), Sweep("t", [Axis(("n",), one)]), ["n"])
    assert flat(pairing.paired()) == [at for at, value in enumerate(one) if value in other]


def test_a_million_against_a_million_is_a_few_runs_and_no_pair() -> None:
    many = Axis(("n",), range(1, 1_000_001))
    few = Axis(("d",), ["fx", "rates"])
    same = Pairing(Sweep("s", [many]), Sweep("t", [many]), ["n"])
    assert same.alike
    moved = Pairing(Sweep("s", [few, many]), Sweep("t", [Axis(("n",), range(500_000, 2_000_000)), few]), ["n", "d"])
    assert list(moved.paired()) == [range(0, 1_000_002, 1)]
    assert list(moved.targets(moved.key_of(999_999))) == [range(1_000_000, 1_000_001)]
    spread = Pairing(Sweep("s", [few]), Sweep("t", [many, few]), ["d"])
    assert [len(list(spread.targets(key))) for key in (0, 1)] == [1, 1]
    assert list(spread.targets(1)) == [range(1, 2_000_001, 2)]
    assert sys.getsizeof(spread) < 1_000


def test_what_lies_between_axes_takes_few_runs() -> None:
    inner = [Axis(("a",), range(1000)), Axis(("k",), range(10)), Axis(("b",), range(100))]
    pairing = Pairing(Sweep("s", [Axis(("k",), range(10))]), Sweep("t", inner), ["k"])
    runs = list(pairing.targets(3))
    assert (len(runs), sum(map(len, runs))) == (100, 100_000)
