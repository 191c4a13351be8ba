"""Random sweeps and random `after` over them: strategies for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from wire.sweep import text_of

Plain = dict[str, Any]
NAMES = ("u", "v", "w")
VALUES = (1, "2", 3, "x", True, "true", 4.5)
"""Some of these are the same as text, though no axis may have both."""
WHENS = ("succeeded", "done", "failed")


@st.composite
def axis(draw: st.DrawFn, names: tuple[str, ...]) -> Plain:
    """An axis of one name, or of several whose rows are zipped."""
    if len(names) == 1 and draw(st.booleans()):
        first, step, count = draw(st.integers(-1, 3)), draw(st.sampled_from((1, 1, 2, -1))), draw(st.integers(1, 4))
        return {"names": list(names), "range": [first, first + step * (count - 1), step]}
    row = st.tuples(*[st.sampled_from(VALUES)] * len(names))
    rows = draw(st.lists(row, min_size=1, max_size=4, unique_by=lambda row: tuple(map(text_of, row))))
    return {"names": list(names), "values": [list(row) if len(names) > 1 else row[0] for row in rows]}


@st.composite
def axes(draw: st.DrawFn) -> list[Plain]:
    """Some of the names, in any order, some of them together on one axis."""
    names = list(draw(st.permutations(NAMES)))[: draw(st.integers(0, 3))]
    found = []
    while names:
        together = 2 if len(names) > 1 and draw(st.integers(0, 3)) == 0 else 1
        found.append(draw(axis(tuple(names[:together]))))
        names = names[together:]
    return found


def names_of(plain: list[Plain]) -> list[str]:
    return [name for each in plain for name in each["names"]]


@st.composite
def groups(draw: st.DrawFn) -> list[Plain]:
    """Two to four groups; each may wait for earlier ones, all of them or by value."""
    found: list[Plain] = []
    for number in range(draw(st.integers(2, 4))):
        own = found[number - 1]["axes"] if number and draw(st.integers(0, 4)) == 0 else draw(axes())
        after: list[Plain] = []
        for _ in range(draw(st.integers(0, 2)) if number else 0):
            other = draw(st.integers(0, number - 1))
            both = sorted(set(names_of(own)) & set(names_of(found[other]["axes"])))
            chosen = draw(st.lists(st.sampled_from(both), unique=True)) if both else []
            when = draw(st.sampled_from(WHENS[:2] if found[other]["optional"] else WHENS))
            element = {"group": other, "when": when, "axes": chosen}
            if not any(_same(element, earlier) for earlier in after):
                after.append(element)
        optional = draw(st.integers(0, 4)) == 0
        found.append(
            {"name": f"g{number}", "axes": own, "command": {"argv": ["x"]}, "after": after, "optional": optional}
        )
    return found


def _same(one: Plain, other: Plain) -> bool:
    return all(one[key] == other[key] for key in ("group", "when")) and set(one["axes"]) == set(other["axes"])
