"""A group as an index space: indexes, values and names map one to one, whatever the values hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.sweep import Axis, Sweep, axis_from_plain, text_of

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
scalars = st.one_of(st.integers(-(10**9), 10**9), texts, st.booleans())
ranges = st.builds(
    lambda first, count, step: range(first, first + count * step, step),
    st.integers(-50, 50),
    st.integers(1, 6),
    st.sampled_from([1, 2, 7, -1, -3]),
)


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    axes = []
    for number in range(draw(st.integers(0, 3))):
        form = draw(st.sampled_from(["range", "list", "rows"]))
        if form == "range":
            axes.append(Axis((f"a{number}",), draw(ranges)))
            continue
        width = 1 if form == "list" else 2
        rows = draw(st.lists(st.tuples(*[scalars] * width), min_size=1, max_size=5, unique_by=_texts))
        values = [row[0] for row in rows] if width == 1 else [list(row) for row in rows]
        axes.append(Axis(tuple(f"a{number}{'xy'[part]}" for part in range(width)), values))
    return Sweep("g", axes)


def _texts(row: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(text_of(value) for value in row)


@given(sweeps())
def test_the_size_is_the_product_and_every_index_has_values_of_its_own(sweep: Sweep) -> None:
    assert sweep.size == math.prod(len(axis.values) for axis in sweep.axes)
    rows = [tuple(text_of(value) for value in sweep.values(index)) for index in range(sweep.size)]
    assert len(set(rows)) == sweep.size
    assert all(len(row) == len(sweep.names) for row in rows)


@given(sweeps())
def test_a_label_leads_back_to_its_task_and_is_one_plain_line(sweep: Sweep) -> None:
    for index in range(sweep.size):
        label = sweep.label(index)
        assert sweep.find(label) == index
        assert label.isprintable()


@given(sweeps())
def test_a_task_id_leads_back_to_its_task_and_is_never_a_path(sweep: Sweep) -> None:
    ids = [sweep.task_id(index) for index in range(sweep.size)]
    assert len(set(ids)) == sweep.size
    for index, name in enumerate(ids):
        assert sweep.find(name) == index
        assert len(name.encode()) <= 64
        assert "/" not in name
        assert name not in (".", "..")
        assert name.isascii()


@given(sweeps(), st.integers(-5, 500))
def test_an_index_in_the_name_finds_only_tasks_that_there_are(sweep: Sweep, index: int) -> None:
    found = sweep.find(f"g#{index}")
    assert found == (index if sweep.axes and 0 <= index < sweep.size else None)


@given(sweeps())
def test_the_last_axis_is_the_fastest(sweep: Sweep) -> None:
    if sweep.axes and len(sweep.axes[-1].values) > 1:
        width = len(sweep.axes[-1].names)
        first, second = sweep.values(0), sweep.values(1)
        assert first[:-width] == second[:-width]
        assert second[-width:] == sweep.axes[-1].row(1)


@pytest.mark.parametrize(
    "name",
    ["g[017]", "g[+17]", "g[ 17]", "g[1_7]", "g[21]", "g[]", "g[17,1]", "g-017", "g-21", "g", "h[17]", "g#+1", "g#٣",
     "g[17", "g17", 'g["17"', "g#" + "9" * 30],
)  # fmt: skip
def test_what_is_no_name_of_a_task_finds_none(name: str) -> None:
    assert Sweep("g", [Axis(("n",), range(1, 21))]).find(name) is None


def test_names_of_the_language_page() -> None:
    sweep = Sweep("price", [Axis(("scenario",), range(1, 501)), Axis(("desk",), ["fx", "rates"])])
    assert sweep.size == 1000
    assert (sweep.label(32), sweep.task_id(32)) == ("price[17,fx]", "price-17-fx")
    assert [sweep.find(name) for name in ("price[17,fx]", "price-17-fx", "price#32")] == [32, 32, 32]
    assert Sweep("report", []).label(0) == Sweep("report", []).task_id(0) == "report"


@pytest.mark.parametrize("value", ["a b", "a/b", ".hidden", "-5", "ü", "", "x" * 63, "a,b", "a]b", 'a"b', "a\nb"])
def test_one_value_that_is_no_plain_name_numbers_the_whole_group(value: str) -> None:
    sweep = Sweep("g", [Axis(("v",), ["fine", value])])
    assert [sweep.task_id(0), sweep.task_id(1)] == ["g-i0", "g-i1"]
    assert [sweep.find(sweep.label(0)), sweep.find(sweep.label(1))] == [0, 1]


def test_values_with_commas_do_not_make_two_tasks_look_alike() -> None:
    sweep = Sweep("g", [Axis(("a", "b"), [["x,y", "z"], ["x", "y,z"]])])
    assert sweep.label(0) != sweep.label(1)
    assert [sweep.find(sweep.label(index)) for index in (0, 1)] == [0, 1]


def test_a_very_long_value_is_told_by_its_index() -> None:
    sweep = Sweep("g", [Axis(("a",), ["x" * 100_000, "y"])])
    assert sweep.label(0) == "g#0"
    assert sweep.find("g#0") == 0


def test_a_million_tasks_cost_no_more_than_ten() -> None:
    plain = {"names": ["n"], "range": [1, 1_000_000_000_000, 1]}
    sweep = Sweep("g", [axis_from_plain(plain)])
    assert sweep.size == 10**12
    assert sweep.task_id(10**12 - 1) == "g-1000000000000"
    assert sweep.find("g[999999999999]") == 999_999_999_998


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, ""),
        (17, "17"),
        (0.5, "0.5"),
        ("x", "x"),
        ([1, "a", True], '[1,"a",true]'),
    ],
)
def test_values_as_commands_see_them(value: object, text: str) -> None:
    assert text_of(value) == text
