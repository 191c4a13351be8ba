"""Tasks' output as it comes, each line with its task's name before it.

All of it comes over one connection, on which many requests wait side by side: one for events, which tell what went
to a node and what has ended, one for each output of a few tasks. What there is no place for catches up when it ends.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TextIO

from coordinator.cli import output, pieces
from coordinator.cli.connection import Connection, NoCoordinator
from coordinator.cli.failure import Exit, Failure
from coordinator.cli.output import in_colour, is_terminal
from coordinator.render import Colour, paint, plain

LIVE: Final = 12
"""Tasks whose outputs are waited for at once; the others are printed when they have ended."""
OUTSTANDING: Final = 2 * LIVE + 6
"""Requests for output at once: fewer than the coordinator takes of one connection (`coordinator.files`)."""
_PIECE: Final = 65_536
_LONGEST_LINE: Final = 65_536
_TURN_S: Final = 0.1
"""For as long as there is something to print, until others have their turn."""
_AGAIN_S: Final = 0.2
"""Between two requests for the same that are answered by nothing."""

_ENDS: Final = ("task.ended", "task.retried", "task.returned")
_GONE: Final = ("job.completed", "job.deleted")


@dataclass(eq=False, slots=True)
class _Stream:
    """How far one of a task's two outputs was printed. `rest` is a line that has not ended yet."""

    of: _Followed
    stderr: bool
    offset: int = 0
    rest: bytes = b""
    done: bool = False
    asked: bool = False


