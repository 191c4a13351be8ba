"""`make sim SEEDS=n`: run seeds until they are through or one breaks a promise, then tell its story."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulator.simulation import Plan, Simulation
from tests.simulator.story import tell


def run_seed(seed: int, size: str, full: bool = False) -> tuple[str, int, str | None]:
    """(trace hash, events, the report if it failed)."""
    simulation = Simulation(seed, Plan.draw(seed, size))
    if full:
        simulation.world.echo = True
    try:
        simulation.run()
    except Exception as problem:
        if full:
            raise
        return simulation.world.trace_hash, simulation.world.events, tell(simulation, problem, size)
    return simulation.world.trace_hash, simulation.world.events, None


def _run(task: tuple[int, str]) -> tuple[int, str, int, str | None]:
    return (task[0], *run_seed(*task))


def _results(seeds: range, size: str, jobs: int) -> Iterator[tuple[int, str, int, str | None]]:
    tasks = [(seed, size) for seed in seeds]
    if jobs == 1:
        yield from map(_run, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_run, tasks, chunksize=8)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    sizes = ("short", "long", "rough", "strange", "twins", "operated", "starts", "balking")
    parser.add_argument("--size", choices=sizes, default="short")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--keep-going", action="store_true", help="one line a failing seed, and go on")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    arguments = parser.parse_args()
    began, failed, events = time.monotonic(), 0, 0
    if arguments.trace:
        run_seed(arguments.first, arguments.size, full=True)
        return 0
    for seed, _, count, report in _results(
        range(arguments.first, arguments.first + arguments.seeds), arguments.size, arguments.jobs
    ):
        events += count
        if report is not None:
            failed += 1
            if not arguments.keep_going:
                print(report)
                return 1
            print(report.splitlines()[0], flush=True)
        elif sys.stderr.isatty() and seed % 10 == 0:
            print(f"\rseed {seed}", end="", file=sys.stderr)
    spent = time.monotonic() - began
    print(f"{arguments.seeds} seeds, {failed} broke a promise, {events} events in {spent:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
