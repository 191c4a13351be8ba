"""What tasks need of a node beside slots: claimed while they run, never given twice, explained where it lacks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.claims import Claim
from coordinator.views import NODES_LOOKED_AT
from tests.coordinator.playbook import FakeNode, Play, document, job, phase_end, prep, tasks
from wire import messages as m
from wire.spec import Needs

GIB = 1 << 30


def needing(name: str = "t", size: int | None = None, *, slots: int = 1, **needs: Any) -> Any:
    return {**tasks(name, size, slots=slots), "needs": needs}


def at_work(node: FakeNode) -> Counter[int]:
    """Open tasks at a node by group."""
    return Counter(node.grants[grant].run.group for grant, _ in node.running())


def used(play: Play, node: str) -> dict[str, float]:
    resources = play.admin.ask(m.NodeShow, node)["resources"]
    return {name: figure["used"] for name, figure in resources.items()}


# ---- claims


def test_tasks_together_never_need_more_processors_than_their_node_has() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"cpus": 4, "memory": 8 * GIB})
    play.submit(job("j", needing(size=10, cpus=1.5)))
    assert len(n1.running()) == 2
    assert play.admin.ask(m.NodeShow, "n1")["resources"] == {
        "cpus": {"total": 4.0, "used": 3.0}, "memory": {"total": 8.0 * GIB, "used": 0},
    }  # fmt: skip
    n1.end()
    assert len(n1.running()) == 2


def test_memory_is_claimed_like_processors() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"cpus": 4, "memory": 8 * GIB})
    play.submit(job("j", needing(size=10, memory_bytes=3 * GIB)))
    assert len(n1.running()) == 2
    assert used(play, "n1") == {"cpus": 0, "memory": 6 * GIB}


def test_shares_that_fill_a_node_exactly_fit() -> None:
    play = Play()
    n1 = play.node("n1", slots=64, resources={"cpus": 1, "memory": GIB})
    play.submit(job("j", needing(size=30, cpus=0.1)))
    assert len(n1.running()) == 10


def test_a_task_without_needs_runs_beside_those_that_took_everything() -> None:
    play = Play()
    n1 = play.node("n1", slots=4, resources={"cpus": 2, "memory": GIB})
    play.submit(job("j", needing("big", size=5, cpus=2), tasks("small", size=5)))
    assert at_work(n1) == {0: 1, 1: 3}


def test_two_jobs_share_what_a_node_has() -> None:
    play = Play()
    ann, bob = play.person("ann"), play.person("bob")
    play.submit(job("a", needing(size=10, cpus=1)), by=ann)
    play.submit(job("b", needing(size=10, cpus=1)), by=bob)
    n1 = play.node("n1", slots=16, resources={"cpus": 6})
    assert Counter(held.run.job for held in n1.grants.values() for _ in held.open) == {"a-1": 3, "b-1": 3}


def test_slots_and_needs_both_bind() -> None:
    play = Play()
    n1 = play.node("n1", slots=3, resources={"cpus": 100})
    play.submit(job("j", needing(size=10, cpus=1)))
    assert len(n1.running()) == 3
    n2 = play.node("n2", slots=8, resources={"cpus": 4})
    assert len(n2.running()) == 4


def test_work_goes_where_there_is_enough() -> None:
    play = Play()
    n1 = play.node("n1", slots=4, resources={"cpus": 1, "memory": 64 * GIB})
    n2 = play.node("n2", slots=4, resources={"cpus": 8, "memory": 2 * GIB})
    play.submit(job("j", needing("wide", size=2, cpus=4), needing("deep", size=2, memory_bytes=30 * GIB)))
    assert at_work(n1) == {1: 2}
    assert at_work(n2) == {0: 2}


def test_a_claim_is_free_again_however_the_task_ended() -> None:
    play = Play()
    n1 = play.node("n1", slots=4, resources={"cpus": 1})
    name = play.submit(job("j", needing(size=6, cpus=1)))
    n1.end()
    n1.end(exit_code=1)
    n1.end(exit_code=None, outcome=m.Outcome.LOST)
    n1.end(exit_code=None, outcome=m.Outcome.OOM, signal=9)
    n1.give_back()
    assert len(n1.running()) == 1
    n1.wiped()
    n1.join()
    assert len(n1.running()) == 1
    assert play.core.cluster.nodes["n1"].claimed == Claim(cpus=1000)
    play.terminate(name)
    play.obey()
    assert play.core.cluster.nodes["n1"].claimed == Claim()


def test_claims_are_known_again_after_a_restart() -> None:
    play = Play()
    n1 = play.node("n1", slots=4, resources={"cpus": 2})
    name = play.submit(job("j", needing(size=6, cpus=1)))
    play.restart()
    assert play.core.cluster.nodes["n1"].claimed == Claim(cpus=2000)
    assert play.show(name)["tasks"]["running"] == 2
    n1.join()
    assert len(n1.running()) == 2
    n1.end()
    assert len(n1.running()) == 2


# ---- ahead, reserved, recalled


def end_shortly(node: FakeNode, count: int = 1) -> None:
    node.report(
        [
            node.task_end(grant, position, started_at=node.play.wall - 0.001, ended_at=node.play.wall)
            for grant, position in node.running()[:count]
        ]
    )


def test_what_is_granted_ahead_takes_no_slot_from_others_while_slots_are_free() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"cpus": 2})
    play.submit(job("needy", needing(size=1_000, cpus=2)))
    end_shortly(n1)
    assert len(n1.running()) == 1  # seven slots are free: nothing queues for the processors
    plain = play.submit(job("plain", tasks(size=1_000)))
    assert len(n1.running()) == 8
    for _ in range(20):
        end_shortly(n1)
        assert play.show(plain)["tasks"]["running"] >= 6


def test_where_slots_are_short_too_needy_tasks_queue_like_others() -> None:
    play = Play()
    n1 = play.node("n1", slots=2, resources={"cpus": 2})
    name = play.submit(job("needy", needing(size=1_000, cpus=1)))
    end_shortly(n1)
    assert len(n1.running()) > 20
    assert used(play, "n1") == {"cpus": 2.0}
    assert play.show(name)["tasks"]["running"] == 2
    n2 = play.node("n2", slots=2, resources={"cpus": 2})
    while n1.recalls or len(n2.running()) < 2:  # what waits goes to whoever stands ready
        assert n1.obey()
    assert len(n2.running()) >= 2


@pytest.mark.parametrize("priority", [0, 1])
def test_a_needy_task_is_not_starved_by_less_needy_ones(priority: int) -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"cpus": 4})
    small = play.submit(job("small", needing(size=100, cpus=1)))
    big = play.submit(job("big", needing(cpus=4), priority=priority))
    for left in (3, 2, 1):
        n1.end(small)
        assert len(n1.running()) == left
    n1.end(small)
    assert play.show(big)["tasks"]["running"] == 1


def test_tasks_that_need_nothing_are_not_held_up_for_one_that_lacks_processors() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"cpus": 4})
    play.submit(job("a", needing(size=2, cpus=3, slots=2)))
    plain = play.submit(job("b", tasks(size=20)))
    assert Counter(held.run.job for held in n1.grants.values() for _ in held.open)[plain] == 6


# ---- refused, explained


def test_needs_beyond_every_node_are_refused_at_their_place() -> None:
    play = Play()
    play.node("n1", resources={"cpus": 4, "memory": 8 * GIB})
    play.node("n2", resources={"cpus": 8, "memory": 4 * GIB})
    groups = [
        needing("a", cpus=9), needing("b", memory_bytes=16 * GIB), needing("c", cpus=8, memory_bytes=8 * GIB),
        needing("fits", cpus=8, memory_bytes=4 * GIB),
    ]  # fmt: skip
    places = ["a/needs/cpus", "b/needs/memory", "c/needs", "fits/needs"]
    spans = {f"job/j/task/{place}": [line, 1, line, 2] for line, place in enumerate(places, 1)}
    refused = play.admin.refused(m.Submit, submission="s", document=document(job("j", *groups)), spans=spans)
    assert refused.code is m.RefusalCode.INVALID
    assert [(d["code"], d["span"]["start"]["line"]) for d in refused.diagnostics] == [("B604", n) for n in (1, 2, 3)]
    assert [d["message"] for d in refused.diagnostics] == [
        "`a` needs 9 processors, but no node of pool `p` has more than 8",
        "`b` needs 16.0 GiB of memory, but no node of pool `p` has more than 8.0 GiB",
        "`c` needs 8 processors and 8.0 GiB of memory, but no node of pool `p` has both",
    ]


def test_needs_are_not_refused_while_a_node_has_not_said_what_it_has() -> None:
    play = Play()
    n1 = play.node("n1", slots=2, resources={"cpus": 64})
    play.restart()
    name = play.submit(job("j", needing(cpus=32)))
    assert play.show(name)["waits"] == "no node of pool `p` can take it: not connected (1 node)"
    n1.join()
    assert play.show(name)["tasks"]["running"] == 1


def test_needs_are_not_refused_while_the_pool_declares_more_nodes_than_have_joined() -> None:
    play = Play()
    n1 = play.node("n1", resources={"cpus": 4})
    wide = document(job("j", needing(cpus=32, labels=["big"])), pools=[{"name": "p"}])
    assert play.admin.refused(m.Submit, submission="s", document=wide).code is m.RefusalCode.INVALID
    wide["pools"][0]["nodes"] = 2
    [told] = play.admin.ask(m.Submit, submission="s", document=wide)["jobs"]
    assert n1.heard(m.Run) == []
    body = play.admin.ask(m.Explain, told["id"])
    assert (body["code"], body["next"]) == (
        "nodes_to_come", "start `agentd --pool p` on a machine that has what it needs",
    )  # fmt: skip
    n2 = play.node("n2", resources={"cpus": 64}, labels={"big": ""})
    assert n2.labels(told["id"]) == [0]
    wide["jobs"][0]["groups"][0]["needs"]["cpus"] = 65
    refused = play.admin.refused(m.Submit, submission="t", document=wide)
    assert refused.diagnostics[0]["message"] == "`t` needs 65 processors, but no node of pool `p` has more than 64"
    play.run_out(told["id"])
    n2.say(m.Leaving())
    assert n2.departed
    n2.drop()
    assert play.node_state("n2") == "left"
    assert play.admin.ask(m.Submit, submission="t", document=wide)["jobs"], "another may take its place"


def test_an_empty_pool_refuses_no_needs_and_says_why_it_waits() -> None:
    play = Play()
    play.node("elsewhere", pool="q")
    name = play.submit(job("j", needing(cpus=1_000)))
    assert play.show(name)["waits"] == "pool `p` has no node"
    n1 = play.node("n1", resources={"cpus": 4})
    play.node("n2", resources={"cpus": 8})
    assert n1.heard(m.Run) == []
    assert play.show(name)["waits"] == (
        "no node of pool `p` can take it: fewer processors than the task needs (2 nodes)"
    )


def test_in_lists_a_job_is_not_explained_where_each_would_mean_to_look_at_many_nodes() -> None:
    play = Play(checking=False)
    for number in range(NODES_LOOKED_AT):
        play.node(f"n{number}")
    play.restart()
    name = play.submit(job("j", needing(cpus=1)))
    assert play.admin.ask(m.JobList)[0]["waits"] == play.show(name)["waits"]
    play.node("one-more")
    assert play.admin.ask(m.JobList)[0]["waits"] is None
    assert "not connected (100 nodes)" in play.show(name)["waits"]


def test_a_node_that_does_not_say_what_it_has_gets_nothing_that_needs_it() -> None:
    play = Play()
    play.node("n0", resources={"cpus": 2, "memory": GIB})
    n1 = play.node("n1", slots=4)
    play.submit(job("j", needing(size=8, cpus=1), tasks("plain", size=8)))
    assert at_work(n1) == {1: 4}


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0])
def test_a_node_that_offers_what_is_no_number_may_not_join(amount: float) -> None:
    play = Play()
    n1 = play.node("n1", resources={"cpus": amount})
    assert not n1.joined
    assert "0 or more of a resource" in n1.closed[0]


def test_a_job_ends_when_only_nodes_too_small_for_it_are_not_barred() -> None:
    play = Play()
    n1 = play.node("n1", resources={"cpus": 8})
    play.node("n2", resources={"cpus": 1})
    name = play.submit(job("j", needing(cpus=4), preparation=prep()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.wait(11)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


# ---- too much memory


def test_a_task_that_ran_out_of_memory_spends_a_retry_and_fails_with_the_reason() -> None:
    play = Play()
    n1 = play.node("n1", resources={"memory": GIB})
    name = play.submit(job("j", {**tasks("t", retries=1), "needs": {"memory_bytes": GIB}}))
    killed = {"exit_code": None, "outcome": m.Outcome.OOM, "signal": 9}
    n1.end(**killed, reason="it used more than the 1.0 GiB of memory that it needs")
    assert play.task(f"{name}/t")["state"] == "running"
    n1.end(**killed)
    shown = play.task(f"{name}/t")
    assert (shown["state"], shown["result"], shown["attempts"]) == ("completed", "failure", 2)
    assert shown["reason"] == "killed for using more memory than it was given"
    assert [(entry["outcome"], entry["verdict"], entry["reason"]) for entry in shown["history"]] == [
        ("oom", "retry", "it used more than the 1.0 GiB of memory that it needs"),
        ("oom", "failed", "killed for using more memory than it was given"),
    ]


def test_a_preparation_that_ran_out_of_memory_bars_the_node() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.rounds[name, 1] = m.RoundState.BARRED
    end = phase_end(name, 1, m.Phase.PREPARATION, False, outcome=m.Outcome.OOM, exit_code=None, signal=9, reason="oom")
    n1.report(phases=[end])
    [row] = play.admin.ask(m.JobNodes, name)
    assert (row["state"], row["prep"]["state"], row["prep"]["reason"]) == ("barred", "failed", "oom")


# ---- arithmetic

amounts = st.fixed_dictionaries({}, optional={name: st.integers(1, 2**45) for name in ("cpus", "memory", "gpus", "x")})
shares = amounts.map(Claim)


@given(shares.filter(bool), shares, st.integers(0, 1_000))
def test_as_many_as_fit_do_and_one_more_does_not(each: Claim, offer: Claim, taken: int) -> None:
    left = offer.plus(each, -taken)
    rest = left.plus(each, -each.times_in(left))
    assert min(rest.get(name, 0) for name in each) >= 0
    assert min(rest.plus(each, -1).get(name, 0) for name in each) < 0


@given(shares, shares.filter(bool), st.integers(-5, 5))
def test_what_is_added_and_taken_away_again_was_never_there(held: Claim, each: Claim, times: int) -> None:
    assert held.plus(each, times).plus(each, -times) == held
    assert (each.lack_in(held) == 0) == (each.times_in(held) >= 1)


@given(st.floats(0.01, 65_536), st.integers(1, 2**50), st.floats(0.001, 2**40))
def test_a_claim_is_never_less_than_what_is_needed(cpus: float, memory: int, tokens: float) -> None:
    claim = Claim.of(Needs(cpus, memory, others={"tokens": tokens}))
    assert claim is not None
    assert cpus * 1000 - 1e-5 <= claim["cpus"] < cpus * 1000 + 1
    assert claim["memory"] == memory
    assert claim["tokens"] >= tokens * 1000 - 1e-5


def test_no_needs_are_no_claim() -> None:
    assert Claim.of(Needs()) is None


# ---- GPUs, disk, whatever is declared, labels


def test_gpus_disk_and_declared_resources_are_claimed_like_processors() -> None:
    play = Play()
    n1 = play.node("n1", slots=16, resources={"gpus": 3, "disk": 10 * GIB, "licence": 1.5, "cpus": 8})
    groups = [
        needing("g", size=9, gpus=2), needing("d", size=9, disk_bytes=4 * GIB),
        {**tasks("l", 9), "needs": {"others": {"licence": 0.5}}},
    ]  # fmt: skip
    play.submit(job("j", *groups))
    assert at_work(n1) == {0: 1, 1: 2, 2: 3}
    assert used(play, "n1") == {"gpus": 2, "disk": 8 * GIB, "licence": 1.5, "cpus": 0}


def test_work_goes_to_nodes_with_its_labels_and_takes_nothing_of_them() -> None:
    play = Play()
    n1 = play.node("n1", slots=4, labels={"zone": "a", "avx512": ""})
    n2 = play.node("n2", slots=4, labels={"zone": "b"})
    n3 = play.node("n3", slots=4)
    wanted = {"a": ["zone=a"], "b": ["zone=b"], "c": ["zone=a", "avx512"]}
    play.submit(job("j", *({**tasks(name, 2), "needs": {"labels": labels}} for name, labels in wanted.items())))
    assert [at_work(node) for node in (n1, n2, n3)] == [{0: 2, 2: 2}, {1: 2}, {}]
    assert play.admin.ask(m.NodeShow, "n1")["labels"] == {"zone": "a", "avx512": ""}


def test_directories_take_their_size_of_each_node_from_the_first_task_to_the_release() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"disk": 10 * GIB})
    dirs = [{"name": "market", "size_bytes": 5 * GIB}, {"name": "cache", "size_bytes": GIB}, {"name": "any"}]
    name = play.submit(job("a", tasks(size=2), dirs=dirs))
    assert at_work(n1) == {0: 2}, "the second one finds them there"
    plain = play.submit(job("c", needing(size=9, disk_bytes=2 * GIB)))
    other = play.submit(job("b", tasks(size=2), dirs=dirs[:1]))
    assert used(play, "n1") == {"disk": 10 * GIB}
    assert play.show(other)["tasks"]["running"] == 0
    play.restart()
    n1.join()
    assert used(play, "n1") == {"disk": 10 * GIB}
    n1.end(name, count=2)
    n1.end(plain, count=2)
    play.terminate(plain)
    assert play.show(other)["tasks"]["running"] == 0, "the release has not ended"
    n1.released(name)
    assert play.show(other)["tasks"]["running"] == 2
    assert used(play, "n1") == {"disk": 5 * GIB}


def test_directories_that_wait_for_room_keep_no_slot_from_others() -> None:
    play = Play()
    n1 = play.node("n1", slots=8, resources={"disk": 10})
    for name in ("a", "b"):
        play.submit(job(name, tasks(), dirs=[{"name": "d", "size_bytes": 8}]))
    play.submit(job("c", tasks(size=20)))
    assert Counter(held.run.job for held in n1.grants.values() for _ in held.open) == {"a-1": 1, "c-1": 7}


def test_what_no_node_has_is_refused_at_its_place() -> None:
    play = Play()
    play.node("n1", resources={"gpus": 2, "disk": 4 * GIB, "cpus": 1}, labels={"zone": "a"})
    play.node("n2", resources={"licence": 1, "disk": 8 * GIB, "cpus": 8}, labels={"fast": ""})
    groups = [
        needing("g", gpus=3), {**tasks("o"), "needs": {"others": {"licence": 2, "tape": 1}}},
        needing("d", disk_bytes=9 * GIB), {**tasks("l"), "needs": {"labels": ["zone=b", "fast"]}},
        {**tasks("both"), "needs": {"labels": ["fast", "zone"]}}, needing("far", cpus=2, gpus=1),
        needing("full", disk_bytes=5 * GIB), {**tasks("fits"), "needs": {"gpus": 2, "labels": ["zone=a"]}},
    ]  # fmt: skip
    dirs = [{"name": "small", "size_bytes": GIB}, {"name": "large", "size_bytes": 3 * GIB}]
    refused = play.admin.refused(m.Submit, submission="s", document=document(job("j", *groups, dirs=dirs)))
    assert [d["message"] for d in refused.diagnostics] == [
        "`g` needs 3 GPUs, but no node of pool `p` has more than 2",
        "`o` needs 2 of `licence`, but no node of pool `p` has more than 1",
        "`o` needs 1 of `tape`, but no node of pool `p` has any",
        "`d` needs 9.0 GiB on disk, but no node of pool `p` has more than 8.0 GiB",
        "`l` needs a node with the label `zone=b`, but no node of pool `p` has it",
        "`both` needs 4.0 GiB on disk, the label `fast` and the label `zone` with the directories of its job, but no "
        "node of pool `p` has all of it",
        "`far` needs 4.0 GiB on disk, 2 processors and 1 GPU with the directories of its job, but no node of pool `p` "
        "has all of it",
        "`full` needs 9.0 GiB on disk with the directories of its job, but no node of pool `p` has all of it",
    ]
    dirs = [{"name": "small", "size_bytes": GIB}, {"name": "large", "size_bytes": 8 * GIB}]
    spans = {"job/j/dir/large/size": [7, 3, 7, 9]}
    refused = play.admin.refused(
        m.Submit, submission="t", document=document(job("j", tasks(), dirs=dirs)), spans=spans
    )  # fmt: skip
    (found,) = refused.diagnostics
    assert found["message"] == (
        "the directories of `j` take 9.0 GiB on disk, but no node of pool `p` has more than 8.0 GiB"
    )
    assert found["span"]["start"] == {"line": 7, "column": 3}
