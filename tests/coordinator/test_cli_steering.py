"""The commands that steer jobs, against a stand-in: what they ask, say, and refuse by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import entry
from tests.coordinator.standin import StandIn, a_job, a_task, stand_in


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BATCH_COORDINATOR", raising=False)
    monkeypatch.setenv("BATCH_STATE", str(tmp_path))
    return tmp_path / "coordinator.sock"


def asked(standing: StandIn) -> dict[str, Any]:
    [message] = standing.asked
    return {name: getattr(message, name) for name in message.__struct_fields__ if name != "request"}


@pytest.mark.parametrize("how", ["requeue", "terminate", "wait"])
def test_disable_says_what_becomes_of_what_runs(here: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here, {"JobDisable": a_job(id="j-1", state="disabling")}) as standing:
        assert entry.run_command(["job", "disable", "j", f"--{how}"]) == 0
    assert asked(standing)["how"].value == how
    assert capsys.readouterr().out == "j-1 is disabling\n"


@pytest.mark.parametrize("ways", [[], ["--wait", "--requeue"]])
def test_disable_wants_one_way(here: Path, ways: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run_command(["job", "disable", "j", *ways]) == 2
    assert "--requeue, --terminate or --wait" in capsys.readouterr().err


def test_enable_lets_a_job_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here, {"JobEnable": a_job(id="j-1", state="active")}) as standing:
        assert entry.run_command(["job", "enable", "j", "-o", "json"]) == 0
    assert asked(standing) == {"job": "j"}
    assert json.loads(capsys.readouterr().out)["state"] == "active"


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["--priority", "-7"], {"priority": -7, "parallel": None, "timeout_ms": None}),
        (["--parallel", "3", "--timeout", "1h30m"], {"priority": None, "parallel": 3, "timeout_ms": 5_400_000}),
        (["--parallel", "none", "--timeout", "none"], {"priority": None, "parallel": 0, "timeout_ms": 0}),
        (["--timeout", "250ms"], {"priority": None, "parallel": None, "timeout_ms": 250}),
    ],
)
def test_set_asks_for_what_is_named(
    here: Path, words: list[str], fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {**a_job(id="j-1"), "priority": 5, "parallel": None, "timeout_s": 5400.0}
    with stand_in(here, {"JobSet": answer}) as standing:
        assert entry.run_command(["job", "set", "j", *words]) == 0
    assert asked(standing) == {"job": "j", **fields}
    assert capsys.readouterr().out == "j-1: priority 5, parallel none, timeout 1h30m\n"


@pytest.mark.parametrize("words", [[], ["--parallel", "0"], ["--timeout", "0s"], ["--timeout", "soon"]])
def test_set_refuses_what_changes_nothing_or_is_no_limit(here: Path, words: list[str]) -> None:
    assert entry.run_command(["job", "set", "j", *words]) == 2


def test_retry_names_what_is_to_run_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here, {"JobRetry": {**a_job(id="j-1"), "retried": 2}}) as standing:
        assert entry.run_command(["job", "retry", "j", "--failed", "--skipped", "a[1]", "b"]) == 0
    assert [way.value for way in asked(standing)["which"]] == ["failed", "skipped"]
    assert asked(standing)["tasks"] == ["a[1]", "b"]
    assert capsys.readouterr().out == "j-1 is active again: 2 tasks\n"


@pytest.mark.parametrize(("state", "said"), [("running", "being stopped"), ("completed", "cancelled")])
def test_cancel_says_whether_it_is_over(here: Path, state: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(here, {"TaskCancel": a_task(id="j-1/t", state=state)}):
        assert entry.run_command(["task", "cancel", "j/t"]) == 0
    assert capsys.readouterr().out == f"j-1/t is {said}\n"
    assert entry.run_command(["task", "cancel", "j"]) == 2


@pytest.mark.parametrize("job", ["", "job j { pool = p\n task t { run = ['true'] } }\n"])
def test_apply_sends_the_pools_of_a_file_and_no_jobs(here: Path, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = here.parent / "x.batch"
    file.write_text(f"pool p {{ slots = 2 }}\n{job}")
    changed = {"jobs": [], "pools": [{"id": "p", "created": False, "changed": ["slots", "nodes"]}]}
    with stand_in(here, {"Submit": changed}) as standing:
        assert entry.run_command(["pool", "apply", str(file)]) == 0
    sent = asked(standing)
    assert (sent["update_pool"], sent["document"]["jobs"], len(sent["document"]["pools"])) == (True, [], 1)
    assert capsys.readouterr().out == "p: slots, nodes changed\n"
    file.write_text("job j { pool = p\n task t { run = ['true'] } }\n")
    assert entry.run_command(["pool", "apply", str(file)]) == 2
