"""`make bench`: what was promised about speed, each case with a floor of the same run, with medians and spread."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.cluster import ROOT, BenchFailed
from bench.commands import commands
from bench.events import events
from bench.explain import explain
from bench.logs import logs
from bench.measure import (
    BARE,
    FENCED,
    SLOTS,
    bytes_a_task,
    end_to_end,
    floor_seconds,
    line,
    machine,
    spread,
    submission,
)


def tasks(directory: Path, count: int, repeat: int) -> None:
    floors, waited, works = [], [], []
    costs: dict[str, list[float]] = {"coordinator": [], "agent": []}
    for n in range(repeat):
        os.sync()  # so that no run pays for what an earlier one left to the disk
        floors.append(count / floor_seconds(directory / f"floor-{n}", count))
        os.sync()
        took = end_to_end(directory / f"tasks-{n}", count)
        waited.append(count / took.command_s)
        works.append(count / took.tasks_s)
        costs["coordinator"].append(1e6 * took.coordinator_s / count)
        costs["agent"].append(1e6 * took.agent_s / count)
    print(f"{count:,} times /bin/true on {SLOTS} slots, durable, {repeat} runs")
    line("spawn floor, tasks/s", spread(floors, ".0f"))
    for name, speeds in (("submit --wait, start to end", waited), ("acknowledged to last task's end", works)):
        line(f"{name}, tasks/s", spread(speeds, ".0f"))
        line("of the floor", spread([a / b for a, b in zip(speeds, floors, strict=True)]))
    for name, each in costs.items():
        line(f"{name}'s processor time, µs a task", spread(each, ".0f"))


MODES = {
    "bare": (BARE, False),
    "users and containment": (FENCED, False),
    "TLS": (BARE, True),
    "all of it": (FENCED, True),
}


def fences(directory: Path, count: int, repeat: int) -> None:
    """What strangers on a network cost: every mode in turns, each as a part of the bare one of the same turn."""
    speeds: dict[str, list[float]] = {mode: [] for mode in MODES}
    floors = []
    for n in range(repeat):
        os.sync()
        floors.append(count / floor_seconds(directory / f"fence-floor-{n}", count))
        modes = list(MODES.items())
        for number, (mode, (config, tls)) in enumerate(modes[n % len(modes) :] + modes[: n % len(modes)]):
            os.sync()
            took = end_to_end(directory / f"fence-{n}-{number}", count, config, tls=tls)
            speeds[mode].append(count / took.tasks_s)
    print(f"{count:,} times /bin/true on {SLOTS} slots, acknowledged to last task's end, {repeat} turns")
    line("spawn floor, tasks/s", spread(floors, ".0f"))
    for mode, each in speeds.items():
        line(f"{mode}, tasks/s", spread(each, ".0f"))
        if mode != "bare":
            parts = [speed / bare for speed, bare in zip(each, speeds["bare"], strict=True)]
            line(f"{mode}, of the bare one", spread(parts))


def submissions(directory: Path, few: int, many: int, repeat: int) -> None:
    took = submission(directory / "submission", few, many, repeat)
    print(f"submit, command start to durable OK, {repeat} runs in turns")
    line(f"{few:,} tasks, ms", spread([1000 * s for s in took.few_s], ".0f"))
    line(f"{many:,} tasks, ms", spread([1000 * s for s in took.many_s], ".0f"))
    line(f"{many:,} to {few:,}", f"{median(took.many_s) / median(took.few_s):.2f}")
    line("floor: import lark, click, msgpack, ms", spread([1000 * s for s in took.imports_s], ".0f"))
    line(f"{many:,} tasks to the floor", f"{median(took.many_s) / median(took.imports_s):.2f}")


def memory(directory: Path, count: int, repeat: int) -> None:
    each = [bytes_a_task(directory / f"memory-{n}", count) for n in range(repeat)]
    print(f"coordinator's memory, a sweep of {count:,} queued tasks, {repeat} runs")
    line("bytes a queued task", spread(each, ".1f"))


Act = Callable[[Path, argparse.Namespace], None]
CASES: dict[str, tuple[str, Act]] = {
    "tasks": ("short tasks, submission to end", lambda path, given: tasks(path, given.tasks, given.repeat)),
    "fences": ("the same with users, containment and TLS", lambda path, given: fences(path, given.tasks, given.repeat)),
    "submit": (
        "a submission of 10 and of a million tasks",
        lambda path, given: submissions(path, 10, given.many, max(3, given.repeat)),
    ),
    "memory": ("the coordinator's, of a queued task", lambda path, given: memory(path, given.many, given.repeat)),
    "events": (
        "short tasks while events are followed and read",
        lambda path, given: events(path / "events", max(1, given.tasks // 5), given.repeat),
    ),
    "logs": (
        "how late `logs -f` is on a busy cluster",
        lambda path, given: logs(path / "logs", given.lines, given.many),
    ),
    "explain": (
        "the core's answers: explain, top, lists",
        lambda path, given: explain(given.nodes, given.many, given.rounds),
    ),
    "commands": (
        "short commands beside a bare interpreter",
        lambda path, given: commands(path / "commands", given.rounds),
    ),
}
"""What is measured, in the order of docs/design.md's table."""


def main() -> int:
    names = "; ".join(f"{name}: {what}" for name, (what, _) in CASES.items())
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, epilog=names)
    parser.add_argument("--only", choices=tuple(CASES), metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of the end to end run (default %(default)s)")
    parser.add_argument("--many", type=int, default=1_000_000, help="tasks of the large sweep (default %(default)s)")
    parser.add_argument("--nodes", type=int, default=1_000, help="nodes of the large cluster (default %(default)s)")
    parser.add_argument("--lines", type=int, default=100, help="lines that are followed (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="of answers and short commands (default %(default)s)")
    parser.add_argument("--directory", type=Path, default=ROOT / ".state", help="on the disk to measure on")
    given = parser.parse_args()
    given.directory.mkdir(exist_ok=True)
    print(machine(given.directory), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.directory) as scratch:
        try:
            for name, (_, measure) in CASES.items():
                if given.only in (None, name):
                    measure(Path(scratch), given)
        except BenchFailed as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
