"""Whether a job ended well: decides the exit status of `run`, `submit --wait` and `job wait`. Pure but for `say`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from coordinator.cli import output
from coordinator.cli.failure import Exit
from coordinator.cli.words import Document, ending, is_over, reason_of_end
from coordinator.render import Colour, count_of, paint

_TASKS: Final = {"failed": "failed", "cancelled": "{was} cancelled", "skipped": "{was} skipped"}
_RELEASES: Final = {
    "failed": "failed",
    "unreached": "could not be run: out of contact",
    "owed": "{is} still owed",
}


@dataclass
class Verdict:
    """`problems` make the exit status 1; `warnings` are only said."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def say(self) -> int:
        """On stderr, a line each; gives the exit status."""
        for warning in self.warnings:
            output.warn(warning)
        word = paint("failed", Colour.BAD) if output.in_colour(sys.stderr) else "failed"
        for problem in self.problems:
            output.remark(f"{word}: {problem}")
        return int(Exit.FAILED if self.problems else Exit.DONE)

    def add(self, other: Verdict) -> None:
        self.problems += other.problems
        self.warnings += other.warnings


def judge(job: Document, nodes: Sequence[Document], *, tasks_only: bool = False) -> Verdict:
    """A job (as `job show` prints it) and its nodes (as `job nodes` does)."""
    problems = _tasks_not_done(job)
    if not tasks_only:
        problems += _releases_not_paid(job, nodes)
        if not is_over(job):
            problems.append(f"{job['id']} is {job['state']}")
        elif not problems and job.get("result") != "success":
            problems.append(f"{job['id']} ended as {job.get('result')}{_because(reason_of_end(job))}")
    return Verdict(problems, _preparations_that_failed(job, nodes))


def _tasks_not_done(job: Document) -> list[str]:
    tasks = {**job["tasks"], "failed": job["tasks"]["failed"] - job["optional_failed"]}
    if not tasks["failed"] and not tasks["cancelled"]:
        tasks["skipped"] = 0  # by their own conditions: nothing that counts went wrong
    problems = []
    for state, words in _TASKS.items():
        if tasks[state]:
            why = _because(reason_of_end(job)) if state == "cancelled" else ""
            problems.append(_sentence(tasks[state], "task", job, words) + why)
    left = tasks["active"] + tasks["preparing"] + tasks["running"]
    if left:
        problems.append(_sentence(left, "task", job, "{is} not over"))
    return problems


def _releases_not_paid(job: Document, nodes: Sequence[Document]) -> list[str]:
    problems = []
    for row in nodes:
        phase = row.get("release")
        if phase is not None and phase["state"] in ("failed", "unreached"):
            what = f"the release of {job['id']} on {row['node']} {_RELEASES[phase['state']]}"
            problems.append(what + _because(phase.get("reason") or ending(phase.get("exit_code"), phase.get("signal"))))
    if problems:
        return problems
    return [_sentence(n, "release", job, words) for state, words in _RELEASES.items() if (n := job["release"][state])]


def _preparations_that_failed(job: Document, nodes: Sequence[Document]) -> list[str]:
    warnings = []
    for row in nodes:
        phase = row.get("prep")
        if phase is not None and phase["state"] == "failed":
            why = _because(phase.get("reason") or ending(phase.get("exit_code"), phase.get("signal")))
            warnings.append(f"the preparation of {job['id']} failed on {row['node']}{why}")
    return warnings


def _sentence(count: int, noun: str, job: Document, words: str) -> str:
    one = count == 1
    verb = words.format(was="was" if one else "were", **{"is": "is" if one else "are"})
    return f"{count_of(count, noun)} of {job['id']} {verb}"


def _because(reason: object) -> str:
    return f": {reason}" if reason else ""
