"""What brings a command's files in runs in the command's place, before it, and counts for its attempt."""

from __future__ import annotations

from typing import Any

import pytest

from agentd.keeper import KILL, STAGED, STAGING, WHOLE, Exited, ProtocolError, Spawn, SpawnFailed, Swept
from tests.agentd.test_keeper import WALL, Play

STAGE = {"argv": ["bring"], "env": {"PLAN": "{}", "PLAN_0": 2}, "timeout_s": 20.0}


def staged(**changes: Any) -> Play:
    """A keeper whose command's files are being brought in."""
    play = Play()
    play.template(stage=STAGE, **changes)
    play.say("run", items=[["a", "t", ["v", "w", "x"], "job/a"]])
    return play


def spawn_of(play: Play) -> Spawn:
    (spawn,) = play.done
    assert isinstance(spawn, Spawn)
    play.done = []
    return spawn


def test_the_command_starts_when_its_files_are_there_and_its_time_counts_from_then() -> None:
    play = staged(timeout_s=5)
    first = spawn_of(play)
    assert (first.step, first.argv, first.directory) == (STAGING, [b"bring"], "job/a")
    assert first.env == {b"PLAN": b"{}", b"PLAN_0": b"x", b"BATCH_KEEPER": b"k1"}
    play.sleep(10)
    play.exits()
    second = spawn_of(play)
    assert (second.step, second.argv) == (STAGED, [b"prog", b"v"])
    assert second.env[b"BATCH_DEADLINE"] == b"%d" % int(WALL + play.now + 5)
    play.sleep(4)
    assert play.take_done() == []
    play.exits(7)
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["exit_code"], end["started_at"]) == ("exited", 7, WALL + 100)
    assert end["cpu_s"] == 0.5, "what brought the files in is not counted"


def test_without_files_a_command_is_spawned_whole() -> None:
    play = Play()
    play.template()
    play.run("a")
    assert spawn_of(play).step == WHOLE


def test_files_that_do_not_come_end_the_attempt_with_what_was_said() -> None:
    play = staged()
    spawn_of(play)
    play.give(Exited(1, None, 0.5, 4096, True, said="DownloadFailed: no such host."))
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["exit_code"], end["signal"]) == ("input_failed", None, None)
    assert end["reason"] == "DownloadFailed: no such host."
    assert play.done == []


@pytest.mark.parametrize("code, signal", [(1, None), (None, 9), (0xFF, None)])
def test_what_died_without_a_word_is_told_as_such(code: int | None, signal: int | None) -> None:
    play = staged()
    spawn_of(play)
    play.give(Exited(code, signal, 0.5, 4096, True, starved=signal == 9))
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["reason"].partition(":")[0]) == ("input_failed", "DownloadFailed")


def test_files_have_a_time_of_their_own() -> None:
    play = staged(timeout_s=3600)
    spawn_of(play)
    play.sleep(20.5)
    assert play.take_done() == [("signal", 15), ("tree", KILL)]
    play.exits(None, 9)
    play.give(Swept(0))
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["reason"]) == ("input_failed", "DownloadFailed: its files were not here within 20 s.")


def test_a_stop_while_files_come_kills_what_brings_them_and_starts_nothing() -> None:
    play = staged()
    spawn_of(play)
    play.say("stop", key="a", reason="its job ended")
    play.exits(0)
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["reason"]) == ("killed", "its job ended")
    assert play.take_done() == [("signal", 15)]


def test_files_that_came_while_the_keeper_slept_past_its_lease_start_nothing() -> None:
    play = staged()
    spawn_of(play)
    play.say("lease", until=play.now + 3)
    play.now += 60
    play.give(Exited(0, None, 0.5, 4096, True))
    assert play.take_done() == []
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], "longer than its lease" in end["reason"]) == ("killed", True)


def test_the_lease_ends_what_brings_files_in() -> None:
    play = staged()
    spawn_of(play)
    play.say("lease", until=play.now + 3)
    play.sleep(4)
    play.exits(None, 15)
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert end["outcome"] == "killed"


def test_what_brings_files_in_may_leave_nothing_running_even_for_a_preparation() -> None:
    play = staged(leave_running=True)
    spawn_of(play)
    play.exits(0, alone=False)
    assert play.take_done() == [("tree", KILL)]
    play.give(Swept(0))
    assert spawn_of(play).step == STAGED
    play.exits(0, alone=False)
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["leftovers"]) == ("exited", True)


def test_a_command_that_can_not_be_started_after_its_files_came_is_no_matter_of_files() -> None:
    play = staged()
    spawn_of(play)
    play.exits(0)
    play.give(SpawnFailed("no program"))
    play.sleep(1)
    (end,) = play.take_said("ended")
    assert (end["outcome"], end["reason"]) == ("start_failed", "no program")


def test_after_files_that_did_not_come_the_next_command_starts_in_its_own_place() -> None:
    play = staged()
    play.say("run", items=[["b", "t", ["v", "w", "y"], "job/b"]])
    spawn_of(play)
    play.exits(1)
    second = spawn_of(play)
    assert (second.key, second.step, second.env[b"PLAN_0"]) == ("b", STAGING, b"y")


@pytest.mark.parametrize("stage", [{}, {"argv": [], "env": {}}, {"argv": ["x"], "env": {"A": 1.5}}, [], "x"])
def test_a_malformed_stage_is_refused(stage: Any) -> None:
    with pytest.raises(ProtocolError):
        Play().template(stage=stage)


def test_an_item_must_have_the_values_that_its_files_need() -> None:
    play = Play()
    play.template(stage=STAGE)
    with pytest.raises(ProtocolError, match="has not the texts"):
        play.run("a")
