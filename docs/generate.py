"""Writes what the documents repeat from the code: diagrams of the state tables, who sends what, the options.

A document holds `<!-- generated: NAME -->` … `<!-- end -->`; `make docs` renews the text between, a test compares it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from coordinator.model import JOB_TRANSITIONS, JobState
from coordinator.preparation import PAID, TRANSITIONS
from coordinator.records import NodeJobState
from wire.connection import TRANSITIONS as CONNECTION
from wire.connection import State, Way
from wire.messages import SENDERS, Message, Role

DOCS: Final = Path(__file__).parent
_PLACE: Final = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram(first: enum.Enum, last: frozenset[enum.Enum], edges: list[tuple[enum.Enum, enum.Enum, str]]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"  [*] --> {first.value}"]
    lines += [f"  {a.value} --> {b.value}{f': {label}' if label else ''}" for a, b, label in edges]
    lines += [f"  {state.value} --> [*]" for state in type(first) if state in last]
    return "\n".join([*lines, "```"])


def transitions(table: Mapping[Any, frozenset[Any]]) -> list[tuple[enum.Enum, enum.Enum, str]]:
    return [(a, b, "") for a, following in table.items() for b in type(a) if b in following]


def job() -> str:
    return diagram(JobState.ACTIVE, frozenset({JobState.DELETING}), transitions(JOB_TRANSITIONS))


def node_job() -> str:
    return diagram(NodeJobState.ABSENT, frozenset(PAID), transitions(TRANSITIONS))


def connection() -> str:
    """The accepting side; the opening side is its mirror."""
    edges: dict[tuple[State, State], list[str]] = {}
    for (state, way, kind), after in CONNECTION[False].items():
        name = "any other" if kind is Message else kind.__name__
        edges.setdefault((state, after), []).append(f"{'←' if way is Way.RECEIVED else '→'} {name}")
    return diagram(State.SILENT, frozenset({State.CLOSED}), [(a, b, ", ".join(how)) for (a, b), how in edges.items()])


def senders() -> str:
    rows = ["| message | sent by |", "|---|---|"]
    by_roles: dict[frozenset[Role], list[str]] = {}
    for kind, roles in SENDERS.items():
        by_roles.setdefault(roles, []).append(f"`{kind.__name__}`")
    rows += [
        f"| {' '.join(kinds)} | {', '.join(r.value for r in Role if r in roles)} |" for roles, kinds in by_roles.items()
    ]
    return "\n".join(rows)


PIECES: Final[dict[str, Callable[[], str]]] = {
    "job states": job,
    "node job states": node_job,
    "connection states": connection,
    "senders": senders,
}


def renewed(text: str) -> str:
    """The document with every generated piece made anew. Raises KeyError for a piece that does not exist."""
    return _PLACE.sub(lambda found: f"{found[1]}{PIECES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"docs/{path.name}: renewed")


if __name__ == "__main__":
    main()
