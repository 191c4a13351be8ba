"""Deletion: what is thrown away goes wholly, in bounded steps, and nothing outside of it is touched."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentd import trash
from agentd.beneath import FilesError
from agentd.files import NodeFiles
from tests.agentd.ground import NOW, SOMEBODY, as_somebody, can_mount, empty, in_mount_namespace


def throw(node, root):
    """Everything in workitems/j, into the trash and away."""
    node.clean_job("j", {}, NOW)
    empty(node)
    return [str(path.relative_to(root / "trash")) for path in sorted((root / "trash").rglob("*"))]


def test_the_trash_is_emptied_in_bounded_steps(node, root):
    job = root / "workitems" / "j"
    for number in range(30):
        (job / f"t-{number}" / "wd").mkdir(parents=True)
        (job / f"t-{number}" / "stdout.txt").write_text("")
    node.clean_job("j", {}, NOW)
    calls = 1
    while node.empty_trash(10):
        calls += 1
    assert calls >= 9
    assert list((root / "trash").iterdir()) == []


def test_deletion_does_not_follow_links(node, root, outside):
    job = root / "workitems" / "j"
    job.mkdir()
    (job / "link").symlink_to(outside)
    (job / "file").symlink_to(outside / "precious")
    (job / "deep").mkdir()
    (job / "deep" / "up").symlink_to("../../../..")
    assert throw(node, root) == []


def test_a_job_directory_that_is_a_link_goes_as_a_link(node, root, outside):
    (root / "workitems" / "j").symlink_to(outside)
    assert throw(node, root) == []


def test_t11_a_directory_swapped_for_a_link_under_the_deletion_is_not_followed(node, root, outside, monkeypatch):
    """The moment between looking at a name and opening it, where a race would strike, made to order."""
    job = root / "workitems" / "j" / "d"
    job.mkdir(parents=True)
    (job / "precious").write_text("not this one")
    node.clean_job("j", {}, NOW)
    open_directory = trash.open_entry
    swapped = []

    def swap_first(parent, name, flags):
        if name == "d" and not swapped:
            swapped.append(name)
            os.rename("d", "e", src_dir_fd=parent, dst_dir_fd=parent)
            os.symlink(outside, "d", dir_fd=parent)
        return open_directory(parent, name, flags)

    monkeypatch.setattr(trash, "open_entry", swap_first)
    empty(node)
    assert swapped


def test_directories_without_rights_are_deleted():
    def action(place):
        node = NodeFiles(str(place / "root"))
        job = place / "root" / "workitems" / "j"
        for name, rights in (("a", 0o000), ("b", 0o500), ("c", 0o300)):
            (job / name / "inner").mkdir(parents=True)
            (job / name / "inner" / "file").write_text("")
            (job / name / "inner").chmod(rights)
            (job / name).chmod(rights)
        job.chmod(0o500)
        assert throw(node, Path(node.root)) == []
        node.close()

    as_somebody(action)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
def test_what_another_user_holds_is_left_and_said():
    def action(place):
        node = NodeFiles(str(place / "root"))
        node.clean_job("j", {}, NOW)
        empty(node)
        [line] = node.leftovers()
        assert line.startswith(f"{node.root}/trash/j~")
        assert line.endswith("/theirs/file could not be removed: the node's user may not.")
        node.close()

    def foreign(place):
        (place / "root" / "workitems" / "j" / "theirs").mkdir(parents=True)
        (place / "root" / "workitems" / "j" / "theirs").chmod(0o755)
        (place / "root" / "workitems" / "j" / "theirs" / "file").write_text("")
        for path in (place / "root", place / "root" / "workitems", place / "root" / "workitems" / "j"):
            os.chown(path, SOMEBODY, SOMEBODY)

    as_somebody(action, foreign)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
@pytest.mark.parametrize("most", [1000, 20])
def test_more_that_another_user_holds_than_one_step_looks_at_keeps_nothing_else_from_being_deleted(monkeypatch, most):
    monkeypatch.setattr(trash, "_FAILURES", most)

    def action(place):
        node = NodeFiles(str(place / "root"))
        node.clean_job("j", {}, NOW)
        (place / "root" / "workitems" / "k" / "t").mkdir(parents=True)
        node.clean_job("k", {}, NOW)
        steps = iter(range(20))
        while next(steps, None) is not None and node.empty_trash(10):
            pass
        assert next(steps, None) is not None, "there is always more to do"
        [left] = os.listdir(place / "root" / "trash")
        assert left.startswith("j~")
        [line] = node.leftovers()
        assert line.startswith(f"{node.root}/trash/j~")
        assert line.endswith(" could not be removed: the node's user may not.")
        node.close()

    def foreign(place):
        theirs = place / "root" / "workitems" / "j" / "theirs"
        theirs.mkdir(parents=True)
        for number in range(50):
            (theirs / str(number)).write_text("")
        for path in (place / "root", place / "root" / "workitems", place / "root" / "workitems" / "j"):
            os.chown(path, SOMEBODY, SOMEBODY)

    as_somebody(action, foreign)


def test_what_is_left_is_told_while_another_thread_finds_more_of_it(tmp_path, monkeypatch):
    """The agent deletes what is in the trash while a job's clean-up tells what of that job can't be deleted."""
    (tmp_path / "here").mkdir()
    kept = trash.Trash(os.open(tmp_path / "here", os.O_RDONLY), "trash")
    monkeypatch.setattr(kept, "_remove", lambda parent, name, this, depth: (name, "it may not"))
    for number in range(200):
        (tmp_path / "here" / f"j~{number}").touch()
    over = threading.Event()

    def finding():
        while not over.is_set():
            kept.retry("j")
            kept.empty(1000)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as threads:
            found = threads.submit(finding)
            try:
                for _ in range(300):
                    kept.leftovers("j")
                    kept.leftovers()
            finally:
                over.set()
            found.result()
    finally:
        sys.setswitchinterval(before)
    assert len(kept.leftovers("j")) == 200


def test_very_deep_directories_are_deleted(node, root):
    job = root / "workitems" / "j"
    job.mkdir()
    depth = 600
    here = os.open(job, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 50, dir_fd=here)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    node.clean_job("j", {}, NOW)
    empty(node, steps=100)
    assert list((root / "trash").iterdir()) == []


MOUNTING = """
import os, subprocess, sys
from agentd.files import NodeFiles
root, outside, openat2 = sys.argv[1:]
from agentd import beneath
beneath.has_openat2 = openat2 == "yes"
node = NodeFiles(root)
inside = root + "/workitems/j/t/wd/mounted"
os.makedirs(inside)
open(root + "/workitems/j/t/wd/file", "w").close()
subprocess.run(["mount", "--bind", outside, inside], check=True)
cleaned = node.clean_job("j", {}, 0.0)
assert cleaned.mounts == [inside], cleaned
while node.empty_trash(100): pass
assert os.listdir(outside) == ["precious"], os.listdir(outside)
[leftover] = node.leftovers()
assert leftover.endswith("/t/wd/mounted could not be removed: something is mounted there."), leftover
assert not node.empty_trash(100)
[entry] = os.listdir(root + "/trash")
assert os.listdir(f"{root}/trash/{entry}/t/wd") == ["mounted"]
subprocess.run(["umount", f"{root}/trash/{entry}/t/wd/mounted"], check=True)
node.trash.retry("j")
while node.empty_trash(100): pass
assert os.listdir(root + "/trash") == node.leftovers() == []
assert os.listdir(outside) == ["precious"]
"""


@pytest.mark.parametrize("openat2", ["yes", "no"])
@pytest.mark.skipif(not can_mount(), reason="mounting needs root and a mount namespace")
def test_t11_a_mount_in_a_jobs_tree_is_not_entered_and_is_reported(tmp_path, outside, openat2):
    """A bind mount of the same file system: its device number tells nothing."""
    in_mount_namespace(MOUNTING, str(tmp_path / "root"), str(outside), openat2)


# ---- what a hostile job leaves


def can_fix(place):
    """Whether files can be made immutable here."""
    probe = place / "probe"
    probe.write_text("")
    if subprocess.run(["chattr", "+i", str(probe)], capture_output=True).returncode != 0:
        return False
    subprocess.run(["chattr", "-i", str(probe)], check=True)
    probe.unlink()
    return True


@pytest.fixture
def fix(tmp_path):
    """Sets flags, and clears them in the end, whatever went wrong."""
    if os.geteuid() != 0 or not can_fix(tmp_path):
        pytest.skip("needs root and a file system with immutable files")
    yield lambda flag, *paths: subprocess.run(["chattr", f"+{flag}", *map(str, paths)], check=True)
    subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(tmp_path)], check=False)


def test_t11_immutable_and_append_only_files_and_directories_are_deleted(node, root, fix):
    job = root / "workitems" / "j"
    (job / "a" / "inner").mkdir(parents=True)
    (job / "b").mkdir()
    (job / "a" / "link").symlink_to("/nowhere")
    for path in (job / "a" / "inner" / "f", job / "b" / "f", job / "b" / "g"):
        path.write_text("")
    fix("i", job / "a" / "inner" / "f", job / "a" / "inner", job / "a")
    fix("a", job / "b" / "f", job / "b", job)
    assert throw(node, root) == []
    assert node.leftovers() == []


def test_t11_an_immutable_job_directory_goes_to_the_trash(node, root, fix):
    job = root / "workitems" / "j"
    job.mkdir()
    fix("i", job)
    assert node.clean_job("j", {}, NOW).leftovers == []
    assert not job.exists()


def test_t11_deep_directories_that_are_immutable_are_deleted(node, root, fix):
    deepest = root / "workitems" / "j" / Path(*["d"] * 60)
    deepest.mkdir(parents=True)
    (deepest / "f").write_text("")
    fix("i", *[parent for parent in deepest.parents if parent.name == "d"], deepest, deepest / "f")
    assert throw(node, root) == []


def test_t11_a_fixed_file_that_has_another_name_outside_stays_fixed_there(node, root, outside, fix):
    """Its flags are its owner's, who is not the job."""
    job = root / "workitems" / "j"
    job.mkdir()
    os.link(outside / "precious", job / "stolen")
    fix("i", outside / "precious")
    assert throw(node, root) != []
    [line] = node.leftovers()
    assert line.endswith("/stolen could not be removed: the node's user may not.")
    flags = subprocess.run(["lsattr", str(outside / "precious")], capture_output=True, text=True, check=True).stdout
    assert "i" in flags.split()[0]
    subprocess.run(["chattr", "-i", str(outside / "precious")], check=True)
    node.trash.retry("j")
    empty(node)
    assert node.leftovers() == []


