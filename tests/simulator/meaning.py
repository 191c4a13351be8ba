"""What `exit` says of one end of a command, by the words of the language: patterns as a set of names, the first arm
with one of them decides."""

from __future__ import annotations

from wire.messages import Outcome
from wire.spec import Command, ExitAction, ExitArm, ExitCause

_NAMES = {Outcome.TIMED_OUT: "timeout", Outcome.OOM: "oom", Outcome.INPUT_FAILED: "input"}
Budget = int | None
"""The arm that counts its retries by itself; None: the command's."""


def _of_end(outcome: Outcome, code: int | None, signal: int | None) -> set[str]:
    """All that an end may be called."""
    well = outcome is Outcome.EXITED and code == 0 and signal is None
    names = {_NAMES[outcome]} if outcome in _NAMES else set()
    if outcome in (Outcome.EXITED, Outcome.OOM):
        names |= {f"{code}"} if signal is None else {f"{128 + signal}", f"signal {signal}"}
    return names if well else names | {"else"}


def _of_arm(arm: ExitArm) -> set[str]:
    codes = {str(code) for first, last in arm.codes for code in range(first, last + 1)}
    causes = {"else" if cause is ExitCause.ELSE else cause.value for cause in arm.causes}
    return codes | {f"signal {number}" for number in arm.signals} | causes


def _arm_of(command: Command, names: set[str]) -> tuple[int, ExitArm] | None:
    return next(((number, arm) for number, arm in enumerate(command.arms) if names & _of_arm(arm)), None)


def moves(command: Command, outcome: Outcome, code: int | None, signal: int | None) -> bool:
    """Whether the next attempt is to be made on another node."""
    found = _arm_of(command, _of_end(outcome, code, signal))
    return found is not None and found[1].elsewhere


def meaning(
    command: Command, outcome: Outcome, code: int | None, signal: int | None
) -> tuple[ExitAction, Budget, int | None]:
    """What follows, whose retries it spends, and how many there are (None: no limit)."""
    names = _of_end(outcome, code, signal)
    if (found := _arm_of(command, names)) is not None:
        number, arm = found
        own = arm.times is not None or ExitCause.INPUT in arm.causes
        limit = arm.times if arm.times is not None else command.retries
        return arm.action, number if own else None, limit
    if outcome is Outcome.INPUT_FAILED:
        return ExitAction.FAIL, None, command.retries
    return (ExitAction.SUCCEED if "else" not in names else ExitAction.RETRY), None, command.retries
