"""Which arm of `exit` an end matches: every pattern against every way a command can end."""

from __future__ import annotations

import pytest

from wire.arms import first_match, own_retries, unless_named
from wire.messages import Outcome
from wire.spec import Command, ExitAction, ExitArm, ExitCause

End = tuple[Outcome, int | None, int | None]

ENDS: dict[str, End] = {
    "0": (Outcome.EXITED, 0, None),
    "3": (Outcome.EXITED, 3, None),
    "137": (Outcome.EXITED, 137, None),
    "SEGV": (Outcome.EXITED, None, 11),
    "KILL": (Outcome.EXITED, None, 9),
    "timeout": (Outcome.TIMED_OUT, None, 15),
    "timeout with a code": (Outcome.TIMED_OUT, 3, None),
    "oom": (Outcome.OOM, None, 9),
    "not started": (Outcome.START_FAILED, None, None),
    "no files": (Outcome.INPUT_FAILED, None, None),
    "lost": (Outcome.LOST, None, None),
    "killed": (Outcome.KILLED, None, 9),
}


def arm(**patterns: object) -> ExitArm:
    return ExitArm(action=ExitAction.FAIL, **patterns)  # type: ignore[arg-type]


PATTERNS: dict[str, tuple[ExitArm, set[str]]] = {
    "0": (arm(codes=[(0, 0)]), {"0"}),
    "3": (arm(codes=[(3, 3)]), {"3"}),
    "1..2": (arm(codes=[(1, 2)]), set()),
    "2..3": (arm(codes=[(2, 3)]), {"3"}),
    "3..4": (arm(codes=[(3, 4)]), {"3"}),
    "0..255": (arm(codes=[(0, 255)]), {"0", "3", "137", "SEGV", "KILL", "oom"}),
    "137": (arm(codes=[(137, 137)]), {"137", "KILL", "oom"}),
    "139": (arm(codes=[(139, 139)]), {"SEGV"}),
    "signal(SEGV)": (arm(signals=[11]), {"SEGV"}),
    "signal(KILL)": (arm(signals=[9]), {"KILL", "oom"}),
    "signal(TERM)": (arm(signals=[15]), set()),
    "timeout": (arm(causes=[ExitCause.TIMEOUT]), {"timeout", "timeout with a code"}),
    "oom": (arm(causes=[ExitCause.OOM]), {"oom"}),
    "input": (arm(causes=[ExitCause.INPUT]), {"no files"}),
    "else": (arm(causes=[ExitCause.ELSE]), set(ENDS) - {"0", "lost", "killed"}),
    "3, timeout": (arm(codes=[(3, 3)], causes=[ExitCause.TIMEOUT]), {"3", "timeout", "timeout with a code"}),
}


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_a_pattern_matches_these_ends_and_no_others(pattern: str) -> None:
    only, expected = PATTERNS[pattern]
    assert {name for name, end in ENDS.items() if first_match([only], *end) is not None} == expected


def test_the_first_arm_that_matches_is_the_one() -> None:
    arms = [PATTERNS[name][0] for name in ("signal(SEGV)", "2..3", "3", "oom", "137", "else")]
    found = {name: first_match(arms, *end) for name, end in ENDS.items()}
    assert found == {
        "0": None, "3": 1, "137": 4, "SEGV": 0, "KILL": 4, "timeout": 5, "timeout with a code": 5, "oom": 3,
        "not started": 5, "no files": 5, "lost": None, "killed": None,
    }  # fmt: skip


def test_without_arms_nothing_matches() -> None:
    assert [first_match([], *end) for end in ENDS.values()] == [None] * len(ENDS)


def test_files_that_did_not_come_are_final_without_an_arm_and_all_other_failures_are_tried_again() -> None:
    actions = {name: unless_named(outcome, code) for name, (outcome, code, _) in ENDS.items()}
    assert {name for name, action in actions.items() if action is ExitAction.FAIL} == {"no files"}
    assert {name for name, action in actions.items() if action is ExitAction.SUCCEED} == {"0"}


def test_an_arm_that_names_input_counts_its_retries_by_itself() -> None:
    plain = ExitArm(action=ExitAction.RETRY, codes=[(75, 75)])
    counted = ExitArm(action=ExitAction.RETRY, codes=[(76, 76)], times=4)
    staged = ExitArm(action=ExitAction.RETRY, causes=[ExitCause.INPUT])
    command = Command(argv=["true"], retries=2, arms=[plain, counted, staged])
    assert [own_retries(command, arm) for arm in (None, 0, 1, 2)] == [(False, 2), (False, 2), (True, 4), (True, 2)]
