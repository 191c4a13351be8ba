"""Whether a job ended well: what decides the exit status of `run`, `submit --wait` and `job wait`. Pure but for `say`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.cli import output
from coordinator.cli.failure import Exit
from coordinator.cli.words import Document, ending, is_over, reason_of_end
from coordinator.render import Colour, count_of, paint


@dataclass
class Verdict:
    """`problems` make the exit status 1; `warnings` are only said."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def say(self) -> int:
        """On stderr, a line each; gives the exit status."""
        import sys

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
    verdict = Verdict(warnings=_preparations_that_failed(job, nodes))
    tasks = job["tasks"]
    verdict.problems += _tasks_not_done(job, tasks)
    if not tasks_only:
        verdict.problems += _releases_not_paid(job, nodes)
        if not is_over(job):
            verdict.problems.append(f"{job['id']} is {job['state']}")
    if not verdict.problems and _ended_badly(job, tasks_only):
        reason = reason_of_end(job)
        verdict.problems.append(f"{job['id']} ended as {job.get('result')}" + (f": {reason}" if reason else ""))
    return verdict


def _ended_badly(job: Document, tasks_only: bool) -> bool:
    result = job.get("result")
    return result not in ("success", None) or (result is None and not tasks_only)


def _tasks_not_done(job: Document, tasks: Document) -> list[str]:
    problems = []
    reason = reason_of_end(job)
    for state in ("failed", "cancelled", "skipped"):
        if tasks.get(state) and not (state != "cancelled" and job.get("result") == "success"):
            why = f" ({reason})" if reason and state == "cancelled" else ""
            was = "were " if tasks[state] != 1 else "was "
            problems.append(f"{count_of(tasks[state], 'task')} of {job['id']} {was if state != 'failed' else ''}{state}{why}")
    left = sum(tasks.get(state, 0) for state in ("active", "preparing", "running"))
    if left:
        problems.append(f"{count_of(left, 'task')} of {job['id']} {'is' if left == 1 else 'are'} not over")
    return problems


def _releases_not_paid(job: Document, nodes: Sequence[Document]) -> list[str]:
    problems = []
    release = job.get("release") or {}
    for row in nodes:
        phase = row.get("release")
        if phase is not None and phase["state"] in ("failed", "unreached", "waived"):
            how = ending(phase.get("exit_code"), phase.get("signal")) or ""
            why = phase.get("reason") or how
            problems.append(f"the release of {job['id']} on {row['node']} {_RELEASE[phase['state']]}" + (f": {why}" if why else ""))
    if not problems:
        for state in ("failed", "unreached", "waived", "owed"):
            if release.get(state):
                problems.append(f"{count_of(release[state], 'release')} of {job['id']} {_RELEASE[state]}")
    return problems


_RELEASE: dict[str, str] = {
    "failed": "failed",
    "unreached": "could not be run: out of contact",
    "waived": "waived",
    "owed": "still owed",
}


def _preparations_that_failed(job: Document, nodes: Sequence[Document]) -> list[str]:
    warnings = []
    for row in nodes:
        phase = row.get("prep")
        if phase is not None and phase["state"] == "failed":
            how = ending(phase.get("exit_code"), phase.get("signal"))
            why = phase.get("reason") or how
            warnings.append(f"the preparation of {job['id']} failed on {row['node']}" + (f": {why}" if why else ""))
    return warnings
