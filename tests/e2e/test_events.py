"""The stream of events with real processes: followed over the death of the coordinator, without loss or repetition."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import COORDINATOR, Cluster

pytestmark = pytest.mark.e2e

JOB = """
job watched {
  pool = p
  task a for i in 1..6 { run = ["true"] }
  task b { after = a run = ["sh", "-c", "read line < $pipe"] }
}
"""

GONE = """
job gone {
  pool = p
  task t { run = ["true"] }
}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


class Following:
    """`coordinator events -f`, line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._rest = b""
        self.told: list[dict[str, Any]] = []

    def until(self, kind: str, job: str | None = None) -> dict[str, Any]:
        """The next event of this kind; all before it are in `told`."""
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if not found:
                assert select.select([self._fd], [], [], 60)[0], f"no {kind}; told: {self.told}"
                more = os.read(self._fd, 65536)
                assert more, f"it ended without {kind}; told: {self.told}"
                self._rest += more
                continue
            self._rest = rest
            event = json.loads(line)
            self.told.append(event)
            if event["kind"] == kind and job in (None, event["job"]):
                return dict(event)


@contextmanager
def following(cluster: Cluster, *words: str) -> Iterator[Following]:
    process = subprocess.Popen(
        [*COORDINATOR, "events", "-f", "-o", "json", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)},
    )  # fmt: skip
    try:
        yield Following(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def everything(cluster: Cluster, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cluster.command("events", "-o", "json", *words).stdout.splitlines()]


def test_events_are_followed_over_the_coordinators_death_without_loss_or_repetition(cluster: Cluster) -> None:
    cluster.serve()
    cluster.agent("n1", slots=2)
    pipe = cluster.directory / "go.pipe"
    os.mkfifo(pipe)
    with following(cluster) as watch:
        job = cluster.submit(JOB.replace("$pipe", str(pipe)))
        while watch.until("task.granted", job)["task"] != f"{job}/b":
            pass
        before = everything(cluster)
        cluster.kill("coordinator")
        cluster.serve()
        pipe.write_text("go on\n")
        watch.until("job.completed", job)
        after = everything(cluster)
        assert watch.told == after[: len(watch.told)]
    assert after[: len(before)] == before
    ids = [event["id"] for event in after]
    assert ids == sorted(set(ids))
    ends = [event["task"] for event in after if event["kind"] == "task.ended"]
    assert sorted(ends) == sorted([f"{job}/b", *(f"{job}/a[{i}]" for i in range(1, 7))])
    assert everything(cluster, "--job", "watched") == [event for event in after if event["job"] == job]
    assert everything(cluster, "--since", str(ids[3])) == after[4:]


def test_a_deleted_job_leaves_a_gap_and_ends_who_follows_it(cluster: Cluster) -> None:
    cluster.serve()
    cluster.agent("n1")
    job = cluster.submit(GONE)
    cluster.wait(job)
    with following(cluster, "--job", job) as watch:
        watch.until("job.completed")
        cluster.command("job", "delete", job, "--yes")
        watch.until("job.deleted")
    told = everything(cluster)
    assert {event["kind"] for event in told} >= {"gap", "node.joined", "job.deleted"}
    assert [event["kind"] for event in told if event["job"] == job] == ["job.deleted"]
    cluster.command("events", "--job", job, status=4)
