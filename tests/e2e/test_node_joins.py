"""An agent comes in over TLS: by a token once, by its certificate from then on, and not when it may not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import PATIENCE_S, gone, is_alive, node_of
from tests.e2e.secure import SecureCluster
from wire import thin
from wire.identity import read_identity
from wire.invitation import parse_invitation


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SecureCluster]:
    made = SecureCluster(tmp_path)
    made.serve()
    yield made
    made.close()


def key_of(cluster: SecureCluster, name: str) -> str:
    return read_identity(cluster.root(name) / ".agent" / "identity").read().key


def held(cluster: SecureCluster) -> int:
    """Submit a job of one task that says its pid and stays; the pid."""
    said = cluster.pipe("said")
    cluster.submit(f"job j {{ pool = p\n task t {{ script = 'echo $$ > {said.path}; exec sleep 1000' }} }}")
    return int(said.line())


def end_of(process: subprocess.Popen[str], status: int) -> None:
    assert process.wait(PATIENCE_S) == status
    assert process.stdout is not None
    process.stdout.close()


def test_a_node_joins_by_a_token_once_and_by_its_certificate_from_then_on(cluster: SecureCluster) -> None:
    cluster.node("n")
    first = key_of(cluster, "n")
    cluster.kill("n", signal.SIGTERM)
    (cluster.directory / "n.join").unlink()
    cluster.node("n", "--join", f"@{cluster.directory / 'n.join'}")
    assert key_of(cluster, "n") == first
    identity = cluster.root("n") / ".agent" / "identity"
    assert {path.name: path.stat().st_mode & 0o777 for path in identity.iterdir()} == {
        "key.pem": 0o600, "certificate.pem": 0o600, "authority.pem": 0o600,
    }  # fmt: skip
    assert identity.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("way", ["stdin", "environment"])
def test_a_token_stands_neither_in_argv_nor_in_what_tasks_see(cluster: SecureCluster, way: str) -> None:
    join = cluster.invitation()
    secret = parse_invitation(join).secret
    options = ["--join", "-"] if way == "stdin" else []
    environment = cluster.environment if way == "stdin" else {**cluster.environment, "BATCH_JOIN": join}
    with (cluster.directory / "n.log").open("w") as log:
        agent = subprocess.Popen(
            cluster.command_of("n", *options), stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
    cluster.processes["n"] = agent
    assert agent.stdin is not None
    with agent.stdin:
        agent.stdin.write(join + "\n" if way == "stdin" else "")
    cluster.until(lambda now: node_of(now, "n")["state"] == "idle")
    assert secret not in Path(f"/proc/{agent.pid}/cmdline").read_text()
    job = cluster.submit("job j { pool = p\n task t { script = 'env; cat /proc/$PPID/environ' } }")
    cluster.wait(job)
    (output,) = cluster.root("n").glob("workitems/*/t/stdout.txt")
    assert secret not in output.read_text()
    written = [path for path in cluster.directory.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert written == []


def test_t2_a_refused_token_is_a_sentence_and_nothing_else(cluster: SecureCluster) -> None:
    join = cluster.invitation()
    path = cluster.directory / "n.join"
    path.write_text(join)
    cluster.node("n", "--join", f"@{path}")
    assert "used up" in cluster.ends(*cluster.command_of("m", "--join", "-"), said=join, status=3)
    guessed = join[:-43] + "A" * 43
    assert "not known" in cluster.ends(*cluster.command_of("m", "--join", "-"), said=guessed, status=3)
    person = cluster.invitation("admin")
    assert "makes a admin and no node" in cluster.ends(*cluster.command_of("m", "--join", "-"), said=person, status=3)


def test_t2_a_coordinator_that_is_not_the_pinned_one_is_told_no_secret(
    cluster: SecureCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = SecureCluster(tmp_path_factory.mktemp("other"))
    other.serve()
    try:
        join = cluster.invitation()
        cluster.address, mine = other.address, cluster.address
        said = cluster.ends(*cluster.command_of("n", "--join", "-"), said=join, status=3)
        assert "is not the one of the join string" in said
        cluster.address = mine
        path = cluster.directory / "n.join"
        path.write_text(join)
        cluster.node("n", "--join", f"@{path}")
    finally:
        other.close()


def test_a_coordinator_that_is_not_there_yet_is_waited_for(cluster: SecureCluster) -> None:
    join = cluster.invitation()
    cluster.kill("coordinator", signal.SIGTERM)
    with (cluster.directory / "n.log").open("w+") as log:
        agent = subprocess.Popen(
            cluster.command_of("n", "--join", "-"), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.PIPE,
            text=True, env=cluster.environment, start_new_session=True,
        )  # fmt: skip
    cluster.processes["n"] = agent
    assert agent.stdin is not None
    assert agent.stderr is not None
    with agent.stdin:
        agent.stdin.write(join)
    assert "nobody listens at" in agent.stderr.readline()
    cluster.serve()
    cluster.until(lambda now: node_of(now, "n")["state"] == "idle")
    agent.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_waits_to_be_admitted_stops_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    cluster = SecureCluster(tmp_path)
    cluster.address = "127.0.0.1:9"
    join = f"bj1.{'0' * 64}.{'x' * 43}"
    agent = subprocess.Popen(
        cluster.command_of("n", "--join", join), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=cluster.environment,
    )  # fmt: skip
    assert agent.stderr is not None
    assert "not admitted yet" in agent.stderr.readline()
    agent.send_signal(number)
    out, err = agent.communicate(timeout=PATIENCE_S)
    assert (agent.returncode, out, err) == (0, "", "")


def test_a_certificate_is_renewed_at_half_of_its_life_and_nothing_is_interrupted(tmp_path: Path) -> None:
    cluster = SecureCluster(tmp_path, certificates='node = "3s"')
    cluster.serve()
    try:
        cluster.node("n")
        first = read_identity(cluster.root("n") / ".agent" / "identity")
        job = cluster.submit('job j { pool = p\n task t { run = ["sleep", "5"] } }')
        assert cluster.wait(job)["result"] == "success"
        later = read_identity(cluster.root("n") / ".agent" / "identity")
        assert later.read().key == first.read().key
        assert later.read().expires > first.read().expires + 1
        log = cluster.log("n")
        assert log.count("the certificate was renewed") >= 2
        assert "session over" not in log
    finally:
        cluster.close()


@pytest.mark.slow
def test_t4_a_revoked_node_kills_its_tasks_and_ends_and_comes_again_with_a_new_token_only(
    cluster: SecureCluster,
) -> None:
    cluster.submit('pool p { lost_after = 1s }\njob first { pool = p\n task t { run = ["true"] } }')
    agent = cluster.node("n")
    cluster.wait("first-1")
    pid, first = held(cluster), key_of(cluster, "n")
    with thin.connect(str(cluster.socket)) as coordinator:
        coordinator.call("NodeRevoke", node="n")
    end_of(agent, 3)
    assert gone(pid), "an agent that is not wanted leaves nothing of what it was given"
    assert "was revoked" in cluster.log("n")
    del cluster.processes["n"]
    assert "revoked" in cluster.ends(*cluster.command_of("n"), status=3)
    again = cluster.directory / "again.join"
    again.write_text(cluster.invitation())
    cluster.node("n", "--join", f"@{again}")
    assert key_of(cluster, "n") != first


def test_f36_a_cloned_node_fences_the_first_whose_tasks_die(cluster: SecureCluster) -> None:
    first = cluster.node("n")
    pid = held(cluster)
    (cluster.root("clone") / ".agent").mkdir(parents=True)
    shutil.copytree(cluster.root("n") / ".agent" / "identity", cluster.root("clone") / ".agent" / "identity")
    command = cluster.command_of("n", root="clone")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=cluster.environment,
        start_new_session=True,
    )  # fmt: skip
    cluster.processes["clone"] = process
    end_of(first, 3)
    assert gone(pid, 0), "nothing of the first one lives when it has said why it ends"
    assert "with the same key" in cluster.log("n")
    del cluster.processes["n"]
    assert is_alive(process.pid)


def test_an_agent_told_to_join_another_coordinator_does(
    cluster: SecureCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster.node("n")
    cluster.kill("n", signal.SIGTERM)
    other = SecureCluster(tmp_path_factory.mktemp("other"))
    other.serve()
    try:
        path = cluster.directory / "other.join"
        path.write_text(other.invitation())
        cluster.address = other.address
        cluster._start("n", cluster.command_of("n", "--join", f"@{path}"))
        other.until(lambda now: node_of(now, "n")["state"] == "idle")
    finally:
        other.close()


def test_a_certificate_that_is_open_to_others_is_not_used(cluster: SecureCluster) -> None:
    cluster.node("n")
    cluster.kill("n", signal.SIGTERM)
    os.chmod(cluster.root("n") / ".agent" / "identity" / "key.pem", 0o644)
    said = cluster.ends(*cluster.command_of("n"), status=3)
    assert "others may read" in said
    assert "key.pem" in said


def test_a_port_where_something_else_answers_is_no_coordinator(cluster: SecureCluster) -> None:
    join = cluster.invitation()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster.address = f"127.0.0.1:{listener.getsockname()[1]}"
        agent = subprocess.Popen(
            cluster.command_of("n", "--join", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, env=cluster.environment, start_new_session=True,
        )  # fmt: skip
        cluster.processes["n"] = agent
        assert agent.stdin is not None
        assert agent.stderr is not None
        with agent.stdin:
            agent.stdin.write(join)
        with listener.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"220 mail.example ESMTP\r\n")
            assert "does not speak TLS" in agent.stderr.readline()
        agent.stderr.close()
