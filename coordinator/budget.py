"""What each person's requests cost the coordinator, and how long the next one waits for that. Pure: it is told how much
of the processor was used, and when it is.

One loop decides everything, so whatever is computed for one person is computed for nobody else. A share of it is free
for each; beyond, a person's next request waits for as long as those before it have taken too much. Nothing is refused,
and who asks now and then is never held up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.25
"""Of the loop's time that one person may take for long."""
AT_ONCE_S: Final = 0.5
"""Seconds of it that one may take at once, before anything waits."""
LONGEST_S: Final = 30.0
"""That a request waits at most: who waits for an answer gives up later."""
EACH_S: Final = 0.0003
"""That reading a request and sending its answer takes, measured; nobody looks at a clock for that."""
BYTE_S: Final = 2e-8
"""For each byte that is taken apart."""
MAX_DEBTS: Final = 1_000
"""Persons that are remembered before those that owe nothing are forgotten."""


@dataclass(slots=True)
class _Debt:
    """Seconds taken as of `at`, less what has become free since; `fresh` was taken after that."""

    at: float
    seconds: float = 0.0
    fresh: float = 0.0


class Budget:
    """Everybody's accounts. Invariant: time counts for one person at most."""

    def __init__(self, used: Callable[[], float]) -> None:
        """`used`: seconds of the processor that this thread has had so far."""
        self._used = used
        self._debts: dict[str, _Debt] = {}
        self._whose: str | None = None
        self._since = 0.0

    def on_account_of(self, person: str | None) -> None:
        """What is done from here on is done for this person, until this is called again (None: for all)."""
        used = self._used()
        if self._whose is not None:
            self.charge(self._whose, used - self._since)
        self._whose, self._since = person, used

    def charge(self, person: str, seconds: float) -> None:
        """So much was done for this person."""
        debt = self._debts.get(person)
        if debt is None:
            debt = self._debts[person] = _Debt(0.0)
        debt.fresh += seconds

    def pause_s(self, person: str, now: float) -> float:
        """How long the person's next request is to wait at `now` (seconds of any clock that goes on)."""
        debt = self._debts.get(person)
        if debt is None:
            return 0.0
        debt.seconds = max(0.0, debt.seconds - SHARE * (now - debt.at)) + debt.fresh
        debt.seconds = min(debt.seconds, AT_ONCE_S + SHARE * LONGEST_S)
        debt.at, debt.fresh = now, 0.0
        if len(self._debts) > MAX_DEBTS:
            self._forget_paid(now)
        return max(0.0, debt.seconds - AT_ONCE_S) / SHARE

    def _forget_paid(self, now: float) -> None:
        self._debts = {
            person: debt for person, debt in self._debts.items() if debt.fresh or debt.seconds > SHARE * (now - debt.at)
        }
