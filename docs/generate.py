"""Writes what the documents repeat from the code: diagrams of the state tables, who sends what, the options.

A document holds `<!-- generated: NAME -->` … `<!-- end -->`; `make docs` renews the text between, a test compares it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from coordinator.admission import JOIN_S
from coordinator.budget import AT_ONCE_S, SHARE
from coordinator.budget import LONGEST_S as PAUSE_S
from coordinator.bygone import MAX_BYGONE
from coordinator.chronicle import MEANINGS
from coordinator.model import JOB_TRANSITIONS, JOIN_AGAIN_S, JOINS, JobState
from coordinator.preparation import PAID, TRANSITIONS
from coordinator.reasons import MEANING, NEXT, Code
from coordinator.records import NodeJobState
from coordinator.resting import FIRST_S, LONGEST_S, PATIENCE
from coordinator.server import MAX_SESSIONS_OF_ONE
from dsl.schema import BLOCKS, RESERVED, Kind, Option, Support
from wire import limits
from wire.connection import TRANSITIONS as CONNECTION
from wire.connection import State, Way
from wire.driver import INBOX, INBOX_BYTES
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


def size(count: int) -> str:
    """Bytes as people write them."""
    return f"{count // 1024**2} MiB" if count % 1024**2 == 0 else f"{count // 1024} KiB"


def bounds_of_a_peer() -> str:
    """What a peer may cost, and what it loses when it costs more."""
    share = limits.MAX_UNGREETED // 4
    rows = [
        ("TLS handshake", f"{limits.HANDSHAKE_S:g} s, {size(limits.MAX_TLS_HANDSHAKE)}", "the connection"),
        ("greeting after it, or a stranger's one question", f"{limits.HANDSHAKE_S:g} s, a frame of "
         f"{size(limits.MAX_OPENING_FRAME)}", "the connection"),
        ("connections that have not said who they are", f"{limits.MAX_UNGREETED} at a time, {share} of one address "
         f"(IPv6: of one /64); the others wait {limits.QUEUE_S:g} s for their turn",
         f"its place, when it was silent for {limits.CHANCE_S:g} s and others wait"),
        ("connections of one person or certificate", f"{MAX_SESSIONS_OF_ONE}", "the new one"),
        ("a node's `Join` after `Welcome`", f"{JOIN_S:g} s", "the connection"),
        ("joins of a node that leave something in the log", f"{JOINS} at once, then one in {JOIN_AGAIN_S:g} s",
         "the connection"),
        ("times in a row that work comes to nothing at a node", f"{PATIENCE}",
         f"its work, for {FIRST_S:g} s, then twice as long each time, {LONGEST_S:g} s at most"),
        ("a frame", f"{size(limits.MAX_FRAME)}, {limits.MAX_ITEMS:,} elements in one array or map, "
         f"{limits.MAX_CONTAINERS:,} arrays and maps, {limits.FRAME_S:g} s from its first byte to its last",
         "the connection"),
        ("an uploaded document", f"{size(limits.MAX_DOCUMENT)}, {limits.MAX_DOCUMENT_CONTAINERS:,} arrays and maps",
         "the submission"),
        ("requests of a person, of all connections, that were read and not handled", "1",
         "nothing: the next one waits"),
        ("the loop's time for one person's requests", f"{AT_ONCE_S:g} s at once, {SHARE:.0%} for long",
         f"nothing: the next one waits, {PAUSE_S:g} s at most"),
        ("events of everybody that were read and not handled", f"{INBOX:,}, {size(INBOX_BYTES)}",
         "nothing: nobody is read"),
        ("deleted jobs of a person that are remembered", f"{MAX_BYGONE:,}",
         "the oldest: their submission ids, and where a name began"),
        ("answers that wait for a person", f"{size(limits.MAX_AHEAD)}, then its next request waits; "
         f"{size(limits.MAX_QUEUED_REPLIES)} in all", "the connection"),
        ("what waits for a node", f"{size(limits.MAX_QUEUED)}", "the connection"),
        ("one write", f"{limits.SEND_S:g} s until the peer has taken it", "the connection"),
    ]  # fmt: skip
    return "\n".join(
        ["| what | at most | else it loses |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    )


COMMANDS: Final = ("prep", "task", "release")
_FIRST: Final = ("run", "script")
"""Options that the prose explains before any table."""


def shared() -> list[str]:
    """The options that every command has."""
    return [name for name in BLOCKS[COMMANDS[0]].options if all(name in BLOCKS[kind].options for kind in COMMANDS)]


def takes(option: Option) -> str:
    """What may stand on the right of the `=`."""
    if option.words:
        return " or ".join(f"`{word}`" for word in option.words)
    if option.kind in (Kind.INT, Kind.COUNT) and option.high is not None:
        return f"{option.kind.value}, {option.low:,} to {option.high:,}"
    return option.kind.value


def default(option: Option) -> str:
    if option.required:
        return "must be given"
    return f"`{option.default}`" if option.default not in ("", "none", "no limit") else option.default or "none"


def table(options: Iterable[tuple[Option, str]]) -> str:
    rows = ["| option | takes | default | means |", "|---|---|---|---|"]
    rows += [
        f"| `{option.name}` | {takes(option)} | {by_default} | {option.meaning} |"
        for option, by_default in options
        if option.support is Support.FULL
    ]
    return "\n".join(rows)


def options_of(kind: str) -> str:
    """A block's own options: for a command those that not every command has."""
    common = shared() if kind in COMMANDS else ()
    return table((option, default(option)) for option in BLOCKS[kind].options.values() if option.name not in common)


