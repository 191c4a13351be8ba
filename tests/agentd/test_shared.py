"""What a job's user leaves in `shared/` is taken over through handles, and what may be somebody else's is left."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agentd.shared import SAID, Takeover
from tests.agentd.ground import SOMEBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")
ANOTHER = 4343


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


def give(path: Path, uid: int = SOMEBODY, mode: int | None = None) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)
    return path


def file(path: Path, uid: int = SOMEBODY, mode: int = 0o644) -> Path:
    path.write_text(path.name)
    return give(path, uid, mode)


def directory(path: Path, uid: int = SOMEBODY, mode: int = 0o755) -> Path:
    path.mkdir()
    return give(path, uid, mode)


def grant(path: Path) -> None:
    """Give the user rights by name, where the file system can."""
    entries = [(1, 7, -1), (2, 7, SOMEBODY), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    with contextlib.suppress(OSError):
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)
        assert "system.posix_acl_access" in os.listxattr(path)


def take(shared: Path, steps: int = 1000, uid: int = SOMEBODY, between=lambda: None) -> Takeover:
    top = os.open(shared, os.O_RDONLY)
    takeover = Takeover(top, uid)
    while takeover.step(steps):
        between()
    os.close(top)
    takeover.close()
    return takeover


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def test_only_the_users_entries_become_the_agents(shared):
    mine = [file(shared / "a"), directory(shared / "d"), file(shared / "d" / "b")]
    theirs = [file(shared / "theirs", ANOTHER), directory(shared / "e", ANOTHER)]
    inner = file(shared / "e" / "mine")
    (shared / "e" / "link").symlink_to("/etc/passwd")
    link = give(shared / "e" / "link")
    os.mkfifo(shared / "fifo")
    fifo = give(shared / "fifo")
    takeover = take(shared)
    assert takeover.left == []
    assert [owner(path) for path in (*mine, inner, link, fifo)] == [(0, 0)] * 6
    assert [owner(path) for path in theirs] == [(ANOTHER, ANOTHER)] * 2
    assert (shared / "a").read_text() == "a"
    assert os.stat("/etc/passwd").st_uid == 0


def test_t17_nothing_of_a_taken_file_gives_its_former_user_or_who_runs_it_rights(shared):
    path = file(shared / "suid", mode=0o6755)
    held = directory(shared / "sgid", mode=0o2775)
    grant(path)
    take(shared)
    assert (owner(path), stat.S_IMODE(path.stat().st_mode) & 0o6000) == ((0, 0), 0)
    assert (owner(held), stat.S_IMODE(held.stat().st_mode) & 0o6000) == ((0, 0), 0)
    assert "system.posix_acl_access" not in os.listxattr(path)


def test_t17_a_group_of_the_user_is_taken_too(shared):
    """Made in a set-group directory of the user by another one: who gets the number next would be in its group."""
    path = file(shared / "f", ANOTHER)
    os.chown(path, ANOTHER, SOMEBODY)
    take(shared)
    assert owner(path) == (ANOTHER, 0)


def test_t11_a_file_with_another_name_is_left_and_said(shared, tmp_path):
    outside = file(tmp_path / "outside")
    os.link(outside, shared / "inside")
    takeover = take(shared)
    assert owner(outside) == (SOMEBODY, SOMEBODY)
    assert takeover.left == ["shared/inside has 2 names, so that it may be somewhere else too."]
    outside.unlink()
    assert take(shared).left == []
    assert owner(shared / "inside") == (0, 0)


def test_t11_links_are_not_followed_out(shared, tmp_path):
    outside = directory(tmp_path / "outside")
    inner = file(outside / "f")
    (shared / "link").symlink_to(outside)
    give(shared / "link")
    take(shared)
    assert owner(shared / "link") == (0, 0)
    assert (owner(outside), owner(inner)) == ((SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY))


def test_the_walk_is_bounded_and_goes_on(shared):
    for number in range(5):
        directory(shared / f"d{number}")
        for inner in range(5):
            file(shared / f"d{number}" / f"f{inner}")
    calls = []
    takeover = take(shared, steps=7, between=lambda: calls.append(1))
    assert takeover.taken == 30
    assert len(calls) > 5
    assert {owner(path) for path in shared.rglob("*")} == {(0, 0)}


def test_a_tree_of_any_depth_holds_one_directory_open(shared):
    here = os.open(shared, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d" * 40, dir_fd=here)
        os.chown("d" * 40, SOMEBODY, SOMEBODY, dir_fd=here)
        below = os.open("d" * 40, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    open_before = len(os.listdir("/proc/self/fd"))
    most = []
    takeover = take(shared, steps=50, between=lambda: most.append(len(os.listdir("/proc/self/fd"))))
    assert takeover.taken == 2000
    assert max(most) <= open_before + 4
    subprocess.run(["rm", "-rf", str(shared)], check=True)


def test_t11_a_directory_that_is_moved_under_the_walk_leads_it_nowhere(shared, tmp_path):
    """The way back is checked: a walk that was carried off does not go on where it was carried to."""
    outside = directory(tmp_path / "elsewhere")
    file(outside / "theirs")
    directory(shared / "a")
    directory(shared / "a" / "b")
    file(shared / "a" / "b" / "f")
    moved = []

    def carry_off():
        if not moved and owner(shared / "a" / "b" / "f") == (0, 0):
            os.rename(shared / "a" / "b", outside / "b")
            moved.append(True)

    takeover = take(shared, steps=1, between=carry_off)
    assert moved
    assert owner(outside / "theirs") == (SOMEBODY, SOMEBODY)
    assert takeover.left == []


def test_what_is_left_is_named_up_to_a_bound(shared, tmp_path):
    for number in range(SAID + 5):
        os.link(file(tmp_path / f"f{number}"), shared / f"f{number:02}")
    left = take(shared).left
    assert len(left) == SAID + 1
    assert left[-1] == "5 more entries of shared are left."


def test_names_that_are_no_text_are_said_as_text(shared, tmp_path):
    outside = file(tmp_path / "outside")
    os.link(outside, os.fsencode(shared) + b"/\xff\n")
    [line] = take(shared).left
    assert line.startswith("shared/\\xff\\n has 2 names")


def test_no_walk_is_for_the_agent_or_root(shared):
    top = os.open(shared, os.O_RDONLY)
    with pytest.raises(ValueError):
        Takeover(top, 0)
    os.close(top)


SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
here = os.open(sys.argv[1], os.O_RDONLY)
os.setgroups([]); os.setresgid(4343, 4343, 4343); os.setresuid(4343, 4343, 4343)
os.write(1, b"ready")
while True:
    libc.renameat2(here, b"real", here, b"lure", 2)
"""


def test_t11_a_process_that_swaps_entries_under_the_walk_gains_nothing(shared, tmp_path):
    """Another user swaps the gone job's directory with a link to a file outside that has the gone job's owner."""
    outside = directory(tmp_path / "outside")
    precious = file(outside / "f")
    held = directory(shared / "held", ANOTHER, 0o777)
    directory(held / "real")
    file(held / "real" / "f")
    (held / "lure").symlink_to(outside)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SWAPPER, str(held)], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout.read(5) == b"ready"
            for _ in range(200):
                take(shared)
                for path in (held / "real", held / "lure"):
                    give(path)
        finally:
            swapper.kill()
    assert (owner(outside), owner(precious)) == ((SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY))
