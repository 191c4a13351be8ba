"""The `coordinator` command as people use it: real processes, a private home, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PATIENCE_S = 60.0
GOING_S = 60.0
"""From the death of a `run` to the end of its last process."""


@dataclass
class Ended:
    status: int
    out: str
    err: str


class Home:
    """A user's home on this machine. What runs for it is found by its path in command lines and directories."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path / "tmp"
        self.temporary.mkdir()
        self.bin = path / "bin"
        self.bin.mkdir()
        for name, module in (("coordinator", "coordinator.cli"), ("agentd", "agentd")):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
            script.chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(path),
            "XDG_STATE_HOME": str(path / "state"),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
        }

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["coordinator", *arguments],
            env=self.environment,
            executable=str(self.bin / "coordinator"),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "stdin": subprocess.DEVNULL, **more},
        )

    def run(self, *arguments: str, **more: Any) -> Ended:
        return ended(self.start(*arguments, **more))

    def file(self, text: str) -> str:
        path = self.path / "job.batch"
        path.write_text(f"edition = 1\n{text}")
        return str(path)

    def processes(self, containing: str = "") -> dict[int, str]:
        """Every process that belongs here, with its command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                directory = os.readlink(entry / "cwd")
            except OSError:
                continue
            if (str(self.path) in words or directory.startswith(str(self.path))) and containing in words:
                found[int(entry.name)] = words
        return found

    def state_directories(self) -> list[Path]:
        return sorted(self.temporary.glob("poolkeeper-*"))

    def wait_gone(self, seconds: float = GOING_S) -> None:
        """Until no process of this home is left; fails with what is left."""
        for pid in self.processes():
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                ready, _, _ = select.select([handle], [], [], seconds)
                assert ready, f"still there after {seconds} s: {self.processes()}"
            finally:
                os.close(handle)
        assert self.processes() == {}


def ended(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"not over after {PATIENCE_S} s\n{out}\n{err}") from None
    return Ended(process.returncode, out or "", err or "")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def a_job(body: str, pool: str = "") -> str:
    """A file with a job `j` in a pool `p`."""
    return f"pool p {{{pool}}}\njob j {{\n  pool = p\n{body}\n}}\n"


TRIVIAL = a_job("task t { run = ['true'] }")


def nothing_left(home: Home) -> None:
    assert home.processes() == {}
    assert home.state_directories() == []
    assert list((home.path / "state" / "poolkeeper").rglob("*.json")) == []


def fifo(home: Home, name: str) -> Path:
    path = home.path / name
    os.mkfifo(path)
    return path


def heard(path: Path) -> str:
    """What a task writes into a pipe: waits until it does."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ready, _, _ = select.select([fd], [], [], PATIENCE_S)
        assert ready, f"nobody wrote to {path}"
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


# A task that says when it runs and then waits to be killed; the release writes a line that outlives it.
LASTING = """
pool p {{ nodes = {nodes} }}
job lasting {{
  pool = p
  prep {{ script = 'true' }}
  task t for n in 1..{nodes} {{ script = 'echo running > {told}; exec sleep 1000' }}
  release {{ script = 'echo "$BATCH_NODE_ID $BATCH_END_REASON" >> {paid}' }}
}}
"""


def lasting(home: Home, nodes: int = 1) -> tuple[str, Path, Path]:
    told, paid = fifo(home, "told"), home.path / "paid"
    return home.file(LASTING.format(nodes=nodes, told=told, paid=paid)), told, paid


# ---- the sample


@pytest.mark.e2e
def test_the_sample_prints_what_is_documented(home: Home) -> None:
    shown = home.run("run", str(EXAMPLES / "prep_release.batch"))
    assert shown.status == 0, shown.err
    hellos = []
    for node in ("demo-1", "demo-2"):
        head = f"Contents of shared/job_prep_and_release.txt on {node}:\n{'-' * 43}\n{node} tasks:\n"
        assert head in shown.out
        block = shown.out.split(head)[1].split(f"{node}:\n")[0]
        hellos += block.split()
        codes = f"{block}{node}:\n  Prep task exit code:    0\n  Release task exit code: 0\n"
        assert head + codes in shown.out
    assert sorted(hellos) == [f"hello-{n}" for n in range(1, 9)]
    assert "success, 8 tasks: 8 succeeded" in shown.out
    nothing_left(home)