def command() -> str:
    """What `prep`, `task` and `release` share, with the defaults told apart where they differ."""

    def by_default(name: str) -> str:
        each = {kind: default(BLOCKS[kind].options[name]) for kind in COMMANDS}
        if len(set(each.values())) == 1:
            return each[COMMANDS[0]]
        return ", ".join(f"{value} in `{kind}`" for kind, value in each.items())

    task = BLOCKS["task"].options
    return table((task[name], by_default(name)) for name in shared() if name not in _FIRST)


def not_executed() -> str:
    """What the checks know and this version does not carry out."""
    rows = [f"* `{block.kind} {{ … }}`: {block.meaning}" for block in BLOCKS.values() if block.support is Support.NONE]
    found: dict[tuple[str, str], list[str]] = {}
    for block in BLOCKS.values():
        options = [*block.options.values(), *([block.other] if block.other is not None else [])]
        for option in options if block.support is not Support.NONE else ():
            if option.support is not Support.FULL:
                found.setdefault((option.name, option.meaning), []).append(f"`{block.kind}`")
    rows += [f"* `{name}` in {', '.join(kinds)}: {meaning}" for (name, meaning), kinds in found.items()]
    return "\n".join(rows)


def reserved() -> str:
    return "\n".join(f"* `{word}`: {meaning}" for word, meaning in RESERVED.items())


_TEST: Final = re.compile(r"^ *(?:async )?def (test_([tf]\d+)_\w+)", re.MULTILINE)


def rows_tested() -> dict[str, list[str]]:
    """`T1`, `F13` … and the tests that are named after them, by file."""
    found: dict[str, list[str]] = {}
    for path in sorted((DOCS.parent / "tests").rglob("test_*.py")):
        for _, row in _TEST.findall(path.read_text(encoding="utf-8")):
            files = found.setdefault(row.upper(), [])
            if (name := f"`{path.relative_to(DOCS.parent)}`") not in files:
                files.append(name)
    return found


def threat_tests() -> str:
    """Where the tests of each threat are."""
    rows = ["| threat | tests named after it |", "|---|---|"]
    tested = rows_tested()
    rows += [f"| T{number} | {', '.join(tested.get(f'T{number}', []))} |" for number in range(1, 21)]
    return "\n".join(rows)


def kinds_of_events() -> str:
    rows = ["| kind | says |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{kind.value}` | {meaning} |" for kind, meaning in MEANINGS.items())])


def codes_of_explain() -> str:
    """In the order in which they are told."""
    named = {"about": "TASK", "job": "JOB", "node": "NODE", "pool": "POOL"}
    rows = ["| code | it is so because | what helps |", "|---|---|---|"]
    helps = {code: text.format(**named) for code, text in NEXT.items()}
    return "\n".join([*rows, *(f"| `{code.value}` | {MEANING[code]} | {helps.get(code, '')} |" for code in Code)])


PIECES: Final[dict[str, Callable[[], str]]] = {
    "job states": job,
    "node job states": node_job,
    "connection states": connection,
    "senders": senders,
    "bounds of a peer": bounds_of_a_peer,
    "options command": command,
    **{f"options {kind}": partial(options_of, kind) for kind in ("pool", "job", "dir", "file", "needs", *COMMANDS)},
    "options on end": partial(options_of, "on_end"),
    "kinds of events": kinds_of_events,
    "codes of explain": codes_of_explain,
    "not executed": not_executed,
    "reserved": reserved,
    "threat tests": threat_tests,
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
