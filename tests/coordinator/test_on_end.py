"""What a job's `on_end` names: who may have it run, when it is run, how often, and what is told of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from coordinator.calls import Caller
from coordinator.config import Config, ConfigError, OnEndConfig, read_config
from coordinator.events import EndCall, EndCallOver
from coordinator.on_end import ATTEMPTS, MAX_OUTPUT
from coordinator.policy import EndCalls, Policy
from tests.coordinator.playbook import Play, document, job, tasks
from tests.coordinator.test_events import kinds, stream
from tests.e2e.cluster import gone
from wire import messages as m
from wire.validate import InvalidSpec, validate

ARGV = ["notify", ["text", "over: ", ["run", "job.id"]]]


def a_play(at_once: int = 4, *, own_user: bool = True) -> Play:
    return Play(policy=Policy(end_calls=EndCalls(allowed=True, own_user=own_user, at_once=at_once)))


def completed(play: Play, *, exit_code: int = 0, **options: Any) -> str:
    play.nodes.get("n1") or play.node("n1")
    name = play.submit(job("j", on_end=ARGV, **options))
    play.nodes["n1"].end(name, exit_code=exit_code)
    play.run_out(name)
    return name


def over(play: Play, name: str, exit_code: int | None = 0, **more: Any) -> None:
    fields: dict[str, Any] = {"signal": None, "reason": None, "output": b"", **more}
    play.happen(EndCallOver(name, exit_code, **fields))


def test_it_is_run_once_when_the_job_is_completed_and_told() -> None:
    play = a_play()
    name = completed(play)
    [call] = play.calls
    assert (call.job, call.attempt, call.argv) == (name, 1, ["notify", f"over: {name}"])
    assert call.environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8",
        "BATCH_JOB_ID": name, "BATCH_JOB_NAME": "j", "BATCH_POOL_ID": "p", "BATCH_RESULT": "success",
        "BATCH_END_REASON": "AllTasksComplete", "BATCH_ATTEMPT": "1",
    }  # fmt: skip
    over(play, name)
    play.wait(1000)
    play.restart()
    assert len(play.calls) == 1
    assert kinds(stream(play.admin, job_id=name))[-2:] == ["job.completed", "on_end.called"]


def test_it_is_told_how_the_job_ended() -> None:
    play = a_play()
    completed(play, exit_code=3, stop_after=1)
    [call] = play.calls
    assert (call.environment["BATCH_RESULT"], call.environment["BATCH_END_REASON"]) == ("failure", "TaskFailed")


def test_what_a_crash_cut_off_is_run_again() -> None:
    play = a_play()
    name = completed(play)
    play.restart()
    assert [(call.job, call.attempt) for call in play.calls] == [(name, 1), (name, 1)]
    over(play, name)
    play.restart()
    assert len(play.calls) == 2


def test_a_failure_is_tried_again_later_and_not_for_ever() -> None:
    play = a_play()
    name = completed(play)
    over(play, name, 1, output=b"no route")
    assert len(play.calls) == 1
    play.wait(1)
    assert len(play.calls) == 1
    play.wait(60)
    over(play, name, None, signal=9)
    play.restart()
    play.wait(60)
    over(play, name, None, reason="it took longer than 60 s")
    play.wait(1000)
    assert [call.attempt for call in play.calls] == list(range(1, ATTEMPTS + 1))
    told = [event for event in stream(play.admin, job_id=name) if event["kind"].startswith("on_end")]
    assert kinds(told) == ["on_end.retried", "on_end.retried", "on_end.failed"]
    assert "no route" not in str(told)
    assert play.show(name)["on_end"]["state"] == "failed"


def test_what_it_wrote_is_for_those_who_may_read_the_jobs_outputs() -> None:
    play = a_play(own_user=False)
    play.node("n1")
    name = play.submit(job("j", on_end=ARGV), by=play.person("ann"))
    assert play.show(name)["on_end"] == {"state": "waiting", "attempts": 0}
    play.run_out(name)
    assert play.show(name)["on_end"] == {"state": "owed", "attempts": 0}
    over(play, name, 1, output=b"secret")
    assert play.person("ann").ask(m.JobShow, name)["on_end"]["output"] == "secret"
    assert play.person("vic").ask(m.JobShow, name)["on_end"]["output"] == ""


def test_only_so_many_are_run_at_once() -> None:
    play = a_play(at_once=2)
    names = [completed(play) for _ in range(3)]
    assert [call.job for call in play.calls] == names[:2]
    over(play, names[1])
    assert [call.job for call in play.calls] == names


def test_a_deletion_waits_for_it() -> None:
    play = a_play()
    name = completed(play)
    number = play.admin.start(m.JobDelete, name)
    play.obey()
    play.wait(30)
    assert number not in play.admin.answers
    over(play, name)
    play.obey()
    play.wait(30)
    assert name not in play.core.cluster.jobs


def test_whoever_finishes_waits_for_it_and_tries_nothing_again() -> None:
    play = a_play()
    name = completed(play)
    play.finish()
    assert not play.finished
    over(play, name, 1)
    assert play.finished


def test_a_job_that_is_reopened_tells_its_end_again() -> None:
    play = a_play()
    name = completed(play, exit_code=3)
    over(play, name)
    play.admin.ask(m.JobRetry, name)
    play.run_out(name)
    assert [call.environment["BATCH_RESULT"] for call in play.calls] == ["failure", "success"]


def test_arguments_without_a_value_are_a_failure_for_good() -> None:
    play = a_play()
    play.node("n1")
    name = play.submit(job("j", on_end=["notify", ["index", ["list"], 3]]))
    play.run_out(name)
    assert play.calls == []
    [told] = [event for event in stream(play.admin, job_id=name) if event["kind"].startswith("on_end")]
    assert told["kind"] == "on_end.failed"
    assert "no value" in told["data"]["reason"]


def test_where_it_is_not_allowed_any_more_it_is_not_run_and_that_is_told() -> None:
    play = a_play()
    name = completed(play)
    play.policy = Policy()
    play.restart()
    assert len(play.calls) == 1
    assert kinds(stream(play.admin, job_id=name))[-1] == "on_end.failed"


# ---- who may


@pytest.mark.parametrize(
    ("rules", "role", "why"),
    [
        (EndCalls(), m.Role.ADMIN, "runs nothing when a job is over"),
        (EndCalls(allowed=True), m.Role.USER, "would run as the coordinator's own user"),
        (EndCalls(allowed=True), m.Role.ADMIN, None),
        (EndCalls(allowed=True, own_user=False), m.Role.USER, None),
    ],
)
def test_a_submission_is_refused_where_it_is_not_allowed(rules: EndCalls, role: m.Role, why: str | None) -> None:
    play = Play(policy=Policy(end_calls=rules))
    play.node("n1")
    ann = play.person("ann", role)
    spans = {"job/j/on_end/run": [7, 3, 7, 20]}
    asked = {"submission": "s", "document": document(job("j", on_end=ARGV)), "spans": spans}
    if why is None:
        assert ann.ask(m.Submit, **asked)["jobs"][0]["id"] == "j-1"
        return
    refused = ann.refused(m.Submit, **asked)
    [found] = refused.diagnostics
    assert (refused.code, found["code"], found["span"]["start"]["line"]) == (m.RefusalCode.REFUSED, "B803", 7)
    assert why in refused.message


@pytest.mark.parametrize("name", ["node.id", "attempt", "task.id"])
def test_it_knows_only_its_job(name: str) -> None:
    with pytest.raises(InvalidSpec, match=r"not known in `on_end`|known in tasks only"):
        validate(document(job("j", tasks(), on_end=["notify", ["run", name]])))


def test_it_is_no_list_without_a_program() -> None:
    with pytest.raises(InvalidSpec, match="names no program"):
        validate(document(job("j", tasks(), on_end=[])))


# ---- the configuration


def config(path: Path, text: str) -> Config:
    path.write_text(text)
    return read_config(path)


def test_the_configuration_says_whether_as_whom_and_how_long(tmp_path: Path) -> None:
    assert Config().policy.end_calls == EndCalls(allowed=False)
    read = config(tmp_path / "c.toml", '[on_end]\nallowed = true\nuser = "nobody"\ntimeout = "5s"\nat_once = 2\n')
    assert read.policy.end_calls == EndCalls(allowed=True, own_user=False, at_once=2)
    for wrong in ('timeout = "soon"', "at_once = 0", "whatever = 1"):
        with pytest.raises(ConfigError):
            config(tmp_path / "c.toml", f"[on_end]\n{wrong}\n")
    for user in ("root", "no-such-user"):
        with pytest.raises(ConfigError, match=user):
            OnEndConfig(allowed=True, user=user).caller()


# ---- running it


def call(*argv: str) -> EndCall:
    return EndCall("j-1", 1, list(argv), {"PATH": "/usr/bin:/bin", "BATCH_JOB_ID": "j-1"})


async def test_a_command_is_run_with_its_environment_and_the_end_of_what_it_wrote() -> None:
    done = await Caller().run(call("sh", "-c", "env | sort; echo oops >&2; exit 3"))
    assert (done.job, done.exit_code, done.signal, done.reason) == ("j-1", 3, None, None)
    said = done.output.decode().split()
    assert "BATCH_JOB_ID=j-1" in said
    assert said[-1] == "oops"
    assert {line.partition("=")[0] for line in said[:-1]} <= {
        "BATCH_JOB_ID",
        "PATH",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "LC_CTYPE",
    }


async def test_however_much_it_writes_only_the_end_is_kept() -> None:
    done = await Caller().run(call("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo end"))
    assert (done.exit_code, len(done.output)) == (0, MAX_OUTPUT)
    assert done.output.endswith(b"xend\n")


async def test_what_takes_too_long_is_ended_with_its_group() -> None:
    done = await Caller(timeout_s=0.2).run(call("sh", "-c", "sleep 1000 & echo $!; wait"))
    assert (done.exit_code, done.reason) == (None, "it took longer than 0.2 s")
    assert gone(int(done.output))


async def test_what_cannot_be_run_says_why() -> None:
    done = await Caller().run(call("/no/such/program"))
    assert done.exit_code == 1
    assert b"/no/such/program: No such file" in done.output


async def test_what_is_left_behind_is_killed_and_not_waited_for() -> None:
    done = await Caller().run(call("sh", "-c", "sleep 1000 & echo $!"))
    assert done.exit_code == 0
    assert gone(int(done.output))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as another")
async def test_root_runs_it_as_the_user_that_was_named() -> None:
    done = await OnEndConfig(allowed=True, user="nobody").caller().run(call("id", "-un"))
    assert (done.exit_code, done.output) == (0, b"nobody\n")
