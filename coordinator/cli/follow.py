"""Tasks' output as it comes, each line with its task's name before it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TextIO

from coordinator.cli.connection import Connection
from coordinator.cli.events import pages_of
from coordinator.cli.failure import Exit, Failure
from coordinator.cli.output import in_colour, is_terminal
from coordinator.render import Colour, paint, plain

_PAGE: Final = 500
_PIECE: Final = 65_536
_LONGEST_LINE: Final = 65_536


@dataclass
class _Stream:
    """How far one of a task's two outputs was printed. `rest` is a line that has not ended yet."""

    stderr: bool
    offset: int = 0
    rest: bytes = b""


@dataclass
class _Followed:
    """An attempt of a task, and how far what it wrote was printed."""

    task: str
    attempt: int
    streams: tuple[_Stream, _Stream] = field(default_factory=lambda: (_Stream(False), _Stream(True)))


_ENDS: Final = ("task.ended", "task.retried", "task.returned")


class Follower:
    """Prints what is new of every task that has started: of those that run what they wrote so far, of each attempt
    that the events say has ended the rest."""

    def __init__(self, job: str, *, named: bool, facts_on_stdout: bool, before_print: Callable[[], None]) -> None:
        """`named`: say the job as well; `before_print`: called before a line goes out (to clear what is drawn)."""
        self._job = job
        self._named = named
        self._targets = (sys.stdout if facts_on_stdout else sys.stderr, sys.stderr)
        self._before_print = before_print
        self._running: dict[tuple[str, int], _Followed] = {}
        self._since = 0

    @property
    def busy(self) -> bool:
        """Whether a task runs: what it writes is to be looked for."""
        return bool(self._running)

    def poll(self, connection: Connection) -> None:
        """Print what was written since the last look."""
        for page in pages_of(connection, self._since, self._job, follow=False):
            for event in page:
                self._since = event["id"]
                if event["kind"] in _ENDS and event["attempt"]:
                    followed = self._followed(event["task"], event["attempt"])
                    self._look(connection, followed, over=True)
                    del self._running[followed.task, followed.attempt]
        self._look_at_running(connection)
        for stream in self._targets:
            stream.flush()

    def _look_at_running(self, connection: Connection) -> None:
        after: str | None = None
        while page := connection.ask("TaskList", job=self._job, limit=_PAGE, after=after, state="running", group=None):
            for task in page:
                if task.get("attempts"):
                    self._look(connection, self._followed(str(task["id"]), task["attempts"]), over=False)
            after = str(page[-1]["id"])

    def _followed(self, task: str, attempt: int) -> _Followed:
        return self._running.setdefault((task, attempt), _Followed(task, attempt))

    def _look(self, connection: Connection, followed: _Followed, *, over: bool) -> None:
        for stream in followed.streams:
            self._print_new(connection, followed, stream, over)

    def _print_new(self, connection: Connection, followed: _Followed, stream: _Stream, over: bool) -> None:
        while True:
            try:
                piece = connection.ask(
                    "LogRead",
                    task=followed.task,
                    stderr=stream.stderr,
                    attempt=followed.attempt,
                    offset=stream.offset,
                    limit=_PIECE,
                )
            except Failure as failure:
                if failure.exit is Exit.REFUSED:
                    raise
                return  # not written yet, or gone with its directory
            content: bytes = piece["content"]
            stream.offset += len(content)
            *lines, stream.rest = (stream.rest + content).split(b"\n")
            if len(stream.rest) > _LONGEST_LINE or (over and stream.rest and (piece["end"] or not content)):
                lines.append(stream.rest)
                stream.rest = b""
            self._print(followed.task, stream, lines)
            if piece["end"] or not content:
                return

    def _print(self, task: str, stream: _Stream, lines: list[bytes]) -> None:
        if not lines:
            return
        self._before_print()
        target = self._targets[stream.stderr]
        prefix = task if self._named else task.removeprefix(f"{self._job}/")
        head = (
            paint(f"{prefix}:", Colour.BUSY if not stream.stderr else Colour.WARN)
            if in_colour(target)
            else f"{prefix}:"
        )
        for line in lines:
            target.write(f"{head} {_shown(line, target)}\n")


def _shown(line: bytes, target: TextIO) -> str:
    text = line.removesuffix(b"\r").decode("utf-8", "replace")
    return plain(text) if is_terminal(target) else text
