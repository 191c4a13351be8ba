"""`make bench`: tasks, submission and memory, each as a ratio to a floor of the same run, with medians and spread."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.cluster import ROOT, BenchFailed
from bench.measure import BARE, FENCED, SLOTS, bytes_a_task, end_to_end, floor_seconds, machine, submission


def spread(values: list[float], form: str = ".2f") -> str:
    """The median and, when there are several, the range."""
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def tasks(directory: Path, count: int, repeat: int) -> None:
    floors, commands, works = [], [], []
    costs: dict[str, list[float]] = {"coordinator": [], "agent": []}
    for n in range(repeat):
        os.sync()  # so that no run pays for what an earlier one left to the disk
        floors.append(count / floor_seconds(directory / f"floor-{n}", count))
        os.sync()
        took = end_to_end(directory / f"tasks-{n}", count)
        commands.append(count / took.command_s)
        works.append(count / took.tasks_s)
        costs["coordinator"].append(1e6 * took.coordinator_s / count)
        costs["agent"].append(1e6 * took.agent_s / count)
    print(f"{count:,} times /bin/true on {SLOTS} slots, durable, {repeat} runs")
    print(f"  spawn floor, tasks/s                       {spread(floors, '.0f')}")
    print(f"  submit --wait, start to end, tasks/s       {spread(commands, '.0f')}")
    print(
        f"  of the floor                               {spread([a / b for a, b in zip(commands, floors, strict=True)])}"
    )
    print(f"  acknowledged to last task's end, tasks/s   {spread(works, '.0f')}")
    print(f"  of the floor                               {spread([a / b for a, b in zip(works, floors, strict=True)])}")
    for name, each in costs.items():
        print(f"  {name}'s processor time, µs a task".ljust(45) + spread(each, ".0f"))


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
    print("  spawn floor, tasks/s".ljust(45) + spread(floors, ".0f"))
    for mode, each in speeds.items():
        print(f"  {mode}, tasks/s".ljust(45) + spread(each, ".0f"))
        if mode != "bare":
            parts = [speed / bare for speed, bare in zip(each, speeds["bare"], strict=True)]
            print(f"  {mode}, of the bare one".ljust(45) + spread(parts))


def submissions(directory: Path, few: int, many: int, repeat: int) -> None:
    took = submission(directory / "submission", few, many, repeat)
    print(f"submit, command start to durable OK, {repeat} runs in turns")
    print(f"  {few:,} tasks, ms".ljust(45) + spread([1000 * s for s in took.few_s], ".0f"))
    print(f"  {many:,} tasks, ms".ljust(45) + spread([1000 * s for s in took.many_s], ".0f"))
    print(f"  {many:,} to {few:,}".ljust(45) + f"{median(took.many_s) / median(took.few_s):.2f}")
    print("  floor: import lark, click, msgpack, ms".ljust(45) + spread([1000 * s for s in took.imports_s], ".0f"))
    print(f"  {many:,} tasks to the floor".ljust(45) + f"{median(took.many_s) / median(took.imports_s):.2f}")


def memory(directory: Path, count: int, repeat: int) -> None:
    each = [bytes_a_task(directory / f"memory-{n}", count) for n in range(repeat)]
    print(f"coordinator's memory, a sweep of {count:,} queued tasks, {repeat} runs")
    print("  bytes a queued task".ljust(45) + spread(each, ".1f"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of the end to end run (default %(default)s)")
    parser.add_argument("--many", type=int, default=1_000_000, help="tasks of the large sweep (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement (default %(default)s)")
    parser.add_argument("--only", choices=("tasks", "submit", "memory", "fences"), help="one of the four")
    parser.add_argument("--directory", type=Path, default=ROOT / ".state", help="on the disk to measure on")
    given = parser.parse_args()
    given.directory.mkdir(exist_ok=True)
    print(machine(given.directory), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.directory) as scratch:
        directory = Path(scratch)
        try:
            if given.only in (None, "tasks"):
                tasks(directory, given.tasks, given.repeat)
            if given.only in (None, "fences"):
                fences(directory, given.tasks, given.repeat)
            if given.only in (None, "submit"):
                submissions(directory, 10, given.many, max(3, given.repeat))
            if given.only in (None, "memory"):
                memory(directory, given.many, given.repeat)
        except BenchFailed as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
