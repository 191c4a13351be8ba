"""`explain`: every situation is told by its sentence, the dominant reason first, at little cost."""

from __future__ import annotations

import re
import time
from typing import Any

import click
import msgspec
import pytest

from agentd.__main__ import agentd
from coordinator.cli.entry import coordinator as root
from coordinator.obstacles import Obstacle
from coordinator.policy import EndCalls, Policy, PoolRules
from coordinator.reasons import MEANING, NEXT, OF_OBSTACLE, Cause, Code, dominant_first
from coordinator.why import MAX_NODES, MAX_STORY
from coordinator.why_job import MAX_ROUNDS
from tests.coordinator.playbook import Play, job, phase_end, prep, release, tasks
from tests.coordinator.situations import Situation
from tests.coordinator.situations_of_jobs import SITUATIONS
from wire import messages as m
from wire.limits import MAX_FRAME


def explained(play: Play, target: str) -> dict[str, Any]:
    body: dict[str, Any] = play.admin.ask(m.Explain, target)
    return body


@pytest.mark.parametrize("case", SITUATIONS, ids=str)
def test_each_situation_is_told_by_its_sentence(case: Situation) -> None:
    play = Play(policy=Policy(end_calls=EndCalls(allowed=True, own_user=False, at_once=1)))
    body = explained(play, case.scene(play))
    assert (body["code"], body["reason"][: len(case.sentence)]) == (case.code.value, case.sentence)
    assert body["all"][0]["reason"] == body["reason"]
    others = {cause["code"]: cause["reason"] for cause in body["all"][1:]}
    assert {code.value: reason for code, reason in case.also.items()}.items() <= others.items()
    if case.next is not None:
        assert (body["next"] or "").startswith(case.next)


def test_twenty_situations_and_more_are_told() -> None:
    assert len({case.code for case in SITUATIONS}) >= 20


def test_every_obstacle_of_placement_has_a_code_and_every_code_a_situation() -> None:
    assert set(OF_OBSTACLE) == set(Obstacle)
    told = {case.code for case in SITUATIONS}.union(*(case.also for case in SITUATIONS))
    assert set(Code) - told == {Code.READY}, "that lasts no longer than a step of the core"
    assert set(NEXT) <= set(Code) == set(MEANING)


# ---- which comes first


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Code.DISABLED, Code.DEPENDENCY),  # nothing else helps before somebody enables it
        (Code.DEPENDENCY, Code.BACKOFF),  # all must pass: what lasts longest
        (Code.BACKOFF, Code.PARALLEL),
        (Code.PARALLEL, Code.BUSY),  # another node would not help
        (Code.DEPENDENCY, Code.NO_NODE),  # whose own explanation says so, too
        (Code.PRIORITY, Code.BUSY),  # a slot that is free soon is not for it
        (Code.BUSY, Code.NOT_CONNECTED),  # one node is enough: what passes soonest
        (Code.BUSY, Code.DRAINING),
        (Code.STARTING, Code.START_FAILED),
        (Code.UNRELIABLE, Code.NOT_CONNECTED),  # which passes by itself
        (Code.NOT_CONNECTED, Code.BARRED),
        (Code.BARRED, Code.TOO_SMALL),  # what a person can mend comes before what no one can
        (Code.BUSY, Code.TURN),
        (Code.RUNNING, Code.PREPARING),
        (Code.NODE_LOST, Code.RUNNING),  # what lasts longest, and somebody may look after
        (Code.RUNNING, Code.DEPENDENCY),  # of a job: that it goes on
        (Code.DISABLING, Code.RUNNING),
        (Code.INELIGIBLE, Code.BARRED),
        (Code.RELEASE_STUCK, Code.RELEASE_RUNS),  # all must be paid: what a person can do something about
        (Code.RELEASE_OUT_OF_CONTACT, Code.RELEASE_RUNS),
        (Code.RELEASE_RUNS, Code.RELEASE_WAITS),
        (Code.RELEASE_OWED, Code.ENDED_EARLY),  # what is still to be done, then what went wrong, then how it ended
        (Code.ENDED_EARLY, Code.TASKS_FAILED),
        (Code.TASKS_FAILED, Code.RELEASE_FAILED),
        (Code.RELEASE_FAILED, Code.COMPLETED),
    ],
    ids=lambda code: code.value,
)
def test_of_two_reasons_one_is_told_first(first: Code, then: Code) -> None:
    for causes in ([Cause(first, ""), Cause(then, "")], [Cause(then, ""), Cause(first, "")]):
        assert [cause.code for cause in dominant_first(causes)] == [first, then]


