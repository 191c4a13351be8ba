"""The picture that `top` draws, from 80 columns on and of any height. Pure: a document in, something to draw out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.progress import bar
from coordinator.cli.words import phase_word, tasks_over
from coordinator.render import COLOUR_OF, Colour, age, count_of, duration, plain, span

Document = Mapping[str, Any]

_STYLES: Final = {
    Colour.GOOD: "green", Colour.BAD: "red", Colour.BUSY: "cyan", Colour.WARN: "yellow", Colour.FAINT: "dim",
}  # fmt: skip
"""Colours by what they are used for, as rich calls them."""
_HEAD: Final = 3
_TITLES: Final = 2
_BAR: Final = 10
_NARROW: Final = 60
"""Columns below which bars and counts that are mostly zero are left out."""
_STATES: Final = ("preparing", "prepared", "barred", "releasing", "unreached")


def panorama(
    document: Document, rate: float | None, now: float, height: int | None, first: int, width: int = 80
) -> RenderableType:
    """Sums, jobs from `first` on, releases owed and nodes. `height`: rows of the terminal; None is without end. Of a
    narrow one names and counts get the `width`."""
    jobs, owed, nodes = document["top_jobs"], document["releases"], document["top_nodes"]
    room = _shared(height, [len(jobs), len(owed), len(nodes)])
    first = min(first, max(0, len(jobs) - room[0]))
    parts: list[RenderableType] = [
        _sums(document, rate, now),
        _jobs(jobs[first : first + room[0]], now, first, width < _NARROW),
    ]
    if owed:
        parts.append(_releases(owed[: room[1]], now))
    parts.append(_nodes(nodes[: room[2]], width < _NARROW))
    return Group(*parts)


def _shared(height: int | None, wanted: Sequence[int]) -> list[int]:
    """Rows for each table: what it wants, as far as there is room, a turn each."""
    if height is None:
        return list(wanted)
    left = height - _HEAD - sum(_TITLES for count in wanted if count) - 1
    given = [0] * len(wanted)
    while left > 0 and given != list(wanted):
        for n, count in enumerate(wanted):
            if left > 0 and given[n] < count:
                given[n] += 1
                left -= 1
    return given


def _sums(document: Document, rate: float | None, now: float) -> Text:
    tasks, nodes, jobs = document["tasks"], document["nodes"], document["jobs"]
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(nodes.items()))
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    first = f"{clock}  {count_of(sum(nodes.values()), 'node')}" + (f" ({states})" if states else "")
    second = f"slots {document['slots_used']:,}/{document['slots']:,}"
    second += f"  jobs {jobs['live']:,} live of {jobs['total']:,}  releases owed {document['owed']:,}"
    third = f"tasks {tasks['waiting']:,} waiting, {tasks['out']:,} out, {tasks['succeeded']:,} succeeded"
    third += f", {tasks['failed']:,} failed" if tasks["failed"] else ""
    third += f"  {rate:,.1f}/s" if rate is not None else ""
    return Text("\n".join((first, second, third)), no_wrap=True, overflow="ellipsis")


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for title, kind in columns:
        flexible = kind == "flexible"
        table.add_column(
            title, justify="right" if kind == "right" else "left", no_wrap=True, overflow="ellipsis",
            ratio=1 if flexible else None,
        )  # fmt: skip
    return table


def _word(word: object) -> Text:
    text = str(word)
    colour = COLOUR_OF.get(text)
    return Text(text.replace("_", " "), style="" if colour is None else _STYLES[colour])


def _jobs(jobs: Sequence[Document], now: float, first: int, narrow: bool) -> Table:
    more = f"JOB (from {first + 1})" if first else "JOB"
    counts = () if narrow else (("RUN", "right"), ("FAIL", "right"), ("TIME", "right"))
    table = _table((more, ""), ("STATE", ""), ("DONE", ""), *counts, ("NODES, OR WHY NOT", "flexible"))
    for job in jobs:
        done, total = tasks_over(job), int(job["tasks"]["total"])
        cells = () if narrow else (
            f"{job['tasks']['running']:,}", f"{job['tasks']['failed']:,}",
            span(job.get("submitted_at"), job.get("completed_at"), now),
        )  # fmt: skip
        drawn = "" if narrow else f"{bar(done, total, _BAR)} "
        table.add_row(
            plain(job["id"]), _word(job["result"] or job["state"]), f"{drawn}{done:,}/{total:,}", *cells,
            plain(_of_nodes(job)),
        )  # fmt: skip
    return table


def _of_nodes(job: Document) -> str:
    states = job["node_states"]
    said = ", ".join(f"{states[state]} {state}" for state in _STATES if states.get(state))
    return str(job.get("waits") or said or job.get("end_reason") or "")


def _releases(owed: Sequence[Document], now: float) -> Table:
    table = _table(("RELEASE OWED", ""), ("NODE", ""), ("STATE", ""), ("SINCE", "right"), ("WHY", "flexible"))
    for row in owed:
        release = row.get("release") or {}
        table.add_row(
            plain(row["job"]), plain(row["node"]), _word(row["state"]), age(release.get("started_at"), now),
            plain(str(row.get("reason") or phase_word(row.get("release")) or "")),
        )  # fmt: skip
    return table


def _nodes(nodes: Sequence[Document], narrow: bool) -> Table:
    pool = () if narrow else (("POOL", ""),)
    table = _table(("NODE", ""), *pool, ("STATE", ""), ("SLOTS", "right"), ("SEEN", "right"),
                   ("OWES, OR WHY", "flexible"))  # fmt: skip
    for node in nodes:
        table.add_row(
            plain(node["id"]), *(() if narrow else (plain(node["pool"]),)), _word(node["state"]),
            f"{node['slots_used']}/{node['slots']}", duration(node["last_seen_s"]),
            plain(str(node.get("reason") or ", ".join(node["owes"]))),
        )  # fmt: skip
    return table
