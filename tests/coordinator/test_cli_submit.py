"""From a file to its jobs: `check`, `submit`, the values of params, and refusals told at their place in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import entry, sources
from coordinator.cli.failure import Failure
from coordinator.cli.run import agents_for
from tests.coordinator.standin import a_job, a_node_job, stand_in
from wire.messages import RefusalCode, Refused

GOOD = """edition = 1
param word: string = "none"
job j {
  pool = p
  task t for n in 1..3 { run = ["echo", word, "${n}"] }
}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_COORDINATOR", str(tmp_path / "s"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "good.batch").write_text(GOOD)
    return tmp_path


JOBS = {"jobs": [{"id": "j-1", "name": "j"}]}


def test_a_submission_prints_the_ids_of_its_jobs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here / "s", {"Submit": JOBS}) as standing:
        assert entry.run_command(["submit", "good.batch", "--param", "word=hello"]) == 0
        assert capsys.readouterr().out == "j-1\n"
        assert entry.run_command(["submit", "good.batch", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == JOBS
    first, second = standing.asked
    document: Any = first
    assert document.source == "good.batch"
    assert document.document["jobs"][0]["groups"][0]["axes"] == [{"names": ["n"], "range": [1, 3, 1], "values": None}]
    assert document.document["jobs"][0]["values"] == {"word": "hello"}
    assert document.spans["job/j/task/t"][:2] == [5, 3]
    assert document.submission != second.submission  # type: ignore[attr-defined]


def test_the_same_file_once_is_the_same_submission(here: Path) -> None:
    with stand_in(here / "s", {"Submit": JOBS}) as standing:
        entry.run_command(["submit", "good.batch", "--once"])
        (here / "good.batch").write_text("# a comment\n" + GOOD)
        entry.run_command(["submit", "good.batch", "--once"])
        entry.run_command(["submit", "good.batch", "--once", "--param", "word=other"])
    same, again, other = (asked.submission for asked in standing.asked)  # type: ignore[attr-defined]
    assert same == again
    assert same != other


def test_a_submission_whose_answer_was_lost_is_sent_again_as_the_same(here: Path) -> None:
    answers: Iterator[Any] = iter([None, JOBS])
    with stand_in(here / "s", {"Submit": lambda _: next(answers)}) as standing:
        assert entry.run_command(["submit", "good.batch"]) == 0
    first, second = (asked.submission for asked in standing.asked)  # type: ignore[attr-defined]
    assert first == second


def test_waiting_prints_what_run_prints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = a_job(id="j-1")
    looks: Iterator[Any] = iter([{"changed": 1, "jobs": [{**over, "nodes": []}], "nodes": []}] * 2)
    answers = {
        "Submit": JOBS,
        "Overview": lambda _: next(looks),
        "JobShow": over,
        "JobNodes": [a_node_job()],
        "TaskList": [],
    }
    with stand_in(here / "s", answers):
        assert entry.run_command(["submit", "good.batch", "--wait"]) == 0
        assert "risk-1:\n  Prep task exit code:    0\n" in capsys.readouterr().out
        assert entry.run_command(["submit", "good.batch", "--wait", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["jobs"][0]["nodes"] == [a_node_job()]


def refused(**more: Any) -> Refused:
    diagnostic = {
        "code": "B604",
        "severity": "error",
        "message": "`t` takes 9 slots, but no node of pool `p` has more than 1",
        "span": {"file": "good.batch", "start": {"line": 5, "column": 3}, "end": {"line": 5, "column": 9}},
        "related": [],
        "help": None,
        "edit": None,
    }
    return Refused(request=0, code=RefusalCode.INVALID, message="no", diagnostics=[diagnostic], **more)


def test_what_the_coordinator_refuses_is_shown_in_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here / "s", {"Submit": refused()}):
        assert entry.run_command(["submit", "good.batch"]) == 2
        err = capsys.readouterr().err
        assert "good.batch:5:3" in err
        assert "  task t for n in 1..3" in err
        assert "^^^^^^" in err
        assert "1 error" in err
        assert entry.run_command(["submit", "good.batch", "-o", "json"]) == 2
        error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "invalid_file"
    assert error["diagnostics"][0]["span"]["start"] == {"line": 5, "column": 3}


def test_a_broken_file_asks_nobody(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.batch").write_text("edition = 1\njob j {\n  pool = p\n  task t { rn = ['true'] }\n}\n")
    for command in ("submit", "run"):
        assert entry.run_command([command, "bad.batch"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "bad.batch:4:12" in captured.err
        assert "did you mean `run`?" in captured.err
    assert list((here / "state").rglob("*")) == []


def test_run_refuses_a_pool_that_only_a_live_cluster_may_have(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run_command(["run", "good.batch"]) == 2
    err = capsys.readouterr().err
    assert "error[B110]" in err
    assert "good.batch:4:" in err
    assert "pool p { }" in err


def test_check_tells_errors_by_its_status(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.batch").write_text("edition = 1\njob j {\n  pool = p\n  task t { rn = ['true'] }\n}\n")
    assert entry.run_command(["check", "good.batch"]) == 0
    assert capsys.readouterr().out == ""
    assert entry.run_command(["check", "good.batch", "--format", "json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert entry.run_command(["check", "good.batch", "bad.batch", "--format", "short"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("bad.batch:") for line in lines)
    assert entry.run_command(["check", "bad.batch", "-o", "json"]) == 1
    assert {one["span"]["file"] for one in json.loads(capsys.readouterr().out)} == {"bad.batch"}


def test_a_param_without_a_value_is_an_error_only_where_it_is_needed(here: Path) -> None:
    (here / "open.batch").write_text(GOOD.replace(' = "none"', ""))
    assert entry.run_command(["check", "open.batch"]) == 0
    assert entry.run_command(["submit", "open.batch"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent", None, "No such file"),
        ("binary", b"edition = 1\n\xff\xfe", "no UTF-8"),
        ("large", b"#" * (sources.MAX_SOURCE + 1), "larger than 16 MiB"),
    ],
)
def test_a_file_that_can_not_be_read_is_status_2(
    here: Path, name: str, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (here / name).write_bytes(content)
    for command in ("check", "submit", "run"):
        assert entry.run_command([command, name]) == 2
        assert said in capsys.readouterr().err


def test_params_of_a_file_come_before_those_of_the_command_line(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("# values\n\nword = two words\nquoted = ' kept '\nempty =\nequals = a=b\n")
    assert sources.params_of(("word=mine", "more=a=b"), str(lines)) == {
        "word": "mine",
        "quoted": " kept ",
        "empty": "",
        "equals": "a=b",
        "more": "a=b",
    }
    document = tmp_path / "document"
    document.write_text('{"word": "w", "n": 3, "yes": true, "list": ["a", "b"]}')
    assert sources.params_of((), str(document)) == {"word": "w", "n": "3", "yes": "true", "list": '["a", "b"]'}


@pytest.mark.parametrize(
    ("pairs", "content"),
    [
        (("word",), None),
        (("=x",), None),
        ((), "no equals sign"),
        ((), '{"broken": '),
        ((), "{1}"),
    ],
)
def test_params_that_make_no_sense_are_status_2(tmp_path: Path, pairs: tuple[str, ...], content: str | None) -> None:
    path = None
    if content is not None:
        (tmp_path / "values").write_text(content)
        path = str(tmp_path / "values")
    with pytest.raises(Failure) as refusal:
        sources.params_of(pairs, path)
    assert refusal.value.exit == 2


def test_agents_are_named_after_their_pools() -> None:
    document = {"pools": [{"name": "a", "nodes": 2, "slots": 8}, {"name": "b", "nodes": None, "slots": None}]}
    assert [(agent.name, agent.pool, agent.slots) for agent in agents_for(document, None)] == [
        ("a-1", "a", 8),
        ("a-2", "a", 8),
        ("b-1", "b", None),
    ]
    assert [agent.name for agent in agents_for(document, 1)] == ["a-1", "b-1"]


def test_more_nodes_than_a_machine_can_bear_are_refused() -> None:
    with pytest.raises(Failure, match="too many for one machine"):
        agents_for({"pools": [{"name": "a", "nodes": 10**12, "slots": None}]}, None)


@pytest.mark.parametrize("listen", ["7070", "somewhere", "::1:7070", "localhost:70000", ":7070"])
def test_serving_at_what_is_no_address_is_refused_with_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], listen: str
) -> None:
    assert entry.run_command(["serve", "--state", "state", "--listen", listen]) == 2
    assert f"--listen {listen}" in capsys.readouterr().err.replace("'", "")
    assert not (here / "state").exists()
