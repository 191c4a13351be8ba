"""The account of what is left of a job on its node: nothing, or which; and when its user is free."""

from __future__ import annotations

import os
import subprocess

import pytest

from agentd.cleaning import LINES, Cleaning
from agentd.containment import Containment
from agentd.ipc import public_files, remove_ipc
from tests.agentd.ground import NOW, SOMEBODY
from wire.messages import Cleanliness

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")


@pytest.fixture
def none(node):
    return Containment(node.root, "b" * 16, None)


def clean_up(files, containment, job, uid, keep_s, now, steps=1000):
    """Begin, do so many steps, and look."""
    cleaning = Cleaning(files, containment, job, uid)
    cleaning.begin(keep_s, now)
    cleaning.step(steps)
    return cleaning, cleaning.account()


def test_of_an_ordinary_job_nothing_is_left(node, root, none):
    node.make_job("j-1", ["d"], {"s": ""})
    (root / "workitems" / "j-1" / "t" / "wd").mkdir(parents=True)
    cleaning, clean = clean_up(node, none, "j-1", None, {}, NOW)
    assert clean == Cleanliness()
    assert cleaning.kept_s is None
    assert list((root / "trash").iterdir()) == []
    assert not (root / "workitems" / "j-1").exists()


@needs_root
def test_a_jobs_user_is_free_when_nothing_of_it_is_left(node, root, none):
    node.make_job("j-1", [], {}, user=SOMEBODY)
    (root / "shared" / "cache").write_text("")
    os.chown(root / "shared" / "cache", SOMEBODY, SOMEBODY)
    _, clean = clean_up(node, none, "j-1", SOMEBODY, {}, NOW)
    assert clean == Cleanliness()
    assert (root / "shared" / "cache").stat().st_uid == 0


@needs_root
def test_t17_a_user_with_files_left_stays_the_jobs(node, root, none, tmp_path):
    (tmp_path / "outside").write_text("")
    os.chown(tmp_path / "outside", SOMEBODY, SOMEBODY)
    os.link(tmp_path / "outside", root / "shared" / "f")
    cleaning, clean = clean_up(node, none, "j-1", SOMEBODY, {}, NOW)
    assert clean.uid == SOMEBODY
    assert clean.files == ["shared/f has 2 names, so that it may be somewhere else too."]
    (root / "shared" / "f").unlink()
    cleaning.begin({}, NOW)
    assert not cleaning.step(100)
    assert cleaning.account() == Cleanliness()


@needs_root
def test_t17_a_user_whose_files_are_still_being_deleted_stays_the_jobs(node, root, none):
    node.make_job("j-1", [], {}, user=SOMEBODY)
    for number in range(50):
        (root / "workitems" / "j-1" / f"f{number}").write_text("")
    cleaning, clean = clean_up(node, none, "j-1", SOMEBODY, {}, NOW, steps=10)
    assert clean == Cleanliness(uid=SOMEBODY)
    while cleaning.step(10):
        assert cleaning.account().uid == SOMEBODY
    assert cleaning.account() == Cleanliness()


@needs_root
def test_t17_a_user_whose_directories_are_kept_for_a_while_stays_the_jobs(node, root, none):
    node.make_job("j-1", [], {}, user=SOMEBODY)
    kept = root / "workitems" / "j-1" / "t"
    kept.mkdir()
    os.utime(kept, (NOW, NOW))
    cleaning, clean = clean_up(node, none, "j-1", SOMEBODY, {"t": 60.0}, NOW)
    assert (clean, cleaning.kept_s) == (Cleanliness(uid=SOMEBODY), 60.0)
    assert clean_up(node, none, "j-1", SOMEBODY, {"t": 60.0}, NOW + 61)[1] == Cleanliness()


def test_one_jobs_leftovers_are_not_anothers(node, root, none):
    for job in ("j-1", "j-10"):
        node.make_job(job, [], {})
    node.clean_job("j-10", {}, NOW)
    assert node.trash.holds("j-10")
    assert not node.trash.holds("j-1")
    clean_up(node, none, "j-1", None, {}, NOW)
    assert node.trash.holds("j-10")


def test_an_account_is_as_long_as_a_report_should_be(node, none):
    cleaning = Cleaning(node, none, "j-1")
    cleaning.begin({}, NOW)
    cleaning._cleaned.leftovers.extend(["x" * 10_000] * 1000)
    files = cleaning.account().files
    assert len(files) == LINES + 1
    assert files[-1] == f"{1000 - LINES} more."
    assert max(map(len, files)) < 500


@needs_root
def test_system_v_objects_of_the_user_are_removed():
    made = subprocess.run(
        ["setpriv", f"--reuid={SOMEBODY}", "--clear-groups", "ipcmk", "-M", "4096", "-S", "1", "-Q"],
        capture_output=True, text=True, check=True, cwd="/",
    ).stdout  # fmt: skip
    assert made.count("id") >= 3
    assert remove_ipc(SOMEBODY) == []
    listed = subprocess.run(["ipcs", "-c"], capture_output=True, text=True, check=True).stdout
    assert str(SOMEBODY) not in listed


@needs_root
def test_files_of_the_user_in_public_places_are_said(tmp_path):
    (tmp_path / "a\nb").write_text("")
    (tmp_path / "c").write_text("")
    os.chown(tmp_path / "a\nb", SOMEBODY, SOMEBODY)
    assert public_files(SOMEBODY, (str(tmp_path), "/nowhere")) == [f"{tmp_path}/a\\nb is of user {SOMEBODY}."]
