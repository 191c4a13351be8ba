"""A soak: agents and jobs by the hundred while everything is killed at random, then a look at what is left.

`python -m tests.e2e.soak --seconds 600 --jobs 200` is the long one; the suite runs a short one. What happens is
chosen by a seed; how it falls among the processes is not, so a finding is kept by its story, not replayed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, gone
from wire import thin

NODES = ("n1", "n2", "n3")
POOL = "pool p { slots = 4  lost_after = 4s }"
PATIENCE_S = 300.0

JOBS: dict[str, str] = {
    "plain": """
      prep { retries = 5  script = '''
        echo open > "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID"
      ''' }
      task t for i in 1..4 { retries = 2  keep = 0s  script = '''
        test -e "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID" || echo "$BATCH_JOB_ID/$BATCH_TASK_ID unprepared" >> $LOG
        echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
        sleep 0.$i
      ''' }
      task last { after = t  keep = 0s  run = ["true"] }
      release { retries = 9  script = '''
        rm -f "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID"
      ''' }
    """,
    "bare": """
      task t for i in 1..6 { keep = 0s  script = '''
        echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
      ''' }
    """,
    "failing": """
      task t for i in 1..4 { retries = 1  keep = 0s  script = '''
        echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
        exit $((i % 2 * 3))
      ''' }
      task after_all { after = t  keep = 0s  run = ["true"] }
    """,
    "daemons": """
      prep { retries = 5  script = '''
        setsid sleep 3000 < /dev/null > /dev/null 2>&1 &
      ''' }
      task t for i in 1..2 { retries = 3  keep = 0s  script = '''
        echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
        setsid sleep 3000 < /dev/null > /dev/null 2>&1 &
        sleep 0.2
      ''' }
    """,
    "slow": """
      task t for i in 1..2 { timeout = 700ms  keep = 0s  script = '''
        echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
        sleep $i
      ''' }
    """,
}
"""What a job does; `$LOG` and `$STARTED` are files of the soak."""


@dataclass
class Soak:
    """One soak over a cluster that has its coordinator and agents."""

    cluster: Cluster
    random: random.Random
    jobs: int
    seconds: float
    submitted: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    @property
    def log(self) -> Path:
        return self.cluster.directory / "violations"

    @property
    def started(self) -> Path:
        return self.cluster.directory / "started"

    # ---- while it lasts

    def run(self) -> None:
        """Submit, meddle and kill until the time is over, then have everything come to its end."""
        for path in (self.log, self.started):
            path.touch()
        self.cluster.serve()
        for name in NODES:
            self.cluster.agent(name, slots=4)
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < self.seconds or len(self.submitted) < self.jobs:
            due = min(self.jobs, 1 + int(self.jobs * passed / self.seconds))
            if len(self.submitted) < due:
                self._submit()
            else:
                self._meddle()
        self._mend()
        self._all_over()

    def _meddle(self) -> None:
        names, weights = zip(*((name, weight) for name, (weight, _) in ACTS.items()), strict=True)
        name = self.random.choices(names, weights)[0]
        self.told[name] += 1
        ACTS[name][1](self)
        pause(self.random.uniform(0.0, 0.6))

    def _submit(self) -> None:
        kind = self.random.choice(list(JOBS))
        body = JOBS[kind].replace("$LOG", str(self.log)).replace("$STARTED", str(self.started))
        priority = self.random.randint(-2, 2)
        text = f"{POOL}\njob {kind} {{\n pool = p  priority = {priority}  release_grace = 2m\n{body}\n}}\n"
        self.submitted.append(self.cluster.submit(text))

    def some_job(self) -> str | None:
        """One of the latest."""
        return self.random.choice(self.submitted[-12:]) if self.submitted else None

    def try_command(self, *words: str) -> None:
        """What may be refused, as the moment is."""
        with contextlib.suppress(AssertionError):
            self.cluster.command(*words)

    # ---- at the end

    def _mend(self) -> None:
        """Everything runs, nothing is kept from running."""
        if "coordinator" not in self.cluster.processes:
            self.cluster.serve()
        for name in NODES:
            if name not in self.cluster.processes:
                self.cluster.agent_unawaited(name, slots=4)

    def _all_over(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with thin.connect(str(self.cluster.socket)) as coordinator:
            for job in self.submitted:
                left = max(1.0, deadline - time.monotonic())
                with contextlib.suppress(thin.ThinError):
                    coordinator.call("JobWait", job=job, timeout_s=left)

    def findings(self) -> list[str]:
        """What should not be: nothing is owed, nothing is left, nothing ran twice or too early, all is explained."""
        found = self.log.read_text().splitlines()
        starts = Counter(self.started.read_text().splitlines())
        found += [f"started {count} times: {start}" for start, count in starts.items() if count > 1]
        for job in self.cluster.ask("job", "list"):
            found += self._of_job(job)
        for node in self.cluster.ask("node", "list"):
            if node["owes"]:
                found.append(f"{node['id']} owes {node['owes']}")
        for name in NODES:
            found += self._of_node(name)
        own = {process.pid for process in self.cluster.processes.values()}
        left = [pid for pid in self.cluster.survivors() if pid not in own and not gone(pid, 20.0)]
        found += [f"process {pid} is left: {command_of(pid)}" for pid in left]
        for name in ("coordinator", *NODES):
            text = (self.cluster.directory / f"{name}.log").read_text()
            if "Traceback" in text:
                found.append(f"{name} made a mistake: {text[-3000:]}")
        return found

    def _of_job(self, job: dict[str, Any]) -> list[str]:
        found = []
        if job["state"] != "completed":
            found.append(f"{job['id']} is {job['state']}: {self.cluster.command('explain', job['id']).stdout}")
        if any(job["release"][state] for state in ("owed", "failed", "unreached")):
            found.append(f"{job['id']}: releases {job['release']}")
        told = self.cluster.ask("explain", job["id"])
        if not told["reason"] or told["code"] in ("ready", "running"):
            found.append(f"{job['id']} is explained by {told}")
        return found

    def _of_node(self, name: str) -> list[str]:
        root = self.cluster.root(name)
        left = [str(path.relative_to(root)) for part in ("workitems", "shared") for path in (root / part).glob("*")]
        return [f"{name} has {path}" for path in left]


# ---- what happens to it


def kill_coordinator(soak: Soak) -> None:
    soak.cluster.kill("coordinator")
    soak.cluster.serve()


def kill_agent(soak: Soak) -> None:
    name = soak.random.choice(NODES)
    soak.cluster.kill(name)
    soak.cluster.agent_unawaited(name, slots=4)


def stop_agent(soak: Soak) -> None:
    name = soak.random.choice(NODES)
    soak.cluster.kill(name, signal.SIGSTOP)
    pause(soak.random.uniform(0.0, 3.0))
    soak.cluster.kill(name, signal.SIGCONT)


def kill_keeper(soak: Soak) -> None:
    kill_one(soak, lambda command, _: "keeper.py" in command)


def kill_task(soak: Soak) -> None:
    kill_one(soak, lambda _, environment: "BATCH_JOB_ID=" in environment)


def kill_one(soak: Soak, fits: Callable[[str, str], bool]) -> None:
    """One of the cluster's processes that fits, if there is any."""
    own = {process.pid for process in soak.cluster.processes.values()}
    found = [pid for pid in soak.cluster.survivors() if pid not in own and fits(command_of(pid), environment_of(pid))]
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(soak.random.choice(found), signal.SIGKILL)


