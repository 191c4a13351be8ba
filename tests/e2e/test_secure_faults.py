"""Faults of connections and daemons under TLS, with real processes; each named after its row of the fault table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import PATIENCE_S, Pipe, gone
from tests.e2e.relay import TcpRelay
from tests.e2e.secure import SecureCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SecureCluster]:
    made = SecureCluster(tmp_path)
    made.serve()
    yield made
    made.close()


def held(cluster: SecureCluster, code: int, count: int = 1) -> tuple[str, Pipe, Pipe]:
    """A job of tasks that say `attempt N PID`, and each end with that code when it reads the end of a line: what stood
    before that may have gone to another one, which reads letter by letter as well."""
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{
          pool = p
          task t for n in 1..{count} {{
            script = 'echo attempt $BATCH_ATTEMPT $$ >> {said.path}; read line < {go.path}; exit {code}'
          }}
          release {{ script = 'echo release >> {said.path}' }}
        }}
    """)
    return job, said, go


def test_f16_what_an_older_session_said_late_changes_nothing(cluster: SecureCluster) -> None:
    """A node's session is delayed in the network; its agent dies, another life of it joins and reports; then all that
    the older session had said arrives: heartbeats, and the report of the same end."""
    direct = cluster.address
    relay = TcpRelay(direct)
    try:
        cluster.address = relay.address
        cluster.node("n")
        job, said, go = held(cluster, 7)
        pid = int(said.line().split()[2])
        relay.delay()
        go.path.write_text("go\n")
        assert gone(pid)
        assert relay.holds_something(PATIENCE_S), "the end of the task is on its way"
        cluster.kill("n")
        cluster.address = direct
        cluster.node("n")
        assert said.line() == "release"
        ended = cluster.wait(job)
        before = cluster.ask("task", "show", f"{job}/t[1]")
        relay.deliver()
        other = cluster.submit('job other { pool = p\n task t { run = ["true"] } }')
        assert cluster.wait(other)["result"] == "success"
        assert cluster.ask("task", "show", f"{job}/t[1]") == before
        assert cluster.wait(job) == ended
        assert (ended["tasks"]["failed"], before["attempts"], before["exit_code"]) == (1, 1, 7)
        assert said.silent(), "nothing was started or released twice"
    finally:
        relay.close()


@pytest.mark.slow
def test_f20_a_coordinator_that_stood_still_reads_its_inbox_before_it_gives_anybody_up(cluster: SecureCluster) -> None:
    """For longer than lease and margin. The nodes keep their leases, in which their own tasks die; what the coordinator
    makes of them is what they tell it, and none is lost for not being heard."""
    cluster.submit('pool p { lost_after = 1s }\njob first { pool = p\n task t { run = ["true"] } }')
    for name in ("a", "b", "c"):
        cluster.node(name)
    cluster.wait("first-1")
    job, said, go = held(cluster, 0, count=3)
    first = [line.split() for line in said.lines(3)]
    assert {number for _, number, _ in first} == {"1"}
    cluster.kill("coordinator", signal.SIGSTOP)
    assert all(gone(int(pid)) for _, _, pid in first), "each node's own clock ends its lease"
    time.sleep(12.0)
    cluster.kill("coordinator", signal.SIGCONT)
    again = [line.split() for line in said.lines(3)]
    assert {number for _, number, _ in again} == {"2"}
    go.path.write_text("go\n" * 3)
    ended = cluster.wait(job)
    assert ended["tasks"]["succeeded"] == 3
    for n in (1, 2, 3):
        history = cluster.ask("task", "show", f"{job}/t[{n}]")["history"]
        assert [entry["outcome"] for entry in history] == ["killed", "exited"], history
    assert "lost" not in {node["state"] for node in cluster.ask("node", "list")}


def test_f34_an_agent_of_another_protocol_is_told_so_and_asks_again(cluster: SecureCluster) -> None:
    path = cluster.directory / "n.join"
    path.write_text(cluster.invitation())
    words = cluster.command_of("n", "--join", f"@{path}")[len([sys.executable, "-m", "agentd"]) :]
    program = (
        "import sys, wire.messages; wire.messages.PROTOCOL_VERSION = 99; "
        "from agentd.__main__ import main; sys.argv[0] = 'agentd'; main()"
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=cluster.environment, start_new_session=True,
    )  # fmt: skip
    cluster.processes["n"] = agent
    assert agent.stderr is not None
    line = agent.stderr.readline()
    assert "no session with the coordinator" in line
    assert "version 99" in line or "protocol 99" in line, line
    assert cluster.ask("node", "list") == []
    agent.terminate()
    assert agent.wait(PATIENCE_S) == 0
    agent.stderr.close()
    del cluster.processes["n"]
    cluster.node("n")
    assert os.path.exists(path)
