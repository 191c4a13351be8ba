"""What `after` says, asked of every pair of tasks one by one: slow, and independent of how a core keeps it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from wire.spec import After, JobSpec, When
from wire.sweep import Sweep, text_of


class End(enum.Enum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Stand(enum.Enum):
    """How a condition stands for one task."""

    TRUE = "true"
    OPEN = "open"
    NEVER = "never"


EndOf = Callable[[int, int], End | None]
"""How the task `(group, index)` is over; None while it is not."""


def asked_for(sweeps: Sequence[Sweep], after: After, group: int, index: int) -> list[int]:
    """The tasks of `after.group` that a task asks for: those with its own values on the axes that are named."""
    own = dict(zip(sweeps[group].names, sweeps[group].values(index), strict=True))
    source, found = sweeps[after.group], []
    for other in range(source.size):
        its = dict(zip(source.names, source.values(other), strict=True))
        if all(text_of(own[axis]) == text_of(its[axis]) for axis in after.axes):
            found.append(other)
    return found


def stand(spec: JobSpec, sweeps: Sequence[Sweep], after: After, group: int, index: int, end_of: EndOf) -> Stand:
    """One element of a task's `after`."""
    ends = [end_of(after.group, other) for other in asked_for(sweeps, after, group, index)]
    forgiven = spec.groups[after.group].optional
    good = {End.SUCCEEDED, End.FAILED} if forgiven else {End.SUCCEEDED}
    match after.when:
        case When.SUCCEEDED:
            if any(end is not None and end not in good for end in ends):
                return Stand.NEVER
            return Stand.OPEN if None in ends else Stand.TRUE
        case When.DONE:
            return Stand.OPEN if None in ends else Stand.TRUE
        case When.FAILED:
            if End.FAILED in ends:
                return Stand.TRUE
            return Stand.OPEN if None in ends else Stand.NEVER


def stands(spec: JobSpec, sweeps: Sequence[Sweep], group: int, index: int, end_of: EndOf) -> Stand:
    """All that a task's `after` says."""
    each = {stand(spec, sweeps, after, group, index, end_of) for after in spec.groups[group].after}
    return Stand.NEVER if Stand.NEVER in each else Stand.OPEN if Stand.OPEN in each else Stand.TRUE