def terminate(soak: Soak) -> None:
    if (job := soak.some_job()) is not None:
        soak.try_command("job", "terminate", job)


def delete(soak: Soak) -> None:
    if (job := soak.some_job()) is not None:
        soak.try_command("job", "delete", "--yes", job)


ACTS: dict[str, tuple[int, Callable[[Soak], None]]] = {
    "kill the coordinator": (3, kill_coordinator),
    "kill an agent": (3, kill_agent),
    "stop an agent": (1, stop_agent),
    "kill a keeper": (2, kill_keeper),
    "kill a task": (3, kill_task),
    "terminate a job": (1, terminate),
    "delete a job": (1, delete),
}
"""By weight."""


def pause(seconds: float) -> None:
    """Between two acts: what is killed must have been at something."""
    threading.Event().wait(seconds)


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def environment_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""


def soak(directory: Path, *, jobs: int, seconds: float, seed: int) -> tuple[list[str], Counter[str]]:
    """What was found, and what was done."""
    cluster = Cluster(directory)
    try:
        made = Soak(cluster, random.Random(seed), jobs, seconds)
        made.run()
        return made.findings(), made.told
    finally:
        cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        found, told = soak(Path(directory), jobs=asked.jobs, seconds=asked.seconds, seed=asked.seed)
    print(f"{asked.jobs} jobs, {asked.seconds:g} s: {', '.join(f'{name} {count}' for name, count in told.items())}")
    print("\n".join(found) or "nothing owed, nothing left, every job explained")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
