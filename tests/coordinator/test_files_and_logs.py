"""Files and logs on nodes: where they are looked for, what comes back, and what is said when it can't."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.files import MAX_RELAYS
from tests.coordinator.playbook import FakeNode, Play, job, phase_end, prep, release, tasks
from wire import messages as m
from wire.limits import MAX_CHUNK


def asked(node: FakeNode) -> m.ReadFile:
    """What the node was asked for last."""
    last: m.ReadFile = node.heard(m.ReadFile)[-1]
    return last


def where(play: Play, asks: FakeNode, **what: Any) -> str:
    """The path that a request for output goes to."""
    play.admin.start(m.LogRead, **what)
    return asked(asks).path


def test_a_piece_of_a_file_comes_from_its_node() -> None:
    play = Play()
    n1 = play.node("n1")
    request = play.admin.start(m.FilesRead, "n1", "shared/x.txt", 10, 20)
    order = asked(n1)
    assert (order.path, order.offset, order.limit) == ("shared/x.txt", 10, 20)
    n1.say(m.FileContents(order.request, b"hello", 15, True))
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Reply)
    assert answer.body == {"content": b"hello", "size": 15, "end": True}


def test_a_directory_is_listed_by_its_node() -> None:
    play = Play()
    n1 = play.node("n1")
    request = play.admin.start(m.FilesList, "n1", "shared")
    [order] = n1.heard(m.ListFiles)
    n1.say(m.FileListing(order.request, [("a", False, 3, 5.5), ("d", True, 0, 6.0)], True))
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Reply)
    assert answer.body == {
        "entries": [
            {"name": "a", "directory": False, "size": 3, "changed_at": 5.5},
            {"name": "d", "directory": True, "size": 0, "changed_at": 6.0},
        ],
        "truncated": True,
    }


@pytest.mark.parametrize(("limit", "given"), [(10**9, MAX_CHUNK), (-5, 0), (7, 7)])
def test_no_more_than_a_chunk_is_asked_for_at_once(limit: int, given: int) -> None:
    play = Play()
    n1 = play.node("n1")
    play.admin.start(m.FilesRead, "n1", "x", 0, limit)
    assert asked(n1).limit == given


@pytest.mark.parametrize(("missing", "code"), [(True, m.RefusalCode.UNKNOWN), (False, m.RefusalCode.FAILED)])
def test_what_a_node_refuses_is_refused_in_its_words(missing: bool, code: m.RefusalCode) -> None:
    play = Play()
    n1 = play.node("n1")
    request = play.admin.start(m.FilesRead, "n1", "nothing")
    n1.say(m.FileRefused(asked(n1).request, "there is no such file", missing))
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Refused)
    assert (answer.code, answer.message) == (code, "n1: there is no such file")


def test_another_node_can_not_answer_for_it() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    request = play.admin.start(m.FilesRead, "n1", "secret")
    n2.say(m.FileContents(asked(n1).request, b"forged", 6, True))
    assert request not in play.admin.answers
    n1.say(m.FileContents(asked(n1).request, b"true", 4, True))
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Reply)
    assert answer.body["content"] == b"true"


def test_an_answer_nobody_waits_for_is_dropped() -> None:
    play = Play()
    n1 = play.node("n1")
    ann = play.person("ann")
    ann.start(m.FilesRead, "n1", "shared/x")
    order = asked(n1)
    ann.drop()
    n1.say(m.FileContents(order.request, b"late", 4, True))
    n1.say(m.FileContents(4711, b"never asked", 4, True))
    assert ann.answers == {}
    assert play.core.relays == {}


def test_a_node_that_goes_meanwhile_is_said() -> None:
    play = Play()
    n1 = play.node("n1")
    request = play.admin.start(m.FilesRead, "n1", "x")
    n1.drop()
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Refused)
    assert answer.message == "node `n1` went out of contact meanwhile"


def test_a_node_out_of_contact_is_said_at_once() -> None:
    play = Play()
    play.node("n1").drop()
    for kind in (m.FilesRead, m.FilesList):
        refused = play.admin.refused(kind, "n1", "x")
        assert refused.message == "node `n1` is out of contact: its files can't be read now"


def test_only_so_many_files_are_read_at_once() -> None:
    play = Play()
    play.node("n1")
    for _ in range(MAX_RELAYS):
        play.admin.start(m.FilesRead, "n1", "x")
    assert play.admin.refused(m.FilesRead, "n1", "x").code is m.RefusalCode.REFUSED
    play.nodes["n1"].drop()
    assert play.core.relays == {}


# ---- logs of tasks


def test_output_of_a_running_task_is_read_where_it_runs() -> None:
    play = Play()
    play.node("n1")
    n2 = play.node("n2")
    name = play.submit(job("j", tasks("price", size=2)))
    assert n2.labels(name) == [1]
    assert where(play, n2, task=f"{name}/price[1]") == "workitems/j-1/price-1/stdout.txt"
    assert where(play, n2, task=f"{name}/price[1]", stderr=True) == "workitems/j-1/price-1/stderr.txt"


def test_output_of_a_finished_task_is_read_where_it_ran() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("price", size=2), finish="manual"))
    n1.end()
    assert where(play, n1, task=f"{name}/price[0]", offset=5, limit=9) == "workitems/j-1/price-0/stdout.txt"
    assert (asked(n1).offset, asked(n1).limit) == (5, 9)


def test_output_of_each_attempt_is_read_where_that_ran_the_last_one_if_none_is_named() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=2), finish="manual"))
    n1.end(exit_code=1)
    n1.say(m.Leaving())
    n2 = play.node("n2")
    n1.released(name)
    assert where(play, n2, task=f"{name}/t") == "workitems/j-1/t/attempt-3/stdout.txt"
    assert where(play, n1, task=f"{name}/t", attempt=1) == "workitems/j-1/t/stdout.txt"
    n2.end()
    assert where(play, n2, task=f"{name}/t") == "workitems/j-1/t/attempt-3/stdout.txt"
    refused = play.admin.refused(m.LogRead, task=f"{name}/t", attempt=7)
    assert refused.message == "there is no attempt 7 of it here; there are 1, 2, 3"


def test_output_of_an_attempt_that_was_lost_with_its_node_is_looked_for_there() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.reboot("boot-2")
    n1.join()
    assert where(play, n1, task=f"{name}/t", attempt=1) == "workitems/j-1/t/stdout.txt"


def test_a_task_that_has_not_started_has_no_output() -> None:
    play = Play()
    name = play.submit(job("j"))
    refused = play.admin.refused(m.LogRead, task=f"{name}/t")
    assert refused.message == "task `j-1/t` has not started: there is no output yet"


# ---- logs of phases


def test_output_of_phases_is_read_from_their_directories() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    what = {"job": name, "node": "n1"}
    assert where(play, n1, **what, phase=m.Phase.PREPARATION) == "workitems/j-1/jobpreparation/stdout.txt"
    n1.say(m.PhaseStarted(name, 1, m.Phase.PREPARATION, 3, play.wall))
    assert where(play, n1, **what, phase=m.Phase.PREPARATION) == "workitems/j-1/jobpreparation/attempt-3/stdout.txt"
    path = where(play, n1, **what, phase=m.Phase.PREPARATION, attempt=2, stderr=True)
    assert path == "workitems/j-1/jobpreparation/attempt-2/stderr.txt"
    n1.prepared(name, attempt=3)
    n1.end(name)
    assert where(play, n1, **what, phase=m.Phase.RELEASE) == "workitems/j-1/jobrelease/stdout.txt"


@pytest.mark.parametrize("way", ["gone", "going", "missing"])
def test_what_was_kept_of_an_output_is_given_when_the_node_can_not(way: str) -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    n1.end()
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, stdout_tail=b"bye\n", stderr_tail=b"!\n")])
    if way == "gone":
        n1.drop()
    for stderr, tail in ((False, b"bye\n"), (True, b"!\n")):
        request = play.admin.start(m.LogRead, job=name, node="n1", phase=m.Phase.RELEASE, stderr=stderr)
        if way == "going":
            n1.drop()
        if way == "missing":
            n1.say(m.FileRefused(asked(n1).request, "there is no such file", True))
        answer = play.admin.answers[request]
        assert isinstance(answer, m.Reply)
        why = {"gone": "node `n1` is out of contact", "missing": "n1: there is no such file"}
        assert answer.body == {
            "content": tail, "size": len(tail), "end": True, "kept": "all of it", "attempt": 1, "over": True,
            "last": True, "node": "n1", "why": why.get(way, "node `n1` went out of contact meanwhile"),
        }  # fmt: skip
        if way == "going":
            n1.join()


def test_a_kept_output_is_given_from_the_asked_offset_on() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    n1.end()
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, stdout_tail=b"0123456789")])
    n1.drop()

    def kept(offset: int, limit: int) -> tuple[bytes, int, bool]:
        body: dict[str, Any] = play.admin.ask(
            m.LogRead, job=name, node="n1", phase=m.Phase.RELEASE, offset=offset, limit=limit
        )
        return body["content"], body["size"], body["end"]

    assert kept(0, 4) == (b"0123", 10, False)
    assert kept(4, 100) == (b"456789", 10, True)
    assert kept(10, 100) == (b"", 10, True)
    assert kept(-3, 100) == (b"789", 10, True)


def test_what_is_missing_of_a_phases_output_is_told_as_it_is_of_a_tasks() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    n1.end()
    n1.rounds[name, 1] = m.RoundState.RELEASED
    end = phase_end(
        name, 1, m.Phase.RELEASE, True, stdout_tail=b"x" * 65_536, stdout_size=204_800, stderr_tail=b"", stderr_size=-7
    )
    n1.report(phases=[end])
    n1.drop()
    play.restart()
    ask = {"job": name, "node": "n1", "phase": m.Phase.RELEASE}
    body = play.admin.ask(m.LogRead, **ask)
    assert (body["kept"], body["size"], body["skipped"]) == ("the last 64 KiB of 200 KiB", 204_800, 139_264)
    assert (len(body["content"]), body["end"]) == (65_536, True)
    body = play.admin.ask(m.LogRead, **ask, offset=204_790)
    assert (body["content"], body["end"]) == (b"x" * 10, True)
    assert play.admin.ask(m.LogRead, **ask, stderr=True)["kept"] == "all of it"
    shown = play.admin.ask(m.JobNodes, name)[0]["release"]
    assert (shown["stdout_size"], shown["stderr_size"]) == (204_800, 0)


@pytest.mark.parametrize(("tail", "kept"), [(b"x" * 65_536, "the last 64 KiB"), (b"bye", "all of it")])
def test_of_an_agent_that_tells_no_size_it_is_said_that_something_may_be_missing(tail: bytes, kept: str) -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    n1.end()
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, stdout_tail=tail)])
    n1.drop()
    body = play.admin.ask(m.LogRead, job=name, node="n1", phase=m.Phase.RELEASE)
    assert (body["kept"], body["content"], body["size"]) == (kept, tail, len(tail))
    assert play.admin.ask(m.JobNodes, name)[0]["release"]["stdout_size"] is None


def test_a_phase_that_is_none_is_refused_with_a_sentence() -> None:
    play = Play()
    play.node("n1")
    n2 = play.node("n2")
    name = play.submit(job("j"))
    assert n2.running() == []
    for what, sentence in (
        ({"job": name, "node": "n1", "phase": m.Phase.PREPARATION}, "job `j-1` has no preparation"),
        ({"job": name, "node": "n2", "phase": m.Phase.RELEASE}, "job `j-1` started nothing on `n2`"),
        ({"job": name, "node": "n9", "phase": m.Phase.RELEASE}, "there is no node `n9`"),
        ({"job": name}, "name a task, or a job with --node NODE and --phase prep or release"),
    ):
        assert play.admin.refused(m.LogRead, **what).message == sentence
