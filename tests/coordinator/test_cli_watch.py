"""Waiting for jobs: what is shown, what `--follow` prints, what Ctrl-C does, how a gone coordinator is borne."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import output
from coordinator.cli.connection import Connection, connect_to
from coordinator.cli.failure import Failure
from coordinator.cli.follow import Follower
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.result import gather, verdict_of
from coordinator.cli.screen import Screen
from coordinator.cli.watch import Watch
from tests.coordinator.standin import StandIn, a_job, a_node_job, a_task, counts, stand_in
from wire.messages import RefusalCode, Refused

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def talking(directory: Path, answers: dict[str, Any]) -> Iterator[tuple[StandIn, Connection]]:
    """A stand-in and a connection to it."""
    with stand_in(directory / "s", answers) as standing, connect_to(str(directory / "s")) as connection:
        yield standing, connection


def overview(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"changed": 1, "jobs": [{"nodes": [], "node_states": {}, **job} for job in jobs], "nodes": []}


def running(**changed: Any) -> dict[str, Any]:
    job = a_job(state="active", result=None, completed_at=None, end_reason=None, tasks=counts(running=1, active=7))
    done = "tasks" in changed
    return {**job, "tasks_done_at": job["tasks_done_at"] if done else None, **changed}


def test_a_job_is_watched_until_it_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = iter([overview(running()), overview(running(state="terminating")), overview(a_job())])
    with talking(tmp_path, {"Overview": lambda _: next(pictures)}) as (_, connection), Interrupts("") as interrupts:
        assert Watch(connection, ["daily-3"], interrupts).until_over()
    assert capsys.readouterr().err.splitlines() == [
        "daily-3: submitted, 8 tasks",
        "daily-3: terminating",
        "daily-3: success, 8 tasks: 8 succeeded in 12s",
    ]


def test_the_first_interrupt_ends_the_jobs_and_waits_for_their_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standing_jobs: Iterator[dict[str, Any]] = iter([overview(running()), overview(running()), overview(a_job())])

    def look(_: Any) -> dict[str, Any]:
        if "JobTerminate" not in standing.kinds():
            os.kill(os.getpid(), signal.SIGINT)
        return next(standing_jobs)

    answers = {"Overview": look, "JobTerminate": running(state="terminating")}
    with talking(tmp_path, answers) as (standing, connection), Interrupts("") as interrupts:
        watch = Watch(connection, ["daily-3"], interrupts)
        assert not watch.until_over()
    assert standing.kinds() == ["Overview", "JobTerminate", "Overview", "Overview"]
    assert "once more leaves at once" in capsys.readouterr().err


def test_an_interrupt_when_one_job_is_over_already_ends_the_others(tmp_path: Path) -> None:
    over = Refused(request=0, code=RefusalCode.FAILED, message="job `a-1` is over already")
    answers = {
        "Overview": overview(a_job(id="a-1"), a_job(id="b-1")),
        "JobTerminate": lambda asked: over if asked.job == "a-1" else a_job(id="b-1"),
    }
    with talking(tmp_path, answers) as (standing, connection), Interrupts("") as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not Watch(connection, ["a-1", "b-1"], interrupts).until_over()
    assert [asked.job for asked in standing.asked if hasattr(asked, "reason")] == ["a-1", "b-1"]  # type: ignore[attr-defined]


SECOND = """
import os, signal
from coordinator.cli.interrupts import Interrupts
with Interrupts("left at once") as interrupts:
    os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.count == 1
    interrupts.pause(60)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""


def test_the_second_interrupt_leaves_at_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", SECOND],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "left at once\n")


def test_signals_are_as_before_after_the_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(""):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_watch_bears_a_coordinator_that_comes_back(tmp_path: Path) -> None:
    looks: Iterator[Any] = iter([overview(running()), None, overview(a_job())])
    with talking(tmp_path, {"Overview": lambda _: next(looks)}) as (_, connection), Interrupts("") as interrupts:
        assert Watch(connection, ["daily-3"], interrupts).until_over()


def test_very_many_jobs_are_watched_in_parts(tmp_path: Path) -> None:
    jobs = [a_job(id=f"j-{n}") for n in range(250)]
    with (
        talking(tmp_path, {"Overview": lambda asked: overview(*(job for job in jobs if job["id"] in asked.jobs))}) as (
            standing,
            connection,
        ),
        Interrupts("") as interrupts,
    ):
        assert Watch(connection, [job["id"] for job in jobs], interrupts).until_over()
    assert [len(asked.jobs) for asked in standing.asked] == [100, 100, 50]  # type: ignore[attr-defined]


