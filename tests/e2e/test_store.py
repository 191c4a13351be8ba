"""The record log and the coordinator's daemon as processes: killed at any moment, started twice, met by strangers."""

from __future__ import annotations

import grp
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from coordinator.config import name_of
from wire import thin
from wire.ledger import Ledger

COMMITTER = """
import sys
from pathlib import Path
from typing import Self
from wire.ledger import Ledger, Row
ledger = Ledger.open(Path(sys.argv[1]), ballast_bytes=65_536)
number = sum(len(row.body) > 0 for row in ledger.load()) // 3
while True:
    rows = [Row(f"job-{number % 7}", kind, b"%d" % number) for kind in ("a", "b", "c")]
    ledger.commit(rows)
    print(number, flush=True)
    number += 1
"""


def python(script: str, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("after", [1, 2, 3, 50, 120])
def test_a_killed_process_loses_nothing_it_acknowledged_and_leaves_no_half_commit(tmp_path, after):
    path = tmp_path / "log.sqlite"
    acknowledged = -1
    for _ in range(3):
        with python(COMMITTER, str(path)) as process:
            for _ in range(after):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            unread = process.stdout.read().split()
            acknowledged = max([acknowledged, *map(int, unread)])
        ledger = Ledger.open(path, ballast_bytes=65_536)
        rows = list(ledger.load())
        ledger.close()
        assert [row.body for row in rows] == [b"%d" % number for number in range(len(rows) // 3) for _ in "abc"]
        assert len(rows) // 3 >= acknowledged + 1


# ---- the daemon


class Daemon:
    def __init__(self, state: Path, *options: str) -> None:
        self.path = str(state / "coordinator.sock")
        command = [sys.executable, "-m", "coordinator.cli", "serve", "--state", str(state), *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def ready(self) -> Daemon:
        line = self.process.stdout.readline()
        assert line == f"coordinator: ready at {self.path}\n", self.process.stderr.read()
        return self

    def ends(self) -> tuple[int, str]:
        """Its exit status and what it said on stderr."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def test_sigterm_stops_it_cleanly_and_it_starts_again(tmp_path):
    for _ in range(2):
        with Daemon(tmp_path).ready() as daemon:
            with thin.connect(daemon.path) as session:
                assert session.call("JobList") == []
            daemon.process.terminate()
            assert daemon.ends()[0] == 0
            assert not os.path.exists(daemon.path)


def test_it_starts_again_after_kill_9_over_the_socket_left_behind(tmp_path):
    epochs = []
    for _ in range(3):
        with Daemon(tmp_path).ready() as daemon:
            with thin.connect(daemon.path) as session:
                epochs.append(session._epoch)
            daemon.process.kill()
            assert daemon.ends()[0] == -signal.SIGKILL
            assert os.path.exists(daemon.path)
            with pytest.raises(thin.NoCoordinator, match="has ended"):
                thin.connect(daemon.path)
    assert epochs == sorted(set(epochs))


def test_a_second_coordinator_is_refused_and_the_first_goes_on(tmp_path):
    with Daemon(tmp_path).ready() as first, Daemon(tmp_path) as second:
        status, errors = second.ends()
        assert status == 3
        assert f"in use by process {first.process.pid}" in errors
        assert "Traceback" not in errors
        with thin.connect(first.path) as session:
            assert session.call("JobList") == []


MEMBER = """
import os, sys
import msgpack
from wire import thin
os.setgroups([int(group) for group in sys.argv[3:]])
os.setgid(int(sys.argv[2]))
os.setuid(54321)
try:
    with thin.connect(sys.argv[1], "operator") as session:
        assert session.call("JobList") == []
    print("operator", end=" ")
    thin.connect(sys.argv[1], "admin")
except thin.ThinError as error:
    print("does not serve" if "does not serve the user uid:54321" in error.message else "admin refused")
"""

STRANGER = """
import os, sys
from coordinator.config import name_of
from wire import thin
os.setgid(65534)
os.setgroups([])
os.setuid(65534)
try:
    for kind in sys.argv[2:]:
        with thin.connect(sys.argv[1]) as session:
            print(kind, session.call(kind), flush=True)
except thin.ThinError as error:
    print(error)
"""


def reachable(directory: Path) -> None:
    """Let others walk as far as this directory of a test."""
    for step in [directory, *list(directory.parents)[:3]]:  # three: under xdist each process has one of its own
        step.chmod(step.stat().st_mode | 0o011)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")


@needs_root
def test_another_user_is_refused_by_the_file_and_by_the_coordinator(tmp_path):
    reachable(tmp_path)
    state = tmp_path / "state"
    with Daemon(state).ready() as daemon:
        with python(STRANGER, daemon.path, "JobList") as stranger:
            assert "you may not use the coordinator" in stranger.stdout.read()
        state.chmod(0o711)
        os.chmod(daemon.path, 0o666)
        with python(STRANGER, daemon.path, "JobList") as stranger:
            assert "does not serve the user nobody" in stranger.stdout.read()
        with thin.connect(daemon.path) as session:
            assert session.call("JobList") == []


@needs_root
def test_a_configured_user_gets_as_far_as_the_role_goes(tmp_path):
    reachable(tmp_path)
    config = tmp_path / "coordinator.toml"
    config.write_text(f'[local]\ngroup = "{grp.getgrgid(65534).gr_name}"\n[local.roles]\n{name_of(65534)} = "user"\n')
    with Daemon(tmp_path / "state", "--config", str(config)).ready() as daemon:
        with python(STRANGER, daemon.path, "JobList", "Finish") as stranger:
            said = stranger.stdout.read().splitlines()
        assert said[0] == "JobList []"
        assert "a Finish may not be sent by user" in said[1]
        assert daemon.process.poll() is None
        names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
        assert names.pop("coordinator.sock") == 0o660
        assert all(mode & 0o077 == 0 for mode in names.values())


@needs_root
@pytest.mark.parametrize("way", ["primary", "supplementary", "none"])
def test_members_of_the_group_are_what_it_is_by_whichever_group_of_theirs(tmp_path, way):
    reachable(tmp_path)
    group = grp.getgrgid(65534)
    config = tmp_path / "coordinator.toml"
    config.write_text(f'[local]\ngroup = "{group.gr_name}"\ngroup_role = "operator"\n')
    groups = {"primary": ["65534"], "supplementary": ["54321", "65534"], "none": ["54321"]}[way]
    with Daemon(tmp_path / "state", "--config", str(config)).ready() as daemon:
        if way == "none":  # even if the directory let it come so far
            (tmp_path / "state").chmod(0o711)
            os.chmod(daemon.path, 0o666)
        with python(MEMBER, daemon.path, *groups) as member:
            said = member.stdout.read() + member.stderr.read()
        assert said == ("does not serve\n" if way == "none" else "operator admin refused\n")


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


DOCUMENT = {
    "format": 1,
    "pools": [{"name": "p"}],
    "jobs": [{"name": "j", "pool": "p", "groups": [{"name": "t", "command": {"argv": ["true"]}}]}],
}


def test_on_a_full_disk_new_jobs_are_refused_and_taken_again_once_there_is_room(small_disk):
    with Daemon(small_disk / "state").ready() as daemon, thin.connect(daemon.path) as session:
        session.submit(DOCUMENT, "before")
        hog = small_disk / "hog"
        with pytest.raises(OSError), open(hog, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        acknowledged, refusal = 0, None
        while refusal is None:
            assert acknowledged < 1000
            try:
                session.submit(DOCUMENT, f"during-{acknowledged}")
                acknowledged += 1
            except thin.ThinError as error:
                refusal = error
        assert refusal.code == "refused"
        assert "disk" in refusal.message
        assert len(session.call("JobList")) == 1 + acknowledged
        daemon.process.kill()
        daemon.ends()
        hog.unlink()
    with Daemon(small_disk / "state").ready() as daemon, thin.connect(daemon.path) as session:
        assert len(session.call("JobList")) == 1 + acknowledged
        session.submit(DOCUMENT, "after")


def test_room_that_comes_back_is_noticed_without_a_restart(small_disk):
    with Daemon(small_disk / "state").ready() as daemon, thin.connect(daemon.path) as session:
        hog = small_disk / "hog"
        with pytest.raises(OSError), open(hog, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(thin.ThinError, match="disk"):
            for number in range(1000):
                session.submit(DOCUMENT, f"during-{number}")
        hog.unlink()
        for _ in range(100_000):
            try:
                session.submit(DOCUMENT, "after")
                break
            except thin.ThinError as error:
                assert error.code == "refused"
        else:
            pytest.fail("the coordinator never noticed the room")
