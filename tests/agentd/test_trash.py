"""Deletion: what is thrown away goes wholly, in bounded steps, and nothing outside of it is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd import trash
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
        (place / "root" / "workitems" / "j" / "theirs" / "file").write_text("")
        for path in (place / "root", place / "root" / "workitems", place / "root" / "workitems" / "j"):
            os.chown(path, SOMEBODY, SOMEBODY)

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
"""


@pytest.mark.parametrize("openat2", ["yes", "no"])
@pytest.mark.skipif(not can_mount(), reason="mounting needs root and a mount namespace")
def test_t11_a_mount_in_a_jobs_tree_is_not_entered_and_is_reported(tmp_path, outside, openat2):
    """A bind mount of the same file system: its device number tells nothing."""
    in_mount_namespace(MOUNTING, str(tmp_path / "root"), str(outside), openat2)
