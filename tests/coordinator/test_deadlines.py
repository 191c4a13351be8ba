"""One deadline a key, in order, and no growth from setting the same ones again and again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.deadlines import Deadlines


def test_keys_expire_in_order_of_their_time_and_once() -> None:
    deadlines = Deadlines()
    for key, due in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        deadlines.set((key,), due)
    assert deadlines.next() == 1.0
    assert list(deadlines.expire(2.0)) == [("a",), ("b",)]
    assert list(deadlines.expire(2.0)) == []
    assert deadlines.next() == 3.0


def test_a_key_that_is_set_again_is_moved() -> None:
    deadlines = Deadlines()
    deadlines.set(("a",), 1.0)
    deadlines.set(("a",), 5.0)
    assert list(deadlines.expire(4.0)) == []
    deadlines.set(("a",), 3.0)
    assert list(deadlines.expire(4.0)) == [("a",)]
    assert deadlines.next() is None


def test_a_cleared_key_never_comes() -> None:
    deadlines = Deadlines()
    deadlines.set(("a",), 1.0)
    deadlines.clear(("a",))
    deadlines.clear(("never set",))
    assert deadlines.next() is None
    assert list(deadlines.expire(9.0)) == []


def test_a_key_may_be_set_while_others_expire() -> None:
    deadlines = Deadlines()
    deadlines.set(("a",), 1.0)
    seen = []
    for key in deadlines.expire(10.0):
        seen.append(key)
        if len(seen) < 3:
            deadlines.set(("a",), 5.0 + len(seen))
    assert seen == [("a",)] * 3


def test_setting_the_same_few_keys_for_ever_takes_no_more_room() -> None:
    deadlines = Deadlines()
    for turn in range(10_000):
        deadlines.set((f"n{turn % 5}",), float(turn))
    assert len(deadlines._heap) <= 65


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.booleans())))
def test_the_heap_is_a_dict_that_knows_its_least(steps: list[tuple[int, int, bool]]) -> None:
    deadlines, plain = Deadlines(), dict[tuple[str, ...], float]()
    for key, due, clears in steps:
        if clears:
            deadlines.clear((str(key),))
            plain.pop((str(key),), None)
        else:
            deadlines.set((str(key),), float(due))
            plain[(str(key),)] = float(due)
        assert deadlines.next() == min(plain.values(), default=None)
    assert sorted(deadlines.expire(10.0)) == sorted(key for key, due in plain.items() if due <= 10.0)
