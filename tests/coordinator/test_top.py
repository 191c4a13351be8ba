"""`top`: sums that are true, what matters first, a picture that fits 80 columns and any height."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from coordinator.cli.panorama import panorama
from coordinator.cli.top import Throughput
from tests.coordinator.playbook import Play, job, prep, release, tasks
from wire import messages as m


def busy() -> tuple[Play, dict[str, Any]]:
    """A job that runs, one that waits, one that is over, one whose release is owed by a lost node."""
    play = Play()
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=1)
    over = play.submit(job("over"))
    play.run_out(over)
    owed = play.submit(job("owed", tasks(size=3), release=release()))
    n2.drop()
    play.wait(60)
    play.terminate(owed)
    n1.obey()
    play.submit(job("wide", tasks(size=40), preparation=prep()))
    play.submit(job("waits", tasks(size=5)))
    return play, play.admin.ask(m.Top)


def drawn(document: dict[str, Any], height: int | None, width: int = 80, first: int = 0) -> list[str]:
    console = Console(width=width, color_system=None, height=height or 25)
    with console.capture() as captured:
        console.print(panorama(document, 12.5, 1_800_000_100.0, height, first, width))
    return captured.get().splitlines()


def test_sums_are_of_everything_and_what_runs_comes_first() -> None:
    play, document = busy()
    assert document["top_jobs"][0]["id"] == "wide-1"
    assert document["top_jobs"][-1]["id"] == "over-1"
    assert document["jobs"] == {"total": 4, "live": 3}
    assert document["nodes"] == {"running": 1, "lost": 1}
    assert (document["slots"], document["slots_used"]) == (3, 3), "the lost node still has its task"
    assert document["tasks"]["waiting"] == 43
    assert document["tasks"]["out"] == 2 + play.core.cluster.jobs["owed-1"].granted
    assert [(row["job"], row["node"]) for row in document["releases"]] == [("owed-1", "n2")]
    assert document["owed"] == 2
    assert [row["id"] for row in document["top_nodes"]] == ["n2", "n1"], "what is lost is told first"


def test_an_answer_is_no_larger_than_what_was_asked_for() -> None:
    play, _ = busy()
    document = play.admin.ask(m.Top, rows=1)
    assert [len(document[name]) for name in ("top_jobs", "top_nodes", "releases")] == [1, 1, 1]
    assert document["jobs"]["total"] == 4
    assert len(play.admin.ask(m.Top, rows=10**9)["top_jobs"]) == 4
    assert play.admin.ask(m.Top, rows=-5)["top_jobs"] == []


@pytest.mark.parametrize("height", [8, 12, 24, 60])
def test_the_picture_fits_eighty_columns_and_the_height_there_is(height: int) -> None:
    _, document = busy()
    lines = drawn(document, height)
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= 80


def test_a_narrow_terminal_still_names_jobs_and_nodes_in_full() -> None:
    _, document = busy()
    lines = drawn(document, 24, width=40)
    assert max(len(line) for line in lines) <= 40
    for job_ in document["top_jobs"]:
        state = job_["result"] or job_["state"]
        assert any(line.startswith(f"{job_['id']} ") and f" {state} " in line for line in lines), job_["id"]
    assert any(line.startswith("n1 ") and " running " in line for line in lines)


def test_the_picture_shows_jobs_nodes_what_is_owed_and_throughput() -> None:
    _, document = busy()
    text = "\n".join(drawn(document, 40))
    for said in ("wide-1", "0/40", "1 preparing", "12.5/s", "releases owed 2", "RELEASE OWED", "n2", "lost", "2/2"):
        assert said in text


def test_jobs_are_scrolled_through_and_never_past_the_last() -> None:
    play = Play()
    for number in range(30):
        play.submit(job(f"j{number}"))
    document = play.admin.ask(m.Top)
    ids = [row["id"] for row in document["top_jobs"]]
    assert any(line.startswith(f"{ids[7]} ") for line in drawn(document, 20, first=7)[4:5])
    assert any(line.startswith(f"{ids[29]} ") for line in drawn(document, 20, first=10**6))


def test_what_a_node_says_of_itself_moves_no_cursor() -> None:
    _, document = busy()
    document["top_nodes"][0]["reason"] = "\x1b[2J\x07gone"
    assert not any("\x1b" in line or "\x07" in line for line in drawn(document, 40))


def test_throughput_is_of_the_last_ten_seconds_and_begins_anew_when_a_job_was_deleted() -> None:
    rate = Throughput()
    assert rate.take({"succeeded": 0, "failed": 0}, 100.0) == 0.0
    assert rate.take({"succeeded": 20, "failed": 0}, 102.0) == 10.0
    for second in range(3, 40):
        found = rate.take({"succeeded": 20 + second, "failed": 0}, 100.0 + second)
    assert found == pytest.approx(1.0)
    assert rate.take({"succeeded": 5, "failed": 0}, 141.0) == 0.0
