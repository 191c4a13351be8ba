"""Elevated commands: the pool's word, the submitter's right and the node's own policy, each of them in the way."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from coordinator.policy import Policy, PoolRules
from tests.coordinator.playbook import Play, document, job, prep, release, tasks
from wire import messages as m

RIGHT = Policy({"p": PoolRules(elevation=["ann"])})
SUBMITTERS = {
    "named": ("ann", m.Role.USER, True),
    "not named": ("bob", m.Role.USER, False),
    "pool operator": ("pia", m.Role.USER, False),
    "operator": ("olga", m.Role.OPERATOR, False),
    "admin": ("ada", m.Role.ADMIN, True),
}
WHERE: dict[str, dict[str, Any]] = {
    "prep": {"preparation": prep(elevated=True)},
    "release": {"release": release(elevated=True)},
    "task/t": {"groups": [tasks("t", elevated=True)]},
}


def play_with(pool: str | None, node: bool) -> Play:
    """A pool that says this of elevation, with one node that says that."""
    play = Play(policy=Policy({"p": PoolRules(elevation=["ann"], operators=["pia"])}))
    if pool is not None:
        play.admin.ask(m.Submit, submission="pool", document=document(pools=[{"name": "p", "elevation": pool}]))
    play.node("n1", slots=4, elevation=node)
    return play


def elevated_job(where: str) -> dict[str, Any]:
    return {**job("j"), **WHERE[where]}


@pytest.mark.parametrize(
    ("where", "pool", "who", "node"),
    list(product(WHERE, ["allowed", "forbidden", None], SUBMITTERS, [True, False])),
)
def test_t8_an_elevated_command_takes_the_pools_word_the_submitters_right_and_the_nodes_policy(
    where: str, pool: str | None, who: str, node: bool
) -> None:
    play = play_with(pool, node)
    owner, role, may = SUBMITTERS[who]
    spans = {"job/j": [1, 1, 1, 6], f"job/j/{where}/elevated": [5, 3, 5, 18]}
    person = play.person(owner, role)
    number = person.start(
        m.Submit, submission="s", document=document(elevated_job(where)), source="x.batch", spans=spans
    )
    answer = person.answers[number]
    n1 = play.nodes["n1"]
    if pool == "allowed" and may:
        assert isinstance(answer, m.Reply)
        assert bool(n1.heard(m.Run)) is bool(n1.heard(m.OpenRound)) is node
        return
    assert isinstance(answer, m.Refused)
    assert answer.code is m.RefusalCode.REFUSED
    [found] = answer.diagnostics
    assert found["code"] == "B802"
    assert found["span"] == {
        "file": "x.batch", "start": {"line": 5, "column": 3}, "end": {"line": 5, "column": 18},
    }  # fmt: skip
    reason = f"{owner} may submit no elevated commands" if pool == "allowed" else "pool `p` runs no elevated commands"
    assert reason in found["message"]
    assert play.core.cluster.jobs == {}
    assert n1.heard(m.OpenRound) == []


@pytest.mark.parametrize("where", WHERE)
def test_t8_a_job_waits_for_a_node_that_elevates_and_says_so(where: str) -> None:
    play = play_with("allowed", node=False)
    name = play.submit(elevated_job(where), by=play.person("ann"))
    assert play.show(name)["waits"] == "no node of pool `p` can take it: no elevated commands there (1 node)"
    assert play.task(f"{name}/t")["reason"] == "node `n1`: no elevated commands there"
    play.wait(3_600)
    assert play.show(name)["state"] == "active"
    n2 = play.node("n2", elevation=True)
    assert play.show(name)["waits"] is None
    assert [run.job for run in n2.heard(m.Run)] == [name]
    assert play.nodes["n1"].heard(m.OpenRound) == []
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_t8_only_the_elevated_groups_of_a_job_wait_for_nodes_that_elevate() -> None:
    play = play_with("allowed", node=False)
    name = play.submit(job("j", tasks("plain", size=3), tasks("t", size=3, elevated=True)), by=play.person("ann"))
    n1, n2 = play.nodes["n1"], play.node("n2", slots=2, elevation=True)
    assert {run.group for run in n1.heard(m.Run)} == {0}
    play.run_out(name)
    assert 1 in {run.group for run in n2.heard(m.Run)}
    assert {run.group for run in n1.heard(m.Run)} == {0}


def test_t8_a_node_that_no_longer_elevates_gets_no_more_elevated_work() -> None:
    play = play_with("allowed", node=True)
    name = play.submit(job("j", tasks("t", size=9, elevated=True)), by=play.person("ann"))
    n1 = play.nodes["n1"]
    given = len(n1.running())
    n1.drop()
    n1.elevation = False
    n1.join()
    n1.end_all()
    assert len(n1.spawned) == given == 4
    assert play.show(name)["tasks"]["active"] == 5
    assert "no elevated commands there" in play.show(name)["waits"]


def test_t8_the_first_file_that_declares_a_pool_lets_it_elevate_only_if_an_operator_submits_it() -> None:
    play = Play(policy=Policy({"p": PoolRules(elevation=["ann", "olga"])}))
    play.node("n1", elevation=True)
    plain = document(job("j", tasks(elevated=True)), pools=[{"name": "p", "elevation": "allowed"}])
    refused = play.person("ann").refused(m.Submit, submission="a", document=plain)
    assert "only an operator or admin may" in refused.message
    assert play.person("olga", m.Role.OPERATOR).ask(m.Submit, submission="o", document=plain)["jobs"]


def test_t8_every_elevated_command_of_a_file_is_told_at_its_place() -> None:
    play = play_with("forbidden", node=True)
    both = job("j", tasks("a", elevated=True), tasks("b"), tasks("c", elevated=True), preparation=prep(elevated=True))
    spans = {f"job/j/{at}/elevated": [line, 1, line, 2] for line, at in enumerate(["prep", "task/a", "task/c"], 1)}
    refused = play.admin.refused(m.Submit, submission="s", document=document(both), spans=spans)
    assert [found["span"]["start"]["line"] for found in refused.diagnostics] == [1, 2, 3]


def test_t8_a_job_whose_only_nodes_left_do_not_elevate_ends_when_the_others_are_barred() -> None:
    play = play_with("allowed", node=True)
    play.node("n2")
    name = play.submit(job("j", preparation=prep(elevated=True)), by=play.person("ann"))
    n1 = play.nodes["n1"]
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.wait(11)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_what_is_wrong_and_what_is_forbidden_are_told_together() -> None:
    play = play_with("forbidden", node=True)
    both = job("j", tasks("t", slots=9, elevated=True))
    refused = play.admin.refused(m.Submit, submission="s", document=document(both))
    assert refused.code is m.RefusalCode.INVALID
    assert [found["code"] for found in refused.diagnostics] == ["B604", "B802"]


def test_elevation_in_a_pool_that_there_is_not_is_not_told_beside_that() -> None:
    play = play_with("forbidden", node=True)
    refused = play.admin.refused(
        m.Submit, submission="s", document=document(job("j", tasks("t", elevated=True), pool="nowhere"))
    )
    assert [found["code"] for found in refused.diagnostics] == ["B110"]