def test_a_job_that_stays_open_is_told_once_with_the_way_to_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = overview(running(tasks=counts(succeeded=8)))
    looks: Iterator[Any] = iter([still, still, overview(a_job())])
    with talking(tmp_path, {"Overview": lambda _: next(looks)}) as (_, connection), Interrupts("") as interrupts:
        Watch(connection, ["daily-3"], interrupts).until_over()
    assert capsys.readouterr().err.count("job terminate daily-3") == 1


def test_a_daemon_that_died_ends_the_watch_with_its_sentence(tmp_path: Path) -> None:
    def died() -> None:
        raise Failure(1, "failed", "demo-1 ended")  # type: ignore[arg-type]

    with (
        talking(tmp_path, {"Overview": overview(running())}) as (_, connection),
        Interrupts("") as interrupts,
        pytest.raises(Failure, match="demo-1 ended"),
    ):
        Watch(connection, ["daily-3"], interrupts, check=died).until_over()


class Terminal:
    """A pseudo terminal to draw on."""

    def __init__(self) -> None:
        self._leader, follower = pty.openpty()
        self.stream = os.fdopen(follower, "w")

    def close(self) -> None:
        self.stream.close()
        os.close(self._leader)

    def drawn(self) -> str:
        self.stream.flush()
        return os.read(self._leader, 1_000_000).decode().replace("\r\n", "\n")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_on_a_terminal_the_picture_replaces_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal.stream)
    screen.draw(["one", "two"])
    screen.draw(["one", "two"])
    assert terminal.drawn() == "one\ntwo\n"
    screen.draw(["three"])
    assert terminal.drawn() == "\x1b[2F\x1b[Jthree\n"
    screen.clear()
    assert terminal.drawn() == "\x1b[1F\x1b[J"
    screen.clear()
    terminal.stream.write(".")
    assert terminal.drawn() == "."


