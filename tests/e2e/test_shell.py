"""`coordinator shell`, typed in at a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from tests.e2e.cluster import COORDINATOR, Cluster, gone, job_of

PATIENCE_S = 30.0

FAILS = """
job j {
  pool   = p
  finish = manual
  env { COLOUR = "red" }
  prep { script = "echo prepared > made" }
  task t { script = "echo found > it; exit 3" }
  release { run = ["true"] }
}
"""


class Typist:
    """Somebody at a terminal of 90 by 30, where `coordinator WORDS` runs."""

    def __init__(
        self, environment: dict[str, str], *words: str, complains: IO[str] | None = None, before: Sequence[str] = ()
    ) -> None:
        """`complains`: where it writes its errors, if not to the terminal; `before`: words before the command."""
        self.ours, theirs = os.openpty()
        self.before = termios.tcgetattr(theirs)
        self.resize(90, 30)
        self.said = b""
        self.process = subprocess.Popen(
            [*before, *COORDINATOR, *words], stdin=theirs, stdout=theirs, stderr=complains or theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**environment, "TERM": "xterm"},
        )  # fmt: skip
        self.theirs = theirs

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.ours)
        self.ours = -1

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def reads(self, pattern: str) -> str:
        """What matches, once it is on the screen; what stood before it is behind us then."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern.encode(), self.said, re.DOTALL)) is None:
            assert select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))[0], self.said
            self.said += os.read(self.ours, 65536)
        self.said = self.said[found.end() :]
        return found[0].decode()

    def runs(self, line: str, pattern: str) -> str:
        """Type a line; what it prints, between marks that the echo of the line does not have."""
        self.type(f"echo '<''<'; {line}; echo '>''>'\r")
        return self.reads(f"<<\r\n{pattern}\r\n>>").removeprefix("<<\r\n").removesuffix("\r\n>>")

    def starts(self) -> str:
        """The directory it says it is in."""
        where = self.reads(r"shell on n in [^\r]*\r\n~\. at the beginning of a line leaves it")
        return where.removeprefix("shell on n in ").partition("\r")[0]

    def leaves(self) -> int:
        """Its exit status; the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE_S
        while (status := self.process.poll()) is None:  # it may wait until what it wrote is taken
            assert time.monotonic() < deadline, self.said
            if select.select([self.ours], [], [], 0.05)[0]:
                self.said += os.read(self.ours, 65536)
        assert termios.tcgetattr(self.theirs) == self.before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.ours >= 0:
            os.close(self.ours)
        os.close(self.theirs)


At = Callable[..., Typist]


@pytest.fixture
def typists() -> Iterator[list[Typist]]:
    made: list[Typist] = []
    yield made
    for each in made:
        each.close()


@pytest.fixture
def at(cluster: Cluster, typists: list[Typist]) -> At:
    def sit_down(*words: str) -> Typist:
        environment = {**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)}
        typists.append(Typist(environment, "shell", *words))
        return typists[-1]

    return sit_down


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    made.agent("n")
    yield made
    made.close()


def failed(cluster: Cluster, text: str = FAILS) -> str:
    job = cluster.submit(text)
    cluster.until(lambda now: job_of(now, job)["tasks"]["failed"] == 1)
    return job


def test_a_shell_is_where_the_failed_command_was_and_ends_with_its_own_status(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(f"{job}/t")
    where = one.starts()
    assert where == f"{cluster.root('n')}/workitems/{job}/t/wd"
    assert one.runs("pwd", r"[^\r]*") == where
    assert one.runs("cat it", r"[^\r]*") == "found"
    assert one.runs("echo $BATCH_TASK_ID $BATCH_JOB_ID $COLOUR $TERM", r"[^\r]*") == f"t {job} red xterm"
    assert one.runs("id -u", r"\d+") == str(os.getuid())
    assert one.runs("stty size", r"[^\r]*") == "30 90"
    one.resize(100, 40)
    while one.runs("stty size", r"[^\r]*") != "40 100":  # the keys may overtake the window
        pass
    one.type("exit 7\r")
    assert one.leaves() == 7
    kinds = [event["kind"] for event in _events(cluster, job)]
    assert kinds == ["shell.opened", "shell.closed"]


def _events(cluster: Cluster, job: str) -> list[dict[str, str]]:
    lines = cluster.command("events", "--job", job, "-o", "json").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["kind"].startswith("shell.")]


def test_a_shell_is_where_the_preparation_was(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(job, "--node", "n", "--phase", "prep")
    assert one.starts().endswith(f"/workitems/{job}/jobpreparation/wd")
    assert one.runs("cat made", r"[^\r]*") == "prepared"
    one.type("\r~.")
    assert one.leaves() == 0


def test_keys_for_programs_reach_them_and_a_flood_is_taken_as_it_is_read(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(f"{job}/t")
    one.starts()
    one.type("cat\r")
    one.reads(r"\?2004l")
    one.type("here\r")
    one.reads("here\r\nhere\r\n")
    one.type("\x03")
    one.reads(r"\?2004h")  # what is typed before it is asked for goes with the interrupted
    assert one.runs("echo free", "free")
    assert len(one.runs("head -c 300000 /dev/zero | tr '\\0' x; echo", "x{300000}")) == 300_000
    one.type("exit\r")
    assert one.leaves() == 0


def test_the_end_of_the_job_ends_it_and_all_that_runs_in_it(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(f"{job}/t")
    one.starts()
    one.type("echo '<''<'; nohup sleep 1000 & sleep 1000\r")
    one.reads("<<")
    cluster.command("job", "terminate", job)
    one.reads(f"job `{job}` is over on node `n`")
    assert one.leaves() == 1
    assert cluster.wait(job)["state"] == "completed"
    assert cluster.nodes_of(job)["n"]["state"] == "released"


def test_whoever_is_gone_leaves_no_shell_behind(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(f"{job}/t")
    one.starts()
    said = cluster.pipe("said")
    one.type(f"sleep 1000 & echo $$ > {said.path}; echo $! > {said.path}\r")
    shell, running = (int(said.line()) for _ in range(2))
    one.process.send_signal(signal.SIGKILL)
    assert gone(shell) and gone(running)


def test_told_to_end_it_gives_the_terminal_back(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    one = at(f"{job}/t")
    one.starts()
    one.runs("echo here", "here")
    one.process.send_signal(signal.SIGTERM)
    assert one.leaves() == 130


def test_where_there_is_none_a_sentence_says_why(cluster: Cluster, at: At) -> None:
    job = failed(cluster)
    assert "needs a terminal" in cluster.command("shell", f"{job}/t", status=2).stderr
    assert "not clear where" in cluster.command("shell", job, status=2).stderr
    cluster.command("job", "terminate", job)
    cluster.wait(job)
    late = at(f"{job}/t")
    late.reads("its directories are gone")
    assert late.leaves() == 1
