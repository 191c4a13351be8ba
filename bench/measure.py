"""What the cases share, and those of the promises about throughput: from a directory and a size to plain numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.cluster import ENVIRONMENT, BenchFailed, Cluster, cluster

SLOTS = 2
FLOOR = Path(__file__).with_name("floor.py")


def spread(values: list[float], form: str = ".2f") -> str:
    """The median and, when there are several, the range."""
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def line(label: str, text: str) -> None:
    """One figure of a case."""
    print(f"  {label:<44} {text}", flush=True)


def batch_file(directory: Path, tasks: int) -> Path:
    """A pool without nodes of its own and a job of so many `/bin/true`."""
    path = directory / f"true-{tasks}.batch"
    path.write_text(
        f"""edition = 1
pool bench {{ slots = {SLOTS} }}
job spawn {{
  pool = bench
  task t for n in 1..{tasks} {{ run = ["/bin/true"] }}
}}
"""
    )
    return path


def floor_seconds(directory: Path, tasks: int) -> float:
    """Seconds that bare spawn loops need for `tasks` tasks, `SLOTS` at a time."""
    directory.mkdir()
    shares = [tasks // SLOTS + (n < tasks % SLOTS) for n in range(SLOTS)]
    loops = []
    for n, share in enumerate(shares):
        below = directory / f"slot-{n}"
        below.mkdir()
        words = [sys.executable, "-I", "-S", str(FLOOR), str(below), str(share)]
        loops.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for loop in loops:
        assert loop.stdout is not None
        if loop.stdout.readline().strip() != "ready":
            raise BenchFailed("a floor loop did not start")
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("go\n")
        loop.stdin.flush()
    slowest = 0.0
    for loop in loops:
        out, _ = loop.communicate()
        if loop.returncode != 0:
            raise BenchFailed("a floor loop failed")
        slowest = max(slowest, float(out))
    shutil.rmtree(directory)
    return slowest


@dataclass(frozen=True)
class EndToEnd:
    command_s: float
    """From the start of `submit --wait` to its end: parsing, tasks, the node's clean-up."""
    tasks_s: float
    """From the acknowledged submission to the last task's end, on the coordinator's clock."""
    coordinator_s: float
    agent_s: float
    """Processor time of the two daemons for all of it, keepers not counted."""


BARE = """[users]
mode = "same"
[limits]
cgroups = false
"""
"""An agent's configuration without users of jobs, namespaces and control groups."""
FENCED = """[users]
mode = "job"
"""


def end_to_end(directory: Path, tasks: int, config: str = "", *, tls: bool = False) -> EndToEnd:
    """`tasks` times `/bin/true` through a real coordinator and one real agent of `SLOTS` slots, everything durable."""
    with cluster(directory, tls=tls) as live:
        live.add_agent("bench", "bench-1", SLOTS, config)
        took = one_job(live, tasks)
    shutil.rmtree(directory)
    return took


def one_job(live: Cluster, tasks: int) -> EndToEnd:
    """One job of so many tasks from its submission to its end, on a cluster with one agent."""
    daemons = (live.coordinator, live.agents[0])
    before = [live.cpu_seconds(process) for process in daemons]
    _, seconds = live.run("submit", str(batch_file(live.directory, tasks)), "--wait")
    spent = [live.cpu_seconds(process) - idle for process, idle in zip(daemons, before, strict=True)]
    job = live.ask("job", "show", "spawn")
    if job["tasks"]["succeeded"] != tasks:
        raise BenchFailed(f"of {tasks} tasks {job['tasks']['succeeded']} succeeded")
    begin, end = (datetime.fromisoformat(job[name]) for name in ("submitted_at", "tasks_done_at"))
    return EndToEnd(seconds, (end - begin).total_seconds(), *spent)


@dataclass(frozen=True)
class Submission:
    few_s: list[float]
    many_s: list[float]
    imports_s: list[float]
    """A bare interpreter that imports what a submission cannot do without."""


def submission(directory: Path, few: int, many: int, rounds: int) -> Submission:
    """Seconds from the start of `submit` to its end (the job is durable), in turns, for two sizes of a sweep."""
    result = Submission([], [], [])
    with cluster(directory) as live:
        files = [(batch_file(directory, few), result.few_s), (batch_file(directory, many), result.many_s)]
        for path, _ in files:
            live.run("submit", str(path))  # the first of all fills the caches
        for _ in range(rounds):
            for path, into in files:
                into.append(live.run("submit", str(path))[1])
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import lark, click, msgpack"], env=ENVIRONMENT, check=True)
            result.imports_s.append(time.perf_counter() - begin)
    shutil.rmtree(directory)
    return result


def bytes_a_task(directory: Path, tasks: int) -> float:
    """What a queued task of a sweep costs in the coordinator's memory, with the next sweep's pages already touched."""
    with cluster(directory) as live:
        live.run("submit", str(batch_file(directory, 10)))
        live.ask("job", "show", "spawn")
        before = live.anonymous_bytes()
        live.run("submit", str(batch_file(directory, tasks)))
        live.ask("job", "show", "spawn")
        after = live.anonymous_bytes()
    shutil.rmtree(directory)
    return (after - before) / tasks


def machine(directory: Path) -> str:
    """One line: what this was measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown processor"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    where = str(directory.resolve())
    below = [mount for mount in mounts if where == mount[1] or where.startswith(mount[1].rstrip("/") + "/")]
    kind = max(below, key=lambda mount: len(mount[1]))[2] if below else "unknown"
    release, python = os.uname().release, ".".join(map(str, sys.version_info[:3]))
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.1f} GiB, Linux {release}, Python {python}, {kind}"
