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
                environment = (entry / "environ").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            here = str(self.path)
            if (here in words or here in environment or directory.startswith(here)) and containing in words:
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
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # as a writer too: an earlier writer that closes is no end
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
def test_what_the_coordinator_refuses_is_status_2_at_once(home: Home) -> None:
    shown = home.run("run", home.file(a_job("task t { run = ['true']  slots = 3 }", " slots = 2 ")))
    assert (shown.status, shown.out) == (2, "")
    assert "job.batch:5:" in shown.err
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
@pytest.mark.parametrize("coordinator_too", [False, True])
def test_when_run_is_killed_its_daemons_release_and_go_and_the_next_run_cleans_up(
    home: Home, coordinator_too: bool
) -> None:
    path, told, paid = lasting(home)
    process = home.start("run", path)
    heard(told)
    process.kill()
    if coordinator_too:
        [victim] = home.processes("coordinator.cli serve")
        os.kill(victim, signal.SIGKILL)
    ended(process)
    home.wait_gone()
    assert paid.read_text() == "p-1 UserTerminate\n"
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


@pytest.mark.e2e
def test_an_interrupt_before_anything_was_submitted_leaves_nothing(home: Home) -> None:
    path, _, paid = lasting(home, nodes=3)
    process = home.start("run", path)
    while not home.processes("-m agentd"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    shown = ended(process)
    assert shown.status == 130
    assert not paid.exists() or paid.read_text().endswith("UserTerminate\n")
    nothing_left(home)


@pytest.mark.e2e
def test_long_outputs_of_many_nodes_do_not_end_a_run(home: Home) -> None:
    loud = '\'head -c 70000 /dev/zero | tr "\\0" x; head -c 70000 /dev/zero | tr "\\0" y >&2\''
    tasks = "task t for n in 1..5 { run = ['sleep', '0.1'] }"
    body = f"prep {{ script = {loud} }}\n  {tasks}\n  release {{ script = {loud} }}"
    shown = home.run("run", home.file(a_job(body, " nodes = 5 ")))
    assert shown.status == 0, shown.err
    assert shown.out.count("\n" + "x" * 65_536 + "\np-") == shown.out.count("Release task exit code: 0") > 0


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


@pytest.mark.e2e
def test_ctrl_c_on_the_terminal_reaches_run_and_not_its_daemons(home: Home) -> None:
    path, told, paid = lasting(home)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", str(home.bin / "coordinator"), "run", path],
        env=home.environment,
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(follower)
    heard(told)
    os.write(leader, b"\x03")
    shown = ended(process)
    os.close(leader)
    assert shown.status == 130, shown.err
    assert "started again" not in shown.err
    assert paid.read_text() == "p-1 UserTerminate\n"
    nothing_left(home)


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
def test_a_result_that_nobody_reads_leaves_nothing_behind(home: Home) -> None:
    process = home.start("run", home.file(TRIVIAL))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(PATIENCE_S) == -signal.SIGPIPE
    process.stderr.close()
    assert "Traceback" not in err
    nothing_left(home)


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


class Cluster:
    """A coordinator and one agent, started by hand, and commands against them."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.environment["BATCH_STATE"] = str(home.path / "served")
        self.serve = home.start("serve")
        assert self.serve.stdout is not None
        assert "ready" in self.serve.stdout.readline()
        config = home.path / "agent.toml"
        config.write_text('[users]\nmode = "same"\n')
        self.agent = subprocess.Popen(
            [
                *(str(home.bin / "agentd"), "--coordinator", str(home.path / "served" / "coordinator.sock")),
                *("--pool", "p", "--name", "p-1", "--root", str(home.path / "node"), "--config", str(config)),
            ],
            env=home.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def json(self, *arguments: str) -> Any:
        shown = self.home.run(*arguments, "-o", "json")
        assert shown.status == 0, shown.err
        return json.loads(shown.out)

    def close(self) -> None:
        for process in (self.agent, self.serve):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def cluster(home: Home) -> Iterator[Cluster]:
    made = Cluster(home)
    yield made
    made.close()


JOB = (
    "id name pool state result owner priority submitted_at started_at tasks_done_at completed_at end_reason tasks"
    " release"
)
TASKS = "total active preparing running succeeded failed cancelled skipped"
RELEASES = "owed succeeded failed unreached waived"
PHASE = "state attempts exit_code signal started_at ended_at reason stdout_tail stderr_tail"
NODE_JOB = "node round boot state prep release tasks_started"
TASK = (
    "id job group index params state result exit_code signal attempts node created_at started_at ended_at reason usage"
)
NODE = (
    "id pool state reason boot slots slots_used resources labels elevation containment version last_seen_s start owes"
)


def has(document: dict[str, Any], names: str) -> bool:
    return set(names.split()) <= document.keys()


FULL = """
pool p {}
job j {
  pool = p
  prep { script = 'echo prepared; echo warm >&2' }
  task t for n in 1..3 {
    script = 'echo out $n; echo err $n >&2; echo kept > "$BATCH_NODE_SHARED_DIR/left"; exit $((n == 3))'
  }
  release { script = 'echo released' }
}
"""


@pytest.mark.e2e
def test_every_command_shows_what_the_interface_promises(cluster: Cluster) -> None:
    home = cluster.home
    assert cluster.json("submit", home.file(FULL)) == {"jobs": [{"id": "j-1", "name": "j"}]}
    waited = home.run("job", "wait", "j")
    assert waited.status == 1
    assert waited.err == "failed: 1 task of j-1 failed\n"

    job = cluster.json("job", "show", "j")
    assert has(job, JOB)
    assert has(job["tasks"], TASKS)
    assert has(job["release"], RELEASES)
    assert (job["state"], job["result"], job["end_reason"]) == ("completed", "failure", "AllTasksComplete")
    assert [listed["id"] for listed in cluster.json("job", "list")] == ["j-1"]

    [row] = cluster.json("job", "nodes", "j-1")
    assert has(row, NODE_JOB)
    assert has(row["prep"], PHASE)
    assert has(row["release"], PHASE)
    assert (row["state"], row["tasks_started"]) == ("released", 3)
    assert (row["prep"]["stdout_tail"], row["prep"]["stderr_tail"]) == ("prepared\n", "warm\n")

    tasks = cluster.json("task", "list", "j")
    assert [task["id"] for task in tasks] == ["j-1/t[1]", "j-1/t[2]", "j-1/t[3]"]
    assert all(has(task, TASK) for task in tasks)
    assert [task["exit_code"] for task in tasks] == [0, 0, 1]
    assert [task["id"] for task in cluster.json("task", "list", "j", "--with-state", "failed")] == ["j-1/t[3]"]
    assert [task["id"] for task in cluster.json("task", "list", "j", "--limit", "1", "--after", "t[1]")] == ["j-1/t[2]"]
    for name in ("j-1/t[3]", "j/t-3", "j-1/t#2"):
        task = cluster.json("task", "show", name)
        assert (task["id"], len(task["history"])) == ("j-1/t[3]", 1)

    [node] = cluster.json("node", "list")
    assert has(node, NODE)
    assert cluster.json("node", "show", "p-1")["owes"] == []
    assert [pool["id"] for pool in cluster.json("pool", "list")] == ["p"]
    assert cluster.json("pool", "show", "p")["nodes"] == 1

    assert home.run("logs", "j/t[2]").out == "out 2\n"
    assert home.run("logs", "j/t[2]", "--stderr").out == "err 2\n"
    assert home.run("logs", "j", "--node", "p-1", "--phase", "prep").out == "prepared\n"
    assert home.run("logs", "j", "--node", "p-1", "--phase", "release").out == "released\n"
    assert home.run("files", "cat", "p-1", "shared/left").out == "kept\n"
    assert [entry["name"] for entry in cluster.json("files", "ls", "p-1", "shared")] == ["left"]
    assert home.run("files", "cat", "p-1", "../served/coordinator.sqlite").status != 0
    for command in (
        "job list",
        "job show j",
        "job nodes j",
        "task list j",
        "task show j/t[1]",
        "node list",
        "pool list",
    ):
        assert home.run(*command.split()).status == 0

    assert home.run("job", "delete", "j", "--yes").out == "j-1 is deleted\n"
    assert cluster.json("job", "list") == []
    assert not (home.path / "node" / "workitems" / "j-1").exists()
    gone = home.run("job", "show", "j-1")
    assert gone.status == 4


@pytest.mark.e2e
def test_names_that_are_nearly_right_are_suggested(cluster: Cluster) -> None:
    home = cluster.home
    cluster.json("submit", home.file(a_job("task calibrate { run = ['true'] }").replace("job j", "job nightly")))
    cluster.json("job", "wait", "nightly")
    for arguments, near in (
        (("job", "show", "nigthly"), "nightly"),
        (("task", "show", "nightly/calibrat"), "calibrate"),
        (("node", "show", "p-2"), "p-1"),
        (("pool", "show", "pp"), "p"),
    ):
        shown = home.run(*arguments)
        assert shown.status == 4
        assert f"did you mean {near}" in shown.err or f"/{near}" in shown.err, shown.err


@pytest.mark.e2e
def test_a_refusal_of_the_coordinator_is_shown_at_its_place(cluster: Cluster) -> None:
    home = cluster.home
    cluster.json("submit", home.file(TRIVIAL))
    shown = home.run("submit", home.file(a_job("task t { run = ['true']  slots = 5 }")))
    assert shown.status == 2
    assert "job.batch:5:" in shown.err
    assert "slots = 5" in shown.err
    assert len(cluster.json("job", "list")) == 1


@pytest.mark.e2e
def test_waiting_for_a_job_outlives_a_restart_of_the_coordinator(cluster: Cluster) -> None:
    home = cluster.home
    told, gate = fifo(home, "told"), fifo(home, "gate")
    cluster.json("submit", home.file(a_job(f"task t {{ script = 'echo running > {told}; cat {gate}' }}")))
    heard(told)
    waiting = home.start("job", "wait", "j")
    impatient = home.run("job", "wait", "j", "--timeout", "100ms")
    assert impatient.status == 124
    cluster.serve.kill()
    cluster.serve.communicate()
    assert waiting.stderr is not None
    assert "trying again" in waiting.stderr.readline()
    cluster.serve = home.start("serve")
    with gate.open("w") as pipe:
        pipe.write("go\n")
    shown = ended(waiting)
    assert shown.status == 0, shown.err
    assert shown.out.startswith("j-1: success")


@pytest.mark.e2e
def test_an_interrupt_of_submit_and_wait_ends_the_job(cluster: Cluster) -> None:
    home = cluster.home
    told = fifo(home, "told")
    submitting = home.start(
        "submit", home.file(a_job(f"task t {{ script = 'echo > {told}; exec sleep 1000' }}")), "--wait"
    )
    heard(told)
    submitting.send_signal(signal.SIGINT)
    assert ended(submitting).status == 130
    assert cluster.json("job", "show", "j")["end_reason"] == "UserTerminate"


@pytest.mark.e2e
def test_a_terminated_job_tells_the_reason_it_was_given(cluster: Cluster) -> None:
    home = cluster.home
    told = fifo(home, "told")
    cluster.json("submit", home.file(a_job(f"task t {{ script = 'echo > {told}; exec sleep 1000' }}")))
    heard(told)
    assert home.run("job", "terminate", "j", "--reason", "enough").out == "j-1 is terminating\n"
    shown = home.run("job", "wait", "j")
    assert shown.status == 1
    assert "1 task of j-1 was cancelled: enough" in shown.err
