"""The state directory of a run: who may use it, what is removed of it, and how a later run finds it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coordinator.cli import private, removal
from coordinator.cli.failure import Failure
from coordinator.cli.private import Agent


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "xdg" / "poolkeeper" / "runs"


AGENTS = [Agent("demo", "demo-1", None), Agent("demo", "demo-2", 4)]


def test_a_fresh_directory_is_for_this_user_only_and_goes_entirely() -> None:
    state = private.create(None)
    state.plan(AGENTS)
    assert stat.S_IMODE(os.stat(state.path).st_mode) == 0o700
    assert state.remove() == []
    assert not os.path.exists(state.path)


def test_a_chosen_directory_that_was_absent_is_made_and_goes_again(tmp_path: Path) -> None:
    state = private.create(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b").st_mode) == 0o700
    assert state.remove() == []
    assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a").exists()


def test_a_chosen_directory_that_was_there_stays_and_so_do_strangers_in_it(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    state = private.create(str(chosen))
    state.plan(AGENTS)
    (chosen / "coordinator.sqlite").write_text("")
    (chosen / "coordinator.sock").write_text("")
    (chosen / "blobs").mkdir()
    (chosen / "somebody-elses").write_text("")
    assert state.remove() == []
    assert os.listdir(chosen) == ["somebody-elses"]


def test_a_chosen_directory_that_is_not_empty_is_refused_and_untouched(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "thesis.tex").write_text("")
    with pytest.raises(Failure) as refusal:
        private.create(str(chosen))
    assert refusal.value.exit == 2
    assert "not empty" in refusal.value.message
    assert os.listdir(chosen) == ["thesis.tex"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="no directory"):
        private.create(str(tmp_path / "file"))


def test_a_directory_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="no state directory"):
        private.create(str(tmp_path / "file" / "below"))


def test_a_run_that_is_alive_is_not_abandoned(user: Path) -> None:
    state = private.create(None)
    state.plan(AGENTS)
    assert list(private.abandoned()) == []
    state.remove()
    assert os.listdir(user) == []


def test_a_run_that_died_is_found_with_its_agents_and_held(user: Path) -> None:
    state = private.create(None)
    state.plan(AGENTS)
    state.release()  # what the end of its process does
    [(found, agents)] = private.abandoned()
    assert (found.path, found.made, agents) == (state.path, True, AGENTS)
    assert list(private.abandoned()) == [], "it is held by the one that found it"
    assert found.remove() == []
    assert not os.path.exists(state.path)
    assert os.listdir(user) == []


def test_a_run_whose_directory_is_gone_is_forgotten(user: Path) -> None:
    state = private.create(None)
    state.plan(AGENTS)
    state.release()
    assert removal.remove_entries(state.path) == []
    os.rmdir(state.path)
    assert list(private.abandoned()) == []
    assert os.listdir(user) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": 7}', "\x00"])
def test_an_entry_that_can_not_be_read_is_said_and_left(
    user: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    user.mkdir(parents=True)
    (user / "x.json").write_text(content)
    assert list(private.abandoned()) == []
    if content != '{"state": 7}':  # a directory named 7 does not exist: the entry is stale
        assert "x.json" in capsys.readouterr().err
        assert (user / "x.json").exists()


def test_where_no_list_can_be_kept_the_run_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    state = private.create(None)
    state.plan(AGENTS)
    assert "no later run will find" in capsys.readouterr().err
    assert state.remove() == []


def test_a_kept_directory_is_not_found_later() -> None:
    state = private.create(None)
    state.plan(AGENTS)
    state.forget()
    state.release()
    assert list(private.abandoned()) == []
    assert os.path.isdir(state.path)


def test_removal_follows_no_link_out_of_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "deep").mkdir()
    (tree / "deep" / "link").symlink_to(outside / "precious")
    assert removal.remove_entries(str(tree)) == []
    assert os.listdir(tree) == []
    assert os.listdir(outside) == ["precious"]


def test_removal_opens_what_a_command_has_closed(tmp_path: Path) -> None:
    closed = tmp_path / "tree" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("")
    closed.chmod(0)
    assert removal.remove_entries(str(tmp_path / "tree")) == []
    assert os.listdir(tmp_path / "tree") == []
