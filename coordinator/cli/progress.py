"""How jobs come along, for people: lines to draw over and over on a terminal, changes elsewhere. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from coordinator.cli.words import is_over, job_sentence, reason_of_end, tally, tasks_over
from coordinator.render import COLOUR_OF, Colour, count_of, paint, plain, shorten, span

BAR_WIDTH: Final = 20
NODE_STATES: Final = ("preparing", "running", "releasing", "barred")
"""What is worth showing of the nodes, in this order; `running` is prepared with tasks in its slots."""
_TASK_STATES: Final = ("running", "preparing", "failed", "cancelled", "skipped")


@dataclass
class Picture:
    """What Overview tells: the jobs, each with `nodes` and `node_states`, and the nodes of the cluster."""

    jobs: list[dict[str, Any]]
    nodes: list[dict[str, Any]]

    @property
    def over(self) -> bool:
        return all(is_over(job) for job in self.jobs)


def drawn(picture: Picture, now: float, width: int, colour: bool) -> list[str]:
    """A line a job with its bar, and one about its nodes where there is something to say."""
    name_width = max((len(job["id"]) for job in picture.jobs), default=0)
    lines = []
    for job in picture.jobs:
        lines.append(_job_line(job, now, name_width, width, colour))
        nodes = _nodes_line(job)
        if nodes:
            lines.append(_fit(f"{'':<{name_width}}  {nodes}", width, Colour.FAINT if colour else None))
    return lines


def _job_line(job: dict[str, Any], now: float, name_width: int, width: int, colour: bool) -> str:
    done, total = tasks_over(job), int(job["tasks"]["total"])
    state = str(job.get("result") or job["state"]) if is_over(job) else str(job["state"])
    rest = f" {done:,}/{total:,}"
    counts = tally(job["tasks"], _TASK_STATES)
    rest += f"  {counts}" if counts else ""
    rest += f"  {span(job.get('submitted_at'), job.get('completed_at'), now)}"
    head = f"{plain(job['id']):<{name_width}}  "
    state_width = 11
    if len(head) + state_width + BAR_WIDTH + 1 + len(rest) > width:
        return _fit(f"{head}{state:<{state_width}}{rest}", width, None)
    shown = paint(f"{state:<{state_width}}", COLOUR_OF.get(state)) if colour else f"{state:<{state_width}}"
    return head + shown + " " + bar(done, total, BAR_WIDTH) + rest


def bar(done: int, total: int, width: int) -> str:
    """How much is done; full only when all of it is."""
    filled = width if total == 0 else done * width // total
    return "█" * filled + "░" * (width - filled)


def _fit(line: str, width: int, colour: Colour | None) -> str:
    return paint(shorten(line, width), colour)


def _nodes_line(job: dict[str, Any]) -> str:
    if is_over(job):
        return ""
    counts: Counter[str] = Counter()
    for state, count in job["node_states"].items():
        counts[_node_word(state, job)] += count
    shown = [f"{counts[word]} {word}" for word in NODE_STATES if counts[word]]
    return f"nodes: {', '.join(shown)}" if shown else ""


def _node_word(state: str, job: dict[str, Any]) -> str:
    if state == "prepared" and (job["tasks"]["running"] or job["tasks"]["active"]):
        return "running"
    return state


def changes(before: Picture | None, after: Picture) -> list[str]:
    """What happened between two pictures, a line each: for logs and pipes. A job begins before its nodes do, and is
    over after them."""
    lines: list[str] = []
    was = {job["id"]: job for job in before.jobs} if before is not None else {}
    for job in after.jobs:
        earlier = was.get(job["id"])
        lines += [*_begun(earlier, job), *_node_changes(earlier, job), *_come_along(earlier, job)]
    return lines


def _node_changes(before: dict[str, Any] | None, job: dict[str, Any]) -> list[str]:
    was = {(row["node"], row["round"]): row["state"] for row in before["nodes"]} if before is not None else {}
    rows = [row for row in job["nodes"] if was.get((row["node"], row["round"])) != row["state"]]
    return [f"{job['id']}: {row['state'].replace('_', ' ')} on {row['node']}" for row in rows]


def _begun(before: dict[str, Any] | None, job: dict[str, Any]) -> list[str]:
    """What its nodes do after it."""
    lines = [f"{job['id']}: submitted, {count_of(job['tasks']['total'], 'task')}"] if before is None else []
    if job["state"] != (before["state"] if before is not None else "active") and not is_over(job):
        lines.append(f"{job['id']}: {job['state']}{_because(job)}")
    return lines


def _come_along(before: dict[str, Any] | None, job: dict[str, Any]) -> list[str]:
    """What comes of what its nodes do."""
    if is_over(job):
        return [] if before is not None and is_over(before) else [job_sentence(job, 0)]
    done = tasks_over(job)
    if before is None or _tenth(done, job) == _tenth(tasks_over(before), job) or done == job["tasks"]["total"]:
        return []
    counts = tally(job["tasks"], ("succeeded", "failed", "cancelled", "skipped"))
    return [f"{job['id']}: {done:,} of {count_of(job['tasks']['total'], 'task')} done: {counts}"]


def _because(job: dict[str, Any]) -> str:
    reason = reason_of_end(job)
    return f", {reason}" if reason and job["state"] == "terminating" else ""


def _tenth(done: int, job: dict[str, Any]) -> int:
    return done * 10 // max(1, int(job["tasks"]["total"]))
