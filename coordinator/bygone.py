"""What is remembered of deleted jobs: so much of each person's that no id is given twice and a submission that is sent
again finds what it gave, and no more, however many jobs somebody submits and deletes. Pure; folded from records.

The oldest go first. What must stay of them goes into the record that takes their place: the last grant, and `floor`,
the highest number of a name of which nothing else is known any more. Such a name goes on after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coordinator.records import JobDeleted

MAX_BYGONE: Final = 1_000
"""Deleted jobs of one person that are remembered."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A deleted job."""

    job: str
    name: str
    number: int
    submission: str
    debts: list[tuple[str, int]]
    """(node, round) that were owed then."""


class Bygone:
    """The deleted jobs that are remembered, and the numbers of names. Invariant: the job with the highest number of a
    name is the last of that name to be forgotten."""

    def __init__(self) -> None:
        self.by_owner: dict[str, dict[str, Gone]] = {}
        """By job, oldest first."""
        self.numbers: dict[str, int] = {}
        """The last number given per name of a job that is there or remembered."""
        self.floor = 0
        """No forgotten name had a higher one."""
        self._known: Counter[str] = Counter()
        """How many jobs of a name are there or remembered."""

    def next_number(self, name: str) -> int:
        """One that no job of this name ever had."""
        return self.numbers.get(name, self.floor) + 1

    def submitted(self, name: str, number: int) -> None:
        """There is such a job."""
        self.numbers[name] = max(self.numbers.get(name, 0), number)
        self._known[name] += 1

    def take(self, record: JobDeleted, *, new: bool) -> None:
        """A job is deleted. `new`: nothing was known of it, as its rows are forgotten."""
        gone = Gone(record.job, record.name, record.number, record.submission, record.debts)
        self.by_owner.setdefault(record.owner, {})[record.job] = gone
        self.floor = max(self.floor, record.floor)
        if new:
            self.submitted(record.name, record.number)

    def forget(self, owner: str, job: str) -> None:
        """Its record goes."""
        remembered = self.by_owner[owner]
        name = remembered.pop(job).name
        if not remembered:
            del self.by_owner[owner]
        self._known[name] -= 1
        if not self._known[name]:
            del self._known[name]
            self.floor = max(self.floor, self.numbers.pop(name))

    def overdue(self, owner: str, settled: Callable[[Gone], bool]) -> Gone | None:
        """The one to be forgotten before this person's next job is deleted, if there are too many. `settled`: whether
        no job of its submission is there, and nobody owes it anything."""
        remembered = self.by_owner.get(owner, {})
        if len(remembered) < MAX_BYGONE:
            return None
        kept: set[str] = set()
        for gone in remembered.values():
            highest = gone.number >= self.numbers[gone.name]
            if gone.submission in kept or (highest and self._known[gone.name] > 1) or not settled(gone):
                kept.add(gone.submission)  # of one submission the last one says what it gave
            else:
                return gone
        return None

    def knows(self, owner: str, submission: str) -> bool:
        """Whether a job of this submission is remembered."""
        return any(gone.submission == submission for gone in self.by_owner.get(owner, {}).values())
