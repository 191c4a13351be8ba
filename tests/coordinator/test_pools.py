"""Pools that are changed while they live, and files that are submitted once."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.policy import Policy, PoolRules
from coordinator.pools import MAX_SHOWN
from tests.coordinator.playbook import Play, document, job, release, tasks
from wire import messages as m
from wire.codec import encode_value


def apply(play: Play, *pools: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    body = play.admin.ask(m.Submit, submission="apply", document=document(pools=pools), update_pool=True, **more)
    assert body["jobs"] == []
    changed: list[dict[str, Any]] = body["pools"]
    return changed


def shown(play: Play, name: str = "p") -> dict[str, Any]:
    body: dict[str, Any] = play.admin.ask(m.PoolShow, name)
    return body


def test_a_pool_is_created_and_then_changed_where_its_block_names_an_option() -> None:
    play = Play()
    assert apply(play, {"name": "p", "slots": 2, "placement": "pack"}) == [
        {"id": "p", "created": True, "changed": ["slots", "placement"], "removed": []}
    ]
    assert apply(play, {"name": "p", "sharing": "fifo", "slots": 2, "nodes": 1}) == [
        {"id": "p", "created": False, "changed": ["sharing"], "removed": []}
    ]
    told = shown(play)
    assert (told["slots_per_node"], told["placement"], told["sharing"]) == (2, "pack", "fifo")
    play.restart()
    assert shown(play) == told


def test_what_changes_nothing_keeps_no_row() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 2})
    rows = len(play.kept)
    assert apply(play, {"name": "p", "slots": 2, "placement": "spread"})[0]["changed"] == []
    assert len(play.kept) == rows


def test_a_pool_that_an_agent_named_is_set_up() -> None:
    play = Play()
    n1 = play.node("n1", slots=None, pool="q")
    assert apply(play, {"name": "q", "slots": 3}) == [
        {"id": "q", "created": False, "changed": ["slots"], "removed": []}
    ]
    n1.join()
    assert n1.said_joined is not None
    assert n1.said_joined.slots == 3


def test_new_slots_reach_the_nodes_that_name_none_and_what_runs_goes_on() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 1})
    n1, n2 = play.node("n1", slots=None), play.node("n2", slots=1)
    name = play.submit(job("j", tasks(size=9), release=release()))
    apply(play, {"name": "p", "slots": 3})
    assert (n1.closed, n2.closed) == (["the options of the pool were set: join again"], [])
    n1.join()
    assert n1.said_joined is not None
    assert n1.said_joined.slots == 3
    assert (len(n1.labels(name)), len(n2.labels(name))) == (3, 1)
    assert {attempt for _, _, _, attempt in n1.spawned} <= {1}
    apply(play, {"name": "p", "slots": 1})
    n1.join()
    assert len(n1.labels(name)) == 3, "nothing is stopped for that"
    n1.end(name, count=2)
    assert len(n1.labels(name)) == 1
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_what_has_begun_is_shown_as_running_on_fewer_slots_too() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 3})
    n1 = play.node("n1", slots=None)
    name = play.submit(job("j", tasks(size=4)))
    n1.say(m.Started([(grant, position, play.wall) for grant, position in n1.running()]))
    apply(play, {"name": "p", "slots": 1})
    n1.join()
    assert play.show(name)["tasks"] | {"active": 1, "running": 3} == play.show(name)["tasks"]
    assert play.admin.ask(m.Explain, f"{name}/t[2]")["code"] == "running"
    n1.end(name, count=3)
    assert play.show(name)["tasks"] | {"active": 0, "running": 1} == play.show(name)["tasks"]


def test_a_node_out_of_contact_gets_the_new_slots_when_it_joins() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 1})
    n1 = play.node("n1", slots=None)
    n1.drop()
    apply(play, {"name": "p", "slots": 2})
    play.restart()
    n1.join()
    assert n1.said_joined is not None
    assert n1.said_joined.slots == 2


def test_a_shorter_lease_counts_only_when_the_node_knows_of_it() -> None:
    play = Play()
    apply(play, {"name": "p", "lost_after_ms": 600_000})
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2)))
    n1.drop()
    apply(play, {"name": "p", "lost_after_ms": 6_000})
    n2.join()
    assert n2.said_joined is not None
    assert n2.said_joined.lease_s == 6
    play.wait(300)
    assert play.task(f"{name}/t[0]")["attempts"] == 1, "n1 may run it for ten minutes"
    n2.drop()
    play.wait(30)
    assert n2.labels(name)
    assert play.task(f"{name}/t[1]")["state"] == "active"


def test_jobs_of_a_changed_pool_are_placed_by_its_new_options() -> None:
    play = Play()
    apply(play, {"name": "p", "placement": "spread"})
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=2)
    name = play.submit(job("j", tasks(size=2)))
    assert (len(n1.labels(name)), len(n2.labels(name))) == (1, 1)
    play.run_out(name)
    apply(play, {"name": "p", "placement": "pack"})
    name = play.submit(job("k", tasks(size=2)))
    assert sorted((len(n1.labels(name)), len(n2.labels(name)))) == [0, 2]


def test_what_is_elevated_starts_no_more_where_its_pool_forbids_it() -> None:
    play = Play()
    apply(play, {"name": "p", "elevation": "allowed"})
    n1 = play.node("n1", elevation=True)
    name = play.submit(job("j", tasks(size=3, elevated=True)))
    apply(play, {"name": "p", "elevation": "forbidden"})
    n1.end(name)
    assert n1.labels(name) == []
    assert "no elevated commands there" in play.show(name)["waits"]
    apply(play, {"name": "p", "elevation": "allowed"})
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_file_may_change_its_pool_and_use_it_at_once() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 1})
    n1 = play.node("n1", slots=None)
    wide = document(job("j", tasks(slots=4)), pools=[{"name": "p", "slots": 4}])
    assert play.admin.refused(m.Submit, submission="s", document=wide).code is m.RefusalCode.INVALID
    body = play.admin.ask(m.Submit, submission="s", document=wide, update_pool=True)
    assert body["pools"] == [{"id": "p", "created": False, "changed": ["slots"], "removed": []}]
    n1.join()
    assert n1.labels("j-1") == [0]


def test_a_file_that_does_not_hold_changes_no_pool() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 1})
    rows = len(play.kept)
    wide = document(job("j", tasks(slots=4)), pools=[{"name": "p", "slots": 2}])
    assert play.admin.refused(m.Submit, submission="s", document=wide, update_pool=True)
    assert len(play.kept) == rows


@pytest.mark.parametrize(
    ("who", "role", "may"),
    [("ann", m.Role.USER, False), ("pia", m.Role.USER, True), ("olga", m.Role.OPERATOR, True)],
)
def test_only_its_operators_change_a_pool(who: str, role: m.Role, may: bool) -> None:
    play = Play(policy=Policy({"p": PoolRules(users=["ann"], operators=["pia"])}))
    apply(play, {"name": "p", "slots": 1})
    person = play.person(who, role)
    ask = {"submission": "s", "document": document(pools=[{"name": "p", "slots": 2}]), "update_pool": True}
    if may:
        assert person.ask(m.Submit, **ask)["pools"][0]["changed"] == ["slots"]
    else:
        refused = person.refused(m.Submit, **ask)
        assert refused.code is m.RefusalCode.REFUSED
        assert refused.message == "pool `p` is live, and only its operators may change it: ask one of them"
    if role is m.Role.USER:
        new = {**ask, "document": document(pools=[{"name": "new"}])}
        assert "has not been set up" in person.refused(m.Submit, **new).message


# ---- once


def once(play: Play, *jobs: dict[str, Any], submission: str = "once-d1", who: Any = None) -> list[dict[str, Any]]:
    plain = document(*jobs, pools=[{"name": "p"}])
    body = (who or play.admin).ask(m.Submit, submission=submission, document=plain, once=True)
    listed: list[dict[str, Any]] = body["jobs"]
    return listed


def test_the_same_document_once_is_the_same_job_while_it_is_kept() -> None:
    play = Play()
    play.node("n1")
    assert once(play, job("j")) == [{"id": "j-1", "name": "j"}]
    assert once(play, job("j")) == [{"id": "j-1", "name": "j", "existing": True}]
    play.run_out("j-1")
    play.restart()
    assert once(play, job("j")) == [{"id": "j-1", "name": "j", "existing": True}]
    assert once(play, job("j"), submission="once-d2") == [{"id": "j-2", "name": "j"}]


def test_once_is_a_new_job_when_the_one_before_was_deleted() -> None:
    play = Play()
    n1 = play.node("n1")
    for number in (1, 2, 3):
        assert once(play, job("j")) == [{"id": f"j-{number}", "name": "j"}]
        play.run_out(f"j-{number}")
        play.admin.start(m.JobDelete, f"j-{number}")
        play.obey()
        play.restart()
        n1.join()
        assert len(play.core.cluster.submissions["uid:1000", "once-d1"]) == 1
    assert once(play, job("j")) == [{"id": "j-4", "name": "j"}]
    assert once(play, job("j"))[0]["existing"]


def test_once_does_not_wait_for_the_deletion_of_the_one_before() -> None:
    play = Play()
    n1 = play.node("n1")
    once(play, job("j"))
    play.admin.start(m.JobDelete, "j-1")
    assert once(play, job("j")) == [{"id": "j-2", "name": "j"}]
    play.run_out("j-2")
    play.obey()
    assert list(play.core.cluster.jobs) == ["j-2"]
    for _ in range(2):
        assert once(play, job("j")) == [{"id": "j-2", "name": "j", "existing": True}]
        play.restart()
        n1.join()


def test_once_of_another_person_is_another_job() -> None:
    play = Play()
    once(play, job("j"))
    assert once(play, job("j"), who=play.person("bob")) == [{"id": "j-2", "name": "j"}]


def test_an_elevated_start_is_the_right_of_those_who_may_elevate_also_in_a_pool_that_lives() -> None:
    play = Play(policy=Policy({"p": PoolRules(operators=["pia", "ann"], elevation=["ann"])}))
    apply(play, {"name": "p", "elevation": "allowed"})
    start = {"argv": ["setup"], "elevated": True}
    ask = {"submission": "s", "document": document(pools=[{"name": "p", "start": start}]), "update_pool": True}
    assert "may have no elevated start" in play.person("pia").refused(m.Submit, **ask).message
    assert play.person("ann").ask(m.Submit, **ask)["pools"][0]["changed"] == ["start"]
    assert play.person("pia").ask(m.Submit, **ask)["pools"][0]["changed"] == []
    play.admin.ask(m.Submit, submission="x", document=document(pools=[{"name": "q"}]))
    forbidden = document(pools=[{"name": "q", "start": start}])
    refused = play.admin.refused(m.Submit, submission="s", document=forbidden, update_pool=True)
    assert "no `elevation = allowed`" in refused.message


# ---- a start


def test_a_pool_that_is_applied_without_a_start_has_none_from_then_on() -> None:
    play = Play()
    apply(play, {"name": "p", "slots": 2, "start": {"argv": ["setup"]}})
    n1, n2, n3 = (play.node(name) for name in ("n1", "n2", "n3"))
    n1.started(False, exit_code=3)
    n2.started()
    n3.drop()
    name = play.submit(job("j", tasks(size=6)))
    assert [play.node_state(node) for node in ("n1", "n2", "n3")] == ["start_failed", "running", "lost"]
    assert apply(play, {"name": "p"}) == [{"id": "p", "created": False, "changed": [], "removed": ["start"]}]
    assert (shown(play)["start"], shown(play)["slots_per_node"]) == (None, 2)
    n3.join()
    for node in (n1, n2, n3):
        assert node.heard(m.StartNode)[-1] == m.StartNode(number=0), "what it left is ended there"
        assert node.labels(name)
        assert play.admin.ask(m.NodeShow, node.name)["start"] is None
    play.restart()
    for node in (n1, n2, n3):
        node.join()
    assert apply(play, {"name": "p"})[0]["removed"] == []
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_start_that_runs_while_it_is_removed_is_ended_and_the_same_one_begins_anew_later() -> None:
    play = Play()
    block = {"name": "p", "start": {"argv": ["setup"]}}
    apply(play, block)
    n1 = play.node("n1")
    name = play.submit(job("j"))
    assert play.node_state("n1") == "starting"
    apply(play, {"name": "p"})
    assert play.node_state("n1") == "running"
    assert n1.labels(name) == [0]
    assert apply(play, block)[0]["changed"] == ["start"]
    assert n1.heard(m.StartNode)[-1].number == 2
    assert play.node_state("n1") == "starting"
    n1.started()
    play.run_out(name)


def test_a_block_in_a_file_with_jobs_says_nothing_of_a_start_that_it_does_not_name() -> None:
    play = Play()
    apply(play, {"name": "p", "start": {"argv": ["setup"]}})
    plain = document(job("j"), pools=[{"name": "p", "slots": 2}])
    body = play.admin.ask(m.Submit, submission="s", document=plain, update_pool=True)
    assert body["pools"] == [{"id": "p", "created": False, "changed": ["slots"], "removed": []}]
    assert shown(play)["start"]["run"] == ["setup"]


def test_a_start_longer_than_an_answer_is_shown_as_far_as_that_goes() -> None:
    play = Play()
    long = {"argv": ["x" * 120_000] * 30, "env": {f"A{n}": "y" * 100_000 for n in range(30)}}
    apply(play, {"name": "p", "start": long})
    told = play.admin.ask(m.PoolShow, "p")
    assert told["start"]["run"] == ["x" * MAX_SHOWN + "…"]
    assert len(encode_value(told)) < 2 * MAX_SHOWN
    apply(play, {"name": "p", "start": {"script": "é" * 400_000}})
    assert shown(play)["start"]["script"] == "é" * MAX_SHOWN + "…"


def test_only_its_operators_remove_a_start_and_read_what_it_runs() -> None:
    play = Play(policy=Policy({"p": PoolRules(users=["ann"], operators=["pia"])}))
    start = {
        "argv": ["setup", ["text", "at ", ["run", "node.id"]], ["op", "+", ["run", "attempt"], 1]],
        "env": {"TOKEN": "x"}, "timeout_ms": 90_000, "retries": 3, "backoff": {"first_ms": 1000, "cap_ms": 5000},
        "arms": [{"codes": [[3, 3]], "action": "fail"}], "files": [{"path": "a.toml", "text": "x"}],
    }  # fmt: skip
    apply(play, {"name": "p", "start": start})
    ann, pia = play.person("ann"), play.person("pia")
    ask = {"submission": "s", "document": document(pools=[{"name": "p"}]), "update_pool": True}
    assert "only its operators may change it" in ann.refused(m.Submit, **ask).message
    told = {
        "run": ["setup", "at ${node.id}", "${…}"], "script": None, "env": ["TOKEN"], "files": ["a.toml"],
        "exit": ["3 => fail"], "timeout_s": 90, "retries": 3, "backoff_s": [1, 5], "elevated": False, "stop_signal": 15,
        "stop_grace_s": 10,
    }  # fmt: skip
    untold = {**told, "run": None, "env": None, "files": None, "exit": None}
    assert pia.ask(m.PoolShow, "p")["start"] == play.admin.ask(m.PoolShow, "p")["start"] == told
    assert ann.ask(m.PoolShow, "p")["start"] == pia.ask(m.PoolList)[0]["start"] == untold
    assert pia.ask(m.Submit, **ask)["pools"][0]["removed"] == ["start"]
