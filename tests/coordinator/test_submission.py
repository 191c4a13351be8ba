"""Submissions: once each, all or nothing, ids never reused; a pool block declares or claims."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.records import JobSubmitted, PoolSet
from tests.coordinator.playbook import Play, document, job, tasks
from wire import messages as m


def submit(play: Play, submission: str, *jobs: dict[str, Any], pools: list[dict[str, Any]] | None = None) -> Any:
    return play.admin.ask(m.Submit, submission=submission, document=document(*jobs, pools=pools or []))


def a_pool() -> Play:
    play = Play()
    submit(play, "pools", pools=[{"name": "p", "slots": 2}])
    return play


# ---- once


def test_the_same_submission_gives_the_same_jobs() -> None:
    play = a_pool()
    first = submit(play, "s", job("a"), job("b"))
    assert first == {"jobs": [{"id": "a-1", "name": "a"}, {"id": "b-1", "name": "b"}]}
    assert submit(play, "s", job("a"), job("b")) == first
    assert submit(play, "s", job("something", tasks(size=9))) == first
    play.restart()
    assert submit(play, "s", job("a"), job("b")) == first
    assert len(play.kept_of(JobSubmitted)) == 2


def test_the_same_submission_gives_the_same_jobs_when_some_are_deleted() -> None:
    play = a_pool()
    first = submit(play, "s", job("a"), job("b"))
    play.terminate("b-1")
    play.admin.start(m.JobDelete, "b-1")
    assert submit(play, "s", job("a"), job("b")) == first
    play.restart()
    assert submit(play, "s", job("a"), job("b")) == first
    play.terminate("a-1")
    play.admin.start(m.JobDelete, "a-1")
    play.restart()
    assert play.core.cluster.jobs == {}
    assert submit(play, "s", job("a"), job("b")) == first


def test_the_answer_comes_after_the_record() -> None:
    play = a_pool()
    before = len(play.batches)
    submit(play, "s", job("a"))
    assert len(play.batches) == before + 1
    assert [type(record) for record in play.batches[-1].records] == [JobSubmitted]


def test_ids_count_by_name_and_are_never_used_again() -> None:
    play = a_pool()
    for number in (1, 2, 3):
        assert submit(play, f"a{number}", job("a")) == {"jobs": [{"id": f"a-{number}", "name": "a"}]}
    assert submit(play, "b", job("b"))["jobs"][0]["id"] == "b-1"
    for number in (3, 2):
        play.terminate(f"a-{number}")
        play.admin.start(m.JobDelete, f"a-{number}")
    play.restart()
    assert submit(play, "a4", job("a"))["jobs"][0]["id"] == "a-4"


# ---- all or nothing


def test_a_document_with_one_bad_job_submits_none_of_them() -> None:
    play = a_pool()
    refused = play.admin.refused(
        m.Submit,
        submission="s",
        document=document(job("good"), job("bad", pool="nowhere"), job("wide", tasks(slots=9))),
    )
    assert refused.code is m.RefusalCode.INVALID
    assert [d["code"] for d in refused.diagnostics] == ["B110", "B604"]
    assert play.core.cluster.jobs == {}
    assert submit(play, "s", job("good"))["jobs"][0]["id"] == "good-1"


def test_an_unknown_pool_is_refused_with_the_nearest_name_and_its_place() -> None:
    play = a_pool()
    play.node("n1", pool="risk")
    refused = play.admin.refused(
        m.Submit, submission="s", document=document(job("j", pool="risc")), source="f.batch",
        spans={"job/j/pool": [2, 10, 2, 14]},
    )  # fmt: skip
    [found] = refused.diagnostics
    assert found["message"] == "there is no pool `risc`; did you mean `risk`?"
    assert found["span"] == {
        "file": "f.batch",
        "start": {"line": 2, "column": 10},
        "end": {"line": 2, "column": 14},
    }
    assert set(found) == {"code", "severity", "message", "span", "related", "help", "edit"}


def test_a_place_the_spans_do_not_know_is_told_as_the_nearest_around_it() -> None:
    play = a_pool()
    bad = document(job("j", pool="nowhere"))
    refused = play.admin.refused(m.Submit, submission="s", document=bad, spans={"job/j": [7, 1, 9, 2]})
    assert refused.diagnostics[0]["span"]["start"] == {"line": 7, "column": 1}
    refused = play.admin.refused(m.Submit, submission="t", document=bad, spans={"job/j": [7]})
    assert refused.diagnostics[0]["span"]["start"] == {"line": 1, "column": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {"format": 2, "pools": [], "jobs": []},
        {"format": 1, "pools": [], "jobs": [{"name": "j"}]},
        {"format": 1, "pools": [], "jobs": [{**job("j"), "surprise": 1}]},
        {"format": 1, "pools": [], "jobs": [job("no good")]},
        {"format": 1, "pools": [], "jobs": [job("j"), job("j")]},
        {"format": 1, "pools": [], "jobs": [job("j", tasks(after=[0]))]},
        {"jobs": "all of them"},
    ],
)
def test_a_document_that_does_not_hold_is_refused(bad: dict[str, Any]) -> None:
    play = a_pool()
    refused = play.admin.refused(m.Submit, submission="s", document=bad)
    assert refused.code is m.RefusalCode.INVALID
    assert refused.diagnostics
    assert play.core.cluster.jobs == {}


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "é", "a\n"])
def test_a_submission_id_that_is_none_is_refused(name: str) -> None:
    play = a_pool()
    refused = play.admin.refused(m.Submit, submission=name, document=document(job("j")))
    assert refused.message == "a submission id is 1 to 128 letters, digits and `_.:-`"


def test_while_the_disk_is_full_nothing_is_submitted_and_what_runs_goes_on() -> None:
    play = a_pool()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    play.disk_full(True)
    refused = play.admin.refused(m.Submit, submission="s", document=document(job("k")))
    assert refused.code is m.RefusalCode.REFUSED
    assert "disk is full" in refused.message
    n1.end()
    assert play.show(name)["tasks"]["succeeded"] == 1
    play.disk_full(False)
    submit(play, "s", job("k"))


def test_a_known_submission_is_answered_even_when_nothing_new_is_taken() -> None:
    play = a_pool()
    first = submit(play, "s", job("j"))
    play.disk_full(True)
    assert submit(play, "s", job("j")) == first


# ---- pools


def test_the_first_file_that_declares_a_pool_sets_it_up_also_after_agents_joined() -> None:
    play = Play()
    n1 = play.node("n1", slots=None)
    named = play.node("n2", slots=3)
    submit(play, "s", pools=[{"name": "p", "slots": 4, "placement": "pack", "sharing": "fifo"}])
    shown = play.admin.ask(m.PoolShow, "p")
    assert (shown["slots_per_node"], shown["placement"], shown["sharing"]) == (4, "pack", "fifo")
    assert n1.closed == ["the options of the pool were set: join again"]
    assert named.closed == []
    n1.join()
    assert n1.said_joined is not None
    assert n1.said_joined.slots == 4
    assert play.admin.ask(m.NodeShow, "n1")["slots"] == 4
    assert play.admin.ask(m.NodeShow, "n2")["slots"] == 3


def test_a_restarted_coordinator_knows_what_a_pool_was_set_to() -> None:
    play = Play()
    play.node("n1", slots=None)
    submit(play, "s", pools=[{"name": "p", "slots": 4}])
    play.restart()
    assert play.admin.ask(m.PoolShow, "p")["slots_per_node"] == 4
    play.nodes["n1"].join()
    assert play.admin.ask(m.NodeShow, "n1")["slots"] == 4


def test_a_later_block_is_a_claim_and_what_it_does_not_name_it_does_not_claim() -> None:
    play = a_pool()
    submit(play, "same", job("a"), pools=[{"name": "p", "slots": 2}])
    submit(play, "bare", job("b"), pools=[{"name": "p"}])
    assert len(play.kept_of(PoolSet)) == 1


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        ({"slots": 3}, "pool `p` is live with `slots = 2`, not 3"),
        ({"nodes": 5}, "pool `p` is live with `nodes = 1`, not 5"),
        ({"placement": "pack"}, "pool `p` is live with `placement = spread`, not pack"),
        ({"sharing": "fifo"}, "pool `p` is live with `sharing = fair`, not fifo"),
        ({"elevation": "allowed"}, "pool `p` is live with `elevation = forbidden`, not allowed"),
        ({"lost_after_ms": 1500}, "pool `p` is live with `lost_after = 900s`, not 1500ms"),
    ],
)
def test_a_claim_that_differs_from_the_live_pool_is_refused_with_the_live_value(
    claim: dict[str, Any], sentence: str
) -> None:
    play = a_pool()
    option = next(iter(claim)).removesuffix("_ms")
    refused = play.admin.refused(
        m.Submit, submission="s", document=document(job("j"), pools=[{"name": "p", **claim}]),
        spans={f"pool/p/{option}": [4, 3, 4, 12]},
    )  # fmt: skip
    [found] = refused.diagnostics
    assert (found["message"], found["code"], found["span"]["start"]) == (sentence, "B604", {"line": 4, "column": 3})
    assert play.core.cluster.jobs == {}


def test_a_pool_that_was_declared_without_options_is_declared() -> None:
    play = Play()
    submit(play, "bare", pools=[{"name": "p"}])
    refused = play.admin.refused(m.Submit, submission="s", document=document(pools=[{"name": "p", "slots": 4}]))
    assert "is live with `slots = 1`, not 4" in refused.message
    play.restart()
    refused = play.admin.refused(m.Submit, submission="s", document=document(pools=[{"name": "p", "slots": 4}]))
    assert "is live with `slots = 1`, not 4" in refused.message


def test_a_user_may_use_a_pool_but_not_set_one_up() -> None:
    play = Play()
    play.node("n1")
    ann = play.person("ann", m.Role.USER)
    block = document(job("j"), pools=[{"name": "p", "slots": 4}])
    refused = ann.refused(m.Submit, submission="s", document=block)
    assert refused.code is m.RefusalCode.REFUSED
    assert refused.message.startswith("pool `p` has not been set up, and only an operator or admin may")
    play.person("olga", m.Role.OPERATOR).ask(m.Submit, submission="o", document=block)
    assert ann.ask(m.Submit, submission="s", document=block)["jobs"] == [{"id": "j-2", "name": "j"}]
    assert play.show("j-2")["owner"] == "ann"
