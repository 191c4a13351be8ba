"""A node's files: layout, jobs, the trash that never follows anything out, and reading below the root only."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentd import files
from agentd.files import FilesError, NodeFiles, open_beneath

NOW = 1_700_000_000.0


@pytest.fixture
def node(tmp_path):
    node = NodeFiles(str(tmp_path / "root"))
    yield node
    node.close()


@pytest.fixture
def root(node):
    return Path(node.root)


@pytest.fixture
def outside(tmp_path):
    """What must never be touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    yield outside
    assert (outside / "precious").read_text() == "p"


def empty(node, steps=10_000):
    while node.empty_trash(steps):
        pass


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# ---- the root


def test_the_layout_is_made_once_and_keeps_its_id(tmp_path):
    os.umask(0o027)
    node = NodeFiles(str(tmp_path / "root"))
    root = Path(node.root)
    assert mode(root / "shared") == 0o1777
    assert mode(root / ".agent") == 0o700
    assert {path.name for path in root.iterdir()} == {"shared", "startup", "trash", "workitems", "scripts", ".agent"}
    (root / "shared" / "x").write_text("x")
    node.close()
    again = NodeFiles(str(tmp_path / "root"))
    assert again.incarnation == node.incarnation
    assert len(again.incarnation) == 32
    assert (root / "shared" / "x").read_text() == "x"
    again.close()
    shutil.rmtree(root)
    another = NodeFiles(str(tmp_path / "root"))
    assert another.incarnation != node.incarnation
    another.close()


def test_a_second_agent_on_the_same_root_is_refused(node):
    with pytest.raises(FilesError, match="Another agent runs on"):
        NodeFiles(node.root)


def test_a_root_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FilesError, match=r"Could not set up the node's root .*file/root: a part of its path is no dir"):
        NodeFiles(str(tmp_path / "file" / "root"))


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path, outside):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "workitems").symlink_to(outside)
    with pytest.raises(FilesError, match="Could not set up"):
        NodeFiles(str(tmp_path / "root"))


# ---- jobs


def test_a_job_has_home_tmp_dirs_and_scripts(node, root):
    node.make_job("daily-1", ["market", "cache"], {"task-price": "#!/bin/sh\necho é\r\n"})
    job = root / "workitems" / "daily-1"
    assert {path.name for path in job.iterdir()} == {"home", "tmp", "dirs"}
    assert {path.name for path in (job / "dirs").iterdir()} == {"market", "cache"}
    script = Path(node.script_path("daily-1", "task-price"))
    assert script.read_bytes() == "#!/bin/sh\necho é\r\n".encode()
    assert mode(script) == 0o700


def test_making_a_job_again_keeps_what_is_there_but_what_is_fresh_or_discarded(node, root):
    node.make_job("daily-1", ["market", "cache"], {"s": "1"})
    job = root / "workitems" / "daily-1"
    for path in ("home/a", "dirs/market/b", "dirs/cache/c"):
        (job / path).write_text("kept")
    (job / "jobpreparation" / "attempt-2").mkdir(parents=True)
    (job / "jobpreparation" / "stdout.txt").write_text("out")
    node.make_job(
        "daily-1", ["market", "cache"], {"s": "2"}, discard=["jobpreparation/attempt-2", "gone"], fresh=["cache"]
    )
    assert (job / "home" / "a").exists()
    assert (job / "dirs" / "market" / "b").exists()
    assert list((job / "dirs" / "cache").iterdir()) == []
    assert {path.name for path in (job / "jobpreparation").iterdir()} == {"stdout.txt"}
    assert Path(node.script_path("daily-1", "s")).read_text() == "2"
    assert len(list((root / "trash").iterdir())) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_name_that_is_a_path_is_refused(node, name):
    with pytest.raises(FilesError):
        node.make_job(name, [], {})
    with pytest.raises(FilesError):
        node.make_job("j", [name], {})
    with pytest.raises(FilesError):
        node.make_job("j", [], {name: ""})


