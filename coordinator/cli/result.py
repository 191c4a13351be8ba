"""What `run` and `submit --wait` print when all is over: gathered from the coordinator, then rendered (pure)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.cli import output
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Failure
from coordinator.cli.logs import reader
from coordinator.cli.pieces import last_lines
from coordinator.cli.tasks import pages_of
from coordinator.cli.verdict import Verdict, judge
from coordinator.cli.words import Document, ending, job_sentence, short_name
from coordinator.render import COLOUR_OF, count_of, paint, plain_lines

MAX_LISTED: Final = 10_000
"""A job of more tasks is printed without its `tasks_list`."""
SHOWN_FAILURES: Final = 10
SHOWN_LINES: Final = 5


@dataclass
class FailedTask:
    """A task that failed for good, and the last lines of its stderr."""

    task: dict[str, Any]
    lines: list[str]


@dataclass
class JobResult:
    """One job when it is over. `tasks` is None when there are too many to list."""

    job: dict[str, Any]
    nodes: list[dict[str, Any]]
    tasks: list[dict[str, Any]] | None = None
    failures: list[FailedTask] = field(default_factory=list)
    never_started: list[dict[str, Any]] = field(default_factory=list)
    """Nodes of its pool whose start failed, where the job found none to run on."""

    def document(self) -> dict[str, Any]:
        """As `-o json` prints it."""
        whole: dict[str, Any] = {**self.job, "nodes": self.nodes}
        if self.tasks is None:
            return {**whole, "tasks_list_omitted": f"more than {MAX_LISTED:,} tasks: ask for them with `task list`"}
        return {**whole, "tasks_list": self.tasks}


def gather(connection: Connection, jobs: Sequence[str], *, listed: bool) -> list[JobResult]:
    """Ask for all there is to say about these jobs; `listed`: with every task."""
    return [_gather(connection, job, listed) for job in jobs]


def _gather(connection: Connection, name: str, listed: bool) -> JobResult:
    job = connection.ask("JobShow", job=name)
    result = JobResult(job, connection.rows("JobNodes", job=name))
    if job["end_reason"] == "NoEligibleNodes":
        failed = [n["id"] for n in connection.rows("NodeList") if _never_started(n, job)]
        result.never_started = [connection.ask("NodeShow", node=name) for name in failed[:SHOWN_FAILURES]]
    if listed and job["tasks"]["total"] <= MAX_LISTED:
        result.tasks = [task for page in pages_of(connection, name) for task in page]
    if not listed and job["tasks"]["failed"]:
        tasks = next(pages_of(connection, name, state="failed", limit=SHOWN_FAILURES))
        result.failures = [FailedTask(task, _stderr_of(connection, task)) for task in tasks]
    return result


def _never_started(node: Document, job: Document) -> bool:
    return bool(node["pool"] == job["pool"] and node["state"] == "start_failed")


def _stderr_of(connection: Connection, task: Document) -> list[str]:
    fields = {"task": task["id"], "stderr": True}
    try:
        content = b"".join(last_lines(reader(connection, fields), SHOWN_LINES))
    except Failure as failure:  # its node may be gone: the failure is worth telling without its output
        return [f"({failure.message})"] if task.get("attempts") else []
    return plain_lines(content.decode("utf-8", "replace"))


def verdict_of(results: Sequence[JobResult]) -> Verdict:
    verdict = Verdict()
    for result in results:
        verdict.problems += [f"node {node['id']}: {node['reason']}" for node in result.never_started]
        verdict.add(judge(result.job, result.nodes))
    return verdict


def rendered(results: Sequence[JobResult], *, colour: bool, printable: bool) -> list[str]:
    """Per job: one sentence, the tasks that failed, and for each node what its release printed and how both ended.

    `printable`: for a terminal, where control characters of a release's output must not act.
    """
    lines: list[str] = []
    for n, result in enumerate(results):
        if n:
            lines.append("")
        sentence = job_sentence(result.job, 0)
        lines.append(paint(sentence, COLOUR_OF.get(str(result.job.get("result")))) if colour else sentence)
        lines += _failures(result)
        for node in result.never_started:
            lines += ["", f"{node['id']}: {node['reason']}"]
            wrote = plain_lines(str((node.get("start") or {}).get("stderr_tail", "")))
            lines += [f"  {line}" for line in wrote[-SHOWN_LINES:]]
        rounds = [row["node"] for row in result.nodes]
        for row in result.nodes:
            lines += ["", *_node_block(row, rounds.count(row["node"]) > 1, printable)]
    return lines


def _failures(result: JobResult) -> list[str]:
    if not result.failures:
        return []
    lines = ["", "Failed tasks:"]
    for failure in result.failures:
        task = failure.task
        how = task.get("reason") or ending(task.get("exit_code"), task.get("signal")) or "failed"
        tries = f" after {count_of(task['attempts'], 'attempt')}" if (task.get("attempts") or 0) > 1 else ""
        where = f" on {task['node']}" if task.get("node") else ""
        lines.append(f"  {short_name(task)}{where}: {how}{tries}")
        lines += [f"    {line}" for line in failure.lines]
    more = result.job["tasks"]["failed"] - len(result.failures)
    if more > 0:
        lines.append(f"  and {more:,} more")
    return lines


def _node_block(row: Document, several: bool, printable: bool) -> list[str]:
    release, prep = row.get("release"), row.get("prep")
    lines = []
    if release is not None and release.get("stdout_tail"):
        text = str(release["stdout_tail"])
        lines += plain_lines(text) if printable else text.removesuffix("\n").split("\n")
    lines.append(f"{row['node']}:" if not several else f"{row['node']} (round {row['round']}):")
    if prep is not None:
        lines.append(f"  Prep task exit code:    {_status(prep)}")
    lines.append(f"  Release task exit code: {_status(release)}")
    if release is not None and release["state"] != "succeeded" and release.get("stderr_tail"):
        lines += [f"    {line}" for line in plain_lines(str(release["stderr_tail"]))[-SHOWN_LINES:]]
    if prep is not None and prep["state"] != "succeeded" and prep.get("stderr_tail"):
        lines += [f"    {line}" for line in plain_lines(str(prep["stderr_tail"]))[-SHOWN_LINES:]]
    return lines


def _status(phase: Document | None) -> str:
    """`0`, or in words why there is no exit code."""
    if phase is None:
        return "none"
    if isinstance(phase.get("exit_code"), int):
        return str(phase["exit_code"])
    how = ending(None, phase.get("signal")) or phase.get("reason")
    if how is None and phase["state"] == "succeeded":
        return "none (the agent's own clean-up)"
    return f"none ({phase['state']}{f', {how}' if how else ''})"


def print_results(results: Sequence[JobResult], *, as_document: bool) -> None:
    """To stdout, and out of its buffer: what may still go wrong after this is told after it."""
    if as_document:
        output.emit({"jobs": [result.document() for result in results]})
    else:
        output.say(*rendered(results, colour=output.in_colour(sys.stdout), printable=output.is_terminal(sys.stdout)))
    sys.stdout.flush()
