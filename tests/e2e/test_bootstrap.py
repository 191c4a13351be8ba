"""Hosts become nodes over OpenSSH: a real sshd on each, keys made for the test, the user's own client and agent.

The hosts are namespaces of this machine, so they have its Python; they are told nothing of a package index, and need
none: what is installed on them is what was carried along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.wheels import make_wheels
from tests.e2e.cluster import job_of, node_of
from tests.e2e.farm import Farm
from tests.e2e.hosts import SUBNET, why_not

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
REASON = why_not() or (None if SSHD and shutil.which("ssh") else "needs sshd and ssh")
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.slow]
PYTHON = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
SETTINGS = """
Host *
  User root
  IdentitiesOnly yes
  UserKnownHostsFile {keys}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
DAEMON = """
HostKey {keys}/host
AuthorizedKeysFile {keys}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={keys}/temporary
"""


class Fleet(Farm):
    """A farm whose nodes have nothing but a sshd at first."""

    def __init__(self, directory: Path, nodes: list[str]) -> None:
        super().__init__(directory, nodes)
        self.keys = directory / "keys"
        self.keys.mkdir()
        self.daemons: list[subprocess.Popen[str]] = []
        self.temporary = self.keys / "temporary"
        """Where the hosts unpack what they are sent."""
        self.temporary.mkdir()
        for name in ("mine", "another", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / name], check=True)
        shutil.copy(self.keys / "mine.pub", self.keys / "authorized_keys")
        (self.keys / "sshd_config").write_text(DAEMON.format(keys=self.keys))
        (self.keys / "ssh_config").write_text(SETTINGS.format(keys=self.keys) + f"  IdentityFile {self.keys}/mine\n")
        self.know(*nodes)
        for name in nodes:
            self.hosts[name].run("mkdir", "-p", "/run/sshd")
            config = str(self.keys / "sshd_config")
            daemon = self.hosts[name].start(str(SSHD), "-D", "-e", "-f", config, stderr=subprocess.PIPE)
            assert daemon.stderr is not None
            assert "listening" in daemon.stderr.readline()
            self.daemons.append(daemon)
        self.serve()

    def know(self, *nodes: str) -> None:
        key = (self.keys / "host.pub").read_text()
        (self.keys / "known_hosts").write_text("".join(f"{name} {key}" for name in nodes))

    def bootstrap(self, *words: str, status: int = 0) -> tuple[dict[str, Any], str]:
        """(host -> how it ended, what was said meanwhile) of the command, run on `head`."""
        import json

        command = [
            sys.executable, "-m", "coordinator.cli", "pool", "bootstrap", "p", "--ssh", *words, "-o", "json",
            "--ssh-config", str(self.keys / "ssh_config"), "--coordinator", str(self.socket),
        ]  # fmt: skip
        if "--address" not in words:
            command += ["--address", self.address]
        if "--python" not in words:
            command += ["--python", PYTHON]
        done = subprocess.run(
            self.hosts["head"].enter(*command), capture_output=True, text=True, timeout=300, check=False,
            env=self.hosts["head"].environment,
        )  # fmt: skip
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return {row["host"]: row for row in json.loads(done.stdout)}, done.stderr

    def close(self) -> None:
        for daemon in self.daemons:
            assert daemon.stderr is not None
            daemon.stderr.close()
        self.hosts.close()
        for daemon in self.daemons:
            daemon.wait()
        super().close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, ["node1", "node2"])
    yield made
    made.close()


def test_hosts_become_nodes_and_a_second_time_nothing_changes(fleet: Fleet) -> None:
    rows, said = fleet.bootstrap("node1", "node2")
    assert {host: (row["node"], row["state"]) for host, row in rows.items()} == {
        "node1": ("node1", "joined"), "node2": ("node2", "joined"),
    }  # fmt: skip
    for word in ("node1: connecting", "node2: installing", "node1: starting", "node2: joined as node2"):
        assert word in said
    job = fleet.submit('job j { pool = p\n task t for n in 1..8 { run = ["true"] } }')
    assert fleet.wait(job)["tasks"]["succeeded"] == 8
    first = {name: fleet.hosts[name].run("pgrep", "-f", "agentd --coord") for name in ("node1", "node2")}
    rows, said = fleet.bootstrap("node1", "node2")
    assert {row["state"] for row in rows.values()} == {"unchanged"}
    assert "installing" not in said
    assert first == {name: fleet.hosts[name].run("pgrep", "-f", "agentd --coord") for name in ("node1", "node2")}
    assert {token["state"] for token in fleet.ask("token", "list")} <= {"used", "revoked"}
    secrets_are_nowhere(fleet)
    elsewhere = ("node1", "--root", "/var/lib/poolkeeper-node/other", "--timeout", "10")
    rows, _ = fleet.bootstrap(*elsewhere, "--address", "head:9", status=1)
    assert rows["node1"]["code"] == "busy", "one prefix is of one agent"
    pid = first["node1"].strip()
    fleet.hosts["node1"].run("sh", "-c", f"kill {pid}; while grep -q '^State:.[^Z]' /proc/{pid}/status; do :; done")
    rows, _ = fleet.bootstrap(*elsewhere, "--address", "head:9", status=1)
    assert rows["node1"]["code"] == "not-joined"
    assert "nobody listens at head:9" in rows["node1"]["reason"]
    assert fleet.hosts["node1"].run("pgrep", "-f", "agentd --coord", status=1) == "", "it is not left in the way"