def test_a_job_directory_that_was_replaced_by_a_link_is_not_entered(node, root, outside):
    (root / "workitems" / "j").symlink_to(outside)
    with pytest.raises(FilesError, match="directories of job j"):
        node.make_job("j", ["d"], {})
    assert {path.name for path in outside.iterdir()} == {"precious"}


def test_cleaning_removes_the_whole_job_when_nothing_is_kept(node, root):
    node.make_job("j", ["d"], {"s": ""})
    (root / "workitems" / "j" / "t-1" / "wd").mkdir(parents=True)
    cleaned = node.clean_job("j", {"t": 0.0}, NOW)
    assert cleaned == files.Cleaned([], None)
    assert not (root / "workitems" / "j").exists()
    assert not Path(node.script_path("j", "s")).exists()
    empty(node)
    assert list((root / "trash").iterdir()) == []


def test_cleaning_a_job_that_is_not_there_is_fine(node):
    assert node.clean_job("j", {"t": 5.0}, NOW) == files.Cleaned([], None)


def task_directory(root, name, ended):
    path = root / "workitems" / "j" / name
    (path / "wd").mkdir(parents=True)
    os.utime(path, (ended, ended))
    return path


def test_what_is_kept_stays_as_long_as_its_group_says(node, root):
    node.make_job("j", ["d"], {})
    task_directory(root, "price-1-fx", NOW - 10)
    task_directory(root, "price-2-fx", NOW - 200)
    task_directory(root, "report", NOW - 10)
    task_directory(root, "jobrelease", NOW)
    cleaned = node.clean_job("j", {"price": 100.0, "report": 20.0, "jobrelease": 0.0}, NOW)
    names = {path.name for path in (root / "workitems" / "j").iterdir()}
    assert names == {"price-1-fx", "report"}
    assert cleaned.kept_s == pytest.approx(10, abs=0.1)
    keep_s = {"price": 100.0, "report": 20.0}
    assert node.clean_job("j", keep_s, NOW + 11).kept_s == pytest.approx(79, abs=0.1)
    assert {path.name for path in (root / "workitems" / "j").iterdir()} == {"price-1-fx"}
    assert node.clean_job("j", keep_s, NOW + 91).kept_s is None
    assert not (root / "workitems" / "j").exists()


def test_directories_that_are_due_one_after_another_go_together(node, root):
    """Each look goes over all that is kept."""
    node.make_job("j", [], {})
    for number in range(5):
        task_directory(root, f"t-{number}", NOW - number)
    assert node.clean_job("j", {"t": 100.0}, NOW).kept_s == pytest.approx(96)
    assert node.clean_job("j", {"t": 100_000.0}, NOW + 99_990).kept_s == pytest.approx(6)
    assert node.clean_job("j", {"t": 100_000.0}, NOW + 99_996.5).kept_s == pytest.approx(0.5)
    for number in range(5):
        task_directory(root, f"u-{number}", NOW + number)
    assert node.clean_job("j", {"u": 10_000.0}, NOW + 9_999.9).kept_s == pytest.approx(0.41, abs=0.001)


def test_the_last_attempt_decides_how_long_a_directory_is_kept(node, root):
    node.make_job("j", [], {})
    path = task_directory(root, "t", NOW - 500)
    (path / "attempt-2" / "wd").mkdir(parents=True)
    os.utime(path / "attempt-2", (NOW - 5, NOW - 5))
    os.utime(path, (NOW - 500, NOW - 500))
    assert node.clean_job("j", {"t": 50.0}, NOW).kept_s == pytest.approx(45)


def test_deleting_a_job_removes_what_was_kept(node, root):
    node.make_job("j", [], {})
    task_directory(root, "t", NOW)
    node.clean_job("j", {"t": 50.0}, NOW)
    assert node.clean_job("j", {}, NOW).kept_s is None
    assert not (root / "workitems" / "j").exists()


# ---- the trash


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


