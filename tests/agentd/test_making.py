"""A job's directories for a user of its own: whose they are, and what a job can't make of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.beneath import FilesError
from agentd.files import NodeFiles
from wire.bounds import TAKEN_TASK_NAMES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs users of their own")

UID = 1_879_100_001
OTHER = UID + 1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that other users can reach."""
    changed = [path for path in (tmp_path, *tmp_path.parents) if not path.stat().st_mode & 0o001]
    for path in changed:
        path.chmod(path.stat().st_mode | 0o011)
    yield tmp_path
    for path in changed:
        path.chmod(path.stat().st_mode & ~0o011)


@pytest.fixture
def node(place: Path) -> Iterator[NodeFiles]:
    files = NodeFiles(str(place / "root"), job_users=True)
    yield files
    files.close()


def whose(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


def as_user(uid: int, code: str) -> str:
    """What this Python says as this user: `ok`, or the name of its exception."""
    program = f"""
import os
os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})
try:
    {code}
    print("ok")
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_each_directory_has_its_owner_and_mode(node: NodeFiles, place: Path) -> None:
    node.make_job("j-1", ["d"], {"task.a": "x", "jobrelease": "y"}, user=UID, elevated=["jobrelease"])
    job = place / "root" / "workitems" / "j-1"
    assert whose(job.parent) == (0, 0, 0o711)
    assert whose(job) == (0, UID, 0o1770)
    assert {path.name: whose(path) for path in job.iterdir()} == {
        "home": (UID, UID, 0o700),
        "tmp": (UID, UID, 0o700),
        "dirs": (0, UID, 0o750),
        "private": (0, 0, 0o700),
        "private-elevated": (0, 0, 0o700),
    }
    assert whose(job / "dirs" / "d") == (UID, UID, 0o700)
    shared = dict.fromkeys(("tmp", "vartmp", "shm"), (0, 0, 0o1777))
    assert {path.name: whose(path) for path in (job / "private").iterdir()} == shared
    elevated = {path.name: whose(path) for path in (job / "private-elevated").iterdir()}
    assert elevated == {**shared, "home": (0, 0, 0o700)}
    scripts = place / "root" / "scripts"
    assert whose(scripts) == (0, 0, 0o711)
    assert whose(scripts / "j-1") == (0, UID, 0o710)
    assert whose(scripts / "j-1" / "task.a") == (0, UID, 0o550)
    assert whose(scripts / "j-1" / "jobrelease") == (0, 0, 0o500)


def test_no_task_is_called_as_what_stands_beside_it(node: NodeFiles, place: Path) -> None:
    node.make_job("j-1", ["d"], {}, user=UID, elevated=["task.a"])
    beside = {path.name.split("-")[0] for path in (place / "root" / "workitems" / "j-1").iterdir()}
    assert beside <= TAKEN_TASK_NAMES, "a task's directory is its name, or that and `-...`"


def test_without_elevated_commands_there_is_no_place_for_them(node: NodeFiles, place: Path) -> None:
    node.make_job("j-1", [], {}, user=UID)
    assert not (place / "root" / "workitems" / "j-1" / "private-elevated").exists()


def test_t14_a_job_reaches_its_own_directories_and_nothing_of_another_one(node: NodeFiles, place: Path) -> None:
    node.make_job("a-1", ["d"], {"task.a": "secret", "jobrelease": "root's"}, user=UID, elevated=["jobrelease"])
    job, scripts = place / "root" / "workitems" / "a-1", place / "root" / "scripts" / "a-1"
    mine = [
        f"os.mkdir('{job}/t')", f"open('{job}/home/x', 'w')", f"open('{job}/dirs/d/x', 'w')",
        f"open('{scripts}/task.a').read()",
    ]  # fmt: skip
    assert [as_user(UID, code) for code in mine] == ["ok"] * 4
    for code in (*mine, f"os.listdir('{job}')", f"os.listdir('{scripts}')", f"os.stat('{job}/home')"):
        assert as_user(OTHER, code) == "PermissionError", code
    root = place / "root"
    for name in ("workitems", "scripts"):  # nor is it told which jobs there are
        assert as_user(OTHER, f"os.listdir('{root / name}')") == "PermissionError"


@pytest.mark.parametrize(
    "attempt",
    [
        "os.rename('{job}/private', '{job}/x')",
        "os.rename('{job}/dirs', '{job}/x')",
        "os.mkdir('{job}/dirs/more')",
        "os.rename('{job}/dirs/d', '{job}/dirs/e')",
        "os.listdir('{job}/private/tmp')",
        "os.listdir('{job}/private-elevated')",
        "open('{scripts}/task.a', 'w')",
        "os.unlink('{scripts}/task.a')",
        "open('{scripts}/more', 'w')",
        "open('{scripts}/jobrelease')",
        "os.chmod('{job}', 0o777)",
    ],
)
def test_what_is_roots_in_a_jobs_tree_stays_out_of_its_reach(node: NodeFiles, place: Path, attempt: str) -> None:
    scripts = {"task.a": "x", "jobrelease": "y"}
    node.make_job("j-1", ["d"], scripts, user=UID, elevated=["jobrelease"])
    code = attempt.format(job=place / "root" / "workitems" / "j-1", scripts=place / "root" / "scripts" / "j-1")
    assert as_user(UID, code) == "PermissionError"


@pytest.mark.parametrize("put", ["link", "file", "fifo"])
def test_what_a_job_put_in_the_place_of_its_home_is_replaced_and_never_followed(
    node: NodeFiles, place: Path, put: str
) -> None:
    node.make_job("j-1", ["d"], {}, user=UID)
    home = place / "root" / "workitems" / "j-1" / "home"
    victim = place / "victim"
    victim.mkdir()
    putting = {
        "link": f"os.symlink('{victim}', '{home}')",
        "file": f"open('{home}', 'w')",
        "fifo": f"os.mkfifo('{home}')",
    }
    assert as_user(UID, f"os.rename('{home}', '{home}.old'); {putting[put]}") == "ok"
    node.make_job("j-1", ["d"], {}, user=UID)
    assert whose(home) == (UID, UID, 0o700)
    assert not home.is_symlink()
    assert whose(victim)[0] == 0, "nothing outside was given away"
    assert any(entry.name.startswith(("home.", "j-1")) for entry in (place / "root" / "trash").iterdir())


def test_a_directory_of_a_job_in_the_place_of_an_elevated_command_goes_to_the_trash(
    node: NodeFiles, place: Path
) -> None:
    node.make_job("j-1", [], {}, user=UID, elevated=["jobrelease"])
    release = place / "root" / "workitems" / "j-1" / "jobrelease"
    assert as_user(UID, f"os.mkdir('{release}'); os.symlink('/etc/passwd', '{release}/stdout.txt')") == "ok"
    node.make_job("j-1", [], {}, user=UID)
    assert release.exists(), "of a command that is not elevated it is the job's own"
    node.make_job("j-1", [], {}, user=UID, elevated=["jobrelease"])
    assert not release.exists()
    release.mkdir(mode=0o700)  # what root itself made there stays
    node.make_job("j-1", [], {}, user=UID, elevated=["jobrelease"])
    assert release.exists()


def test_what_a_job_keeps_in_its_directories_stays_when_they_are_made_again(node: NodeFiles, place: Path) -> None:
    node.make_job("j-1", ["d", "f"], {}, user=UID)
    job = place / "root" / "workitems" / "j-1"
    assert as_user(UID, f"open('{job}/dirs/d/x', 'w'); open('{job}/dirs/f/x', 'w'); os.mkdir('{job}/t')") == "ok"
    node.make_job("j-1", ["d", "f"], {}, fresh=["f"], user=UID)
    assert (job / "dirs" / "d" / "x").exists()
    assert list((job / "dirs" / "f").iterdir()) == []
    assert whose(job / "dirs" / "f") == (UID, UID, 0o700)
    assert (job / "t").exists()


def test_directories_of_another_user_are_not_given_away_but_refused(node: NodeFiles) -> None:
    node.make_job("j-1", ["d"], {})
    with pytest.raises(
        FilesError, match=r"directories of job j-1: there is a directory of user 0 in the place of home"
    ):
        node.make_job("j-1", ["d"], {}, user=UID)


def test_a_root_for_users_of_jobs_can_be_reached_whatever_the_umask(place: Path) -> None:
    before = os.umask(0o077)
    try:
        NodeFiles(str(place / "a" / "b" / "root"), job_users=True).close()
    finally:
        os.umask(before)
    assert as_user(UID, f"os.listdir('{place}/a/b/root/shared'); open('{place}/a/b/root/shared/x', 'w')") == "ok"
