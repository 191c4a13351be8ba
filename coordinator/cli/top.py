"""`coordinator top`: jobs, nodes, preparations, releases owed and throughput, live on the whole screen."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from coordinator.cli import output
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.options import Terms, facts

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

ROWS: Final = 100
_WINDOW_S: Final = 10.0


@click.command()
@click.option(
    "--every", type=click.FloatRange(0.1, 60.0), default=1.0, show_default=True, metavar="S", help="Seconds between."
)
@facts
def top(terms: Terms, every: float) -> None:
    """Show the cluster live, until `q`. Without a terminal, and with `-o json`, show it once."""
    with terms.connect() as connection:
        if terms.json or not (output.is_terminal(sys.stdout) and sys.stdin.isatty()):
            document = connection.ask("Top", rows=ROWS)
            terms.show(document, lambda: _once(document))
        else:
            _live(connection, every)


class Throughput:
    """Tasks that ended a second, over the last ten seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, tasks: dict[str, int], now: float) -> float:
        """What it is, with this count of tasks taken in."""
        done = tasks["succeeded"] + tasks["failed"]
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # a job was deleted, and its tasks with it
        self._seen.append((now, done))
        while self._seen[0][0] < now - _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        (since, before), passed = self._seen[0], now - self._seen[0][0]
        return (done - before) / passed if passed > 0 and since < now else 0.0


def _once(document: dict[str, Any]) -> list[str]:
    from rich.console import Console

    from coordinator.cli.panorama import panorama

    console = Console(width=output.width_of(sys.stdout) or output.DEFAULT_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(panorama(document, None, time.time(), None, 0, console.width))
    return [line.rstrip() for line in captured.get().splitlines()]


def _live(connection: Connection, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from coordinator.cli.panorama import panorama

    console = Console(no_color=not output.in_colour(sys.stdout))
    throughput, first = Throughput(), 0
    with (
        Interrupts("left") as interrupts,
        _keys(sys.stdin.fileno()) as keys,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        interrupts.restore = live.stop
        while not interrupts.count:
            document = connection.ask("Top", rows=ROWS)
            rate = throughput.take(document["tasks"], time.monotonic())
            size = console.size
            live.update(panorama(document, rate, time.time(), size.height, first, size.width), refresh=True)
            for key in _KEY.findall(keys(every)):
                if key in ("q", "\x03", "\x04"):
                    return
                first = max(0, min(first + _STEPS.get(key, 0), len(document["top_jobs"]) - 1))


_STEPS: Final = {"j": 1, "\x1b[B": 1, "k": -1, "\x1b[A": -1, " ": 10, "b": -10, "g": -(10**6)}
"""Keys that move through the jobs, by how many."""
_KEY: Final = re.compile(r"\x1b\[[A-Z]|.", re.DOTALL)


@contextmanager
def _keys(fd: int) -> Iterator[Any]:
    """Keys as they are pressed, without an echo; the terminal is as before afterwards."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def key(within_s: float) -> str:
        try:
            ready = select.select([fd], [], [], within_s)[0]
        except InterruptedError:
            return ""
        return os.read(fd, 16).decode(errors="replace") if ready else ""

    try:
        yield key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