def test_a_swap_of_a_directory_for_a_link_under_the_deletion_touches_nothing_outside(node, root, outside, monkeypatch):
    """The moment between looking at a name and opening it, where a race would strike, made to order."""
    job = root / "workitems" / "j" / "d"
    job.mkdir(parents=True)
    (job / "precious").write_text("not this one")
    node.clean_job("j", {}, NOW)
    open_directory = files._open_same_mount
    swapped = []

    def swap_first(parent, name, flags):
        if name == "d" and not swapped:
            swapped.append(name)
            os.rename("d", "e", src_dir_fd=parent, dst_dir_fd=parent)
            os.symlink(outside, "d", dir_fd=parent)
        return open_directory(parent, name, flags)

    monkeypatch.setattr(files, "_open_same_mount", swap_first)
    empty(node)
    assert swapped


def as_somebody(action, before=lambda place: None):
    """Do it as an unprivileged user, where rights count; in a child if we are root. `before` is done as we are."""
    place = Path(tempfile.mkdtemp())
    try:
        before(place)
        if os.geteuid() != 0:
            action(place)
            return
        os.chown(place, 4242, 4242)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(4242, 4242, 4242)
            os.setresuid(4242, 4242, 4242)
            try:
                action(place)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(place)], check=True)
        shutil.rmtree(place)


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
        assert line.startswith(f"{node.root}/trash/j.")
        assert line.endswith(" could not be removed.")
        node.close()

    def foreign(place):
        (place / "root" / "workitems" / "j" / "theirs").mkdir(parents=True)
        (place / "root" / "workitems" / "j" / "theirs" / "file").write_text("")
        for path in (place / "root", place / "root" / "workitems", place / "root" / "workitems" / "j"):
            os.chown(path, 4242, 4242)

    as_somebody(action, foreign)


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


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def in_mount_namespace(script, *arguments):
    command = ["unshare", "--mount", "--", sys.executable, "-c", script, *arguments]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent.parent)


MOUNTING = """
import os, subprocess, sys
from agentd.files import NodeFiles
root, outside, openat2 = sys.argv[1:]
from agentd import files
if openat2 == "no":
    whole = files._open_same_mount
    files._open_same_mount = lambda *args: whole(*args, openat2=False)
node = NodeFiles(root)
inside = root + "/workitems/j/t/wd/mounted"
os.makedirs(inside)
open(root + "/workitems/j/t/wd/file", "w").close()
subprocess.run(["mount", "--bind", outside, inside], check=True)
cleaned = node.clean_job("j", {}, 0.0)
assert any(inside in line for line in cleaned.leftovers), cleaned
while node.empty_trash(100): pass
assert os.listdir(outside) == ["precious"], os.listdir(outside)
assert len(node.leftovers()) == 1
assert not node.empty_trash(100)
[entry] = os.listdir(root + "/trash")
assert os.listdir(f"{root}/trash/{entry}/t/wd") == ["mounted"]
"""


@pytest.mark.parametrize("openat2", ["yes", "no"])
@pytest.mark.skipif(not can_mount(), reason="mounting needs root and a mount namespace")
def test_a_mount_inside_is_not_entered_and_is_reported(tmp_path, outside, openat2):
    """A bind mount of the same file system: its device number tells nothing."""
    in_mount_namespace(MOUNTING, str(tmp_path / "root"), str(outside), openat2)


# ---- reading


def test_pieces_of_a_file_are_read_from_either_end(node, root):
    (root / "shared" / "f").write_bytes(b"0123456789")
    assert node.read_piece("shared/f", 0, 4) == files.Piece(b"0123", 0, 10, False)
    assert node.read_piece("/".join(["shared", ".", "f"]), 4, 100) == files.Piece(b"456789", 4, 10, True)
    assert node.read_piece("shared/f", -3, 100) == files.Piece(b"789", 7, 10, True)
    assert node.read_piece("shared/f", -30, 100).content == b"0123456789"
    assert node.read_piece("shared/f", 50, 100) == files.Piece(b"", 50, 10, True)
    assert node.tail("shared/f", 2) == b"89"
    assert node.tail("shared/missing") == b""


