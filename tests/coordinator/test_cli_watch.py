"""Waiting for jobs: what is shown, what `--follow` prints, what Ctrl-C does, how a gone coordinator is borne."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import connection as cli
from coordinator.cli import output
from coordinator.cli.connection import connect_to
from coordinator.cli.failure import Failure
from coordinator.cli.follow import OUTSTANDING, Follower
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.result import gather, verdict_of
from coordinator.cli.screen import Screen
from coordinator.cli.watch import Watch
from tests.coordinator.standin import StandIn, a_job, a_node_job, a_task, counts, stand_in
from wire.connection import Connection
from wire.messages import (
    PROTOCOL_VERSION,
    EventsRead,
    LogRead,
    Message,
    RefusalCode,
    Refused,
    Reply,
    Role,
    Welcome,
)

ROOT = Path(__file__).parent.parent.parent
J = "daily-3"
PAGE = 50
"""Events of one answer."""


@contextmanager
def talking(directory: Path, answers: dict[str, Any]) -> Iterator[tuple[StandIn, cli.Connection]]:
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


class Writing:
    """Answers EventsRead and LogRead as a coordinator does: only when there is something to tell."""

    def __init__(self, directory: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.written: dict[tuple[str, int, bool], bytes] = {}
        self.over: set[tuple[str, int]] = set()
        self.refused: set[str] = set()
        self.most_waiting = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self.path = directory / "w"
        self._listener.bind(str(self.path))
        self._listener.listen()

    def close(self) -> None:
        self._session.close()
        self._listener.close()

    @contextmanager
    def followed(self, *jobs: str) -> Iterator[Follower]:
        """A follower of these jobs."""
        accepting = threading.Thread(target=self._welcome, daemon=True)
        accepting.start()
        connection = connect_to(str(self.path))
        accepting.join()
        with Follower(connection, jobs, facts_on_stdout=True, before_print=lambda: None) as follower:
            yield follower

    def _welcome(self) -> None:
        self._session, _ = self._listener.accept()
        self._rules = Connection(Role.COORDINATOR, allowed=frozenset({Role.USER, Role.OPERATOR, Role.ADMIN}))
        self._waiting: list[Any] = []
        hello = None
        while hello is None:
            self._rules.receive_bytes(self._session.recv(65_536))
            hello = self._rules.next_event()
        self._session.sendall(self._rules.send(Welcome(PROTOCOL_VERSION, 1)))
        self._session.setblocking(False)

    def tell(self, kind: str, task: str | None = None, attempt: int | None = 1, node: str = "n", job: str = J) -> None:
        """Something happened."""
        event = {"id": len(self.events) + 1, "kind": kind, "task": task and f"{job}/{task}", "attempt": attempt}
        self.events.append({**event, "node": node, "job": job, "data": {}})

    def write(self, task: str, content: bytes, *, attempt: int = 1, stderr: bool = False, job: str = J) -> None:
        key = f"{job}/{task}", attempt, stderr
        self.written[key] = self.written.get(key, b"") + content

    def end(self, task: str, attempt: int = 1, kind: str = "task.ended", *, told: bool = True) -> None:
        self.over.add((f"{J}/{task}", attempt))
        if told:
            self.tell(kind, task, attempt)

    def go_on(self, follower: Follower) -> None:
        """Until nobody has anything more to say."""
        quiet = False
        while not quiet:
            quiet = not follower.advance()
            with suppress(BlockingIOError):
                self._rules.receive_bytes(self._session.recv(65_536))
                while (message := self._rules.next_event()) is not None:
                    self._waiting.append(message)
            self.most_waiting = max(self.most_waiting, sum(isinstance(one, LogRead) for one in self._waiting))
            for message in list(self._waiting):
                if (answer := self._answer(message)) is not None:
                    self._waiting.remove(message)
                    self._session.setblocking(True)
                    self._session.sendall(self._rules.send(answer))
                    self._session.setblocking(False)
                    follower.advance()  # what was sent must be read by somebody
                    quiet = False

    def _answer(self, asked: Any) -> Message | None:
        if isinstance(asked, EventsRead):
            after = [event for event in self.events if event["id"] > asked.since][:PAGE]
            body = {"events": after, "next": after[-1]["id"] if after else 0, "end": True}
            return Reply(asked.request, body) if after else None
        if asked.task in self.refused:
            return Refused(request=asked.request, code=RefusalCode.UNKNOWN, message="never heard of it")
        over = (asked.task, asked.attempt) in self.over
        whole = self.written.get((asked.task, asked.attempt, asked.stderr), b"")
        content = whole[asked.offset :][: asked.limit]
        body = {"content": content, "size": len(whole), "end": asked.offset + len(content) == len(whole), "over": over}
        return Reply(asked.request, body) if over or content else None


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path)
    yield made
    made.close()


def is_over(follower: Follower) -> bool:
    return follower.over


def test_output_is_followed_line_by_line_with_the_name_of_its_task(
    writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    with writing.followed(J) as follower:
        writing.tell("task.granted", "price[17,fx]")
        writing.write("price[17,fx]", b"one\ntw")
        writing.go_on(follower)
        assert capsys.readouterr().out == "price[17,fx]: one\n"
        writing.write("price[17,fx]", b"o\nlast")
        writing.write("price[17,fx]", b"oh\n", stderr=True)
        writing.go_on(follower)
        captured = capsys.readouterr()
        assert captured.out == "price[17,fx]: two\n"
        assert captured.err == "price[17,fx]: oh\n"
        writing.write("price[17,fx]", b" words")
        writing.end("price[17,fx]")
        writing.go_on(follower)
        assert capsys.readouterr().out == "price[17,fx]: last words\n"
        writing.tell("job.completed")
        assert not is_over(follower)
        writing.go_on(follower)
        assert is_over(follower)
        assert capsys.readouterr().out == ""


def test_whoever_follows_waits_for_answers_and_asks_for_nothing_meanwhile(writing: Writing) -> None:
    with writing.followed(J) as follower:
        writing.tell("task.granted", "t")
        writing.go_on(follower)
        asked = list(writing._waiting)
        assert [type(one).__name__ for one in asked] == ["EventsRead", "LogRead", "LogRead"]
        assert not follower.advance()
        writing.go_on(follower)
        assert writing._waiting == asked


def test_more_tasks_than_are_followed_at_once_are_all_printed_whole(
    writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"".join(b"%d\n" % number for number in range(15_000))
    with writing.followed(J) as follower:
        for number in range(100):
            writing.tell("task.granted", f"t[{number}]", node=f"n{number % 3}")
        writing.go_on(follower)
        waited = {str(asked.task) for asked in writing._waiting if isinstance(asked, LogRead)}
        nodes = {task: int(task.removeprefix(f"{J}/t[")[:-1]) % 3 for task in waited}
        assert [list(nodes.values()).count(node) for node in range(3)] == [4, 4, 4]
        for number in range(99, -1, -1):
            writing.write(f"t[{number}]", lines)
            writing.end(f"t[{number}]")
        writing.tell("job.completed")
        writing.go_on(follower)
        assert follower.over
    assert writing.most_waiting <= OUTSTANDING
    told: dict[str, bytearray] = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, rest = line.partition(": ")
        told.setdefault(name, bytearray()).extend(rest.encode() + b"\n")
    assert set(told) == {f"t[{number}]" for number in range(100)}
    assert all(content == lines for content in told.values())


def test_attempts_that_came_back_or_never_began_are_left(writing: Writing, capsys: pytest.CaptureFixture[str]) -> None:
    with writing.followed(J, "other-1") as follower:
        writing.tell("task.granted", "t", 1)
        writing.write("t", b"first\n")
        writing.go_on(follower)
        writing.end("t", 1, "task.retried")
        writing.tell("task.granted", "t", 2, "m")
        writing.tell("task.returned", "t", 2, "m")
        writing.tell("task.granted", "t", 2, "n")
        writing.write("t", b"second\n", attempt=2)
        writing.end("t", 2)
        writing.refused.add(f"{J}/gone")
        writing.tell("task.granted", "gone")
        writing.tell("task.ended", "never", None)
        writing.tell("task.granted", "t", 1, job="strangers-9")
        writing.go_on(follower)
        writing.tell("job.completed")
        writing.tell("job.deleted", job="other-1")
        writing.go_on(follower)
        assert follower.over
    assert capsys.readouterr().out == f"{J}/t: first\n{J}/t: second\n"


def test_what_is_followed_goes_on_with_a_coordinator_that_came_back(
    writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    with writing.followed(J) as follower:
        writing.tell("task.granted", "t")
        writing.write("t", b"one\nha")
        writing.go_on(follower)
        writing._session.close()
        accepting = threading.Thread(target=writing._welcome, daemon=True)
        accepting.start()
        assert follower.advance()
        accepting.join()
        writing.write("t", b"lf\n")
        writing.end("t")
        writing.tell("job.completed")
        writing.go_on(follower)
        assert follower.over
    assert capsys.readouterr().out == "t: one\nt: half\n"


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
