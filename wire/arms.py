"""What `exit { … }` says of one end of a command: the first arm that matches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wire.messages import Outcome
from wire.spec import ExitArm, ExitCause

SIGNALLED: Final = 128
"""Death by signal n counts as this + n, as shells have it."""

_CAUSES: Final = {Outcome.TIMED_OUT: ExitCause.TIMEOUT, Outcome.OOM: ExitCause.OOM}


def first_match(arms: Sequence[ExitArm], outcome: Outcome, exit_code: int | None, signal: int | None) -> int | None:
    """The number of the first arm that names this end, or None. What was lost or killed from outside is no end of the
    command's own; a success is named by its code alone."""
    if outcome in (Outcome.LOST, Outcome.KILLED):
        return None
    for number, arm in enumerate(arms):
        if _matches(arm, outcome, exit_code, signal):
            return number
    return None


def _matches(arm: ExitArm, outcome: Outcome, exit_code: int | None, signal: int | None) -> bool:
    succeeded = outcome is Outcome.EXITED and exit_code == 0
    if ExitCause.ELSE in arm.causes and not succeeded:
        return True
    if outcome in _CAUSES and _CAUSES[outcome] in arm.causes:
        return True
    if outcome is Outcome.TIMED_OUT or outcome is Outcome.START_FAILED:
        return False  # there is no code of its own
    if signal is not None and signal in arm.signals:
        return True
    code = exit_code if signal is None else SIGNALLED + signal
    return code is not None and any(first <= code <= last for first, last in arm.codes)
