"""Deleted jobs are remembered, and not for ever: no id is given twice, a restarted coordinator knows the same, and who
submits and deletes without end fills no ledger."""

from __future__ import annotations

import random

import pytest

from coordinator import bygone
from coordinator.core import Core
from coordinator.records import JobDeleted, decode
from tests.coordinator.playbook import Person, Play, document, job, tasks
from tests.simulator.sameness import difference
from wire import messages as m

POOL = {"name": "p", "slots": 1}


def delete(person: Person, name: str) -> None:
    person.ask(m.JobTerminate, name, "UserTerminate", False)
    person.start(m.JobDelete, name)


def as_after_a_restart(play: Play) -> str | None:
    """Where a core made from what is stored differs from the living one."""
    again = Core()
    for _, body in play.rows:
        again.apply(decode(body))
    return difference(play.core.cluster, again.cluster)


def test_t6_who_submits_and_deletes_without_end_fills_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 10)
    play = Play()
    play.submit(job("other"), pools=[POOL])
    before, mallory = len(play.rows), play.person("mallory")
    for number in range(200):
        name = play.submit(job("j" if number % 2 else f"j{number}"), by=mallory)
        delete(mallory, name)
        assert len(play.rows) <= before + 10
    assert len(play.core.cluster.submissions) <= 12
    assert len(play.core.cluster.bygone.numbers) <= 12
    assert as_after_a_restart(play) is None


def test_a_name_that_is_known_goes_on_by_one_and_one_that_is_forgotten_after_all_that_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 3)
    play = Play()
    for number in range(1, 8):
        assert play.submit(job("a"), pools=[POOL]) == f"a-{number}"
        delete(play.admin, f"a-{number}")
    for number in range(1, 4):
        delete(play.admin, play.submit(job(f"b{number}")))
    assert "a" not in play.core.cluster.bygone.numbers
    play.restart()
    assert play.submit(job("a")) == "a-8"
    assert play.submit(job("a")) == "a-9"
    assert play.submit(job("b3")) == "b3-2"
    assert play.submit(job("new")) == "new-8"


def test_of_a_submission_nothing_is_forgotten_while_a_job_of_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 2)
    play = Play()
    asked = {"submission": "s", "document": document(job("x"), job("y"), pools=[POOL])}
    given = play.admin.ask(m.Submit, **asked)
    delete(play.admin, "x-1")
    for number in range(5):
        delete(play.admin, play.submit(job(f"j{number}")))
    assert play.admin.ask(m.Submit, **asked) == given
    assert as_after_a_restart(play) is None
    delete(play.admin, "y-1")
    delete(play.admin, play.submit(job("j9")))
    delete(play.admin, play.submit(job("j10")))
    again = play.admin.ask(m.Submit, **asked)
    assert not {entry["id"] for entry in again["jobs"]} & {"x-1", "y-1"}, "it is another now"


def test_what_a_node_still_owes_of_a_deleted_job_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 2)
    play = Play()
    node = play.node("n1")
    name = play.submit(job("j"))
    node.drop()
    play.wait(60)
    play.admin.ask(m.JobTerminate, name, "UserTerminate", True)
    play.admin.start(m.JobDelete, name)
    for number in range(5):
        delete(play.admin, play.submit(job(f"k{number}")))
    assert name in play.core.cluster.bygone.by_owner["uid:1000"]
    assert as_after_a_restart(play) is None
    play.restart()
    assert (name, 1) in play.core.cluster.nodes["n1"].owes
    node.join()
    node.released(name)
    delete(play.admin, play.submit(job("k9")))
    play.obey()
    assert name not in play.core.cluster.bygone.by_owner["uid:1000"]


def test_one_persons_deletions_forget_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 3)
    play = Play()
    play.submit(job("other"), pools=[POOL])
    alice, mallory = play.person("alice"), play.person("mallory")
    asked = {"submission": "s", "document": document(job("daily"))}
    given = alice.ask(m.Submit, **asked)
    delete(alice, "daily-1")
    for _ in range(20):
        delete(mallory, play.submit(job("daily"), by=mallory))
    assert alice.ask(m.Submit, **asked) == given
    assert as_after_a_restart(play) is None


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_submitted_and_deleted_no_id_is_given_twice(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygone, "MAX_BYGONE", 4)
    rng = random.Random(seed)
    play = Play()
    play.submit(job("other"), pools=[POOL])
    people = [play.person(name) for name in ("alice", "bob")]
    mine: dict[str, list[str]] = {person.owner: [] for person in people}
    given: set[str] = set()
    for turn in range(100):
        person = rng.choice(people)
        there = mine[person.owner]
        if there and rng.random() < 0.5:
            delete(person, there.pop(rng.randrange(len(there))))
        else:
            specs = [job(name, tasks()) for name in rng.sample("abcdef", rng.choice((1, 1, 3)))]
            once = rng.random() < 0.2
            text = f"once-{rng.randrange(3)}" if once else f"s-{turn}"
            body = person.ask(m.Submit, submission=text, document=document(*specs), once=once)
            new = [entry["id"] for entry in body["jobs"] if not entry.get("existing")]
            assert not given & set(new)
            given |= set(new)
            there += new
        assert as_after_a_restart(play) is None
        if rng.random() < 0.05:
            play.restart()
            people = [play.person(name) for name in ("alice", "bob")]
    kept = [entry for _, body in play.rows if isinstance(entry := decode(body), JobDeleted)]
    assert len(kept) <= 2 * 4 + len(play.core.cluster.jobs)
