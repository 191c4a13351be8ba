"""A soak: agents and jobs by the hundred while everything is killed at random, then a look at what is left.

`python -m tests.e2e.soak --seconds 600 --jobs 200` is the long one; the suite runs a short one. What happens is
chosen by a seed; how it falls among the processes is not, so a finding is kept by its story, not replayed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentd.spawn import isolation_refused
from coordinator.reasons import OF_OUTCOME, Code
from tests.e2e.cluster import COORDINATOR, Cluster, gone
from tests.e2e.soak_acts import NODES, Ground, command_of, enable_jobs, enable_nodes, pause
from tests.e2e.soak_jobs import PLACES, START_MARK
from wire import thin

Plain = dict[str, Any]

AT_ONCE = 3
"""Jobs between two acts, where a busy machine is behind."""
PACE_S, PAUSE_S = 2.0, 0.6
PATIENCE_S = 300.0
SETTLED_S = 30.0
"""How long what goes by itself may take: directories after their `keep`, users of jobs."""
FIRST_UID = 1_900_200_000
"""Of the users of jobs; each seed has a range of its own, for soaks at the same time."""

EXPLAINED: dict[str, set[Code]] = {
    "success": {Code.COMPLETED, Code.TASKS_SKIPPED},
    "failure": {Code.ENDED_EARLY, Code.INELIGIBLE, Code.TASKS_FAILED, Code.RELEASE_FAILED, Code.TASKS_SKIPPED},
    "cancelled": {Code.ENDED_EARLY, Code.TASKS_CANCELLED},
    "skipped": {Code.TASKS_SKIPPED},
}
"""What may come first in the explanation of a completed job, by its result."""
EXPLAINED_TASK: dict[str, set[Code]] = {
    "success": {Code.SUCCEEDED},
    "failure": set(OF_OUTCOME.values()),
    "cancelled": {Code.CANCELLED},
    "skipped": {Code.SKIPPED},
}


# ---- while it lasts


def run(ground: Ground, jobs: int, seconds: float, pause_s: float) -> None:
    """Submit, meddle and kill until the time is over, then have everything come to its end."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds or len(ground.submitted) < jobs or ground.deck:
        due = jobs if passed >= seconds else min(jobs, 1 + int(jobs * passed / seconds))
        for _ in range(min(AT_ONCE, due - len(ground.submitted))):
            ground.submit()
        ground.meddle(pause_s)
    mend(ground)
    with contextlib.closing(thin.connect(str(ground.cluster.socket))) as coordinator:
        deadline = time.monotonic() + PATIENCE_S
        for job in ground.submitted:
            with contextlib.suppress(thin.ThinError):
                coordinator.call("JobWait", job=job, timeout_s=max(1.0, deadline - time.monotonic()))


def mend(ground: Ground) -> None:
    """Everything runs, nothing is kept from running."""
    enable_nodes(ground)
    enable_jobs(ground)
    ground.cluster.until(lambda now: not any(job["state"] == "disabling" for job in now["jobs"]))
    enable_jobs(ground)


# ---- what it is like afterwards


