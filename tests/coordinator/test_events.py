"""The stream of events: what rows tell, to whom, in which order, and what becomes of readers."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from coordinator import chronicle, records
from coordinator.chronicle import PLACES, Kind
from coordinator.policy import Policy, PoolRules
from coordinator.readers import MAX_READERS_EACH, PAGE
from tests.coordinator.playbook import Person, Play, job, prep, release, tasks
from tests.wire.test_codec import sample
from wire import messages as m

Plain = dict[str, Any]


def stream(who: Person, since: int = 0, job_id: str | None = None) -> list[Plain]:
    """All that there is now, page by page."""
    told: list[Plain] = []
    while True:
        body = who.ask(m.EventsRead, since, job_id)
        told += body["events"]
        since = body["next"]
        if body["end"]:
            return told


def kinds(events: list[Plain]) -> list[str]:
    return [event["kind"] for event in events]


def a_job_done(play: Play, size: int = 3) -> str:
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=size), preparation=prep(), release=release()))
    n1.prepared(name)
    play.run_out(name)
    return name


# ---- what is told


@pytest.mark.parametrize("kind", typing.get_args(records.Record), ids=lambda kind: kind.__name__)
def test_every_record_tells_something_and_only_of_its_own_job(kind: type[records.Record]) -> None:
    play = Play()
    name = a_job_done(play)
    found = play.core.cluster.jobs[name]
    told = list(chronicle.happenings(sample(kind), found))
    assert told
    assert all(event.kind in chronicle.MEANINGS for event in told)


def test_every_kind_has_its_meaning() -> None:
    assert list(chronicle.MEANINGS) == list(Kind)


def test_a_job_is_told_from_its_submission_to_its_end() -> None:
    play = Play()
    name = a_job_done(play)
    told = stream(play.admin, job_id=name)
    assert kinds(told) == [
        "job.submitted", "round.opened", "task.granted", "task.granted", "prep.ended", "task.ended", "task.ended",
        "task.granted", "task.ended", "job.tasks_done", "job.ended", "round.moved", "release.ended", "job.completed",
    ]  # fmt: skip
    assert {event["job"] for event in told} == {name}
    end = next(event for event in told if event["kind"] == "task.ended")
    assert (end["task"], end["node"], end["attempt"]) == (f"{name}/t[0]", "n1", 1)
    assert (end["data"]["result"], end["data"]["exit_code"]) == ("success", 0)
    assert list(end) == ["id", "time", "kind", "job", "task", "node", "round", "attempt", "data"]
    assert end["time"].endswith("Z")


def test_ids_grow_and_are_the_same_after_a_restart() -> None:
    play = Play()
    name = a_job_done(play)
    before = stream(play.admin)
    ids = [event["id"] for event in before]
    assert ids == sorted(set(ids))
    play.restart()
    assert stream(play.admin)[: len(before)] == before
    assert stream(play.admin, job_id=name) == [event for event in before if event["job"] == name]


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_reading_may_go_on_after_any_event(rows: int) -> None:
    play = Play()
    play.page_rows = rows
    a_job_done(play)
    whole = stream(play.admin)
    for place, event in enumerate(whole):
        assert stream(play.admin, since=event["id"]) == whole[place + 1 :]


def test_tasks_that_were_cancelled_at_once_are_told_one_by_one() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a", size=3), tasks("b", size=1000, after=[0])))
    n1.end(name, exit_code=0)
    play.terminate(name)
    play.run_out(name)
    ends = [event for event in stream(play.admin, job_id=name) if event["kind"] == "task.ended"]
    assert len({event["task"] for event in ends}) == len(ends) == 1003
    assert {event["task"]: event["data"]["result"] for event in ends}[f"{name}/b[999]"] == "cancelled"


def test_tasks_that_are_skipped_are_told_with_the_reason() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a"), tasks("b", size=600, after=[0])))
    n1.end(name, exit_code=3)
    ends = [event for event in stream(play.admin, job_id=name) if event["kind"] == "task.ended"]
    assert [event["data"]["result"] for event in ends] == ["failure"] + ["skipped"] * 600
    assert ends[600]["task"] == f"{name}/b[599]"
    assert "after = a" in ends[1]["data"]["reason"]


def test_an_attempt_that_is_not_the_last_is_no_end() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=1)))
    n1.end(name, exit_code=3)
    n1.end(name, exit_code=0)
    told = [event for event in stream(play.admin, job_id=name) if event["kind"].startswith("task.")]
    assert [(event["kind"], event["attempt"]) for event in told] == [
        ("task.granted", 1), ("task.retried", 1), ("task.granted", 2), ("task.ended", 2),
    ]  # fmt: skip


def test_what_comes_back_from_a_node_is_no_end_unless_its_job_ends() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    first = play.submit(job("j", tasks(size=2)))
    n1.reboot("boot-2")
    n1.join()
    assert kinds(stream(play.admin, job_id=first)).count("task.returned") == 2
    second = play.submit(job("k", tasks(size=2)))
    n1.end_all(first)
    n1.drop()
    play.terminate(second, force=True)
    play.run_out(second)
    told = stream(play.admin, job_id=second)
    assert kinds(told).count("task.returned") == 0
    ends = [event for event in told if event["kind"] == "task.ended"]
    assert len({event["task"] for event in ends}) == len(ends) == 2


# ---- gaps


def deleted(play: Play, name: str) -> None:
    play.admin.start(m.JobDelete, name)
    play.wait(30)
    play.obey()
    play.wait(30)
    assert name not in play.core.cluster.jobs


def test_forgotten_rows_are_a_gap_that_is_said() -> None:
    play = Play()
    name = a_job_done(play)
    before = stream(play.admin)
    deleted(play, name)
    after = stream(play.admin)
    gone = [event["id"] for event in before if event["job"] == name]
    kept = [event for event in before if event["job"] != name]
    gaps = [event["data"] for event in after if event["kind"] == "gap"]
    assert gaps
    assert all(any(hole["from"] <= number <= hole["to"] for hole in gaps) for number in gone)
    assert [event for event in after if event["kind"] != "gap"][: len(kept)] == kept
    assert not any(hole["from"] <= event["id"] <= hole["to"] for hole in gaps for event in kept)
    ids = [event["id"] for event in after]
    assert ids == sorted(set(ids))
    assert kinds(after)[-1] == "job.deleted"


def test_a_reader_that_goes_on_within_a_gap_is_told_of_the_rest_of_it() -> None:
    play = Play()
    name = a_job_done(play)
    middle = [event["id"] for event in stream(play.admin) if event["job"] == name][3]
    deleted(play, name)
    first = stream(play.admin, since=middle)[0]
    assert (first["kind"], first["data"]["from"]) == ("gap", middle + 1)


def test_without_forgotten_rows_there_is_no_gap() -> None:
    play = Play()
    a_job_done(play)
    for since in (0, 1, PLACES - 1, PLACES, *(event["id"] for event in stream(play.admin))):
        assert "gap" not in kinds(stream(play.admin, since))


def test_an_event_of_another_coordinator_is_refused() -> None:
    play = Play()
    refused = play.admin.refused(m.EventsRead, 10**15)
    assert refused.code is m.RefusalCode.INVALID
    assert "no event 1000000000000000" in refused.message


# ---- waiting


def test_who_waits_is_answered_by_the_next_event_and_misses_none() -> None:
    play = Play()
    play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    seen = stream(play.admin)
    number = play.admin.start(m.EventsRead, seen[-1]["id"], None, True)
    assert number not in play.admin.answers
    play.nodes["n1"].end(name)
    answer = play.admin.answers[number]
    assert isinstance(answer, m.Reply)
    assert answer.body["events"][0]["kind"] == "task.ended"
    assert seen + stream(play.admin, seen[-1]["id"]) == stream(play.admin)


def test_who_waits_for_one_job_is_not_woken_by_another() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    quiet, loud = play.submit(job("q")), play.submit(job("l"))
    number = play.admin.start(m.EventsRead, stream(play.admin)[-1]["id"], quiet, True)
    n1.end(loud)
    assert number not in play.admin.answers
    n1.end(quiet)
    answer = play.admin.answers[number]
    assert isinstance(answer, m.Reply)
    assert {event["job"] for event in answer.body["events"]} == {quiet}


def test_a_record_that_came_while_a_page_was_read_is_not_missed() -> None:
    from coordinator.events import PageAsked, PageRead, Received

    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=2)))
    seen = stream(play.admin)[-1]["id"]
    core = play.core
    core.handle(Received(play.admin.epoch or 0, m.EventsRead(99, seen, None, True)), play.now)
    [asked] = core.take_ready().pages
    n1.end(name)  # its record is kept, and durable, after the page was read and before it is told
    core.handle(PageRead(asked.reader, [], True, play.last_number), play.now)
    assert core.take_ready().pages == [PageAsked(asked.reader, asked.first, None)]


def test_who_waits_for_a_job_that_is_deleted_is_told_so() -> None:
    play = Play()
    name = a_job_done(play)
    ann = play.person("ann", m.Role.ADMIN)
    number = ann.start(m.EventsRead, stream(ann)[-1]["id"], name, True)
    deleted(play, name)
    answer = ann.answers[number]
    assert isinstance(answer, m.Reply)
    while kinds(answer.body["events"])[-1:] != ["job.deleted"]:
        number = ann.start(m.EventsRead, answer.body["next"], None)
        answer = ann.answers[number]
        assert isinstance(answer, m.Reply)


def test_a_session_that_ends_waits_no_more() -> None:
    play = Play()
    ann = play.person("ann", m.Role.ADMIN)
    ann.start(m.EventsRead, 0, None, True)
    assert len(play.core.readers) == 1
    ann.drop()
    assert play.core.readers == {}
    play.submit(job("j"))


def test_one_connection_reads_only_so_much_at_once() -> None:
    play = Play()
    for _ in range(MAX_READERS_EACH):
        play.admin.start(m.EventsRead, 0, None, True)
    refused = play.admin.refused(m.EventsRead)
    assert refused.code is m.RefusalCode.REFUSED
    play.submit(job("j"), by=play.person("uid:1000", m.Role.ADMIN))
    assert len(play.core.readers) == 0


def test_a_page_is_bounded_however_much_a_row_tells() -> None:
    play = Play()
    play.page_rows = 100
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a"), tasks("b", size=100_000, after=[0])))
    n1.end(name, exit_code=1)
    body = play.admin.ask(m.EventsRead, 0, name)
    assert len(body["events"]) == PAGE
    assert not body["end"]
    later = play.admin.ask(m.EventsRead, chronicle.id_of(body["next"] // PLACES, 99_000), name)
    assert later["events"][0]["task"] == f"{name}/b[98999]"


# ---- for whom

RULES = Policy({"p": PoolRules(users=["ann", "bob"], viewers=["vic"])})


def test_everybody_is_told_of_nodes_and_nobody_of_a_strangers_job() -> None:
    play = Play(policy=RULES)
    n1 = play.node("n1")
    mine = play.submit(job("mine"), by=play.person("ann"))
    n1.end(mine)
    play.obey()
    theirs = stream(play.person("bob"))
    assert {event["job"] for event in theirs} == {None}
    assert "node.joined" in kinds(theirs)
    assert {event["job"] for event in stream(play.person("ann"))} == {None, mine}
    assert {event["job"] for event in stream(play.person("vic"))} == {None, mine}
    number = play.person("bob").start(m.EventsRead, 0, mine)
    assert number == 1


def test_a_stranger_is_not_woken_by_what_is_not_for_him() -> None:
    play = Play(policy=RULES)
    n1 = play.node("n1")
    bob = play.person("bob")
    number = bob.start(m.EventsRead, stream(bob)[-1]["id"], None, True)
    name = play.submit(job("mine"), by=play.person("ann"))
    n1.end(name)
    play.obey()
    assert number not in bob.answers
    play.node("n2")
    assert isinstance(bob.answers[number], m.Reply)


def test_tokens_and_identities_are_told_to_admins_and_their_secrets_to_nobody() -> None:
    from coordinator.identities import Certificates

    play = Play(certificates=Certificates(authority="ab" * 32))
    play.admin.ask(m.TokenCreate, digest="cd" * 32, role=m.Role.USER, name="eve")
    play.enroll("cd" * 32, "ef" * 32, "eve")
    assert kinds(stream(play.admin)) == ["token.created", "identity.admitted"]
    assert "cd" * 32 not in str(stream(play.admin))
    for role in (m.Role.USER, m.Role.OPERATOR):
        assert stream(play.person("eve", role)) == []


def test_a_deleted_jobs_end_is_told_to_its_owner_and_no_stranger() -> None:
    play = Play(policy=RULES)
    n1 = play.node("n1")
    name = play.submit(job("mine"), by=play.person("ann"))
    n1.end(name)
    play.obey()
    deleted(play, name)
    assert "job.deleted" in kinds(stream(play.person("ann")))
    assert "job.deleted" not in kinds(stream(play.person("bob")))
