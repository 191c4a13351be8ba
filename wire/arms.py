"""What `exit { … }` says of one end of a command: the first arm that matches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wire import signals
from wire.messages import Outcome
from wire.spec import Command, ExitAction, ExitArm, ExitCause

SIGNALLED: Final = 128
"""Death by signal n counts as this + n, as shells have it."""

_CAUSES: Final = {
    Outcome.TIMED_OUT: ExitCause.TIMEOUT, Outcome.OOM: ExitCause.OOM, Outcome.INPUT_FAILED: ExitCause.INPUT,
}  # fmt: skip
_WITHOUT_CODE: Final = (Outcome.TIMED_OUT, Outcome.START_FAILED, Outcome.INPUT_FAILED)


def own_retries(command: Command, arm: int | None) -> tuple[bool, int | None]:
    """Whether the arm that decided counts its retries by itself, and how many there are then, else how many the command
    has (None: no limit). One that names `input` does so also without a number: as many as the command has, then."""
    if arm is None:
        return False, command.retries
    decided = command.arms[arm]
    if decided.times is not None:
        return True, decided.times
    return ExitCause.INPUT in decided.causes, command.retries


def unless_named(outcome: Outcome, exit_code: int | None) -> ExitAction:
    """What an end means that no arm names: 0 is a success, and all else may be tried again. Bringing in files was
    tried again already: nothing more is spent on it."""
    if outcome is Outcome.INPUT_FAILED:
        return ExitAction.FAIL
    return ExitAction.SUCCEED if outcome is Outcome.EXITED and exit_code == 0 else ExitAction.RETRY


def first_match(arms: Sequence[ExitArm], outcome: Outcome, exit_code: int | None, signal: int | None) -> int | None:
    """The number of the first arm that names this end, or None. What was lost or killed from outside is no end of the
    command's own; a success is named by its code alone."""
    if outcome in (Outcome.LOST, Outcome.KILLED):
        return None
    for number, arm in enumerate(arms):
        if _matches(arm, outcome, exit_code, signal):
            return number
    return None


def written(arm: ExitArm) -> str:
    """What the arm names and says, as it stands in a file, options of `retry` aside: `75, 130..139 => retry`."""
    parts = [f"{first}" if first == last else f"{first}..{last}" for first, last in arm.codes]
    parts += [f"signal({signals.written(number)})" for number in arm.signals]
    parts += [cause.value for cause in arm.causes]
    return f"{', '.join(parts)} => {arm.action.value}"


def _matches(arm: ExitArm, outcome: Outcome, exit_code: int | None, signal: int | None) -> bool:
    succeeded = outcome is Outcome.EXITED and exit_code == 0
    if ExitCause.ELSE in arm.causes and not succeeded:
        return True
    if outcome in _CAUSES and _CAUSES[outcome] in arm.causes:
        return True
    if outcome in _WITHOUT_CODE:
        return False
    if signal is not None and signal in arm.signals:
        return True
    code = exit_code if signal is None else SIGNALLED + signal
    return code is not None and any(first <= code <= last for first, last in arm.codes)
