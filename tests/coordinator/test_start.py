"""A pool's start, as the coordinator orders it: before any work on each node and in each boot, and what of failures."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from coordinator.ending import ELIGIBLE_GRACE_S
from coordinator.obstacles import Obstacle, obstacle
from coordinator.policy import Policy, PoolRules
from coordinator.records import PoolSet
from tests.coordinator.playbook import FakeNode, Play, command, document, job, prep, tasks
from wire import messages as m
from wire.spec import Command, PoolSpec


def pool(**start: Any) -> dict[str, Any]:
    return {"name": "p", "slots": 1, "start": command(**start)}


def submitted(*names: str, **start: Any) -> tuple[Play, str, list[FakeNode]]:
    """A pool with a start, these nodes of it, and a job."""
    play = Play()
    name = play.submit(job("j", tasks(size=4), preparation=prep()), pools=[pool(**start)])
    return play, name, [play.node(n) for n in names]


def state(play: Play, node: str = "n1") -> str:
    return str(play.admin.ask(m.NodeShow, node=node)["state"])


def orders(node: FakeNode) -> list[int]:
    return [order.number for order in node.heard(m.StartNode)]


# ---- before anything else


def test_a_node_takes_no_work_before_its_start_has_succeeded() -> None:
    play, name, (n1,) = submitted("n1")
    (order,) = n1.heard(m.StartNode)
    assert msgspec.msgpack.decode(order.body, type=m.StartBody) == m.StartBody("p", Command(argv=["true"]))
    assert order.digest == hashlib.sha256(order.body).hexdigest()
    assert state(play) == "starting"
    assert n1.heard(m.Prepare) == n1.heard(m.Run) == []
    cluster = play.core.cluster
    held = cluster.jobs[name]
    assert obstacle(held, held.groups[0], cluster.nodes["n1"], 1) is Obstacle.STARTING
    n1.started()
    assert state(play) == "running"
    play.run_out(name)
    assert orders(n1) == [1]


def test_a_start_is_ordered_from_nodes_that_were_there_before_their_pool_was_declared() -> None:
    play = Play()
    n1 = play.node("n1", slots=1)
    assert n1.heard(m.StartNode) == []
    play.submit(job(), pools=[pool()])
    n1.join()
    assert orders(n1) == [1]
    assert n1.heard(m.Run) == []


def test_a_changed_start_is_ordered_at_once_and_nothing_is_granted_meanwhile() -> None:
    play, name, (n1,) = submitted("n1")
    n1.started()
    n1.prepared(name)
    live = play.core.cluster.pools["p"]
    other = PoolSpec(name="p", slots=1, start=Command(argv=["other"]))
    play.core.keep(PoolSet(other))
    play.core.touch_pool(live)
    n1.end(name)
    assert orders(n1) == [1, 2]
    assert state(play) == "starting"
    assert len(n1.heard(m.Run)) == 1
    n1.started()
    assert len(n1.heard(m.Run)) > 1
    play.core.keep(PoolSet(PoolSpec(name="p", slots=1)))
    play.core.touch_pool(live)
    n1.end(name)
    assert n1.heard(m.StartNode)[-1] == m.StartNode(number=0)
    play.run_out(name)


def test_a_long_start_goes_in_pieces() -> None:
    _, _, (n1,) = submitted("n1", argv=None, script="x" * 700_000)
    pieces, (order,) = n1.heard(m.BodyChunk), n1.heard(m.StartNode)
    assert order.body is None
    assert hashlib.sha256(b"".join(piece.content for piece in pieces)).hexdigest() == order.digest


# ---- failures


def test_a_start_that_failed_for_good_leaves_its_node_out_and_says_why() -> None:
    play, name, (n1, n2) = submitted("n1", "n2", retries=1)
    n1.started(False, final=False, exit_code=1)
    assert state(play) == "starting"
    n1.started(False, attempt=2, exit_code=7, stderr_tail=b"no zstd\n")
    n2.started()
    shown = play.admin.ask(m.NodeShow, node="n1")
    assert (shown["state"], shown["reason"]) == ("start_failed", "its pool's start failed: exit code 7")
    start = shown["start"]
    assert (start["state"], start["attempts"], start["exit_code"]) == ("failed", 2, 7)
    assert start["stderr_tail"] == "no zstd\n"
    held = play.core.cluster.jobs[name]
    assert obstacle(held, held.groups[0], play.core.cluster.nodes["n1"], 1) is Obstacle.START_FAILED
    play.run_out(name)
    assert n1.heard(m.Run) == []


def test_what_a_start_wrote_is_told_to_operators_alone() -> None:
    play, _, (n1,) = submitted("n1")
    n1.started(stdout_tail=b"secret\n")
    user = play.person("someone")
    assert user.ask(m.NodeShow, node="n1")["start"]["stdout_tail"] == ""
    assert user.refused(m.LogRead, node="n1", phase=m.Phase.START).code is m.RefusalCode.REFUSED
    n1.drop()
    body = play.admin.ask(m.LogRead, node="n1", phase=m.Phase.START)
    assert (body["content"], body["kept"]) == (b"secret\n", "all of it")


def test_the_log_of_a_start_is_read_where_it_runs() -> None:
    play, _, (n1,) = submitted("n1", retries=3)
    n1.say(m.PhaseStarted(m.START_JOB, 1, m.Phase.START, 2, play.wall))
    play.admin.start(m.LogRead, node="n1", phase=m.Phase.START, stderr=True)
    assert n1.heard(m.ReadFile)[-1].path == "startup/attempt-2/stderr.txt"
    assert play.admin.ask(m.NodeShow, node="n1")["start"]["state"] == "running"


@pytest.mark.parametrize("way", ["enable", "another start of the agent", "reboot", "replaced root"])
def test_a_start_that_failed_is_tried_again(way: str) -> None:
    play, name, (n1,) = submitted("n1")
    n1.started(False)
    n1.drop()
    n1.join()
    assert orders(n1) == [1], "a connection that broke is no reason"
    match way:
        case "enable":
            play.admin.ask(m.NodeEnable, node="n1")
        case "another start of the agent":
            n1.drop()
            n1.life = "another"
            n1.join()
        case "reboot":
            n1.reboot("boot-2")
            n1.join()
        case _:
            n1.wiped()
            n1.join()
    assert orders(n1) == [1, 2]
    assert state(play) == "starting"
    play.run_out(name)


def test_enabling_a_node_runs_no_start_again_that_succeeded() -> None:
    play, _, (n1,) = submitted("n1")
    n1.started()
    play.admin.ask(m.NodeEnable, node="n1")
    assert orders(n1) == [1]


def test_nodes_whose_start_failed_are_waited_for_on_a_cluster() -> None:
    play, name, (n1,) = submitted("n1")
    n1.started(False)
    play.wait(10 * ELIGIBLE_GRACE_S)
    shown = play.show(name)
    assert shown["state"] == "active"
    assert shown["waits"] == "no node of pool `p` can take it: the pool's start failed there (1 node)"


def test_a_run_ends_when_the_start_failed_on_all_of_its_nodes() -> None:
    play = Play()
    name = play.submit(job(), pools=[pool()])
    nodes = [play.node(n) for n in ("n1", "n2")]
    for node in nodes:
        node.drop()
        node.embedded = True
        node.join()
    nodes[0].started(False)
    play.wait(2 * ELIGIBLE_GRACE_S)
    assert play.show(name)["state"] == "active", "another one is still starting"
    nodes[1].started(False)
    play.wait(2 * ELIGIBLE_GRACE_S)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_reports_of_another_start_and_repeated_ones_count_for_nothing() -> None:
    play, _, (n1,) = submitted("n1")
    n1.started(False)
    play.admin.ask(m.NodeEnable, node="n1")
    late = m.PhaseEnd(
        m.START_JOB, 1, m.Phase.START, 1, True, True, m.Outcome.EXITED, 0, None, 0.0, 0.0, None, b"", b""
    )  # fmt: skip
    n1.say(m.Report(n1.number + 1, [], [late]))
    assert state(play) == "starting"
    n1.say(m.Report(n1.number + 2, [], [msgspec.structs.replace(late, round=77)]))
    assert state(play) == "starting"


# ---- restarts


def test_a_restarted_coordinator_knows_how_each_start_ended() -> None:
    play, _, (n1, n2, n3) = submitted("n1", "n2", "n3")
    n1.started()
    n2.started(False)
    play.restart()
    for node in (n1, n2, n3):
        node.join()
    assert [orders(node) for node in (n1, n2, n3)] == [[1], [1], [1]]
    assert [state(play, n) for n in ("n1", "n2", "n3")] == ["running", "start_failed", "starting"]


def test_an_order_that_never_arrived_is_said_again_with_the_same_number() -> None:
    _, _, (n1,) = submitted("n1")
    n1.start = None
    n1.drop()
    n1.join()
    assert orders(n1) == [1, 1]


def test_f10_a_reboot_runs_the_start_again_and_a_restart_of_the_agent_does_not() -> None:
    play, name, (n1,) = submitted("n1")
    n1.started()
    n1.drop()
    n1.life = "two"
    n1.join()
    assert orders(n1) == [1]
    n1.reboot("boot-2")
    n1.join()
    assert orders(n1) == [1, 2]
    assert state(play) == "starting"
    play.run_out(name)


def test_a_start_leaves_no_rows_of_earlier_ones() -> None:
    play, _, (n1,) = submitted("n1")
    for _ in range(5):
        n1.started(False)
        play.admin.ask(m.NodeEnable, node="n1")
    assert len([scope for scope, _ in play.rows if scope == "start n1"]) == 1


# ---- who may, and claims


def test_a_claim_on_a_live_pool_must_name_the_same_start_or_none() -> None:
    play, _, _ = submitted("n1", retries=2)
    same = play.submit(job("same"), pools=[pool(retries=2)])
    none = play.submit(job("none"), pools=[{"name": "p"}])
    assert (same, none) == ("same-1", "none-1")
    other = document(job("other"), pools=[pool(retries=3)])
    refused = play.admin.refused(m.Submit, submission="x", document=other, spans={"pool/p/start": [4, 3, 4, 8]})
    assert refused.message == "pool `p` is live with another `start`: its `retries` differs"
    assert [(d["code"], d["span"]["start"]["line"]) for d in refused.diagnostics] == [("B604", 4)]


def test_a_pool_that_is_live_without_a_start_is_given_none_by_a_claim() -> None:
    play = Play()
    play.submit(job(), pools=[{"name": "p"}])
    refused = play.admin.refused(m.Submit, submission="x", document=document(job("other"), pools=[pool()]))
    assert refused.message == "pool `p` is live without a `start`"


def test_an_elevated_start_needs_the_right_and_a_pool_that_elevates() -> None:
    play = Play(policy=Policy({"p": PoolRules(operators=["op"], elevation=["root"])}))
    elevated = {**pool(elevated=True), "elevation": "allowed"}
    op, root = play.person("op", m.Role.OPERATOR), play.person("root", m.Role.OPERATOR)
    refused = op.refused(m.Submit, submission="a", document=document(job(), pools=[elevated]))
    assert refused.diagnostics[0]["code"] == "B802"
    forbidden = document(job(), pools=[pool(elevated=True)])
    assert "no `elevation = allowed`" in root.refused(m.Submit, submission="b", document=forbidden).message
    root.ask(m.Submit, submission="c", document=document(job(), pools=[elevated]))


def test_a_start_knows_of_no_job_and_stops_none() -> None:
    play = Play()
    wrong = pool(argv=["x", ["run", "job.id"], ["run", "task.id"]])
    wrong["start"]["arms"] = [{"codes": [[1, 1]], "action": "stop"}]
    refused = play.admin.refused(m.Submit, submission="x", document=document(job(), pools=[wrong]))
    said = [d["message"] for d in refused.diagnostics]
    assert "`job.id` is not known in a start: it belongs to no job" in said
    assert "`stop` ends a job, and a start belongs to none" in said
