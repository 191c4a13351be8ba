"""What the coordinator's answers cost where there is much to look at: its core alone, in processor time.

The floor of an answer is what no answer can do without: to look at every node once, and to encode what was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.measure import line
from coordinator.events import Received
from tests.coordinator.playbook import Play, job, tasks
from wire import messages as m
from wire.codec import encode_value

STEP_MS = 20.0
"""No step of the core over this: whoever asks holds up everybody for so long."""


@dataclass(frozen=True)
class Asked:
    """A question that is answered at once."""

    name: str
    message: m.Message


def scene(nodes: int, size: int) -> tuple[Play, list[Asked]]:
    """A cluster with two jobs of so many tasks together, one that runs and one that waits, and what is asked."""
    play = Play(checking=False)
    for number in range(nodes):
        play.node(f"n{number}", slots=2)
    fourth = size // 4
    after = [{"group": 0, "axes": ["i"]}]
    runs = play.submit(job("runs", tasks(size=2 * fourth)))
    waits = play.submit(job("waits", tasks(size=fourth), tasks("then", size=fourth, after=after), priority=-5))
    questions = {
        "explain, a task that runs": m.Explain(1, f"{runs}/t[0]"),
        "explain, a task that waits for its turn": m.Explain(1, f"{waits}/t[{fourth - 1}]"),
        "explain, a task that waits for another": m.Explain(1, f"{waits}/then[{fourth // 2}]"),
        "explain, a job that runs": m.Explain(1, runs),
        "explain, a job that waits": m.Explain(1, waits),
        "top": m.Top(1, 100),
        "job list, a page": m.JobList(1),
        "job show": m.JobShow(1, runs),
        "job nodes, a page": m.JobNodes(1, runs),
        "node list, a page": m.NodeList(1),
        "task list, a page": m.TaskList(1, runs),
        "task list, the page in the middle": m.TaskList(1, runs, after=f"{runs}/t[{fourth}]"),
        "task list, what runs": m.TaskList(1, runs, state="running"),
    }
    return play, [Asked(*question) for question in questions.items()]


def cpu_s(act: Callable[[], object], rounds: int) -> float:
    """Processor time of this thread for it, the median."""
    spent = []
    for _ in range(rounds):
        begin = time.thread_time()
        act()
        spent.append(time.thread_time() - begin)
    return median(spent)


def answer(play: Play, asked: Asked) -> Any:
    """The frame that answers it."""
    play.core.handle(Received(play.admin.epoch or 0, asked.message), play.now)
    [(_, reply)] = play.core.take_ready().frames
    assert isinstance(reply, m.Reply), f"{asked.name}: {reply}"
    return reply


def explain(nodes: int, size: int, rounds: int) -> None:
    """Every question in turn, the same each time."""
    play, questions = scene(nodes, size)
    print(f"the core's answers, {size:,} tasks on {nodes:,} nodes, processor time, median of {rounds}")
    for asked in questions:
        reply = answer(play, asked)
        known = play.core.cluster.nodes.values()
        floor = cpu_s(lambda: (sum(node.used for node in known), encode_value(reply)), rounds)  # noqa: B023
        took = cpu_s(lambda: encode_value(answer(play, asked)), rounds)  # noqa: B023
        over = f", over {STEP_MS:.0f} ms" if 1000 * took > STEP_MS else ""
        size_kib = len(encode_value(reply)) / 1024
        line(asked.name, f"{1000 * took:.2f} ms, {took / floor:.0f} times its floor, {size_kib:.0f} KiB{over}")
