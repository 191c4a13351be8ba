"""What it costs to be watched: short tasks alone, and while one client follows all events and another reads the whole
stream from its start again and again.

The readers take processor time that tasks on the same machine do not get; the last ratio leaves it out, so that it
tells what the coordinator does for them.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cluster import ENVIRONMENT, ROOT, Cluster, cluster, memory_of
from bench.measure import BARE, SLOTS, EndToEnd, line, one_job, spread

MIB = 2**20


@dataclass
class Watched:
    """What the readers had of it."""

    events: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    """Of who follows: what a process that has ended had at most is told with what its parent had."""


class Reader:
    """An `events` command, run again when it has ended if `again`; `wc` counts the lines, which nobody keeps."""

    def __init__(self, live: Cluster, *options: str, again: bool) -> None:
        self.watched = Watched()
        self._words = live.words("events", *options)
        self._log = live.log
        self._again = again
        self._over = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            with subprocess.Popen(["wc", "-l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as count:
                self._running = subprocess.Popen(
                    self._words, stdout=count.stdin, stderr=self._log, cwd=ROOT, env=ENVIRONMENT
                )
                assert count.stdin is not None
                assert count.stdout is not None
                count.stdin.close()
                self.watched.events += int(count.stdout.read())  # it says so when the command's last byte is counted
            _, status, usage = os.wait4(self._running.pid, 0)
            self._running.returncode = os.waitstatus_to_exitcode(status)
            self.watched.cpu_s += usage.ru_utime + usage.ru_stime
            if self._over.is_set() or not self._again:
                return

    def stop(self) -> Watched:
        if self._running is not None and not self._again:  # the other one may just have ended; it reads no more
            self.watched.peak_bytes = memory_of(self._running.pid, "VmHWM")
        self._over.set()
        while self._thread.is_alive():
            if self._running is not None and self._running.returncode is None:
                self._running.terminate()
            self._thread.join(0.05)
        return self.watched


@contextmanager
def watched(live: Cluster) -> Iterator[list[Watched]]:
    """Readers at work; what they had when they have stopped."""
    had: list[Watched] = []
    readers = [Reader(live, "-f", again=False), Reader(live, again=True)]
    try:
        yield had
    finally:
        had += [reader.stop() for reader in readers]


@dataclass
class Figures:
    """Of one turn each."""

    alone: list[EndToEnd] = field(default_factory=list)
    watched: list[EndToEnd] = field(default_factory=list)
    readers: list[list[Watched]] = field(default_factory=list)
    peaks: list[tuple[int, int]] = field(default_factory=list)
    """Of the coordinator, after the run alone and after the one that was watched."""

    def ratios(self) -> list[float]:
        return [one.tasks_s / two.tasks_s for one, two in zip(self.alone, self.watched, strict=True)]

    def left(self) -> list[float]:
        """The part of the machine that the readers themselves did not take."""
        cores = len(os.sched_getaffinity(0))
        return [
            1 - sum(each.cpu_s for each in had) / (cores * took.command_s)
            for had, took in zip(self.readers, self.watched, strict=True)
        ]


def events(directory: Path, tasks: int, repeat: int) -> None:
    """Tasks alone and watched, in turns on one cluster, so that what is read grows from turn to turn."""
    found = Figures()
    with cluster(directory) as live:
        live.add_agent("bench", "bench-1", SLOTS, BARE)
        for _ in range(repeat):
            os.sync()
            found.alone.append(one_job(live, tasks))
            alone = live.peak_bytes()
            os.sync()
            with watched(live) as had:
                found.watched.append(one_job(live, tasks))
            found.readers.append(had)
            found.peaks.append((alone, live.peak_bytes()))
    show(found, tasks, repeat)


def show(found: Figures, tasks: int, repeat: int) -> None:
    read = [
        sum(each.events for each in had) / took.command_s
        for had, took in zip(found.readers, found.watched, strict=True)
    ]
    print(f"{tasks:,} times /bin/true on {SLOTS} slots, alone and while events are followed and read, {repeat} turns")
    line("alone, tasks/s", spread([tasks / took.tasks_s for took in found.alone], ".0f"))
    line("watched, tasks/s", spread([tasks / took.tasks_s for took in found.watched], ".0f"))
    line("watched to alone", spread(found.ratios()))
    line("the same of what readers leave", spread([a / b for a, b in zip(found.ratios(), found.left(), strict=True)]))
    for name, runs in (("alone", found.alone), ("watched", found.watched)):
        line(
            f"coordinator's processor, {name}, µs a task", spread([1e6 * t.coordinator_s / tasks for t in runs], ".0f")
        )
    line("events read a second", spread(read, ".0f"))
    line("coordinator's peak, alone, MiB", spread([alone / MIB for alone, _ in found.peaks], ".1f"))
    line("coordinator's peak, watched, MiB", spread([after / MIB for _, after in found.peaks], ".1f"))
    line("who follows, its peak, MiB", spread([had[0].peak_bytes / MIB for had in found.readers], ".1f"))
