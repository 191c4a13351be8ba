"""What happens to the jobs of a soak and to the processes that carry them, an act at a time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import Cluster
from tests.e2e.soak_jobs import BESIDE, BESIDE_TEXT, KINDS, PLACES, text_of
from wire import thin

NODES = ("n1", "n2", "n3")
LATEST = 4
OFFERS = ("--resource", "gpus=2", "--resource", "licence=2")
LABELS = {"n1": "zone=a", "n2": "zone=b", "n3": "zone=a"}


@dataclass
class Ground:
    """Where the acts take place: a cluster, and what was submitted to it. `configs`: of agents that need one."""

    cluster: Cluster
    random: random.Random
    pace_s: float
    configs: dict[str, Path] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    deck: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Files and daemons."""
        directory = self.cluster.directory
        for name in ("LOG", "STARTED"):
            (directory / PLACES[name]).touch()
            (directory / PLACES[name]).chmod(0o666)
        for name in ("LOCKS", "MARKS"):
            (directory / PLACES[name]).mkdir()
            (directory / PLACES[name]).chmod(0o777)
        (directory / BESIDE).write_text(BESIDE_TEXT)
        self.cluster.serve()
        for name in NODES:
            self.agent(name)
        self.deck = self.random.sample(list(ACTS), len(ACTS))

    def agent(self, name: str) -> None:
        """Start the agent, again after its death too."""
        own = ("--config", str(self.configs[name])) if name in self.configs else ()
        self.cluster.agent_unawaited(name, *own, *OFFERS, "--label", LABELS[name], slots=4)

    def submit(self) -> None:
        kind = self.random.choice(KINDS)
        priority = self.random.randint(-2, 2)
        text = text_of(kind, self.cluster.directory, priority=priority, pace_s=self.pace_s)
        self.submitted.append(self.cluster.submit(text))

    def meddle(self, pause_s: float) -> None:
        """An act; each comes once before any comes twice."""
        weights = [weight for weight, _ in ACTS.values()]
        name = self.deck.pop() if self.deck else self.random.choices(list(ACTS), weights)[0]
        self.told[name] += 1
        ACTS[name][1](self)
        pause(self.random.uniform(0.0, pause_s))

    def some_job(self) -> str:
        """One that is not over, or else one of the latest."""
        rows: list[dict[str, str]] = []
        with contextlib.closing(thin.connect(str(self.cluster.socket))) as coordinator:
            while page := coordinator.call("JobList", skip=len(rows)):
                rows += page
        names = [job["id"] for job in rows if job["state"] != "completed"]
        return self.random.choice(names or self.submitted[-LATEST:])

    def some_task(self) -> str:
        return f"{self.some_job()}/t#{self.random.randint(0, 2)}"

    def some_node(self) -> str:
        return self.random.choice(NODES)

    def attempt(self, *words: str) -> None:
        """A command that may be refused, as the moment is; but never by a mistake."""
        try:
            self.cluster.command(*words)
        except AssertionError as refused:
            if "Traceback" in str(refused):
                self.found.append(f"a command made a mistake: {refused}")

    def processes(self, fits: Callable[[str, str], bool], path: str = "") -> list[int]:
        """Those of the cluster that fit by command and environment, daemons aside."""
        own = {process.pid for process in self.cluster.processes.values()}
        found = [pid for pid in self.cluster.survivors(path) if pid not in own]
        return [pid for pid in found if fits(command_of(pid), environment_of(pid))]

    def kill_one(self, fits: Callable[[str, str], bool]) -> None:
        """One of the processes that fit, if there is any."""
        if found := self.processes(fits):
            kill(self.random.choice(found))


# ---- kills


def kill_coordinator(ground: Ground) -> None:
    ground.cluster.kill("coordinator")
    ground.cluster.serve()


def kill_agent(ground: Ground) -> None:
    name = ground.some_node()
    ground.cluster.kill(name)
    ground.agent(name)


def kill_agent_and_keepers(ground: Ground) -> None:
    name = ground.some_node()
    ground.cluster.kill(name)
    for pid in ground.processes(is_keeper, str(ground.cluster.root(name))):
        kill(pid)
    ground.agent(name)


def power_off(ground: Ground) -> None:
    name = ground.some_node()
    ground.cluster.power_off(name)
    ground.agent(name)


def restart_agent(ground: Ground) -> None:
    name = ground.some_node()
    ground.cluster.kill(name, signal.SIGTERM)
    ground.agent(name)


