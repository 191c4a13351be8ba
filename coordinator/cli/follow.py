"""Tasks' output as it comes, each line with its task's name before it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from coordinator.cli.connection import Connection
from coordinator.cli.failure import Exit, Failure
from coordinator.cli.output import in_colour, is_terminal
from coordinator.cli.words import short_name
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
    attempt: int
    streams: tuple[_Stream, _Stream] = field(default_factory=lambda: (_Stream(False), _Stream(True)))


class Follower:
    """Prints what is new of every task that has started. Tasks before `_done_up_to` are over and printed."""

    def __init__(self, job: str, *, named: bool, facts_on_stdout: bool, before_print: Callable[[], None]) -> None:
        """`named`: say the job as well; `before_print`: called before a line goes out (to clear what is drawn)."""
        self._job = job
        self._named = named
        self._targets = (sys.stdout if facts_on_stdout else sys.stderr, sys.stderr)
        self._before_print = before_print
        self._tasks: dict[str, _Followed] = {}
        self._over: set[str] = set()
        self._done_up_to: str | None = None

    def poll(self, connection: Connection) -> None:
        """Look at every task that may have written something since the last look."""
        after = self._done_up_to
        contiguous = True
        while page := connection.ask("TaskList", job=self._job, limit=_PAGE, after=after, state=None, group=None):
            for task in page:
                finished = self._look(connection, task)
                contiguous = contiguous and finished
                if contiguous:
                    self._done_up_to = task["id"]
                    self._over.discard(task["id"])
            after = str(page[-1]["id"])
        for stream in self._targets:
            stream.flush()

    def _look(self, connection: Connection, task: dict[str, Any]) -> bool:
        """Whether this task is over and all of its output printed."""
        name = str(task["id"])
        if name in self._over:
            return True
        over = bool(task["state"] == "completed")
        if task.get("attempts") and (over or task["state"] == "running"):
            followed = self._tasks.get(name)
            if followed is None or followed.attempt != task["attempts"]:
                followed = self._tasks[name] = _Followed(task["attempts"])
            for stream in followed.streams:
                self._print_new(connection, task, followed, stream, over)
        if over:
            self._tasks.pop(name, None)
            self._over.add(name)
        return over

    def _print_new(
        self, connection: Connection, task: dict[str, Any], followed: _Followed, stream: _Stream, over: bool
    ) -> None:
        while True:
            try:
                piece = connection.ask(
                    "LogRead",
                    task=task["id"],
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
            self._print(task, stream, lines)
            if piece["end"] or not content:
                return

    def _print(self, task: dict[str, Any], stream: _Stream, lines: list[bytes]) -> None:
        if not lines:
            return
        self._before_print()
        target = self._targets[stream.stderr]
        prefix = str(task["id"]) if self._named else short_name(task)
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
