"""Many runs of tasks in one row: small, the same from any place on, and told as events."""

from __future__ import annotations

import random

import pytest

from coordinator.cuts import MAX_RUNS, cut_of, runs_of
from coordinator.records import GroupSkipped, JobEnding, decode, encode
from wire.instant import Instant

NOW = Instant("boot", 1.0, 1.0)
MILLION = 1_000_000


def chosen(cut, start=0):
    return [index for first, count in runs_of(cut, start) for index in range(first, first + count)]


@pytest.mark.parametrize("state", [0, 1, 45, 93])
def test_a_cut_is_the_tasks_of_one_state_from_any_task_on(state: int) -> None:
    numbers = random.Random(state)
    for size in (0, 1, 7, MAX_RUNS * 6):
        states = bytearray(numbers.choice((state, state, (state + 1) % 256)) for _ in range(size))
        cut = cut_of(states, state)
        meant = [index for index, byte in enumerate(states) if byte == state]
        assert isinstance(cut, bytes) == (size > 1000)
        for start in (-5, 0, 1, size // 2, size):
            assert chosen(cut, start) == [index for index in meant if index >= start]


@pytest.mark.parametrize("pattern", ["interleaved", "at random"])
def test_the_row_of_a_million_interleaved_tasks_is_small(pattern: str) -> None:
    numbers = random.Random(7)
    states = bytearray(b"\0\1" * (MILLION // 2)) if pattern == "interleaved" else bytearray(numbers.randbytes(MILLION))
    states = bytearray(byte & 1 for byte in states)
    row = GroupSkipped("j-1", 0, "why", NOW, cut_of(states, 0))
    ending = JobEnding("j-1", "why", False, NOW, [(0, row.spans)])
    for record in (row, ending):
        body = encode(record)
        assert len(body) < MILLION // 4
        assert decode(body) == record
    assert sum(count for _, count in runs_of(row.spans)) == states.count(0)
    assert next(runs_of(row.spans, MILLION - 3))[0] >= MILLION - 3
