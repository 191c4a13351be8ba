"""Backoff without chance, and clocks read in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.clock import boot_clock, boot_id
from wire.messages import Outcome
from wire.retry import delay_s, wait_s
from wire.spec import Backoff


def test_without_a_backoff_the_next_attempt_is_at_once():
    assert delay_s(None, 5, "job/task") == 0.0


@given(st.integers(0, 10**6), st.text())
def test_what_could_fail_for_ever_waits_where_no_file_says_a_backoff(spent, seed):
    slow = wait_s(None, Outcome.INPUT_FAILED, spent, 3, seed)
    assert min(60, 2**spent) / 2 <= slow <= min(60, 2**spent)
    assert (
        slow
        == wait_s(None, Outcome.INPUT_FAILED, spent, None, seed)
        == wait_s(None, Outcome.EXITED, spent + 10, None, seed)
    )
    assert wait_s(None, Outcome.EXITED, spent % 10, None, seed) == wait_s(None, Outcome.EXITED, spent, 9, seed) == 0
    said = Backoff(10, 20)
    assert wait_s(said, Outcome.INPUT_FAILED, spent, None, seed) == delay_s(said, spent + 1, seed)


@given(st.integers(1, 10**6), st.integers(1, 10**8), st.integers(1, 10**6), st.text())
def test_the_delay_is_within_the_doubled_first_and_the_cap_and_always_the_same(first_ms, cap_ms, attempt, seed):
    backoff = Backoff(first_ms, cap_ms)
    delay = delay_s(backoff, attempt, seed)
    assert 0 <= delay <= min(cap_ms, first_ms * 2 ** min(attempt - 1, 64)) / 1000
    assert delay == delay_s(backoff, attempt, seed)


def test_delays_are_spread_over_the_whole_range():
    delays = [delay_s(Backoff(1000, 1000), 1, f"task {number}") for number in range(2000)]
    assert len(set(delays)) == 2000
    assert sum(delays) / 2000 == pytest.approx(0.5, abs=0.03)
    assert [sum(1 for d in delays if low <= d < low + 0.25) > 400 for low in (0, 0.25, 0.5, 0.75)] == [True] * 4


def test_the_range_doubles_with_each_attempt_up_to_the_cap():
    mean = [
        sum(delay_s(Backoff(1000, 6000), attempt, f"task {number}") for number in range(500)) / 500
        for attempt in (1, 2, 3, 4, 200)
    ]
    assert mean == pytest.approx([0.5, 1, 2, 3, 3], rel=0.1)


def test_attempt_and_seed_are_told_apart():
    backoff = Backoff(1000, 1000)
    assert len({delay_s(backoff, attempt, seed) for attempt, seed in [(1, "a"), (11, "a"), (1, "a1"), (1, "b")]}) == 4


def test_the_clock_never_runs_backwards_and_keeps_its_boot():
    clock = boot_clock()
    first, second = clock(), clock()
    assert first.boot == second.boot == boot_id()
    assert second.boottime >= first.boottime
    assert boot_clock("boot+namespace")().boot == "boot+namespace"


def test_the_boot_id_can_be_read_from_another_file(tmp_path):
    (tmp_path / "boot").write_text("b-1\n")
    assert boot_id(tmp_path / "boot") == "b-1"
