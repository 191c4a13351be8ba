"""The table of a round's states, pair by pair, and what a reported end does in each of them."""

from __future__ import annotations

from itertools import product

import pytest

from coordinator.preparation import OPEN, PAID, SETTLED, TRANSITIONS, NodeJob, PhaseView
from coordinator.records import NodeJobState as S
from tests.coordinator.playbook import phase_end
from wire.messages import Outcome, Phase

ALLOWED = {
    (S.ABSENT, S.PREPARING), (S.ABSENT, S.PREPARED), (S.ABSENT, S.BARRED), (S.ABSENT, S.RELEASING),
    (S.ABSENT, S.UNREACHED), (S.ABSENT, S.WAIVED),
    (S.PREPARING, S.ABSENT), (S.PREPARING, S.PREPARED), (S.PREPARING, S.BARRED), (S.PREPARING, S.RELEASING),
    (S.PREPARING, S.UNREACHED), (S.PREPARING, S.WAIVED),
    (S.PREPARED, S.ABSENT), (S.PREPARED, S.PREPARING), (S.PREPARED, S.RELEASING), (S.PREPARED, S.UNREACHED),
    (S.PREPARED, S.WAIVED),
    (S.BARRED, S.ABSENT), (S.BARRED, S.RELEASING), (S.BARRED, S.UNREACHED), (S.BARRED, S.WAIVED),
    (S.RELEASING, S.RELEASED), (S.RELEASING, S.RELEASE_FAILED), (S.RELEASING, S.UNREACHED), (S.RELEASING, S.WAIVED),
    (S.UNREACHED, S.RELEASING), (S.UNREACHED, S.RELEASED), (S.UNREACHED, S.RELEASE_FAILED), (S.UNREACHED, S.WAIVED),
}  # fmt: skip
"""Written down a second time, so that a change of the table is a decision."""


def a_round(state: S, *, waits: bool = True, prepares: bool = True) -> NodeJob:
    return NodeJob("j-1", "n1", 1, "boot-1", state, PhaseView() if prepares else None, waits=waits)


@pytest.mark.parametrize(("before", "after"), list(product(S, S)), ids=lambda state: state.value)
def test_a_round_goes_where_the_table_says_and_nowhere_else(before: S, after: S) -> None:
    entry = a_round(before)
    if before is after or (before, after) in ALLOWED:
        entry.move(after)
        assert entry.state is after
    else:
        with pytest.raises(ValueError, match=f"round 1 of j-1 on n1: {before.value} to {after.value}"):
            entry.move(after)
        assert entry.state is before


def test_the_table_has_a_row_for_each_state_and_nothing_follows_what_is_paid() -> None:
    assert set(TRANSITIONS) == set(S)
    assert all(not TRANSITIONS[state] for state in PAID)
    assert all(TRANSITIONS[state] for state in S if state not in PAID)
    assert sorted(state.value for state in SETTLED - PAID) == ["unreached"]
    assert sorted(state.value for state in OPEN) == ["absent", "barred", "prepared", "preparing", "releasing"]


def test_every_state_can_be_reached_from_the_two_a_round_is_opened_in() -> None:
    found, edge = {S.PREPARING, S.PREPARED}, {S.PREPARING, S.PREPARED}
    while edge:
        edge = {after for state in edge for after in TRANSITIONS[state]} - found
        found |= edge
    assert found == set(S)


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_a_release_is_owed_until_it_is_paid(state: S) -> None:
    assert a_round(state).owes_release == (state not in (S.RELEASED, S.RELEASE_FAILED, S.WAIVED))


@pytest.mark.parametrize(("state", "ok"), list(product(S, (True, False))), ids=str)
def test_the_final_end_of_a_preparation_prepares_or_bars_only_a_round_that_waits_for_it(state: S, ok: bool) -> None:
    entry = a_round(state)
    entry.take(phase_end("j-1", 1, Phase.PREPARATION, ok))
    expected = state
    if state in (S.ABSENT, S.PREPARING):
        expected = S.PREPARED if ok else S.BARRED
    assert entry.state is expected
    assert entry.preparation is not None
    assert entry.preparation.succeeded is ok


def test_a_preparation_that_nobody_waits_for_bars_nothing() -> None:
    entry = a_round(S.PREPARING, waits=False)
    entry.take(phase_end("j-1", 1, Phase.PREPARATION, False))
    assert entry.state is S.PREPARED
    assert entry.preparation is not None
    assert not entry.preparation.succeeded


def test_an_attempt_that_is_not_the_last_changes_no_state() -> None:
    entry = a_round(S.PREPARING)
    entry.take(phase_end("j-1", 1, Phase.PREPARATION, False, final=False))
    assert entry.state is S.PREPARING
    entry = a_round(S.RELEASING)
    entry.take(phase_end("j-1", 1, Phase.RELEASE, False, final=False))
    assert entry.state is S.RELEASING
    assert not entry.release.finished


@pytest.mark.parametrize(("state", "ok"), list(product(S, (True, False))), ids=str)
def test_the_final_end_of_a_release_pays_from_wherever_the_round_still_owes_it(state: S, ok: bool) -> None:
    entry = a_round(state)
    entry.take(phase_end("j-1", 1, Phase.RELEASE, ok))
    if state in PAID:
        assert entry.state is state
        assert entry.release.attempts == 0
    else:
        assert entry.state is (S.RELEASED if ok else S.RELEASE_FAILED)


def test_the_view_of_a_phase_keeps_the_last_attempt_and_counts_them_all() -> None:
    entry = a_round(S.PREPARING)
    entry.take(phase_end("j-1", 1, Phase.PREPARATION, False, attempt=1, final=False))
    entry.take(
        phase_end(
            "j-1", 1, Phase.PREPARATION, False, attempt=2, outcome=Outcome.TIMED_OUT, exit_code=None, signal=15,
            reason="stopped after 5 s", stderr_tail=b"slow\n",
        )
    )  # fmt: skip
    view = entry.preparation
    assert view is not None
    assert (view.attempts, view.finished, view.outcome, view.signal) == (2, True, Outcome.TIMED_OUT, 15)
    assert (view.reason, view.stderr_tail) == ("stopped after 5 s", b"slow\n")


def test_what_was_said_to_be_running_no_longer_is_after_a_reboot() -> None:
    entry = a_round(S.PREPARING)
    entry.running[Phase.PREPARATION] = (1, 5.0)
    entry.move(S.ABSENT)
    assert entry.running == {}