def test_of_a_wide_pool_what_passes_soonest_is_told_first_and_every_other_reason_once() -> None:
    play = Play()
    for number in range(3):
        play.node(f"small{number}", labels={"zone": "a"})
    play.node("gone", slots=2, labels={"zone": "b"}).drop()
    play.node("busy", slots=2, labels={"zone": "b"})
    name = play.submit(job("j", {**tasks(size=2, slots=2), "needs": {"labels": ["zone=b"]}}))
    body = explained(play, f"{name}/t[1]")
    assert [(cause["code"], cause["node"]) for cause in body["all"]] == [
        ("busy", "busy"), ("not_connected", "gone"), ("too_small", "small0"),
    ]  # fmt: skip
    assert body["all"][2]["reason"] == "3 nodes, `small0` first: it has 1 slot, the task takes 2"
    assert [line["node"] for line in body["nodes"]] == ["small0", "small1", "small2", "gone", "busy"]


# ---- what would help


def named_commands() -> list[str]:
    values = {"about": "j-1/t[1]", "job": "j-1", "node": "n1", "pool": "p"}
    texts = [text.format(**values) for text in NEXT.values()]
    return sorted({found for text in texts for found in re.findall(r"`((?:coordinator|agentd) [^`]*)`", text)})


@pytest.mark.parametrize("line", named_commands())
def test_the_command_that_would_help_exists_and_takes_these_arguments(line: str) -> None:
    program, *words = line.replace(" N", " 1").split()
    command: click.Command = root if program == "coordinator" else agentd
    with click.Context(command) as context:
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None
            command = found
        command.make_context(program, words)


def test_options_of_agentd_that_would_help_exist() -> None:
    there = {name for parameter in agentd.params for name in parameter.opts}
    named = {found for code in _OF_AGENTS for found in re.findall(r"--[a-z-]+", NEXT[code])}
    assert named <= there
    assert len(named) >= 4


_OF_AGENTS = (Code.TOO_SMALL, Code.NOT_ELEVATING, Code.TOO_FEW_GPUS, Code.TOO_LITTLE, Code.NO_LABEL, Code.NO_NODE)


def test_nobody_is_sent_to_what_he_has_just_read() -> None:
    """Where no task is to blame that another was skipped."""
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first", 3), tasks("then", after=[{"group": 0, "when": "failed"}])))
    n1.end_all(name)
    play.run_out(name)
    body = explained(play, f"{name}/then")
    assert (body["code"], body["next"]) == ("skipped", None)


# ---- to whom


def test_who_may_not_know_of_a_job_does_not_learn_of_it_from_the_explanation_of_his_own() -> None:
    play = Play(policy=Policy({"p": PoolRules(users=["ann", "bob"], viewers=[])}))
    ann, bob = play.person("ann"), play.person("bob")
    play.submit(job("warm"), pools=[{"name": "p", "sharing": "fifo"}])
    play.node("n1").end()
    play.submit(job("secret", tasks(size=2)), by=ann)
    play.submit(job("covert", priority=10), by=ann)
    play.submit(job("hidden"), by=ann)
    name = play.submit(job("j"), by=bob)
    for target in (name, f"{name}/t"):
        body = bob.ask(m.Explain, target)
        assert {"secret", "covert", "hidden", "ann"} & set(re.split(r"\W+", str(body))) == set()
    told = {cause["code"]: cause["reason"] for cause in body["all"]}
    assert told["busy"] == "node `n1`: 1 of 1 slot is taken (1 by others)"
    assert told["priority"] == "tasks of 1 job of higher priority go first"
    assert told["turn"].startswith("tasks of 2 jobs of the same priority go first: ")
    known = {cause["code"]: cause["reason"] for cause in ann.ask(m.Explain, "hidden-1/t")["all"]}
    assert known["busy"] == "node `n1`: 1 of 1 slot is taken (1 by `secret-1`)"
    assert known["priority"] == "tasks of 1 job of higher priority (`covert-1`) go first"


