"""Output as it is written, and after its node is gone."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from agentd.retention import SLACK_LEAST_S
from tests.e2e.cluster import COORDINATOR, PATIENCE_S, Cluster

LATEST_S = 0.2
"""So far behind may a follower be."""
LATE_S = 5.0
"""For a look at all directories, and the throwing away, of a machine that does much else."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


class Follower:
    """`coordinator logs -f` as a user runs it."""

    def __init__(self, cluster: Cluster, *words: str) -> None:
        environment = {**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)}
        self.process = subprocess.Popen(
            [*COORDINATOR, "logs", *words, "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def line(self) -> tuple[str, float]:
        """The next line, and when it came."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "nothing comes"
        return self.process.stdout.readline(), time.time()

    def end(self) -> tuple[str, str]:
        return self.process.communicate(timeout=PATIENCE_S)


def test_output_is_followed_live_through_retries_and_a_restart_of_the_coordinator(cluster: Cluster) -> None:
    cluster.agent("n")
    told = cluster.pipe("orders")
    job = cluster.submit(f"""
        job j {{ pool = p
          task t {{ retries = 1
            script = '''
              if [ "$BATCH_ATTEMPT" = 2 ]; then echo again; exit 0; fi
              while read -r line; do
                if [ "$line" = end ]; then printf 'no newline'; exit 1; fi
                printf '%s %s\\n' "$line" "$EPOCHREALTIME"
              done < {told.path}
            '''
          }}
        }}""")
    follower = Follower(cluster, f"{job}/t")

    def late(words: str) -> float:
        told.path.write_text(words + "\n")
        line, came = follower.line()
        said, at = line.split()
        assert said == words
        return came - float(at)

    late("first")
    delays = [late(f"line-{number}") for number in range(15)]
    assert median(delays) <= LATEST_S, delays
    cluster.kill("coordinator")
    cluster.serve()
    late("on")
    told.path.write_text("end\n")
    out, err = follower.end()
    assert follower.process.returncode == 0, err
    assert out == "no newlineagain\n"
    assert "attempt 1 has ended; attempt 2 follows" in err


def test_what_failed_tasks_wrote_outlives_their_node_and_their_directories(cluster: Cluster) -> None:
    agent = cluster.agent("n")
    job = cluster.submit("""
        job j { pool = p
          finish = manual
          task short { keep = 0s
            script = '''
              echo working; echo broken >&2; exit 3
            '''
          }
          task long { script = '''
              seq 1 100000; exit 4
            '''
          }
        }""")
    assert cluster.command("job", "wait", job, "--tasks", status=1)
    directory = cluster.root("n") / "workitems" / job
    deadline = time.monotonic() + PATIENCE_S
    while (directory / "short").exists():
        assert time.monotonic() < deadline, "its keep has passed"
        select.select([], [], [], 0.05)
    assert (directory / "long").exists(), "that of another one has not"
    gone = cluster.command("logs", f"{job}/short", "--stderr")
    assert gone.stdout == "broken\n"
    assert "kept: all of it" in gone.stderr
    agent.kill()
    cluster.until(lambda now: now["nodes"][0]["state"] == "lost")
    far = cluster.command("logs", f"{job}/long")
    whole = "".join(f"{number}\n" for number in range(1, 100_001))
    assert far.stdout == whole[: 16 << 10] + whole[-64 << 10 :]
    assert "kept: the first 16 KiB and the last 64 KiB of" in far.stderr
    assert "out of contact" in far.stderr
    assert cluster.command("logs", f"{job}/long", "--tail", "2").stdout == "99999\n100000\n"
    failed = cluster.command("logs", job, "--failed", "--tail", "1")
    assert failed.stdout == (f"==> {job}/short on n: exit 3\nworking\nbroken\n==> {job}/long on n: exit 4\n100000\n")


def test_tasks_that_keep_nothing_leave_nothing_while_their_job_goes_on(cluster: Cluster) -> None:
    cluster.agent("n", slots=2)
    job = cluster.submit("job j { pool = p\n finish = manual\n task t for i in 1..2000 { keep = 0s\n run = [true] } }")
    directory = cluster.root("n") / "workitems" / job
    seen: dict[str, float] = {}
    oldest = 0.0
    left = True
    while left:
        over = cluster.job(job)["tasks_done_at"] is not None
        now = time.monotonic()
        names = (
            {entry.name for entry in directory.iterdir() if entry.name.startswith("t-")}
            if directory.exists()
            else set()
        )
        seen = {name: seen.get(name, now) for name in names}
        oldest = max([oldest, *(now - first for first in seen.values())])
        assert oldest <= SLACK_LEAST_S + LATE_S, (oldest, len(seen))
        left = bool(names) or not over
    shown = cluster.job(job)
    assert (shown["state"], shown["tasks"]["succeeded"]) == ("active", 2_000)
    assert directory.exists(), "the job's own stays as long as it"
    cluster.command("job", "terminate", job)
