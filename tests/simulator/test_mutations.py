"""The simulator can fail: each break of a promise, one line of a core, is noticed within so many seeds."""

from __future__ import annotations

from importlib import import_module

import pytest

from agentd.keeper import KeeperCore
from tests.simulator.__main__ import run_seed
from tests.simulator.breaks import BREAKS
from tests.simulator.breaks_beside import BESIDE, Beside
from tests.simulator.mutations import Mutation, NotApplicableError, applied

SEEDS_MAX = 120


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name.replace(" ", "-"))
def test_a_broken_promise_is_noticed(broken: Mutation) -> None:
    with applied(broken):
        reports = (run_seed(seed, broken.size)[2] for seed in range(broken.first, broken.first + SEEDS_MAX))
        noticed = next((report for report in reports if report is not None), None)
    assert noticed is not None, f"{SEEDS_MAX} seeds from {broken.first} on did not notice that {broken.name}"
    assert "replay it with: " in noticed


@pytest.mark.parametrize("beside", BESIDE, ids=lambda beside: beside.broken.name.replace(" ", "-"))
def test_a_break_of_what_is_not_simulated_is_noticed_by_its_test(beside: Beside) -> None:
    test = getattr(import_module(beside.module), beside.test)
    test()
    with applied(beside.broken), pytest.raises((AssertionError, LookupError)):  # or an answer that did not come
        test()


def test_the_breaks_are_enough_and_each_has_its_own_name() -> None:
    names = [broken.name for broken in (*BREAKS, *(beside.broken for beside in BESIDE))]
    assert len(set(names)) == len(names) >= 80


def test_a_break_whose_line_is_gone_says_so() -> None:
    stale = Mutation("stale", "agentd", "if boottime >= self._teatime:", "pass")
    with pytest.raises(NotApplicableError, match="0 lines"), applied(stale):
        pass


def test_a_break_that_changes_nothing_says_so() -> None:
    line = "if boottime >= self._kill_at:"
    idle = Mutation("idle", "agentd", line, line)
    with pytest.raises(NotApplicableError, match="changes nothing"), applied(idle):
        pass


def test_a_break_is_mended_when_its_block_is_over() -> None:
    intact = KeeperCore._tick.__code__
    with applied(Mutation("idle", "agentd", "if boottime >= self._kill_at:", "if False:")):
        assert KeeperCore._tick.__code__ is not intact
    assert KeeperCore._tick.__code__ is intact
