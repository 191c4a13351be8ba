"""Output as it is written, and after its node is gone."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.e2e.cluster import COORDINATOR, PATIENCE_S, Cluster

LATEST_S = 0.2
"""So far behind may a follower be."""


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