@pytest.mark.e2e
def test_the_walk_through_of_the_client_prints_the_same(home: Home) -> None:
    process = subprocess.Popen(
        [str(EXAMPLES / "prep_release.sh")],
        env=home.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = ended(process)
    assert shown.status == 0, shown.err
    for node in ("demo-1", "demo-2"):
        head = f"Contents of shared/job_prep_and_release.txt on {node}:\n{'-' * 43}\n{node} tasks:\n  hello-"
        assert head in shown.out
        assert f"{node}:\n  Prep task exit code:    0\n  Release task exit code: 0\n" in shown.out
    assert sorted(word for word in shown.out.split() if word.startswith("hello-")) == [
        f"hello-{n}" for n in range(1, 9)
    ]
    home.wait_gone()
    assert list(home.temporary.iterdir()) == []


@pytest.mark.e2e
def test_the_result_as_json_is_one_document(home: Home) -> None:
    shown = home.run("run", str(EXAMPLES / "prep_release.batch"), "-o", "json")
    assert shown.status == 0, shown.err
    [job] = json.loads(shown.out)["jobs"]
    assert (job["id"], job["state"], job["result"]) == ("prep_release-1", "completed", "success")
    assert job["tasks"]["succeeded"] == 8
    assert job["release"]["succeeded"] == len(job["nodes"])
    assert [task["id"] for task in job["tasks_list"]] == [f"prep_release-1/hello[{n}]" for n in range(1, 9)]
    assert {row["prep"]["exit_code"] for row in job["nodes"]} == {0}
    assert {row["release"]["exit_code"] for row in job["nodes"]} == {0}


# ---- what goes wrong in the file or its tasks


@pytest.mark.e2e
def test_a_broken_file_is_status_2_and_starts_nothing(home: Home) -> None:
    shown = home.run("run", home.file("pool p {}\njob j {\n  pool = q\n  task t { rn = ['true'] }\n}\n"))
    assert (shown.status, shown.out) == (2, "")
    assert "error[" in shown.err
    assert "job.batch:4" in shown.err
    nothing_left(home)


@pytest.mark.e2e
def test_a_task_that_fails_is_status_1_with_its_last_words(home: Home) -> None:
    text = a_job("task t { script = 'echo boom >&2; exit 3' }\n  task u { after = t  run = ['true'] }")
    shown = home.run("run", home.file(text))
    assert shown.status == 1
    assert "  t on p-1: exit code 3\n    boom\n" in shown.out
    assert "1 task of j-1 failed" in shown.err
    assert "1 task of j-1 was skipped" in shown.err
    as_json = home.run("run", home.file(text), "-o", "json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["jobs"][0]["result"] == "failure"
    nothing_left(home)


@pytest.mark.e2e
def test_a_release_that_fails_is_status_1(home: Home) -> None:
    text = (
        "pool p {}\njob j {\n  pool = p\n  task t { run = ['true'] }\n  release { script = 'echo oh >&2; exit 4' }\n}\n"
    )
    shown = home.run("run", home.file(text))
    assert shown.status == 1
    assert "p-1:\n  Release task exit code: 4\n    oh\n" in shown.out
    assert "the release of j-1 on p-1 failed" in shown.err
    nothing_left(home)


@pytest.mark.e2e
def test_a_preparation_that_fails_on_one_node_is_a_warning_when_the_tasks_succeed(home: Home) -> None:
    text = """pool p { nodes = 2 }
job j {
  pool = p
  prep { script = '[ "$BATCH_NODE_ID" = p-2 ] || exit 1' }
  task t for n in 1..4 { run = ['true'] }
}
"""
    shown = home.run("run", home.file(text))
    assert shown.status == 0, shown.err
    assert "warning: the preparation of j-1 failed on p-1" in shown.err


@pytest.mark.e2e
def test_params_come_from_the_command_line_and_from_a_file(home: Home) -> None:
    (home.path / "values").write_text("# of today\nword = from the file\n")
    text = "param word: string\nparam n: int = 1\n" + a_job("task t { script = 'echo \"$word $n\"' }")
    path = home.file(text)
    assert home.run("run", path).status == 2
    shown = home.run("run", path, "--params", str(home.path / "values"), "--follow")
    assert "t: from the file 1\n" in shown.out
    shown = home.run(
        "run", path, "--params", str(home.path / "values"), "--param", "word=mine", "--param", "n=7", "--follow"
    )
    assert "t: mine 7\n" in shown.out


@pytest.mark.e2e
def test_following_prints_every_line_with_the_name_of_its_task(home: Home) -> None:
    text = a_job("task t for n in 1..3 { script = 'echo one $n; echo two $n >&2' }", " slots = 2 ")
    shown = home.run("run", home.file(text), "--follow")
    assert shown.status == 0, shown.err
    for n in (1, 2, 3):
        assert f"t[{n}]: one {n}\n" in shown.out
        assert f"t[{n}]: two {n}\n" in shown.err


# ---- the state directory


@pytest.mark.e2e
def test_a_kept_state_directory_is_named_and_one_in_use_is_refused(home: Home) -> None:
    chosen = home.path / "kept"
    text = a_job("task t { script = 'echo hello' }")
    shown = home.run("run", home.file(text), "--state", str(chosen), "--keep")
    assert shown.status == 0, shown.err
    assert f"kept: {chosen}" in shown.err
    assert (chosen / "nodes" / "p-1" / "workitems" / "j-1" / "t" / "stdout.txt").read_text() == "hello\n"
    again = home.run("run", home.file(text), "--state", str(chosen))
    assert again.status == 2
    assert "not empty" in again.err
    assert home.processes() == {}


# ---- interrupts and death


@pytest.mark.e2e
def test_an_interrupt_ends_the_jobs_and_releases_the_nodes_first(home: Home) -> None:
    path, told, paid = lasting(home)
    process = home.start("run", path)
    heard(told)
    process.send_signal(signal.SIGINT)
    shown = ended(process)
    assert shown.status == 130, shown.err
    assert paid.read_text() == "p-1 UserTerminate\n"
    assert "interrupted" in shown.err
    nothing_left(home)


@pytest.mark.e2e
def test_a_second_interrupt_leaves_at_once_and_the_daemons_finish(home: Home) -> None:
    told, paid, held = fifo(home, "told"), home.path / "paid", fifo(home, "held")
    text = f"""pool p {{}}
job j {{
  pool = p
  task t {{ script = 'echo running > {told}; exec sleep 1000' }}
  release {{ script = 'echo releasing > {told}; cat {held}; echo paid > {paid}' }}
}}
"""
    process = home.start("run", home.file(text))
    heard(told)
    process.send_signal(signal.SIGINT)
    heard(told)
    process.send_signal(signal.SIGINT)
    assert ended(process).status == 130
    assert not paid.exists()
    with held.open("w") as pipe:
        pipe.write("go\n")
    home.wait_gone()
    assert paid.read_text() == "paid\n"


@pytest.mark.e2e
def test_when_run_is_killed_its_daemons_release_and_go_and_the_next_run_cleans_up(home: Home) -> None:
    path, told, paid = lasting(home, nodes=2)
    process = home.start("run", path)
    heard(told)
    process.kill()
    ended(process)
    home.wait_gone()
    assert "p-1" in paid.read_text() or "p-2" in paid.read_text()
    assert len(home.state_directories()) == 1
    shown = home.run("run", home.file(TRIVIAL))
    assert shown.status == 0, shown.err
    nothing_left(home)


@pytest.mark.e2e
def test_what_a_dead_machine_left_is_finished_by_the_next_run(home: Home) -> None:
    path, told, paid = lasting(home)
    process = home.start("run", path)
    heard(told)
    for pid in home.processes():
        os.kill(pid, signal.SIGKILL)
    ended(process)
    home.wait_gone()
    assert not paid.exists()
    shown = home.run("run", home.file(TRIVIAL))
    assert shown.status == 0, shown.err
    assert "finishing what an earlier run left" in shown.err
    assert paid.read_text().startswith("p-1 ")
    nothing_left(home)


GATED = """
pool p {{}}
job gated {{
  pool = p
  task t {{ script = 'echo running > {told}; cat {gate}' }}
  release {{ script = 'echo paid >> {paid}' }}
}}
"""


@pytest.mark.e2e
@pytest.mark.parametrize("daemon", ["coordinator.cli serve", "-m agentd"])
def test_a_daemon_that_is_killed_is_started_again_and_nothing_is_lost(home: Home, daemon: str) -> None:
    told, gate, paid = fifo(home, "told"), fifo(home, "gate"), home.path / "paid"
    process = home.start("run", home.file(GATED.format(told=told, gate=gate, paid=paid)))
    heard(told)
    [victim] = home.processes(daemon)
    os.kill(victim, signal.SIGKILL)
    with gate.open("w") as pipe:
        pipe.write("go\n")
    shown = ended(process)
    assert shown.status == 0, shown.err
    assert "started again" in shown.err
    assert paid.read_text() == "paid\n"
    nothing_left(home)


@pytest.mark.e2e
def test_on_a_terminal_progress_is_drawn_and_taken_back(home: Home) -> None:
    leader, follower = pty.openpty()
    process = home.start("run", str(EXAMPLES / "prep_release.batch"), stderr=follower)
    os.close(follower)
    drawn = b""
    while True:
        try:
            piece = os.read(leader, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.close(leader)
    assert ended(process).status == 0
    assert b"prep_release-1" in drawn
    assert b"\x1b[" in drawn
    assert drawn.endswith(b"\x1b[J")


# ---- the daemon and its clients


@pytest.mark.e2e
def test_a_second_coordinator_on_a_state_directory_is_refused(home: Home) -> None:
    state = home.path / "served"
    first = home.start("serve", "--state", str(state))
    assert first.stdout is not None
    assert "ready" in first.stdout.readline()
    second = home.run("serve", "--state", str(state))
    assert second.status == 3
    assert second.err.strip()
    assert "Traceback" not in second.err
    first.send_signal(signal.SIGTERM)
    assert ended(first).status == 0


@pytest.mark.e2e
def test_output_that_nobody_reads_is_no_traceback(home: Home) -> None:
    process = home.start("--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait(PATIENCE_S)
    process.stderr.close()
    assert "Traceback" not in err
    assert "Exception" not in err


@pytest.mark.e2e
def test_a_full_disk_under_the_output_is_a_sentence(home: Home) -> None:
    with open("/dev/full", "w") as full:
        shown = home.run("--help", stdout=full)
    assert shown.status == 1
    assert shown.err == "error: the output could not be written: No space left on device\n"