def test_a_missing_file_is_told_from_a_refused_one(node):
    with pytest.raises(FilesError, match=r"Could not read shared/x: there is no such file\.") as missing:
        node.read_piece("shared/x", 0, 1)
    assert missing.value.missing
    with pytest.raises(FilesError, match="no regular file") as refused:
        node.read_piece("shared", 0, 1)
    assert not refused.value.missing


@pytest.mark.parametrize("path", ["../outside/precious", "shared/../../outside/precious", "/etc/hostname", "shared/.."])
def test_nothing_above_the_root_is_read(node, outside, path):
    with pytest.raises(FilesError, match="leads out of the node's root"):
        node.read_piece(path, 0, 10)


@pytest.mark.parametrize("how", [True, False])
def test_links_are_not_followed_wherever_they_stand(node, root, outside, how, monkeypatch):
    monkeypatch.setattr(
        files, "open_beneath", lambda fd, path, flags: open_beneath(fd, path, flags, openat2=how and files._OPENAT2)
    )
    (root / "shared" / "file").symlink_to(outside / "precious")
    (root / "shared" / "directory").symlink_to(outside)
    (root / "shared" / "proc").symlink_to("/proc/self/root")
    (root / "shared" / "inside").mkdir()
    for path in ("shared/file", "shared/directory/precious", "shared/proc/etc/hostname"):
        with pytest.raises(FilesError):
            node.read_piece(path, 0, 10)
    with pytest.raises(FilesError):
        node.list_directory("shared/directory")
    assert node.list_directory("shared/inside").entries == []


def test_reading_a_fifo_does_not_hang(node, root):
    os.mkfifo(root / "shared" / "fifo")
    with pytest.raises(FilesError, match="no regular file"):
        node.read_piece("shared/fifo", 0, 10)
    assert node.tail("shared/fifo") == b""


@pytest.mark.parametrize("path", [".agent/incarnation", "./.agent/incarnation", ".agent", "/.agent"])
def test_the_agents_own_files_are_not_shown(node, path):
    with pytest.raises(FilesError):
        node.read_piece(path, 0, 10)
    with pytest.raises(FilesError):
        node.list_directory(path)
    assert ".agent" not in [name for name, *_ in node.list_directory("").entries]


@pytest.mark.parametrize("path", ["a\0b", "shared/" + "x" * 300, "shared/" + "y/" * 3000, "\udcff"])
def test_odd_paths_are_refused_in_words(node, path):
    with pytest.raises(FilesError, match="Could not read"):
        node.read_piece(path, 0, 10)


def test_a_listing_is_sorted_and_bounded(node, root):
    shared = root / "shared"
    for name in ("b", "a", "c"):
        (shared / name).write_text(name * 3)
    (shared / "d").mkdir()
    (shared / "z").symlink_to("/nowhere")
    os.close(os.open(os.fsencode(shared) + b"/\xff", os.O_CREAT))
    listing = node.list_directory("shared")
    assert [(name, is_directory) for name, is_directory, _, _ in listing.entries] == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("d", True),
        ("z", False),
        ("\\xff", False),
    ]
    assert listing.entries[0][2] == 3
    assert not listing.truncated
    short = node.list_directory("shared", limit=2)
    assert ([name for name, *_ in short.entries], short.truncated) == (["a", "b"], True)


FULL_DISK = """
import os, subprocess, sys
from agentd.files import FilesError, NodeFiles
root = sys.argv[1]
os.mkdir(root)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", root], check=True)
node = NodeFiles(root)
with open(root + "/shared/ballast", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
try:
    node.make_job("j", [], {"s": "x" * 5000})
except FilesError as error:
    assert str(error) == "Could not make the directories of job j: no space is left on the node's disk.", error
else:
    raise AssertionError("the disk was not full")
os.unlink(root + "/shared/ballast")
node.make_job("j", [], {"s": "x" * 5000})
"""


@pytest.mark.skipif(not can_mount(), reason="mounting needs root and a mount namespace")
def test_a_full_disk_is_a_sentence_and_passes(tmp_path):
    in_mount_namespace(FULL_DISK, str(tmp_path / "full"))