def stop_agent(ground: Ground) -> None:
    name = ground.some_node()
    ground.cluster.kill(name, signal.SIGSTOP)
    pause(ground.random.uniform(0.0, 3.0))
    ground.cluster.kill(name, signal.SIGCONT)


def kill_keeper(ground: Ground) -> None:
    ground.kill_one(is_keeper)


def kill_task(ground: Ground) -> None:
    ground.kill_one(lambda _, environment: "BATCH_JOB_ID=" in environment)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# ---- what owners and operators do


def drain(ground: Ground) -> None:
    deadline = ground.random.choice(((), ("--deadline", "0s"), ("--deadline", "1s")))
    ground.attempt("node", "drain", ground.some_node(), "--no-wait", *deadline)


def enable_nodes(ground: Ground) -> None:
    for name in NODES:
        ground.attempt("node", "enable", name)


def disable(ground: Ground) -> None:
    ground.attempt("job", "disable", ground.some_job(), ground.random.choice(("--requeue", "--terminate", "--wait")))


def enable_jobs(ground: Ground) -> None:
    for job in ground.cluster.ask("job", "list"):
        if job["state"] in ("disabled", "disabling"):
            ground.attempt("job", "enable", job["id"])


def change(ground: Ground) -> None:
    parallel = ground.random.choice(("1", "3", "none"))
    timeout = ground.random.choice(("20s", "1h", "none"))
    priority = str(ground.random.randint(-3, 3))
    ground.attempt(
        "job", "set", ground.some_job(), "--priority", priority, "--parallel", parallel, "--timeout", timeout
    )


def retry(ground: Ground) -> None:
    which = ground.random.choice(((), ("--failed",), ("--skipped",), ("--cancelled",)))
    ground.attempt("job", "retry", ground.random.choice(ground.submitted), *which)


def cancel(ground: Ground) -> None:
    ground.attempt("task", "cancel", ground.some_task())


def retry_prep(ground: Ground) -> None:
    barred = [job for job in ground.submitted[-4 * LATEST :] if job.startswith("barring")]
    job = ground.random.choice(barred or ground.submitted)
    for name in NODES:
        ground.attempt("node", "retry-prep", name, "--job", job)


def terminate(ground: Ground) -> None:
    ground.attempt("job", "terminate", ground.some_job())


def delete(ground: Ground) -> None:
    ground.attempt("job", "delete", "--yes", ground.some_job())


def look(ground: Ground) -> None:
    """Ask something."""
    ground.attempt(
        *ground.random.choice(
            (
                ("explain", ground.some_job()),
                ("explain", ground.some_task()),
                ("job", "show", ground.some_job()),
                ("job", "nodes", ground.some_job()),
                ("task", "list", ground.some_job()),
                ("task", "show", ground.some_task()),
                ("node", "list"),
                ("node", "show", ground.some_node()),
                ("events", "--job", ground.some_job()),
            )
        )
    )


def read_logs(ground: Ground) -> None:
    ground.attempt(
        *ground.random.choice(
            (
                ("logs", ground.some_task()),
                ("logs", ground.some_task(), "--stderr", "--tail", "3"),
                ("logs", ground.some_job(), "--failed"),
                ("logs", ground.some_job(), "--node", ground.some_node(), "--phase", "prep"),
                ("logs", "--node", ground.some_node(), "--phase", "start"),
            )
        )
    )


ACTS: dict[str, tuple[int, Callable[[Ground], None]]] = {
    "kill the coordinator": (6, kill_coordinator),
    "kill an agent": (5, kill_agent),
    "kill an agent and its keepers": (3, kill_agent_and_keepers),
    "kill all of a node": (2, power_off),
    "restart an agent": (2, restart_agent),
    "stop an agent": (2, stop_agent),
    "kill a keeper": (4, kill_keeper),
    "kill a task": (6, kill_task),
    "drain a node": (2, drain),
    "enable the nodes": (3, enable_nodes),
    "disable a job": (4, disable),
    "enable the jobs": (4, enable_jobs),
    "set a job": (3, change),
    "retry a job": (5, retry),
    "cancel a task": (4, cancel),
    "prepare again": (1, retry_prep),
    "terminate a job": (2, terminate),
    "delete a job": (2, delete),
    "look": (4, look),
    "read logs": (4, read_logs),
}
"""By weight."""


def pause(seconds: float) -> None:
    """Between two acts: what is killed must have been at something."""
    threading.Event().wait(seconds)


def is_keeper(command: str, _: str) -> bool:
    return "keeper.py" in command


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def environment_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""
