"""`coordinator events`: pages made one stream, lines for people, objects for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.events import sentence_of
from tests.coordinator.standin import a_job
from tests.coordinator.test_cli_commands import Desk, desk

__all__ = ["desk"]


def an_event(number: int, kind: str = "task.ended", **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("job", "task", "node", "round", "attempt"))
    return {"id": number, "time": "2026-11-22T09:00:00.000Z", "kind": kind, **empty, "data": {}, **fields}


def paged(*pages: list[dict[str, Any]]) -> Any:
    """Answers EventsRead: a page each, the last one with the end."""

    def answer(asked: Any) -> dict[str, Any]:
        for n, page in enumerate(pages):
            if page and page[-1]["id"] > asked.since:
                return {"events": page, "next": page[-1]["id"] + 5, "end": n == len(pages) - 1}
        return {"events": [], "next": asked.since, "end": True}

    return answer


def test_pages_are_one_stream_of_objects_a_line(desk: Desk) -> None:
    with desk.answering(EventsRead=paged([an_event(10), an_event(11)], [an_event(20)])) as standing:
        done = desk.run("events", "-o", "json")
    assert (done.status, done.err) == (0, "")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [10, 11, 20]
    assert [asked.since for asked in standing.asked] == [0, 16]
    assert not any(asked.wait for asked in standing.asked)


def test_a_job_is_named_once_and_meant_for_good(desk: Desk) -> None:
    with desk.answering(JobShow=a_job(id="daily-3"), EventsRead=paged([an_event(10)])) as standing:
        desk.run("events", "--job", "daily", "--since", "7")
    assert (standing.asked[1].job, standing.asked[1].since) == ("daily-3", 7)


def test_following_a_job_ends_with_its_deletion(desk: Desk) -> None:
    last = an_event(20, "job.deleted", job="daily-3")
    with desk.answering(JobShow=a_job(), EventsRead=paged([an_event(10)], [last])) as standing:
        done = desk.run("events", "-f", "--job", "daily", "-o", "json")
    assert done.status == 0
    assert json.loads(done.out.splitlines()[-1])["kind"] == "job.deleted"
    assert all(asked.wait for asked in standing.asked[1:])


def test_people_read_a_line_an_event(desk: Desk) -> None:
    told = an_event(
        1207959552, job="j-1", task="j-1/t[3]", node="n1", attempt=2,
        data={"result": "failure", "exit_code": 3, "signal": None, "reason": None},
    )  # fmt: skip
    with desk.answering(EventsRead=paged([told])):
        done = desk.run("events")
    assert done.out.split()[:2] == ["1207959552", "2026-11-22T09:00:00.000Z"]
    assert "task.ended" in done.out
    assert "j-1/t[3] on n1 attempt 2: failure, exit 3" in done.out


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (an_event(9, "gap", data={"from": 3, "to": 9}), "3 to 9"),
        (an_event(9, "node.joined", node="n1", data={"pool": "p"}), "n1 in pool p"),
        (
            an_event(9, "prep.ended", job="j-1", node="n1", data={"succeeded": True, "exit_code": 0}),
            "j-1 on n1: succeeded",
        ),
        (an_event(9, "start.retried", node="n1", data={"succeeded": False, "exit_code": 4}), "n1: failed, exit 4"),
        (an_event(9, "pool.set", data={"pool": "p", "declared": True}), "p"),
        (an_event(9, "node.draining", node="n1", data={"by": "ann", "reason": "new kernel"}), "n1: new kernel, by ann"),
        (an_event(9, "job.disabling", job="j-1", data={"how": "wait", "by": "ann"}), "j-1: wait, by ann"),
        (an_event(9, "job.ended", job="j-1", data={"reason": "TaskFailed"}), "j-1: TaskFailed"),
        (an_event(9, "token.created", data={"token": "12345678"}), "12345678"),
    ],
)
def test_a_sentence_says_of_whom_and_how(event: dict[str, Any], sentence: str) -> None:
    assert sentence_of(event) == sentence


def test_an_event_that_never_was_is_refused(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("events", "--since", "-1").status == 2