@dataclass
class Aftermath:
    """What should not be: nothing is owed, nothing is left, nothing ran twice or too early, all is told once and
    explained."""

    ground: Ground
    stream: Path
    """What one client heard of `events -f`."""

    @property
    def cluster(self) -> Cluster:
        return self.ground.cluster

    def findings(self) -> list[str]:
        found = [*self.ground.found, *self._said()]
        with contextlib.closing(thin.connect(str(self.cluster.socket))) as coordinator:
            jobs = self.cluster.ask("job", "list")
            tasks = {job["id"]: coordinator.call("TaskList", job=job["id"]) for job in jobs}
            for job in jobs:
                found += self._of_job(job, coordinator.call("Explain", target=job["id"]))
                for task in tasks[job["id"]]:
                    found += self._of_task(task, coordinator.call("Explain", target=task["id"]))
        found += [f"{node['id']} owes {node['owes']}" for node in self.cluster.ask("node", "list") if node["owes"]]
        found += self._of_stream({job["id"] for job in jobs}, [row for rows in tasks.values() for row in rows])
        for name in NODES:
            found += self._of_node(name, STANDING)
        return [*found, *self._of_daemons()]

    def _said(self) -> Iterator[str]:
        """What tasks themselves found wrong."""
        yield from (self.cluster.directory / PLACES["LOG"]).read_text().splitlines()
        starts = Counter((self.cluster.directory / PLACES["STARTED"]).read_text().splitlines())
        yield from (f"started {count} times: {start}" for start, count in starts.items() if count > 1)

    @staticmethod
    def _of_job(job: Plain, told: Plain) -> Iterator[str]:
        if job["state"] != "completed":
            yield f"{job['id']} is {job['state']}: {told}"
        elif any(job["release"][state] for state in ("owed", "failed", "unreached")):
            yield f"{job['id']}: releases {job['release']}"
        elif not told["reason"] or Code(told["code"]) not in EXPLAINED[job["result"]]:
            yield f"{job['id']}, a {job['result']} for {job['end_reason']}, is explained by {told}"

    @staticmethod
    def _of_task(task: Plain, told: Plain) -> Iterator[str]:
        if task["state"] == "completed" and Code(told["code"]) not in EXPLAINED_TASK[task["result"]]:
            yield f"{task['id']}, a {task['result']}, is explained by {told}"

    def _of_stream(self, jobs: set[str], tasks: list[Plain]) -> Iterator[str]:
        history = [json.loads(line) for line in self.cluster.command("events", "-o", "json").stdout.splitlines()]
        settled(lambda: bool(heard := events_of(self.stream)) and heard[-1]["id"] >= history[-1]["id"])
        heard = events_of(self.stream)
        ids = [event["id"] for event in heard]
        if ids != sorted(set(ids)):
            yield "the ids of events do not grow"
        by_id = {event["id"]: event for event in heard}
        for event in history:
            if event["kind"] != "gap" and by_id.get(event["id"]) != event:
                yield f"{event} was told as {by_id.get(event['id'])}"
        of_kind = {kind: Counter(event["job"] for event in heard if event["kind"] == kind) for kind in COUNTED}
        for job in self.ground.submitted:
            submitted, completed, reopened, deleted = (of_kind[kind][job] for kind in COUNTED)
            ends = (reopened + 1,) if job in jobs else (reopened, reopened + 1)
            if submitted != 1 or completed not in ends or deleted != (job not in jobs):
                yield f"{job} in the stream: {submitted=} {completed=} {reopened=} {deleted=}"
        yield from twice_ended(heard)
        last = {event["task"]: event["data"]["result"] for event in heard if event["kind"] == "task.ended"}
        for task in tasks:
            if last.get(task["id"], task["result"]) != task["result"]:
                yield f"{task['id']} is a {task['result']}, and the stream told {last[task['id']]}"

    def _of_node(self, name: str, expected: set[str]) -> list[str]:
        """What is left there, beside what is expected."""
        root = self.cluster.root(name)

        def left() -> set[str]:
            return {str(path.relative_to(root)) for part in PARTS for path in (root / part).glob("*")} - expected

        settled(lambda: not left())
        return [f"{name} has {path}" for path in left()]

    def _of_daemons(self) -> Iterator[str]:
        """Have all of them leave; then nothing of them may be there."""
        groups = [f"poolkeeper-{incarnation(self.cluster.root(name))[:16]}" for name in NODES]
        for name in (*NODES, "coordinator"):
            try:
                self.cluster.kill(name, signal.SIGINT if name in NODES else signal.SIGTERM)
            except subprocess.TimeoutExpired:
                yield f"{name} does not go"
        for name in NODES:
            yield from self._of_node(name, LASTING)
        for pid in self.ground.processes(lambda command, _: "events -f" not in command):
            if not gone(pid, 20.0):
                yield f"process {pid} is left: {command_of(pid)}"
        for path, below, _ in os.walk("/sys/fs/cgroup"):
            if os.path.basename(path) in groups:
                yield f"cgroup {path} is left: {below}"
        leases = self.cluster.directory / "uids" / "leases.json"
        if leases.exists() and (left := json.loads(leases.read_text())["leases"]):
            yield f"users of jobs are left: {left}"
        for path in self.cluster.directory.glob("*.log"):
            text = path.read_text()
            if "Traceback" in text:
                yield f"{path.name} shows a mistake: {text[text.index('Traceback') - 500 :][:4000]}"