def secrets_are_nowhere(fleet: Fleet) -> None:
    """No join string in the arguments of any process, nor in a file that a host kept."""
    for name in ("node1", "node2"):
        assert "bj1." not in fleet.hosts[name].run("ps", "axww", "-o", "args")
        kept = fleet.hosts[name].run("grep", "-rlE", "bj1[.][0-9a-f]{64}", "/opt/poolkeeper", "/var/lib", status=1)
        assert kept == ""
        there = fleet.hosts["head"].run("ssh", "-F", f"{fleet.keys}/ssh_config", name, "echo $TMPDIR").strip()
        assert list(Path(there).iterdir()) == []
        assert there == str(fleet.temporary)


def test_each_host_that_failed_has_a_word_and_the_others_join(fleet: Fleet) -> None:
    (fleet.keys / "ssh_config").write_text(
        f"Host away\nHostName {SUBNET}.99\nHost closed\nHostName head\n"
        f"Host stranger\nHostName node2\nHostKeyAlias node2\nIdentityFile {fleet.keys}/another\n"
        f"Host * !stranger\nIdentityFile {fleet.keys}/mine\n" + SETTINGS.format(keys=fleet.keys)
    )
    fleet.know("node1", "away", "closed", "node2")
    rows, said = fleet.bootstrap("node1", "away", "closed", "stranger", "nowhere.invalid", "node2", status=1)
    assert {host: row["code"] for host, row in rows.items()} == {
        "node1": None, "away": "unreachable", "closed": "unreachable", "stranger": "no-key",
        "nowhere.invalid": "unreachable", "node2": None,
    }  # fmt: skip
    assert "no host of this name" in rows["nowhere.invalid"]["reason"]
    assert "nothing listens for ssh" in rows["closed"]["reason"]
    assert "accepts none of your keys" in rows["stranger"]["reason"]
    assert "Traceback" not in said


def test_a_host_whose_key_is_not_known_is_not_talked_to(fleet: Fleet) -> None:
    fleet.know("node1")
    rows, _ = fleet.bootstrap("node2", status=1)
    assert rows["node2"]["code"] == "host-key"
    assert fleet.ask("node", "list") == []


def test_a_host_without_a_python_or_without_room_says_so(fleet: Fleet) -> None:
    rows, _ = fleet.bootstrap("node1", "--python", "/bin/false", status=1)
    assert rows["node1"]["code"] == "no-python"
    fleet.hosts["node1"].run("mkdir", "-p", "/opt/poolkeeper")
    fleet.hosts["node1"].run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "/opt/poolkeeper")
    rows, _ = fleet.bootstrap("node1", status=1)
    assert rows["node1"]["code"] == "no-space"
    assert "/opt/poolkeeper" in rows["node1"]["reason"]


def test_an_installation_that_fails_shows_the_last_words_of_it(fleet: Fleet, tmp_path: Path) -> None:
    wheel = tmp_path / "poolkeeper-9-py3-none-any.whl"
    wheel.write_bytes(b"no wheel")
    rows, _ = fleet.bootstrap("node1", "--wheel", str(wheel), status=1)
    assert rows["node1"]["code"] == "install-failed"
    assert "poolkeeper-9-py3-none-any.whl" in rows["node1"]["reason"]


def test_two_hosts_of_one_name_are_told_apart_by_their_addresses(fleet: Fleet) -> None:
    fleet.hosts["node2"].run("hostname", "node1")
    rows, _ = fleet.bootstrap("node1", "node2", "--parallel", "1", status=1)
    assert sorted(str(row["code"]) for row in rows.values()) in (["None", "agent-ended"], ["None", "same-name"])
    rows, _ = fleet.bootstrap("node2", "--name-from", "address")
    assert (rows["node2"]["node"], rows["node2"]["state"]) == ("node2", "joined")
    fleet.until(lambda now: node_of(now, "node2")["state"] == "idle")


def test_a_new_version_replaces_the_agent_and_leaves_its_tasks(fleet: Fleet, tmp_path: Path) -> None:
    fleet.bootstrap("node1")
    wait = "until [ -e $BATCH_NODE_SHARED_DIR/go ]; do sleep 0.1; done; exit 7"
    job = fleet.submit(f"job j {{ pool = p\n task t {{ script = '{wait}' }} }}")
    fleet.until(lambda now: job_of(now, job)["tasks"]["running"] == 1)
    before = fleet.hosts["node1"].run("pgrep", "-f", "agentd --coord")
    (wheel,) = make_wheels(tmp_path, alone=True)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("wire/notes.txt", "another version")
    rows, words = fleet.bootstrap("node1", "--wheel", str(wheel))
    assert rows["node1"]["state"] == "joined"
    assert "replacing the agent" in words
    assert fleet.hosts["node1"].run("pgrep", "-f", "agentd --coord") != before
    fleet.hosts["node1"].run("touch", "/var/lib/poolkeeper-node/node1/shared/go")
    fleet.wait(job)
    task = fleet.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)
