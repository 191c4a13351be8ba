"""Did you mean: what counts as near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.near import MAX_ANSWERS, did_you_mean, distance, near


@pytest.mark.parametrize(
    ("word", "candidates", "found"),
    [
        ("retires", ["retries", "release", "run"], ["retries"]),
        ("tiemout", ["timeout", "time"], ["timeout"]),
        ("PACK", ["spread", "pack"], ["pack"]),
        ("x", ["y", "z"], []),
        ("pool", ["pool"], []),
        ("", ["a"], []),
        ("proce", ["price", "prices", "slice"], ["price"]),
        ("scenaro", ["scenario", "scenarios"], ["scenario", "scenarios"]),
        ("x" * 101, ["x" * 100], []),
    ],
)
def test_near_words_come_nearest_first(word: str, candidates: list[str], found: list[str]) -> None:
    assert near(word, candidates) == found


def test_the_question_names_what_is_near_and_is_empty_when_nothing_is() -> None:
    assert did_you_mean("retires", ["retries"]) == "did you mean `retries`?"
    assert did_you_mean("ab1", ["ab2", "ab3"]) == "did you mean `ab2` or `ab3`?"
    assert did_you_mean("zzz", ["retries"]) == ""


def test_never_more_than_a_few_answers() -> None:
    assert len(near("name0", [f"name{n}" for n in range(1, 9)])) == MAX_ANSWERS


words = st.text(alphabet="abc", max_size=6)


@given(words, words)
def test_distance_is_symmetric_and_zero_only_for_the_same_word(left: str, right: str) -> None:
    assert distance(left, right) == distance(right, left)
    assert (distance(left, right) == 0) == (left == right)
    assert distance(left, right) <= max(len(left), len(right))


@given(words, st.integers(0, 5))
def test_a_swap_of_two_neighbours_is_one_step(word: str, at: int) -> None:
    swapped = word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
    assert distance(word, swapped) <= 1