PARTS = ("workitems", "shared", "trash", "scripts")
LASTING = {f"shared/{START_MARK}", "scripts/staging.py"}
"""What stays on a node for good."""
STANDING = LASTING | {"workitems/startup", "scripts/startup"}
"""What is there as long as its pool's start holds."""
COUNTED = ("job.submitted", "job.completed", "job.reopened", "job.deleted")


def events_of(stream: Path) -> list[Plain]:
    """Whole lines of it."""
    return [json.loads(line) for line in stream.read_text().rpartition("\n")[0].splitlines()]


def twice_ended(heard: list[Plain]) -> Iterator[str]:
    """Tasks that end again without their job being reopened."""
    ended: dict[str, set[str]] = {}
    for event in heard:
        if event["kind"] == "job.reopened":
            ended.pop(event["job"], None)
        elif event["kind"] == "task.ended":
            of_job = ended.setdefault(event["job"], set())
            if event["task"] in of_job:
                yield f"{event['task']} ended twice: {event}"
            of_job.add(event["task"])


def incarnation(root: Path) -> str:
    return (root / ".agent" / "incarnation").read_text().strip()


def settled(holds: Callable[[], bool]) -> None:
    """Wait for what goes by itself, or until patience is over."""
    deadline = time.monotonic() + SETTLED_S
    while not holds() and time.monotonic() < deadline:
        pause(0.1)


# ---- all of it


def soak(
    directory: Path, *, jobs: int, seconds: float, seed: int, hurry: float = 1.0, users: bool = False
) -> tuple[list[str], Counter[str]]:
    """What was found, and what was done. `hurry`: by how much tasks and pauses are shorter. `users`: the jobs of one
    node have users of their own."""
    cluster = Cluster(directory)
    ground = Ground(cluster, random.Random(seed), PACE_S / hurry)
    if users:
        first, leases = FIRST_UID + 1000 * (seed % 100), directory / "uids" / "leases.json"
        text = f'[users]\nfirst = {first}\ncount = 300\nleases = "{leases}"\n'
        ground.configs["n3"] = cluster.config("n3", text)
    stream = directory / "events.stream"
    try:
        ground.prepare()
        with stream.open("w") as told, (directory / "events.log").open("w") as said:
            follower = subprocess.Popen(
                [*COORDINATOR, "events", "-f", "-o", "json"], stdout=told, stderr=said,
                env={**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)},
            )  # fmt: skip
        try:
            run(ground, jobs, seconds, PAUSE_S / hurry)
            return Aftermath(ground, stream).findings(), ground.told
        finally:
            follower.kill()
            follower.wait()
    finally:
        cluster.close()


@contextlib.contextmanager
def place(users: bool) -> Iterator[Path]:
    """A directory; where jobs have users of their own, one that they see and may write to."""
    outside = [path for path in ("/srv", "/opt", "/var/lib") if Path(path).is_dir()] if users else [None]
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir=outside[0]))
    directory.chmod(0o1777 if users else 0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave the logs and the stream when something is found")
    asked = parser.parse_args()
    users = os.geteuid() == 0 and isolation_refused(FIRST_UID) is None
    with place(users) as directory:
        found, told = soak(directory, jobs=asked.jobs, seconds=asked.seconds, seed=asked.seed, users=users)
        if found and asked.keep is not None:
            asked.keep.mkdir(parents=True, exist_ok=True)
            for path in (*directory.glob("*.log"), *directory.glob("*.stream"), *directory.glob("state/*.sqlite*")):
                shutil.copy(path, asked.keep)
    print(f"{asked.jobs} jobs, {asked.seconds:g} s: {', '.join(f'{name} {count}' for name, count in told.items())}")
    print("\n".join(found) or "nothing owed, nothing left, all told once, every job and task explained")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
