"""How jobs come along, for people: lines to draw over and over on a terminal, and changes worth a line elsewhere. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.cli.words import is_over, job_sentence, tally, tasks_over
from coordinator.render import COLOUR_OF, Colour, count_of, paint, plain, shorten, span

BAR_WIDTH: Final = 20
NODE_STATES: Final = ("preparing", "running", "releasing", "barred")
"""What is worth showing of the nodes, in this order; `running` is prepared with tasks in its slots."""
_TASK_STATES: Final = ("running", "preparing", "failed", "cancelled", "skipped")


@dataclass
class Picture:
    """The jobs as `job show` prints them, the nodes as `node list` does, and per job its nodes as `job nodes` does."""

    jobs: list[dict[str, Any]]
    nodes: list[dict[str, Any]]
    job_nodes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return all(is_over(job) for job in self.jobs)


def drawn(picture: Picture, now: float, width: int, colour: bool) -> list[str]:
    """A line a job with its bar, and one about its nodes where there is something to say."""
    name_width = max((len(job["id"]) for job in picture.jobs), default=0)
    lines = []
    for job in picture.jobs:
        lines.append(_job_line(job, now, name_width, width, colour))
        nodes = _nodes_line(job, picture)
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


def _nodes_line(job: dict[str, Any], picture: Picture) -> str:
    if is_over(job):
        return ""
    counts = Counter(_node_word(row, job) for row in picture.job_nodes.get(job["id"], []))
    shown = [f"{counts[word]} {word}" for word in NODE_STATES if counts[word]]
    return f"nodes: {', '.join(shown)}" if shown else ""


def _node_word(row: dict[str, Any], job: dict[str, Any]) -> str:
    if row["state"] == "prepared":
        return "running" if job["tasks"].get("running") or job["tasks"].get("active") else "prepared"
    return str(row["state"])


def changes(before: Picture | None, after: Picture) -> list[str]:
    """What happened between two pictures, a line each: for logs and pipes."""
    lines: list[str] = []
    was = {job["id"]: job for job in before.jobs} if before is not None else {}
    for job in after.jobs:
        lines += _node_changes(job["id"], before, after)
        lines += _job_changes(was.get(job["id"]), job)
    return lines


def _job_changes(before: dict[str, Any] | None, job: dict[str, Any]) -> list[str]:
    if before is None:
        return [f"{job['id']}: submitted, {count_of(job['tasks']['total'], 'task')}"]
    lines = []
    done = tasks_over(job)
    if _tenth(done, job) != _tenth(tasks_over(before), job) and done < job["tasks"]["total"]:
        counts = tally(job["tasks"], ("succeeded", "failed", "cancelled", "skipped"))
        lines.append(f"{job['id']}: {done:,} of {count_of(job['tasks']['total'], 'task')} done: {counts}")
    if job["state"] != before["state"]:
        lines.append(job_sentence(job, 0) if is_over(job) else f"{job['id']}: {job['state']}{_because(job)}")
    return lines


def _because(job: dict[str, Any]) -> str:
    reason = job.get("end_reason")
    return f", {reason}" if reason and job["state"] == "terminating" else ""


def _tenth(done: int, job: dict[str, Any]) -> int:
    return done * 10 // max(1, int(job["tasks"]["total"]))


def _node_changes(job: str, before: Picture | None, after: Picture) -> list[str]:
    def states(picture: Picture | None) -> dict[tuple[str, int], str]:
        rows: Sequence[dict[str, Any]] = picture.job_nodes.get(job, []) if picture is not None else []
        return {(row["node"], row["round"]): row["state"] for row in rows}

    was = states(before)
    return [f"{job}: {state} on {node}" for (node, round_), state in states(after).items() if was.get((node, round_)) != state]
