"""What a service manager sees and does: readiness on a real socket, units it reads, restarts that harm no task."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import AGENTD, COORDINATOR, PATIENCE_S, Cluster, gone, is_alive, node_of

UNITS = Path(__file__).parent.parent.parent / "docs" / "systemd"
_PR_SET_MDWE = 65


class Ear:
    """The socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)

    def hears(self, word: str) -> str:
        """Wait for the message with this word in it; those before it are dropped."""
        while word not in (said := self._socket.recv(4096).decode()):
            pass
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_both_daemons_say_that_they_are_ready_how_they_stand_and_that_they_stop(cluster: Cluster, ear: Ear) -> None:
    cluster.environment["NOTIFY_SOCKET"] = str(cluster.directory / "notify")
    cluster.serve()
    assert ear.hears("READY=1") == "READY=1\nSTATUS=serving"
    cluster.agent("n")
    assert ear.hears("READY=1").startswith("READY=1\nSTATUS=node n")
    assert f"joined at {cluster.socket}" in ear.hears("joined")
    job = cluster.submit('job j { pool = p\n task t { script = \'env; tr "\\\\0" "\\\\n" < /proc/$PPID/environ\' } }')
    assert cluster.wait(job)["result"] == "success"
    (output,) = cluster.root("n").glob("workitems/*/t/stdout.txt")
    assert "BATCH_JOB_ID" in output.read_text()
    assert "NOTIFY" not in output.read_text(), "what the daemons say is not for tasks to say"
    cluster.kill("coordinator", signal.SIGTERM)
    assert ear.hears("STOPPING=1")
    assert "no session" in ear.hears("no session")
    cluster.kill("n", signal.SIGTERM)
    assert ear.hears("STOPPING=1")


def test_a_restart_as_systemd_does_it_leaves_tasks_their_processes_and_their_cgroups(
    cluster: Cluster, ear: Ear
) -> None:
    """KillMode=process: SIGTERM to the agent alone, the end awaited, then a start in the same cgroup."""
    cluster.environment["NOTIFY_SOCKET"] = str(cluster.directory / "notify")
    cluster.serve()
    cluster.agent("n")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(
        f"job j {{ pool = p\n task t {{ script = 'echo $$ > {said.path}; read -r line < {go.path}; exit 7' }} }}"
    )
    pid = int(said.line())
    before = cgroups(pid)
    held_by = cluster.ask("node", "show", "n")["containment"]
    assert before or held_by == "subreaper"
    for _ in range(2):
        cluster.kill("n", signal.SIGTERM)
        assert is_alive(pid)
        cluster.agent("n")
        assert cgroups(pid) == before
        assert cluster.ask("node", "show", "n")["containment"] == held_by
    remembered = (cluster.root("n") / ".agent" / "containment").read_text()
    assert all(path in remembered or own(path) for path in before.values()), (remembered, before)
    go.path.write_text("on\n")
    cluster.wait(job)
    task = cluster.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)
    assert gone(pid)


@pytest.fixture
def service() -> Iterator[Path]:
    """The groups of a unit with `Delegate=yes` and `DelegateSubgroup=agent`, as systemd makes them."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2" and words[3] == "/"]
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    unit = Path(f"{found[0] if found else '/nowhere'}{own.rstrip('/')}/poolkeeper-test-{os.getpid()}.service")
    try:
        (unit / "agent").mkdir(parents=True)
        os.setxattr(unit, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no group of version 2 can be made here: {error}")
    yield unit
    for directory, _, _ in os.walk(unit, topdown=False):
        os.rmdir(directory)


def test_a_unit_is_started_again_in_the_same_group_while_keepers_live_in_it(cluster: Cluster, service: Path) -> None:
    """systemd puts the next main process where the last one was; the kernel must not refuse it."""
    cluster.serve()
    enter = ["sh", "-c", f'echo $$ > {service}/agent/cgroup.procs && exec "$@"', "sh"]

    def start() -> None:
        options = ["--coordinator", str(cluster.socket), "--pool", "p", "--name", "n", "--root", str(cluster.root("n"))]
        cluster._start("n", [*enter, *AGENTD, *options, "--slots", "1", "--config", str(cluster.config("n"))])
        cluster.until(lambda now: node_of(now, "n")["state"] in ("idle", "running"))

    start()
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(
        f"job j {{ pool = p\n task t {{ script = 'echo $$ > {said.path}; read -r line < {go.path}; exit 7' }} }}"
    )
    pid = int(said.line())
    assert service.name in Path(f"/proc/{pid}/cgroup").read_text(), "what a unit starts stays in the unit"
    before = cgroups(pid)
    for _ in range(2):
        cluster.kill("n", signal.SIGTERM)
        start()
        assert cgroups(pid) == before
    go.path.write_text("on\n")
    cluster.wait(job)
    task = cluster.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)
    cluster.kill("n", signal.SIGINT)
    assert gone(pid)


def cgroups(pid: int) -> dict[str, str]:
    """Hierarchy -> the last part of the path that a process has there and we have not: its keeper's leaf."""
    mine = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    its = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {name: path for name, path in its.items() if mine.get(name) != path}


def own(path: str) -> bool:
    """Whether a cgroup is one of a keeper of ours."""
    return re.search(r"/poolkeeper-[0-9a-f]+/", path) is not None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in sorted(UNITS.glob("*.service")):
        text = unit.read_text()
        for program in re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE):
            there = tmp_path / Path(program).name
            shutil.copy("/bin/true", there)
            text = text.replace(program, str(there))
        (tmp_path / unit.name).write_text(text)
    units = sorted(map(str, tmp_path.glob("*.service")))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if any(Path(unit).name in line for unit in units)]
    about_ours = [line for line in told if not ("Unknown key" in line and "DelegateSubgroup" in line)]  # before 254
    assert (len(units), done.returncode, about_ours) == (2, 0, [])


def test_the_units_start_the_programs_with_options_that_they_have(cluster: Cluster) -> None:
    for unit in sorted(UNITS.glob("*.service")):
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        program, *words = line.split()
        module = {"agentd": ["agentd"], "coordinator": ["coordinator.cli", "serve"]}[Path(program).name]
        shown = subprocess.run(
            [sys.executable, "-m", *module, "--help"], capture_output=True, text=True, check=True,
            env=cluster.environment,
        ).stdout  # fmt: skip
        assert [word for word in words if word.startswith("--") and word not in shown] == []


def test_the_coordinator_serves_where_memory_can_not_be_made_executable(cluster: Cluster) -> None:
    """As its unit has it: MemoryDenyWriteExecute and NoNewPrivileges."""
    libc = ctypes.CDLL(None, use_errno=True)

    def harden() -> None:
        libc.prctl(38, 1, 0, 0, 0)
        libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)

    tried = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl({_PR_SET_MDWE}, 1, 0, 0, 0) != 0)"
    if subprocess.run([sys.executable, "-c", tried], check=False).returncode != 0:
        pytest.skip("this kernel can't deny it")
    process = subprocess.Popen(
        [*COORDINATOR, "serve", "--state", str(cluster.state), "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
        text=True, env=cluster.environment, preexec_fn=harden,
    )  # fmt: skip
    cluster.processes["coordinator"] = process
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    assert cluster.ask("node", "list") == []
    made = cluster.ask("token", "create", "--role", "node")
    assert made["role"] == "node"