def test_no_colour_is_honoured_and_a_pipe_has_none(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.in_colour(terminal.stream)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.in_colour(terminal.stream)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not output.in_colour(terminal.stream)
    assert not output.in_colour(io.StringIO())


def an_end(task: dict[str, Any], number: int = 1, kind: str = "task.ended", attempt: int = 1) -> dict[str, Any]:
    return {"id": number, "kind": kind, "task": task["id"], "attempt": attempt, "job": task["job"], "data": {}}


def told(events: list[dict[str, Any]]) -> Any:
    """Answers EventsRead with what the list holds by then."""

    def answer(asked: Any) -> dict[str, Any]:
        after = [event for event in events if event["id"] > asked.since]
        return {"events": after, "next": after[-1]["id"] if after else asked.since, "end": True}

    return answer


def test_output_is_followed_line_by_line_with_the_name_of_its_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = {"stdout": b"one\ntw", "stderr": b""}
    task = a_task(state="running", result=None, attempts=1)
    running, events = [task], []

    def read(asked: Any) -> dict[str, Any]:
        content = written["stderr" if asked.stderr else "stdout"][asked.offset :]
        return {"content": content, "size": 0, "end": True}

    answers: dict[str, Any] = {
        "TaskList": lambda asked: list(running) if asked.after is None else [], "LogRead": read,
        "EventsRead": told(events),
    }  # fmt: skip
    with talking(tmp_path, answers) as (_, connection):
        follower = Follower("daily-3", named=False, facts_on_stdout=True, before_print=lambda: None)
        follower.poll(connection)
        assert follower.busy
        assert capsys.readouterr().out == "price[17,fx]: one\n"
        written["stdout"] += b"o\nlast"
        written["stderr"] += b"oh\n"
        follower.poll(connection)
        captured = capsys.readouterr()
        assert captured.out == "price[17,fx]: two\n"
        assert captured.err == "price[17,fx]: oh\n"
        running.clear()
        events.append(an_end(task))
        follower.poll(connection)
        assert capsys.readouterr().out == "price[17,fx]: last\n"
        assert not follower.busy
        follower.poll(connection)
        assert capsys.readouterr().out == ""


def test_a_task_that_was_never_seen_to_run_is_printed_when_it_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = a_task()
    events = [
        an_end(task, 1, "task.retried", 1),
        an_end(task, 2, "task.ended", 2),
        {**an_end(task, 3), "attempt": None},
    ]

    def read(asked: Any) -> dict[str, Any]:
        content = b"" if asked.stderr else f"attempt {asked.attempt}\n".encode()[asked.offset :]
        return {"content": content, "size": 0, "end": True}

    answers = {"TaskList": [], "LogRead": read, "EventsRead": told(events)}
    with talking(tmp_path, answers) as (standing, connection):
        follower = Follower("daily-3", named=True, facts_on_stdout=True, before_print=lambda: None)
        follower.poll(connection)
        standing.asked.clear()
        follower.poll(connection)
        assert standing.kinds() == ["EventsRead", "TaskList"]
    assert capsys.readouterr().out == "daily-3/price[17,fx]: attempt 1\ndaily-3/price[17,fx]: attempt 2\n"


def test_output_that_is_not_there_yet_is_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = Refused(request=0, code=RefusalCode.UNKNOWN, message="not yet")
    reads: Iterator[Any] = iter([missing, missing, {"content": b"now\n", "size": 4, "end": True}, missing])
    task = a_task(state="running", result=None)
    answers = {"TaskList": [task], "LogRead": lambda _: next(reads), "EventsRead": told([])}
    with talking(tmp_path, answers) as (_, connection):
        follower = Follower("daily-3", named=False, facts_on_stdout=True, before_print=lambda: None)
        follower.poll(connection)
        follower.poll(connection)
    assert capsys.readouterr().out == "price[17,fx]: now\n"


def test_a_watch_asks_again_only_when_something_has_changed(tmp_path: Path) -> None:
    changed = threading.Event()
    looks: Iterator[Any] = iter([overview(running()), {**overview(running()), "changed": 2}, overview(a_job())])

    def look(asked: Any) -> Any:
        if asked.changed >= 0:
            changed.wait(30)  # as the coordinator does: no answer before there is something new
        return next(looks)

    with talking(tmp_path, {"Overview": look}) as (standing, connection), Interrupts("") as interrupts:
        threading.Timer(0.5, changed.set).start()
        assert Watch(connection, ["daily-3"], interrupts).until_over()
    assert [asked.changed for asked in standing.asked] == [-1, 1, 2]  # type: ignore[attr-defined]


def test_a_watch_that_waits_is_woken_when_a_daemon_has_died(tmp_path: Path) -> None:
    died, dying = os.pipe()
    looks: Iterator[Any] = iter([overview(running())])
    answered = threading.Event()

    def look(asked: Any) -> Any:
        if asked.changed >= 0:
            os.write(dying, b".")
            answered.wait(30)
        return next(looks, None)

    def check() -> None:
        if select.select([died], [], [], 0)[0]:
            raise Failure(1, "failed", "demo-1 ended")  # type: ignore[arg-type]

    with talking(tmp_path, {"Overview": look}) as (_, connection), Interrupts("") as interrupts:
        with pytest.raises(Failure, match="demo-1 ended"):
            Watch(connection, ["daily-3"], interrupts, check=check, wakes=lambda: [died]).until_over()
        answered.set()
    os.close(died)
    os.close(dying)


def test_the_result_is_gathered_with_failures_or_with_every_task(tmp_path: Path) -> None:
    failed = a_task(result="failure", exit_code=3)
    job = a_job(result="failure", tasks=counts(succeeded=7, failed=1))
    answers = {
        "JobShow": job,
        "JobNodes": [a_node_job()],
        "TaskList": lambda asked: [failed] if asked.state == "failed" or asked.after is None else [],
        "LogRead": {"content": b"boom\n", "size": 5, "end": True},
    }
    with talking(tmp_path, answers) as (_, connection):
        [short] = gather(connection, ["daily-3"], listed=False)
        assert [(f.task["id"], f.lines) for f in short.failures] == [("daily-3/price[17,fx]", ["boom"])]
        [whole] = gather(connection, ["daily-3"], listed=True)
    assert whole.document() == {**job, "nodes": [a_node_job()], "tasks_list": [failed]}
    assert verdict_of([whole]).problems == ["1 task of daily-3 failed"]


def test_a_job_of_very_many_tasks_is_printed_without_them_and_says_so(tmp_path: Path) -> None:
    answers = {"JobShow": a_job(tasks=counts(succeeded=10_001)), "JobNodes": []}
    with talking(tmp_path, answers) as (_, connection):
        [whole] = gather(connection, ["daily-3"], listed=True)
    assert "tasks_list" not in whole.document()
    assert "10,000" in whole.document()["tasks_list_omitted"]