@dataclass(eq=False, slots=True)
class _Followed:
    """An attempt of a task that was given to a node. `told`: so was its end."""

    job: str
    task: str
    attempt: int
    node: str
    told: bool = False
    streams: tuple[_Stream, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.streams = _Stream(self, stderr=False), _Stream(self, stderr=True)


@dataclass(slots=True)
class _Asked:
    stream: _Stream
    live: bool
    since: float


class Follower:
    """Prints what tasks of these jobs write, each attempt from its beginning to its end. Invariant: of an output at
    most one request is under way, so its lines keep their order."""

    def __init__(
        self,
        connection: Connection,
        jobs: Sequence[str],
        *,
        facts_on_stdout: bool,
        before_print: Callable[[], None],
    ) -> None:
        """`connection` is ours alone; `before_print`: called before a line goes out (to clear what is drawn)."""
        self._connection = connection
        self._named = len(jobs) > 1
        self._open = set(jobs)
        self._targets = (sys.stdout if facts_on_stdout else sys.stderr, sys.stderr)
        self._before_print = before_print
        self._tasks: dict[tuple[str, int], _Followed] = {}
        self._granted: dict[str, deque[_Followed]] = {}
        """By node, in the order in which they run there."""
        self._late: deque[_Stream] = deque()
        self._asked: dict[int, _Asked] = {}
        self._events: int | None = None
        self._since = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fileno(self) -> int:
        """Can be read when there is something for `advance`."""
        return self._connection.fileno()

    def endure(self, check: Callable[[], None] | None) -> None:
        """As the connection's."""
        self._connection.endure(check)

    @property
    def over(self) -> bool:
        """Whether all jobs are, and all they wrote is printed."""
        return not self._open and not self._tasks

    def advance(self) -> bool:
        """Print what has come, and ask on; waits for nothing. Whether there may be more at once. Raises Failure."""
        until = time.monotonic() + _TURN_S
        behind = False
        try:
            self._ask_on()
            while not behind and (answer := self._connection.next_answer()) is not None:
                self._take(*answer)
                self._ask_on()
                behind = time.monotonic() > until
        except NoCoordinator as lost:
            self._connection.reconnect(lost)
            self._begin_anew()
            behind = True
        for target in self._targets:
            target.flush()
        return behind

    # ---- what is asked

    def _begin_anew(self) -> None:
        """On a connection that knows nothing of what was asked before."""
        asked, self._asked, self._events = self._asked, {}, None
        for one in asked.values():
            one.stream.asked = False
            self._late.append(one.stream)

    def _ask_on(self) -> None:
        if self._events is None and self._open:
            self._events = self._connection.post("EventsRead", since=self._since, job=None, wait=True)
        while self._late and len(self._asked) < OUTSTANDING:
            self._ask(self._late.popleft(), live=False)
        while len(self._asked) + 2 <= OUTSTANDING and (followed := self._next_live()) is not None:
            for stream in followed.streams:
                self._ask(stream, live=True)

    def _next_live(self) -> _Followed | None:
        """The first one of the node of which the fewest are followed, if there is a place."""
        live = [asked.stream.of.node for asked in self._asked.values() if asked.live]
        if len(live) + 2 > 2 * LIVE:
            return None
        for node in sorted(self._granted, key=live.count):
            waiting = self._granted[node]
            while waiting:
                followed = waiting.popleft()
                if not followed.told and self._tasks.get((followed.task, followed.attempt)) is followed:
                    return followed
            del self._granted[node]
        return None

    def _ask(self, stream: _Stream, *, live: bool) -> None:
        if stream.asked or stream.done:
            return
        number = self._connection.post(
            "LogRead", task=stream.of.task, stderr=stream.stderr, attempt=stream.of.attempt, offset=stream.offset,
            limit=_PIECE, follow=True,
        )  # fmt: skip
        stream.asked = True
        self._asked[number] = _Asked(stream, live, time.monotonic())

    # ---- what is answered

    def _take(self, number: int, answer: Any) -> None:
        if number == self._events:
            self._events = None
            if isinstance(answer, Failure):
                raise answer
            for event in answer["events"]:
                self._hear(event)
            self._since = int(answer["next"])
        elif (asked := self._asked.pop(number, None)) is not None:
            asked.stream.asked = False
            self._read(asked, answer)
            self._forget(asked.stream.of)

    def _hear(self, event: dict[str, Any]) -> None:
        kind, job = event["kind"], event["job"]
        if job not in self._open:
            return
        if kind == "task.granted":
            followed = _Followed(job, event["task"], event["attempt"], event["node"])
            self._drop(self._tasks.get((followed.task, followed.attempt)))  # came back, and is given away again
            self._tasks[followed.task, followed.attempt] = followed
            self._granted.setdefault(followed.node, deque()).append(followed)
        elif kind in _ENDS:
            self._end(self._tasks.get((event["task"], event["attempt"] or 0)))
        elif kind in _GONE:
            self._open.discard(job)
            for followed in [one for one in self._tasks.values() if one.job == job]:
                self._end(followed)

    def _end(self, followed: _Followed | None) -> None:
        if followed is None:
            return
        followed.told = True
        self._late.extend(followed.streams)
        self._forget(followed)

    def _drop(self, followed: _Followed | None) -> None:
        for stream in followed.streams if followed is not None else ():
            stream.done = True

    def _forget(self, followed: _Followed) -> None:
        """All of it is printed, and no end of it is to be told any more."""
        key = followed.task, followed.attempt
        if followed.told and all(stream.done for stream in followed.streams) and self._tasks.get(key) is followed:
            del self._tasks[key]

    def _read(self, asked: _Asked, answer: Any) -> None:
        stream = asked.stream
        if stream.done:
            return
        if isinstance(answer, Failure):
            if answer.exit is Exit.REFUSED:
                raise answer
            stream.done = True  # it never began, or is gone with its directory
            self._print(stream, [])
            return
        content = pieces.content_of(answer)
        if skipped := int(answer.get("skipped", 0)):
            self._before_print()
            output.remark(f"{self._name(stream)}: {skipped:,} bytes here were not kept")
        stream.offset += skipped + len(content)
        stream.done = bool(answer["over"]) and (bool(answer["end"]) or not content)
        *lines, stream.rest = (stream.rest + content).split(b"\n")
        self._print(stream, lines)
        if not stream.done:
            if not content:
                time.sleep(max(0.0, _AGAIN_S - (time.monotonic() - asked.since)))
            self._ask(stream, live=asked.live and not stream.of.told)

    # ---- what is printed

    def _print(self, stream: _Stream, lines: list[bytes]) -> None:
        if stream.rest and (stream.done or len(stream.rest) > _LONGEST_LINE):
            lines, stream.rest = [*lines, stream.rest], b""
        if not lines:
            return
        self._before_print()
        target = self._targets[stream.stderr]
        head = f"{self._name(stream)}:"
        if in_colour(target):
            head = paint(head, Colour.WARN if stream.stderr else Colour.BUSY)
        for line in lines:
            target.write(f"{head} {_shown(line, target)}\n")

    def _name(self, stream: _Stream) -> str:
        return stream.of.task if self._named else stream.of.task.removeprefix(f"{stream.of.job}/")


def _shown(line: bytes, target: TextIO) -> str:
    text = line.removesuffix(b"\r").decode("utf-8", "replace")
    return plain(text) if is_terminal(target) else text
