"""A node's files: their layout, and jobs' directories from their making to their going."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from agentd import files
from agentd.beneath import FilesError
from agentd.files import NodeFiles
from tests.agentd.ground import NOW, can_mount, empty, in_mount_namespace


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


def test_directories_that_are_overdue_are_found_and_when_the_next_one_is(node, root):
    node.make_job("j", ["d"], {})
    task_directory(root, "price-1-fx", NOW - 10)
    task_directory(root, "price-2-fx", NOW - 200)
    task_directory(root, "report", NOW - 10)
    task_directory(root, "jobpreparation", NOW - 500)
    keep_s = {"price": 100.0, "report": 10.0}
    names, next_s = node.overdue("j", keep_s, NOW, 10)
    assert (sorted(names), next_s) == (["price-2-fx", "report"], pytest.approx(90, abs=0.1))
    assert node.overdue("j", keep_s, NOW, 1)[1] == 0.0
    node.discard_tasks("j", [*names, "gone"])
    assert {path.name for path in (root / "workitems" / "j").iterdir()} >= {"price-1-fx", "jobpreparation", "home"}
    assert not (root / "workitems" / "j" / "report").exists()
    assert node.overdue("nothing", keep_s, NOW, 10) == ([], None)
    node.discard_tasks("nothing", ["t"])


def test_of_a_jobs_directories_all_go_but_those_that_can_not_be_moved(node, root):
    node.make_job("j", [], {})
    names = [f"t-{number}" for number in range(3)]
    for name in names:
        task_directory(root, name, NOW)
    long = ["s-1" + "0" * 300, "s-2" + "0" * 300]  # as good as any other reason
    with pytest.raises(FilesError, match=r"Could not remove workitems/j/s-10+: .*\. Nor 1 other of its directories\."):
        node.discard_tasks("j", [names[0], *long, *names[1:]])
    assert not [path for path in (root / "workitems" / "j").iterdir() if path.name in names]


def test_f21_what_ended_before_the_wall_clock_was_set_back_is_kept_from_then_on_and_no_longer(node, root):
    node.make_job("j", [], {})
    back = NOW - 100_000
    for name in ("a-1", "b-1"):
        path = task_directory(root, name, NOW)
        (path / "attempt-2" / "wd").mkdir(parents=True)
        for stamped in (path / "attempt-2", path):
            os.utime(stamped, (NOW, NOW))
    assert node.overdue("j", {"a": 50.0}, back, 10) == ([], pytest.approx(50, abs=0.1))
    assert node.overdue("j", {"a": 50.0}, back + 51, 10) == (["a-1"], None)
    assert node.clean_job("j", {"b": 50.0}, back).kept_s == pytest.approx(50, abs=0.1)
    assert node.clean_job("j", {"b": 50.0}, back + 51).kept_s is None
    assert not (root / "workitems" / "j").exists()


def test_beginning_and_end_of_an_output_are_read_and_nothing_of_it_twice(node, root):
    node.make_job("j", [], {})
    out = task_directory(root, "t", NOW) / "stdout.txt"
    out.write_bytes(bytes(range(100)))
    path = "workitems/j/t/stdout.txt"
    assert node.ends(path, 10, 20) == (100, bytes(range(10)), bytes(range(80, 100)))
    assert node.ends(path, 70, 60) == (100, bytes(range(70)), bytes(range(70, 100)))
    assert node.ends(path, 0, 5) == (100, b"", bytes(range(95, 100)))
    assert node.ends(path, 200, 5) == (100, bytes(range(100)), b"")
    assert node.ends("workitems/j/t/stderr.txt", 10, 20) is None
    out.unlink()
    out.symlink_to("/etc/passwd")
    assert node.ends(path, 10, 20) is None


def test_deleting_a_job_removes_what_was_kept(node, root):
    node.make_job("j", [], {})
    task_directory(root, "t", NOW)
    node.clean_job("j", {"t": 50.0}, NOW)
    assert node.clean_job("j", {}, NOW).kept_s is None
    assert not (root / "workitems" / "j").exists()


# ---- a full disk


FULL_DISK = """
import os, subprocess, sys
from agentd.beneath import FilesError
from agentd.files import NodeFiles
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