# ---- how it came to this


def test_the_story_tells_the_first_moment_and_the_last_ones_in_order() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=50, backoff={"first_ms": 1, "cap_ms": 1})))
    for _ in range(30):
        n1.end(name, 7)
        play.wait(0.01)
    story = explained(play, f"{name}/t")["story"]
    assert len(story) == MAX_STORY
    assert story[0]["text"] == "its job was submitted"
    assert [told["text"].split(" on ")[0] for told in story[1:]] == [f"attempt {n}" for n in range(12, 31)]
    assert story[-1]["text"] == "attempt 30 on `n1`: exit code 7, tried again"


def test_the_story_tells_of_a_plain_success_and_quotes_sentences_of_nodes_as_parts_of_its_own() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=2)))
    n1.end(name)
    n1.end(name, None, outcome=m.Outcome.TIMED_OUT, reason="It ran longer than its timeout of 1 s.")
    well, late = (explained(play, f"{name}/t[{n}]") for n in (0, 1))
    assert [told["text"] for told in well["story"]] == ["its job was submitted", "attempt 1 on `n1`: it succeeded"]
    assert late["reason"].startswith("it failed for good: it ran longer than its timeout of 1 s at attempt 1; ")


def test_the_story_tells_of_rounds_of_a_job_that_was_tried_again() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    for _ in range(2):
        n1.prepared(name)
        n1.end(name, 9)
        n1.released(name)
        play.wait(1)
        play.admin.ask(m.JobRetry, name)
    play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
    texts = [told["text"] for told in explained(play, name)["story"]]
    assert "its job was reopened, for the 2. time: it had ended (AllTasksComplete)" in texts
    assert "its release on `n1` (round 2) succeeded" in texts
    assert texts[-1] == "uid:1000 disabled it (`--requeue`)"


# ---- what it costs


def test_a_million_tasks_on_a_thousand_nodes_are_explained_at_once_and_in_one_frame() -> None:
    play = Play(checking=False)
    for number in range(1_000):
        play.node(f"n{number}", slots=2)
    after = [{"group": 0, "axes": ["i"]}]
    name = play.submit(job("j", tasks(size=1_000_000), tasks("then", size=1_000_000, after=after)))
    play.submit(job("other", tasks(size=1_000_000), priority=5))
    for number in range(0, 100, 2):
        play.admin.ask(m.NodeDrain, node=f"n{number}", deadline_s=3600.0, reason="x" * 1_000)
    for target in (name, f"{name}/t[999999]", f"{name}/then[500000]"):
        started = time.thread_time()
        body = explained(play, target)
        assert time.thread_time() - started < 0.1, "10 ms where nothing else runs"
        assert len(msgspec.msgpack.encode(body)) < MAX_FRAME // 4
        assert (len(body["nodes"]), body["nodes_left_out"]) == (MAX_NODES, 900)


def test_however_much_there_is_to_say_it_fits_into_a_frame() -> None:
    play = Play(checking=False)
    for number in range(150):
        play.node(f"n{number}", pool="p")
    groups = [tasks(f"g{number}", size=20) for number in range(30)]
    name = play.submit(job("j", *groups, release=release(), finish="manual"))
    play.terminate(name)
    for node in play.nodes.values():
        number = node.latest(name)
        node.rounds[name, number] = m.RoundState.RELEASED
        end = phase_end(name, number, m.Phase.RELEASE, False, reason="ß" * 1_000)
        node.report(phases=[end])
    body = explained(play, name)
    assert len(msgspec.msgpack.encode(body)) < MAX_FRAME // 2
    assert sum(cause["code"] == "release_failed" for cause in body["all"]) == MAX_ROUNDS


def test_what_came_back_without_having_run_is_before_those_behind_it_and_not_before_itself() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    name = play.submit(job("j", tasks(size=4), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    orders = [explained(play, f"{name}/t[{index}]")["all"][1:] for index in (0, 3)]
    assert [[cause["reason"] for cause in some] for some in orders] == [[], ["3 tasks of its job are before it"]]
