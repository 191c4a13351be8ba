"""What a short command costs: start, question, answer, end; beside an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.cluster import ENVIRONMENT, cluster
from bench.measure import BARE, SLOTS, line, one_job, spread

BUDGET = 6.0
"""Times the start of a bare interpreter."""
COMMANDS = {
    "job show": ("job", "show", "spawn"),
    "job list": ("job", "list"),
    "job nodes": ("job", "nodes", "spawn"),
    "task show": ("task", "show", "spawn-1/t[1]"),
    "node list": ("node", "list"),
    "pool list": ("pool", "list"),
    "explain": ("explain", "spawn-1/t[1]"),
    "logs": ("logs", "spawn-1/t[1]"),
    "events": ("events",),
    "top": ("top",),
}
"""As people type them, none with more than a page to say; `-o json` is never slower."""
BARE_START = "a bare interpreter"
TASKS = 20


def commands(directory: Path, rounds: int) -> None:
    """Every command in turns, so that what disturbs the machine disturbs all of them; the first turn fills caches."""
    times: dict[str, list[float]] = {name: [] for name in (BARE_START, *COMMANDS)}
    with cluster(directory) as live:
        live.add_agent("bench", "bench-1", SLOTS, BARE)
        one_job(live, TASKS)
        lines = {BARE_START: [sys.executable, "-c", "pass"]}
        lines |= {name: live.words(*words, shape="table") for name, words in COMMANDS.items()}
        for turn in range(rounds + 1):
            for name, words in lines.items():
                begin = time.perf_counter()
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**ENVIRONMENT, "NO_COLOR": "1"})
                if turn:
                    times[name].append(time.perf_counter() - begin)
    floors = times.pop(BARE_START)
    print(f"short commands, start to end, {rounds} runs in turns; budget: {BUDGET:.0f} times {BARE_START}")
    line(f"floor: {BARE_START}, ms", spread([1000 * s for s in floors], ".0f"))
    for name, each in times.items():
        line(f"{name}, ms", f"{spread([1000 * s for s in each], '.0f')}, {median(each) / median(floors):.1f} times")
