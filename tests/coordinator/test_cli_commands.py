"""Every short command against a stand-in that speaks the real protocol: facts, JSON, exit statuses, sentences."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import entry
from tests.coordinator.standin import StandIn, a_job, a_node, a_node_job, a_task, counts, stand_in
from wire.messages import JobWait, RefusalCode, Refused

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Desk:
    """Runs commands in this process against whatever the test has put behind the socket."""

    def __init__(self, directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self.socket = directory / "coordinator.sock"
        self._capture = capfdbinary

    @contextmanager
    def answering(self, **answers: Any) -> Iterator[StandIn]:
        with stand_in(self.socket, answers) as standing:
            yield standing

    def run(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        status = entry.run_command(arguments)
        out, err = self._capture.readouterr()
        return Outcome(status, out.decode(), err.decode())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Desk:
    for name in ("BATCH_COORDINATOR", "XDG_STATE_HOME", "BATCH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCH_STATE", str(tmp_path))
    return Desk(tmp_path, capfdbinary)


def unknown(message: str = "there is no job `dayli`", near: list[str] | None = None) -> Refused:
    return Refused(request=0, code=RefusalCode.UNKNOWN, message=message, near=near or ["daily", "daily-3"])


# ---- facts

FILE = {"name": "a", "directory": False, "size": 3, "changed_at": 1_795_338_000.25}


def test_lists_are_arrays_of_what_show_prints(desk: Desk) -> None:
    job, task, node, pool = a_job(), a_task(), a_node(), {"id": "risk", "nodes": 1, "slots": 8}
    answers = {
        "JobList": [job],
        "JobShow": job,
        "JobNodes": [a_node_job()],
        "TaskList": [task],
        "TaskShow": {**task, "history": []},
        "NodeList": [node],
        "NodeShow": node,
        "PoolList": [pool],
        "PoolShow": pool,
        "FilesList": {"entries": [FILE], "truncated": True},
    }
    with desk.answering(**answers):
        assert desk.run("job", "list", "-o", "json").json == [job]
        assert desk.run("job", "show", "daily", "-o", "json").json == job
        assert desk.run("job", "nodes", "daily", "-o", "json").json == [a_node_job()]
        assert desk.run("task", "list", "daily", "-o", "json").json == [task]
        assert desk.run("task", "show", "daily/price[17,fx]", "-o", "json").json == answers["TaskShow"]
        assert desk.run("node", "list", "--output", "json").json == [node]
        assert desk.run("node", "show", "risk-1", "--output=json").json == node
        assert desk.run("pool", "list", "-ojson").json == [pool]
        assert desk.run("-o", "json", "pool", "show", "risk").json == pool
        listed = desk.run("files", "ls", "risk-1", "-o", "json")
        assert listed.json == [{**FILE, "changed_at": "2026-11-22T09:00:00Z"}]
        assert "more than 1" in listed.err


def test_an_empty_list_is_an_empty_array_and_a_bare_header(desk: Desk) -> None:
    with desk.answering(JobList=[], TaskList=[]):
        assert desk.run("job", "list", "-o", "json").out == "[]\n"
        assert desk.run("task", "list", "daily", "-o", "json").out == "[]\n"
        assert desk.run("job", "list").out.split() == [
            "JOB",
            "STATE",
            "RESULT",
            "DONE",
            "RUNNING",
            "FAILED",
            "AGE",
            "REASON",
        ]
        assert desk.run("task", "list", "daily").out.split()[0] == "TASK"


def test_tables_show_what_matters(desk: Desk) -> None:
    with desk.answering(
        JobList=[a_job()],
        JobNodes=[a_node_job()],
        TaskList=[a_task()],
        NodeList=[a_node(owes=["daily-3"])],
        NodeShow=a_node(),
        JobShow=a_job(),
        TaskShow={**a_task(), "history": []},
    ):
        assert desk.run("job", "list").out.splitlines()[1].split()[:5] == [
            "daily-3",
            "completed",
            "success",
            "8/8",
            "0",
        ]
        assert "risk-1" in desk.run("job", "nodes", "daily").out
        row = desk.run("task", "list", "daily").out.splitlines()[1].split()
        assert row[:6] == ["price[17,fx]", "success", "exit", "0", "1", "risk-1"]
        assert "daily-3" in desk.run("node", "list").out
        assert "cpus 0 of 8, memory 0 B of 16.0 GiB" in desk.run("node", "show", "risk-1").out
        assert "8 (8 succeeded)" in desk.run("job", "show", "daily").out
        assert "2.5s" in desk.run("task", "show", "daily/price[17,fx]").out


def test_many_tasks_come_page_by_page_as_one_document(desk: Desk) -> None:
    tasks = [a_task(id=f"daily-3/price[{n}]", index=n) for n in range(2500)]

    def page(asked: Any) -> list[dict[str, Any]]:
        start = 0 if asked.after is None else next(n for n, t in enumerate(tasks) if t["id"] == asked.after) + 1
        return tasks[start : start + asked.limit]

    with desk.answering(TaskList=page) as standing:
        assert len(desk.run("task", "list", "daily", "-o", "json").json) == 2500
        assert [asked.limit for asked in standing.asked] == [1000] * 4
        lines = desk.run("task", "list", "daily", "--limit", "1200").out.splitlines()
        assert len(lines) == 1201
        assert sum(line.startswith("TASK") for line in lines) == 1
        assert [asked.limit for asked in standing.asked[4:]] == [1000, 200]
        rest = desk.run("task", "list", "daily", "--after", "daily-3/price[2497]", "-o", "json").json
        assert [task["index"] for task in rest] == [2498, 2499]


def test_lists_of_any_length_come_page_by_page(desk: Desk) -> None:
    jobs = [a_job(id=f"j-{n}") for n in range(7)]
    with desk.answering(JobList=lambda asked: jobs[asked.skip : asked.skip + 3]) as standing:
        assert desk.run("job", "list", "-o", "json").json == jobs
    assert [asked.skip for asked in standing.asked] == [0, 3, 6, 7]  # type: ignore[attr-defined]


def test_filters_travel_with_the_question(desk: Desk) -> None:
    with desk.answering(TaskList=[]) as standing:
        desk.run("task", "list", "daily", "--with-state", "failed", "--group", "price", "--limit", "5")
    asked: Any = standing.asked[0]
    assert (asked.job, asked.state, asked.group, asked.limit, asked.after) == ("daily", "failed", "price", 5, None)


# ---- exit statuses


def test_the_address_is_the_option_else_the_variable_else_the_state_directory(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "other.sock"
    with stand_in(elsewhere, {"JobList": []}), desk.answering(JobList=[a_job()]):
        assert len(desk.run("job", "list", "-o", "json").json) == 1
        assert desk.run("job", "list", "-o", "json", "--coordinator", str(elsewhere)).json == []
        assert desk.run("--coordinator", str(elsewhere), "job", "list", "-o", "json").json == []
        monkeypatch.setenv("BATCH_COORDINATOR", str(elsewhere))
        assert desk.run("job", "list", "-o", "json").json == []
        monkeypatch.delenv("BATCH_COORDINATOR")
        monkeypatch.delenv("BATCH_STATE")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        outcome = desk.run("job", "list")
        assert outcome.status == 3
        assert str(tmp_path / "xdg" / "poolkeeper" / "coordinator.sock") in outcome.err


def test_without_a_coordinator_the_status_is_3_with_a_way_out(desk: Desk) -> None:
    outcome = desk.run("job", "list")
    assert (outcome.status, outcome.out) == (3, "")
    assert "coordinator serve" in outcome.err
    error = desk.run("job", "list", "-o", "json").error
    assert error["code"] == "no_coordinator"
    assert error["message"]
    assert error["help"]


def test_a_tcp_address_where_one_is_not_logged_in_is_refused_with_a_sentence(desk: Desk) -> None:
    outcome = desk.run("job", "list", "--coordinator", "example.org:7070")
    assert outcome.status == 3
    assert "`coordinator login example.org:7070`" in outcome.err


def test_a_socket_that_speaks_something_else_is_no_coordinator(desk: Desk) -> None:
    with desk.answering(JobList=lambda _: None):
        outcome = desk.run("job", "list")
    assert outcome.status == 3
    assert outcome.err.startswith("error: ")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.INVALID, 2),
        (RefusalCode.REFUSED, 3),
        (RefusalCode.UNKNOWN, 4),
        (RefusalCode.FAILED, 1),
    ],
)
def test_a_refusal_has_its_status(desk: Desk, code: RefusalCode, status: int) -> None:
    with desk.answering(JobShow=Refused(request=0, code=code, message="no", help="do that instead")):
        outcome = desk.run("job", "show", "daily")
        as_json = desk.run("job", "show", "daily", "-o", "json")
    assert outcome.status == status
    assert outcome.err == "error: no\n  do that instead\n"
    assert as_json.error == {"code": code.value, "message": "no", "help": "do that instead"}


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("JobShow", ("job", "show", "dayli")),
        ("JobNodes", ("job", "nodes", "dayli")),
        ("JobShow", ("job", "wait", "dayli")),
        ("JobTerminate", ("job", "terminate", "dayli")),
        ("JobDelete", ("job", "delete", "dayli", "--yes")),
        ("TaskList", ("task", "list", "dayli")),
        ("TaskShow", ("task", "show", "dayli/x")),
        ("Explain", ("explain", "dayli")),
        ("NodeShow", ("node", "show", "dayli")),
        ("PoolShow", ("pool", "show", "dayli")),
        ("LogRead", ("logs", "dayli/x")),
        ("FilesList", ("files", "ls", "dayli")),
        ("FilesRead", ("files", "cat", "dayli", "x")),
    ],
)
def test_what_does_not_exist_is_status_4_with_the_nearest_names(
    desk: Desk, kind: str, arguments: tuple[str, ...]
) -> None:
    with desk.answering(**{kind: unknown()}):
        outcome = desk.run(*arguments)
    assert (outcome.status, outcome.out) == (4, "")
    assert outcome.err == "error: there is no job `dayli`\n  did you mean daily or daily-3?\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobb",), "job"),
        (("job", "lst"), "list"),
        (("job", "show"), "JOB"),
        (("job", "show", "a", "--ouput", "json"), "--output"),
        (("job", "wait", "a", "--timeout", "soon"), "30s"),
        (("task", "list", "a", "--limit", "0"), "--limit"),
        (("task", "show", "daily"), "JOB/TASK"),
        (("logs",), "--phase"),
        (("logs", "daily"), "--node"),
        (("logs", "daily/x", "--node", "n"), "--node"),
        (("logs", "--node", "n", "--phase", "prep"), "--phase"),
        (("job", "list", "-o", "yaml"), "json"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_says_what_is_right(
    desk: Desk, arguments: tuple[str, ...], said: str
) -> None:
    outcome = desk.run(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_wrong_command_line_with_json_is_an_error_document(desk: Desk) -> None:
    outcome = desk.run("job", "show", "-o", "json")
    assert outcome.status == 2
    assert outcome.error["code"] == "usage"


def test_help_and_version_are_facts(desk: Desk) -> None:
    assert desk.run("--version").out.startswith("coordinator")
    for arguments in (("--help",), ("-h",), ("job", "--help"), ("job", "wait", "-h")):
        outcome = desk.run(*arguments)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.startswith("Usage: coordinator")


def test_a_command_that_does_not_exist_is_answered_by_those_that_do(desk: Desk) -> None:
    for typed, meant in (
        (("sumbit",), "`submit`"), (("job", "shwo"), "`show`"), (("drain", "n1"), "`node drain`"),
        (("retry",), "`job retry`"),
    ):  # fmt: skip
        outcome = desk.run(*typed)
        assert outcome.status == 2
        assert f"did you mean {meant}?" in outcome.err
    assert "did you mean" not in desk.run("zzz").err


def test_the_help_tells_each_command_by_a_whole_clause(desk: Desk) -> None:
    for family in ((), ("job",), ("node",), ("pool",), ("token",)):
        commands = desk.run(*family, "--help").out.partition("Commands:")[2]
        assert "..." not in commands
    assert "  drain       Empty a node\n" in desk.run("node", "--help").out


def test_a_number_that_is_none_is_told_without_words_of_programmers(desk: Desk) -> None:
    assert "'abc' is no whole number" in desk.run("events", "--since", "abc").err


def test_no_command_at_all_is_status_2_with_the_help(desk: Desk) -> None:
    for arguments in ((), ("job",)):
        outcome = desk.run(*arguments)
        assert outcome.status == 2
        assert "Commands:" in outcome.err


def test_arguments_that_are_no_text_are_status_2(desk: Desk) -> None:
    with desk.answering():
        assert desk.run("job", "show", os.fsdecode(b"\xff")).status == 2
        assert desk.run("logs", "daily/x", "--attempt", str(10**30)).status == 2
    assert desk.run("check", os.fsdecode(b"/absent/\xff.batch")).status == 2


def test_an_unexpected_reply_is_one_sentence_and_no_traceback(desk: Desk) -> None:
    with desk.answering(JobShow={"nothing": "of use"}):
        outcome = desk.run("job", "show", "daily")
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    assert "BATCH_DEBUG=1" in outcome.err


def test_a_mistake_of_ours_shows_its_traceback_when_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_DEBUG", "1")
    with desk.answering(JobShow={"nothing": "of use"}), pytest.raises(KeyError):
        desk.run("job", "show", "daily")


# ---- waiting and ending


def test_waiting_for_a_job_that_went_well_is_status_0(desk: Desk) -> None:
    with desk.answering(JobShow=a_job(), JobWait=a_job(), JobNodes=[a_node_job()]) as standing:
        outcome = desk.run("job", "wait", "daily")
        as_json = desk.run("job", "wait", "daily", "-o", "json")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "daily-3: success, 8 tasks: 8 succeeded in 12s\n"
    assert as_json.json == a_job()
    assert standing.kinds() == ["JobShow", "JobWait", "JobNodes", "JobNodes"] * 2
    assert {asked.job for asked in standing.asked if isinstance(asked, JobWait)} == {"daily-3"}


def test_waiting_for_a_job_that_failed_is_status_1_and_says_why(desk: Desk) -> None:
    failed = a_job(result="failure", tasks=counts(succeeded=7, failed=1))
    with desk.answering(JobShow=a_job(), JobWait=failed, JobNodes=[a_node_job()]):
        outcome = desk.run("job", "wait", "daily")
    assert outcome.status == 1
    assert outcome.err == "failed: 1 task of daily-3 failed\n"


def test_waiting_longer_than_the_timeout_is_status_124(desk: Desk) -> None:
    never = threading.Event()
    with desk.answering(JobShow=a_job(), JobWait=lambda _: never.wait(30) and None):
        outcome = desk.run("job", "wait", "daily", "--timeout", "50ms")
        never.set()
    assert outcome.status == 124
    assert "job show daily-3" in outcome.err


def test_waiting_bears_a_coordinator_that_goes_away_and_comes_back(desk: Desk) -> None:
    answers: Iterator[Any] = iter([None, a_job()])
    with desk.answering(JobShow=a_job(), JobWait=lambda _: next(answers), JobNodes=[a_node_job()]) as standing:
        outcome = desk.run("job", "wait", "daily")
    assert outcome.status == 0
    assert standing.kinds()[:4] == ["JobShow", "JobWait", "JobWait", "JobNodes"]
    assert "trying again" in outcome.err


def test_an_interrupt_while_waiting_is_status_130_and_leaves_the_job_alone(desk: Desk) -> None:
    never = threading.Event()

    def interrupt(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        never.wait(30)

    with desk.answering(JobShow=a_job(), JobWait=interrupt) as standing:
        outcome = desk.run("job", "wait", "daily")
        never.set()
    assert outcome.status == 130
    assert "job terminate daily-3" in outcome.err
    assert standing.kinds() == ["JobShow", "JobWait"]


def test_a_job_deleted_while_it_is_waited_for_is_status_4(desk: Desk) -> None:
    with desk.answering(JobShow=a_job(), JobWait={"id": "daily-3", "state": "deleted"}):
        outcome = desk.run("job", "wait", "daily")
    assert outcome.status == 4


def test_terminating_passes_reason_and_force_on(desk: Desk) -> None:
    with desk.answering(JobTerminate=a_job(state="terminating")) as standing:
        outcome = desk.run("job", "terminate", "daily", "--reason", "late", "--force")
    asked: Any = standing.asked[0]
    assert (asked.job, asked.reason, asked.force) == ("daily", "late", True)
    assert outcome.out == "daily-3 is terminating\n"


def test_deleting_asks_nobody_where_no_terminal_is(desk: Desk) -> None:
    with desk.answering(JobDelete={"id": "daily-3", "state": "deleted"}):
        assert desk.run("job", "delete", "daily").out == "daily-3 is deleted\n"


@pytest.mark.parametrize(("answer", "status", "asked"), [(b"y\n", 0, 1), (b"n\n", 1, 0), (b"\n", 1, 0)])
def test_deleting_asks_on_a_terminal(tmp_path: Path, answer: bytes, status: int, asked: int) -> None:
    leader, follower = pty.openpty()
    with stand_in(tmp_path / "s", {"JobDelete": {"id": "daily-3", "state": "deleted"}}) as standing:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "coordinator.cli", "job", "delete", "daily"],
            env={"PYTHONPATH": str(ROOT), "TERM": "xterm", "BATCH_COORDINATOR": str(tmp_path / "s")},
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        os.write(leader, answer)
        assert process.wait(60) == status
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "Delete daily? [y/N]" in shown
    assert len(standing.asked) == asked


# ---- output and files


def of_file(content: bytes, piece: int = 1000) -> Callable[[Any], dict[str, Any]]:
    """Answers reads of this content in small pieces."""

    def read(asked: Any) -> dict[str, Any]:
        found = content[asked.offset : asked.offset + min(piece, asked.limit)]
        return {"content": found, "size": len(content), "end": asked.offset + len(found) >= len(content)}

    return read


def test_output_is_printed_byte_by_byte(desk: Desk, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    content = bytes(range(256)) * 20
    with desk.answering(LogRead=of_file(content), FilesRead=of_file(content)):
        capfdbinary.readouterr()
        assert entry.run_command(["logs", "daily/price[17,fx]"]) == 0
        assert capfdbinary.readouterr().out == content
        assert entry.run_command(["files", "cat", "risk-1", "shared/x"]) == 0
        assert capfdbinary.readouterr().out == content


@pytest.mark.parametrize("count", [0, 1, 3, 5000, 10_000])
def test_only_the_last_lines_are_fetched(desk: Desk, count: int) -> None:
    lines = [f"line {n}" for n in range(10_000)]
    with desk.answering(LogRead=of_file("\n".join(lines).encode(), piece=100_000)):
        out = desk.run("logs", "daily/x", "--tail", str(count)).out
    assert out.splitlines() == (lines[-count:] if count else [])


def test_whose_output_is_meant_travels_with_the_question(desk: Desk) -> None:
    with desk.answering(LogRead=of_file(b"")) as standing:
        desk.run("logs", "daily/x", "--stderr", "--attempt", "2")
        desk.run("logs", "daily", "--node", "risk-1", "--phase", "prep")
        desk.run("logs", "--node", "risk-1", "--phase", "start")
    asked: list[Any] = list(standing.asked)
    assert [(a.task, a.job, a.node, a.phase and a.phase.value, a.stderr, a.attempt) for a in asked] == [
        ("daily/x", None, None, None, True, 2),
        (None, "daily", "risk-1", "prep", False, None),
        (None, None, "risk-1", "start", False, None),
    ]


def test_what_every_failed_task_wrote_comes_with_its_name(desk: Desk) -> None:
    failed = a_task(state="completed", result="failure", exit_code=3)

    def read(asked: Any) -> dict[str, Any]:
        return of_file(b"boom\n" if asked.stderr else b"working\n")(asked)

    with desk.answering(TaskList=[failed], LogRead=read) as standing:
        outcome = desk.run("logs", "daily", "--failed")
        short = desk.run("logs", "daily", "--failed", "--stderr")
    assert outcome.out == "==> daily-3/price[17,fx] on risk-1: exit 3\nworking\nboom\n"
    assert short.out == "==> daily-3/price[17,fx] on risk-1: exit 3\nboom\n"
    asked: Any = standing.asked[0]
    assert asked.state == "failed"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("risk-1: Could not read workitems/j/stdout.txt: there is no such file.", "node `risk-1` has removed it"),
        ("node `risk-1` is out of contact", "node `risk-1` is out of contact"),
    ],
)
def test_output_that_was_kept_is_told_with_the_reason_in_words(desk: Desk, why: str, said: str) -> None:
    piece = {"content": b"bye\n", "size": 4, "end": True, "kept": "all of it", "why": why}
    with desk.answering(LogRead=piece):
        outcome = desk.run("logs", "daily", "--node", "risk-1", "--phase", "release")
    assert (outcome.out, outcome.err) == ("bye\n", f"kept: all of it; {said}\n")


WHY = {
    "id": "daily-3/price[17,fx]", "reason": "node `n1`: 2 of 2 slots are taken", "code": "busy",
    "all": [{"code": "busy", "reason": "node `n1`: 2 of 2 slots are taken", "node": "n1"},
            {"code": "order", "reason": "3 tasks of `price` are before it", "node": None}],
    "next": "wait, or add a node to pool `risk`",
    "nodes": [{"node": "n1", "state": "running", "code": "busy", "reason": "2 of 2 slots are taken"}],
    "nodes_left_out": 4,
    "story": [{"time": "2026-11-22T09:00:00.000Z", "text": "its job was submitted"},
              {"time": "2026-11-22T09:00:00.000Z", "text": f"attempt 1 on `n1`: {'no such file, ' * 5}tried again"}],
}  # fmt: skip


def test_explain_says_the_dominant_reason_first_then_the_others_what_helps_the_nodes_and_the_story(desk: Desk) -> None:
    with desk.answering(Explain=WHY):
        lines = desk.run("explain", "daily/price[17,fx]").out.splitlines()
        assert desk.run("explain", "daily/price[17,fx]", "-o", "json").json == WHY
    assert lines[0] == "daily-3/price[17,fx]: node `n1`: 2 of 2 slots are taken"
    assert lines[1:3] == ["  also: 3 tasks of `price` are before it", "next: wait, or add a node to pool `risk`"]
    assert lines[4:7] == ["NODE  STATE    WHY NOT", "n1    running  2 of 2 slots are taken", "and 4 nodes more"]
    assert lines[-3].endswith("ago  its job was submitted")
    assert "ago  attempt 1 on `n1`: no such" in lines[-2]
    assert lines[-1].lstrip() == "such file, no such file, tried again"
    assert max(map(len, lines)) <= 80