def test_t11_hard_links_to_files_outside_are_only_unlinked(node, root, outside):
    job = root / "workitems" / "j"
    job.mkdir()
    (outside / "precious").chmod(0o640)
    before = (outside / "precious").stat()
    os.link(outside / "precious", job / "stolen")
    assert throw(node, root) == []
    after = (outside / "precious").stat()
    assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, before.st_uid, 1)


def test_t11_fifos_sockets_and_devices_are_deleted_without_being_opened(node, root):
    job = root / "workitems" / "j"
    job.mkdir()
    os.mkfifo(job / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(job, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        if os.geteuid() == 0:
            os.mknod(job / "tape", stat.S_IFCHR | 0o600, os.makedev(9, 0))  # to open a tape is to wind it
        assert throw(node, root) == []


def test_t11_names_that_are_no_text_or_as_long_as_can_be_are_deleted(node, root):
    job = os.fsencode(root / "workitems" / "j")
    os.mkdir(job)
    names = [b"\xff\xfe", b"a\nb", b"x" * 255, "é".encode() * 127, b"-rf", b"~", b"j~0", b" "]
    for name in names:
        os.mkdir(job + b"/" + name)
        os.close(os.open(job + b"/" + name + b"/" + name, os.O_CREAT))
    assert node.clean_job("j", {"kept": 5.0}, NOW).leftovers == []
    empty(node)
    assert list((root / "trash").iterdir()) == []


def test_t11_a_symlinked_parent_of_what_is_discarded_is_not_followed(node, root, outside):
    node.make_job("j", [], {})
    (outside / "attempt-1").mkdir()
    (root / "workitems" / "j" / "jobpreparation").symlink_to(outside)
    with pytest.raises(FilesError, match="no directory"):
        node.make_job("j", [], {}, discard=["jobpreparation/attempt-1"])
    assert (outside / "attempt-1").exists()


def test_stamps_that_a_job_set_to_the_future_keep_nothing_for_ever(node, root):
    node.make_job("j", [], {})
    kept = root / "workitems" / "j" / "t" / "attempt-2"
    kept.mkdir(parents=True)
    for path in (kept, kept.parent):
        os.utime(path, (NOW + 1e9, NOW + 1e9))
    assert node.clean_job("j", {"t": 60.0}, NOW).kept_s == pytest.approx(60)
    assert node.clean_job("j", {"t": 60.0}, NOW + 50).kept_s == pytest.approx(10)
    assert node.clean_job("j", {"t": 60.0}, NOW + 61).kept_s is None


def test_t11_stamps_of_files_outside_are_not_touched(node, root, outside):
    node.make_job("j", [], {})
    kept = root / "workitems" / "j" / "t"
    (kept / "attempt-2").mkdir(parents=True)
    os.link(outside / "precious", kept / "attempt-3")
    (kept / "attempt-4").symlink_to(outside / "precious")
    for path in (outside / "precious", kept / "attempt-2", kept):
        os.utime(path, (NOW + 1e6, NOW + 1e6))
    assert node.clean_job("j", {"t": 60.0}, NOW).kept_s == pytest.approx(60)
    assert (outside / "precious").stat().st_mtime == NOW + 1e6


SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
handles = [os.open(f"{sys.argv[1]}/d{number}", os.O_RDONLY) for number in range(int(sys.argv[2]))]
os.setgroups([]); os.setresgid(4242, 4242, 4242); os.setresuid(4242, 4242, 4242)
swaps, told = 0, False
while True:
    for here in handles:
        if libc.renameat2(here, b"real", here, b"lure", 2) == 0:
            swaps += 1
    if not told and swaps > len(handles):
        told = os.write(1, b"ready")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a process of another user needs root")
def test_t11_a_process_that_swaps_directories_for_links_gains_nothing(node, root, outside):
    """It outlived its job somehow and still has the job's directories open; the trash is closed to it otherwise."""
    (outside / "real").mkdir()
    (outside / "real" / "precious").write_text("p")
    for _ in range(5):
        job = root / "workitems" / "j"
        for number in range(100):
            (job / f"d{number}" / "real" / "real").mkdir(parents=True)
            (job / f"d{number}" / "real" / "precious").write_text("not this one")
            (job / f"d{number}" / "lure").symlink_to(outside)
        subprocess.run(["chown", "-hR", "4242:4242", str(job)], check=True)
        command = [sys.executable, "-I", "-S", "-c", SWAPPER, str(job), "100"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
            try:
                assert swapper.stdout.read(5) == b"ready"
                node.clean_job("j", {}, NOW)
                empty(node, steps=50)
            finally:
                swapper.kill()
        assert (outside / "real" / "precious").read_text() == "p"
        node.trash.retry("j")
        empty(node)
        assert list((root / "trash").iterdir()) == []
