"""Waiting for jobs with something to see: a live picture on a terminal, lines elsewhere; Ctrl-C ends the jobs first."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from coordinator.cli import output
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Exit, Failure
from coordinator.cli.follow import Follower
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.progress import Picture, changes, drawn
from coordinator.cli.screen import Screen

_FAST_S: Final = 0.03
_SLOW_S: Final = 0.25
"""Between two looks, so that one who is told of each change does not ask for nothing else."""
_CLOCK_S: Final = 1.0
"""Between two drawings of the same picture: the time it shows goes on."""
_AT_ONCE: Final = 100
"""Jobs in one Overview; it tells nothing of more than 200."""


class Watch:
    """Looks at the jobs whenever something has changed, until all are over. `check` is called before every look and
    may raise; `wakes` gives descriptors that can be read when it may."""

    def __init__(
        self,
        connection: Connection,
        jobs: Sequence[str],
        interrupts: Interrupts,
        *,
        follower: Follower | None = None,
        screen: Screen | None = None,
        check: Callable[[], None] = lambda: None,
        wakes: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self._connection = connection
        self._jobs = list(jobs)
        self._interrupts = interrupts
        self._follower = follower
        self._behind = False
        """Whether the follower has more to print at once."""
        self._screen = screen or Screen(sys.stderr)
        self._check = check
        self._wakes = wakes
        self._before: Picture | None = None
        self._changed = -1
        """What the coordinator called its state when it was seen last."""
        self._terminated = False
        self._open: set[str] = set()

    def until_over(self) -> bool:
        """Whether the jobs ended without having been interrupted."""
        begun = time.monotonic()
        self._interrupts.restore = self._screen.clear
        self._connection.endure(self._check)
        if self._follower is not None:
            self._follower.endure(self._check)
        output.drawing(self._screen.clear)
        try:
            while True:
                self._check()
                self._end_jobs_if_interrupted()
                picture = self._next_picture()
                if picture is None:
                    self._interrupts.pause(0)
                    continue
                self._show(picture)
                self._follow()
                if picture.over and (self._follower is None or self._follower.over):
                    return not self._terminated
                self._rest(min(_SLOW_S, max(_FAST_S, (time.monotonic() - begun) / 20)))
        finally:
            self._screen.clear()
            output.drawing(None)
            self._interrupts.restore = lambda: None

    def _follow(self) -> None:
        if self._follower is not None:
            self._behind = self._follower.advance()

    def _rest(self, seconds: float) -> None:
        """Between two looks; what tasks write is printed meanwhile."""
        until = time.monotonic() + seconds
        also = () if self._follower is None else (self._follower,)
        while not self._interrupts.pause(0 if self._behind else max(0.0, until - time.monotonic()), *also):
            if time.monotonic() >= until or (self._follower is not None and self._follower.over):
                return
            self._follow()

    def _next_picture(self) -> Picture | None:
        """When something has changed; the one before, if there is one, when something else is to be done."""
        if self._before is not None and self._before.over:
            return self._before
        wakes = (self._interrupts.fileno(), *self._wakes())
        if self._follower is not None and self._before is not None:
            wakes = (*wakes, self._follower.fileno())
        first, *others = [self._jobs[n : n + _AT_ONCE] for n in range(0, len(self._jobs), _AT_ONCE)] or [[]]
        overview = self._connection.ask_or_wake(
            "Overview", wakes, self._patience_s(), jobs=first, changed=self._changed
        )
        if overview is None:
            return self._before
        self._changed = overview["changed"]
        picture = Picture(overview["jobs"], overview["nodes"])
        for asked in others:
            picture.jobs += self._connection.ask("Overview", jobs=asked, changed=-1)["jobs"]
        return picture

    def _patience_s(self) -> float | None:
        if self._before is None:
            return None
        if self._behind:
            return 0.0
        return _CLOCK_S if self._screen.live else None

    def _show(self, picture: Picture) -> None:
        if self._screen.live:
            self._screen.draw(drawn(picture, time.time(), self._screen.width, self._screen.colour))
        else:
            for line in changes(self._before, picture):
                output.remark(line)
        self._say_open(picture)
        self._before = picture

    def _say_open(self, picture: Picture) -> None:
        """A job with `finish = manual` does not end by itself: say once how it does."""
        for job in picture.jobs:
            if job["tasks_done_at"] is not None and job["state"] == "active" and job["id"] not in self._open:
                self._open.add(job["id"])
                output.remark(
                    f"{job['id']}: all tasks are done; it stays open (finish = manual) until it is terminated, here by "
                    f"Ctrl-C, or with: coordinator job terminate {job['id']} --coordinator {self._connection.path}"
                )

    def _end_jobs_if_interrupted(self) -> None:
        if not self._interrupts.count or self._terminated:
            return
        self._terminated = True
        output.remark("interrupted: ending the jobs and releasing their nodes; once more leaves at once")
        for job in self._jobs:
            try:
                self._connection.ask("JobTerminate", job=job, reason="UserTerminate", force=False)
            except Failure as failure:
                if failure.exit is Exit.REFUSED:
                    raise  # the connection is gone; a job that is over already is no reason to stop
