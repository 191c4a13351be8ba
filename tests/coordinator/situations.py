"""Situations of tasks, each made to happen with the real core, and what `explain` is to say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordinator.reasons import Code
from tests.coordinator.playbook import Play, command, job, prep, tasks
from wire import messages as m

GIB = 1 << 30
STARTS: dict[str, Any] = {"name": "p", "start": command()}
Scene = Callable[[Play], str]


@dataclass(frozen=True)
class Situation:
    """What happens, and what is said of the target that the scene returns."""

    scene: Scene
    code: Code
    sentence: str
    next: str | None
    also: dict[Code, str]

    def __str__(self) -> str:
        return self.scene.__name__


SITUATIONS: list[Situation] = []


def situation(
    code: Code, sentence: str, advice: str | None = None, also: dict[Code, str] | None = None
) -> Callable[[Scene], Scene]:
    def told(scene: Scene) -> Scene:
        SITUATIONS.append(Situation(scene, code, sentence, advice, also or {}))
        return scene

    return told


# ---- a task that no node has


@situation(Code.NO_NODE, "pool `p` has no node", "start `agentd --pool p` on a machine")
def a_pool_without_a_node(play: Play) -> str:
    return f"{play.submit(job('j'))}/t"


@situation(Code.NOT_CONNECTED, "node `n1`: out of contact for 1m00s")
def the_only_node_is_out_of_contact(play: Play) -> str:
    play.node("n1").drop()
    play.wait(60)
    return f"{play.submit(job('j'))}/t"


@situation(Code.LEAVING, "node `n1`: leaving")
def the_only_node_is_leaving(play: Play) -> str:
    n1 = play.node("n1")
    play.submit(job("other"))
    n1.say(m.Leaving())
    return f"{play.submit(job('j'))}/t"


@situation(Code.DRAINING, "node `n1`: drained by uid:1000: new kernel", "`coordinator node enable n1`")
def the_only_node_is_drained(play: Play) -> str:
    play.node("n1")
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=60.0, reason="new kernel")
    return f"{play.submit(job('j'))}/t"


@situation(Code.UNUSABLE, "node `n1`: unusable: its disk is full", "`coordinator node show n1` says why")
def the_only_node_has_no_room_on_its_disk(play: Play) -> str:
    play.node("n1").say(m.Health("its disk is full"))
    return f"{play.submit(job('j'))}/t"


@situation(
    Code.UNRELIABLE, "node `n1`: what it was given came to nothing 5 times in a row: it is given nothing for another",
    "look at `agentd` on node `n1`",
)  # fmt: skip
def the_only_node_gave_everything_back_again_and_again(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j"))
    while n1.grants:
        n1.give_back()
    return f"{name}/t"


@situation(Code.BARRED, "node `n1`: the job's preparation failed there: exit code 1, 1 attempt")
def the_preparation_failed_on_the_only_node(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    return f"{name}/t[0]"


@situation(Code.TOO_SMALL, "node `n1`: it has 1 slot, the task takes 4")
def the_only_node_is_too_narrow(play: Play) -> str:
    name = play.submit(job("j", tasks(slots=4)), pools=[{"name": "p", "slots": 4}])
    play.node("n1", slots=1)
    return f"{name}/t"


@situation(Code.TOO_FEW_CPUS, "node `n1`: it has 2 processors, the task needs 8")
def the_only_node_has_too_few_processors(play: Play) -> str:
    name = play.submit(job("j", {**tasks(), "needs": {"cpus": 8}}))
    play.node("n1", resources={"cpus": 2})
    return f"{name}/t"


@situation(
    Code.NODES_TO_COME, "1 of the 3 nodes of pool `p` has joined, and none is fit",
    "start `agentd --pool p` on a machine",
    also={Code.NO_LABEL: "node `n1`: it has no label `big`"},
)  # fmt: skip
def the_node_that_has_joined_is_not_fit_and_others_are_to_come(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j', {**tasks(), 'needs': {'labels': ['big']}}), pools=[{'name': 'p', 'nodes': 3}])}/t"


@situation(Code.TOO_LITTLE_MEMORY, "node `n1`: it has 1.0 GiB of memory, the task needs 8.0 GiB")
def the_only_node_has_too_little_memory(play: Play) -> str:
    name = play.submit(job("j", {**tasks(), "needs": {"memory_bytes": 8 * GIB}}))
    play.node("n1", resources={"memory": GIB})
    return f"{name}/t"


@situation(Code.TOO_FEW_GPUS, "node `n1`: it has 1 GPU, the task needs 2")
def the_only_node_has_too_few_gpus(play: Play) -> str:
    name = play.submit(job("j", {**tasks(), "needs": {"gpus": 2}}))
    play.node("n1", resources={"gpus": 1})
    return f"{name}/t"


@situation(
    Code.TOO_LITTLE_DISK, "node `n1`: it has 4.0 GiB on disk, the task needs 5.0 GiB, with the directories of its job"
)
def the_only_node_has_no_room_for_the_directories(play: Play) -> str:
    groups = {**tasks(), "needs": {"disk_bytes": GIB}}
    name = play.submit(job("j", groups, dirs=[{"name": "market", "size_bytes": 4 * GIB}]))
    play.node("n1", resources={"disk": 4 * GIB})
    return f"{name}/t"


@situation(Code.TOO_LITTLE, "node `n1`: it has 1 of `licence`, the task needs 1.5")
def the_only_node_declares_less_of_a_resource(play: Play) -> str:
    name = play.submit(job("j", {**tasks(), "needs": {"others": {"licence": 1.5}}}))
    play.node("n1", resources={"licence": 1})
    return f"{name}/t"


@situation(Code.NO_LABEL, "node `n1`: it has no label `zone=b`")
def the_only_node_has_another_label(play: Play) -> str:
    name = play.submit(job("j", {**tasks(), "needs": {"labels": ["zone", "zone=b"]}}))
    play.node("n1", labels={"zone": "a"})
    return f"{name}/t"


@situation(Code.NOT_ELEVATING, "node `n1`: no elevated commands there")
def no_node_elevates(play: Play) -> str:
    name = play.submit(job("j", tasks(elevated=True)), pools=[{"name": "p", "elevation": "allowed"}])
    play.node("n1")
    return f"{name}/t"


@situation(Code.CLAIMED, "node `n1`: left there: 1 of 4 processors, the task needs 2")
def the_processors_are_taken(play: Play) -> str:
    play.node("n1", slots=4, resources={"cpus": 4})
    play.submit(job("big", {**tasks(), "needs": {"cpus": 3}}))
    return f"{play.submit(job('j', {**tasks(), 'needs': {'cpus': 2}}))}/t"


@situation(Code.BUSY, "node `n1`: 2 of 2 slots are taken (2 by `long-1`)", "wait, or add a node to pool `p`")
def all_slots_are_taken(play: Play) -> str:
    play.node("n1", slots=2)
    play.submit(job("long", tasks(size=2)))
    return f"{play.submit(job('j'))}/t"


@situation(Code.BUSY, "node `n1`: 1 of 1 slot is taken", also={Code.ORDER: "3 tasks of its job are before it"})
def others_of_its_group_come_first(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j', tasks(size=5)))}/t[4]"


@situation(Code.BUSY, "2 nodes, `n1` first: 1 of 1 slot is taken (1 by `long-1`)")
def all_slots_of_several_nodes_are_taken(play: Play) -> str:
    play.node("n1")
    play.node("n2")
    play.submit(job("long", tasks(size=2)))
    return f"{play.submit(job('j'))}/t"


@situation(Code.PRIORITY, "tasks of 1 job of higher priority (`urgent-1`) go first")
def a_job_of_higher_priority_waits_too(play: Play) -> str:
    play.node("n1")
    play.submit(job("long"))
    play.submit(job("urgent", priority=10))
    return f"{play.submit(job('j'))}/t"


@situation(Code.RESERVED, "node `n1`: kept free for a task that needs more room")
def the_node_is_kept_for_a_wider_task(play: Play) -> str:
    play.node("n1", slots=4)
    play.submit(job("long", tasks(size=2)))
    play.submit(job("wide", tasks(slots=4)))
    return f"{play.submit(job('j'))}/t"


@situation(Code.PREPARATIONS, "node `n2`: as many nodes as allowed are preparing: `parallel = 1` of `prep`")
def another_node_prepares_and_one_at_a_time_may(play: Play) -> str:
    play.node("n1")
    play.node("n2")
    return f"{play.submit(job('j', tasks(size=2), preparation=prep(parallel=1)))}/t[1]"


@situation(Code.DEPENDENCY, "it waits for `first`: 2 of 2 tasks did not succeed yet")
def another_task_is_to_be_done_before(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j', tasks('first', size=2), tasks('then', after=[0])))}/then"


@situation(
    Code.DEPENDENCY, "it waits for `first`: 2 of 4 tasks did not succeed yet", "`coordinator explain j-1/first[2]`"
)
def one_of_those_before_it_failed_which_does_not_count(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", {**tasks("first", size=4), "optional": True}, tasks("then", after=[0])))
    n1.end(name)
    n1.end(name, 1)
    return f"{name}/then"


@situation(Code.BACKOFF, "it is tried again in 9.9s: attempt 1 failed (exit code 7), 1 of 3 retries spent")
def it_failed_and_waits_for_its_next_attempt(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=3, backoff={"first_ms": 60_000, "cap_ms": 60_000})))
    n1.end(name, 7)
    return f"{name}/t"


@situation(
    Code.ELSEWHERE, "node `n1`: the task failed there and is tried again elsewhere",
    also={Code.BUSY: "node `n2`: 1 of 1 slot is taken (1 by `j-1`)"},
)  # fmt: skip
def it_is_to_be_tried_again_on_another_node_and_that_is_busy(play: Play) -> str:
    n1, _ = play.node("n1"), play.node("n2")
    arm = {"codes": [[75, 75]], "action": "retry", "times": 2, "elsewhere": True}
    name = play.submit(job("j", tasks(size=2, arms=[arm])))
    n1.end(name, 75)
    return f"{name}/t[0]"


@situation(Code.DEPENDENCY, "it waits for `first[i=1]`: 1 of 1 task did not succeed yet")
def its_own_element_of_another_is_not_over(play: Play) -> str:
    play.node("n1")
    then = tasks("then", size=2, after=[{"group": 0, "axes": ["i"]}])
    return f"{play.submit(job('j', tasks('first', size=2), then))}/then[1]"


@situation(Code.PARALLEL, "1 task of the job out, and `parallel = 1` allows no more")
def the_job_allows_no_more_tasks_at_once(play: Play) -> str:
    play.node("n1", slots=4)
    return f"{play.submit(job('j', tasks(size=4), parallel=1))}/t[1]"


@situation(
    Code.STARTING, "node `n1`: the pool's start has not ended", "`coordinator logs --node n1 --phase start` shows"
)
def the_start_was_ordered_on_the_only_node(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j'), pools=[STARTS])}/t"


@situation(Code.STARTING, "node `n1`: the pool's start runs for 5.0s, attempt 2; attempt 1 failed: exit code 1")
def the_start_is_tried_again_on_the_only_node(play: Play) -> str:
    name = play.submit(job("j"), pools=[STARTS])
    n1 = play.node("n1")
    n1.started(False, final=False)
    n1.say(m.PhaseStarted(m.START_JOB, 1, m.Phase.START, 2, play.wall - 5))
    return f"{name}/t"


@situation(
    Code.START_FAILED, "node `n1`: the pool's start failed there: exit code 7, 2 attempts",
    "`coordinator logs --node n1 --phase start` shows why; when that is mended, `coordinator node enable n1`",
)  # fmt: skip
def the_start_failed_on_the_only_node(play: Play) -> str:
    name = play.submit(job("j"), pools=[STARTS])
    play.node("n1").started(False, attempt=2, exit_code=7)
    return f"{name}/t"


@situation(Code.NOT_CONNECTED, "node `n1`: it is joining, and has not said yet what it holds")
def the_only_node_is_joining(play: Play) -> str:
    n1 = play.node("n1")
    n1.drop()
    n1.join(inventory=False)
    return f"{play.submit(job('j'))}/t"


@situation(Code.DRAINING, "node `n1`: drained by uid:1000; what runs there has 1m00s")
def the_only_node_is_being_drained(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=60.0)
    return f"{name}/t[1]"


@situation(Code.RELEASING, "node `n1`: an earlier round of the job is released there first")
def the_only_node_was_enabled_before_it_was_drained(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=0.0)
    play.admin.ask(m.NodeEnable, node="n1")
    return f"{name}/t[1]"


BY_LONG = "node `n1`: 1 of 1 slot is taken (1 by `long-1`)"
FIRST = "tasks of 1 job of the same priority (`first-1`) go first: "


@situation(
    Code.BUSY, BY_LONG, also={Code.TURN: FIRST + "their owners, or they, have less in use, or were served longer ago"}
)
def it_is_the_turn_of_another_job(play: Play) -> str:
    return _two_wait(play)


@situation(Code.BUSY, BY_LONG, also={Code.TURN: FIRST + "submitted earlier"})
def another_job_was_submitted_earlier(play: Play) -> str:
    return _two_wait(play, pools=[{"name": "p", "sharing": "fifo"}])


def _two_wait(play: Play, **more: Any) -> str:
    play.node("n1")
    play.submit(job("long"), **more)
    play.submit(job("first"))
    return f"{play.submit(job('j'))}/t"


@situation(
    Code.BACKOFF,
    "it is tried again in 4.9s: attempt 1 failed (exit code 75), 1 of 2 retries of `75 => retry` of its `exit` spent",
)
def an_arm_of_it_has_a_backoff_of_its_own(play: Play) -> str:
    n1 = play.node("n1")
    backoff = {"first_ms": 30_000, "cap_ms": 30_000}
    arm = {"codes": [[75, 75]], "action": "retry", "times": 2, "backoff": backoff}
    name = play.submit(job("j", tasks(arms=[arm])))
    n1.end(name, 75)
    return f"{name}/t"


@situation(Code.DEPENDENCY, "it waits for `first.done`: 1 of 1 task are not over", "`coordinator explain j-1/first`")
def it_waits_for_the_end_of_another(play: Play) -> str:
    return f"{play.submit(job('j', tasks('first'), tasks('then', after=[{'group': 0, 'when': 'done'}])))}/then"


@situation(
    Code.DEPENDENCY, "it waits for `first.failed`: 2 of 2 tasks may still fail", "`coordinator explain j-1/first[0]`"
)
def it_waits_for_a_failure_of_another(play: Play) -> str:
    first = tasks("first", size=2)
    return f"{play.submit(job('j', first, tasks('then', after=[{'group': 0, 'when': 'failed'}])))}/then"


@situation(
    Code.DISABLED, "its job was disabled by uid:1000", "`coordinator job enable j-1`",
    also={Code.NO_NODE: "pool `p` has no node"},
)  # fmt: skip
def its_job_is_disabled(play: Play) -> str:
    name = play.submit(job("j"))
    play.admin.ask(m.JobDisable, name, m.Disabling.WAIT)
    return f"{name}/t"


# ---- a task that a node has


@situation(Code.PREPARING, "the job's preparation runs on node `n1`")
def the_preparation_runs(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j', preparation=prep()))}/t"


@situation(Code.RUNNING, "it runs on node `n1`", "`coordinator logs j-1/t -f` shows what it prints")
def it_runs(play: Play) -> str:
    play.node("n1")
    return f"{play.submit(job('j'))}/t"


@situation(Code.QUEUED, "it is next on node `n1`, behind 1 task that it runs")
def it_waits_for_a_slot_of_the_node_that_has_it(play: Play) -> str:
    return _queued(play)


@situation(Code.NODE_LOST, "node `n1`, which has it, is out of contact for 20s: in 14m51s its tasks go elsewhere")
def the_node_that_has_it_is_silent(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.drop()
    play.wait(20)
    return f"{name}/t"


@situation(Code.PREPARING, "the job's preparation runs on node `n1` for 3.0s, attempt 2; attempt 1 failed: exit code 1")
def the_preparation_is_tried_again(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.prepared(name, ok=False, final=False)
    n1.say(m.PhaseStarted(name, 1, m.Phase.PREPARATION, 2, play.wall - 3))
    return f"{name}/t"


def _queued(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=500), preparation=prep()))
    n1.prepared(name)
    n1.end(name, started_at=play.wall - 0.001, ended_at=play.wall)
    return f"{name}/t[{n1.labels(name)[-1]}]"


@situation(
    Code.RECALLED, "node `n1` is asked to give it back: the node is emptied",
    also={Code.DRAINING: "node `n1`: drained by uid:1000; what runs there has 1m00s"},
)  # fmt: skip
def the_node_that_has_it_queued_is_drained(play: Play) -> str:
    task = _queued(play)
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=60.0)
    return task


@situation(Code.RECALLED, "node `n1` is asked to give it back: its job was disabled by uid:1000")
def its_job_was_disabled_while_it_queued(play: Play) -> str:
    task = _queued(play)
    play.admin.ask(m.JobDisable, "j-1", m.Disabling.WAIT)
    return task


@situation(Code.RECALLED, "node `n1` is asked to give it back: another node has room for it")
def another_node_has_room_for_what_queues(play: Play) -> str:
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=12)))
    n1.end(name, started_at=play.wall - 0.001, ended_at=play.wall)
    n2.end_all(name)
    while n2.running():
        n2.end_all(name)
    assert n1.recalls
    return f"{name}/t[{n1.labels(name)[-1]}]"


@situation(Code.STOPPING, "it is cancelled by uid:1000: node `n1` is to end it")
def it_was_cancelled_and_still_runs(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.admin.ask(m.TaskCancel, f"{name}/t")
    return f"{name}/t"


@situation(Code.STOPPING, "its job was disabled by uid:1000 (`--requeue`): node `n1` is to end it")
def its_job_was_disabled_and_it_still_runs(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
    return f"{name}/t"


@situation(Code.STOPPING, "its job ends (UserTerminate): node `n1` is to end it")
def its_job_ends_and_it_still_runs(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.terminate(name)
    return f"{name}/t"


# ---- a task that is over


@situation(Code.FAILED, "it failed for good: exit code 4 at attempt 1; it was about to be cancelled by uid:1000")
def a_task_failed_that_was_to_be_stopped(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=3)))
    play.admin.ask(m.TaskCancel, f"{name}/t")
    n1.end(name, 4)
    return f"{name}/t"


def _failed(play: Play, outcome: m.Outcome, reason: str | None = None, **options: Any) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("t", **options), tasks("more")))
    n1.end(name, None, outcome=outcome, reason=reason)
    return f"{name}/t"


@situation(Code.TIMED_OUT, "it failed for good: stopped by its timeout at attempt 1; it has no retries")
def it_took_too_long(play: Play) -> str:
    return _failed(play, m.Outcome.TIMED_OUT, timeout_ms=1000)


@situation(
    Code.OUT_OF_MEMORY,
    "it failed for good: killed for using more memory than it was given at attempt 1; `oom => fail` of its `exit`",
)
def it_used_too_much_memory(play: Play) -> str:
    return _failed(play, m.Outcome.OOM, arms=[{"causes": ["oom"], "action": "fail"}], retries=5)


@situation(
    Code.INPUT_FAILED,
    "it failed for good: DownloadFailed: model.bin: 404 Not Found at attempt 1; bringing it in was tried again already",
)
def a_file_did_not_come(play: Play) -> str:
    return _failed(play, m.Outcome.INPUT_FAILED, "DownloadFailed: model.bin: 404 Not Found.")


@situation(
    Code.NOT_STARTED,
    "it failed for good: there is no program `nope` at attempt 1; it has no retries",
    "mend its command, or install what it needs on node `n1`",
)
def its_program_is_missing(play: Play) -> str:
    return _failed(play, m.Outcome.START_FAILED, "there is no program `nope`")


@situation(Code.KEEPER_LOST, "it failed for good: it was lost 6 times with the process that ran it; last: unknown")
def it_took_its_keeper_with_it_again_and_again(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(), finish="manual"))
    for _ in range(6):
        n1.end(name, None, outcome=m.Outcome.LOST)
    return f"{name}/t"


@situation(
    Code.KILLED,
    "it failed for good: its job was disabled at attempt 1; `job disable --terminate` gave it no other",
    "`coordinator job retry j-1 --failed` runs it again when the job is over",
)
def it_was_stopped_for_good_as_its_job_was_disabled(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.admin.ask(m.JobDisable, name, m.Disabling.TERMINATE)
    play.obey()
    return f"{name}/t"


@situation(
    Code.FAILED,
    "it failed for good: exit code 75 at attempt 2; the retries of `75 => retry` of its `exit` are spent (1)",
)
def the_retries_of_an_arm_are_spent(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(arms=[{"codes": [[75, 75]], "action": "retry", "times": 1}], retries=9)))
    n1.end(name, 75)
    n1.end(name, 75)
    return f"{name}/t"


@situation(
    Code.FAILED, "it failed for good: killed by SIGSEGV at attempt 1; `1..9, signal(SEGV) => stop` of its `exit`"
)
def an_arm_of_it_ends_the_job(play: Play) -> str:
    n1 = play.node("n1")
    arm = {"codes": [[1, 9]], "signals": [11], "action": "stop"}
    name = play.submit(job("j", tasks(arms=[arm], retries=9)))
    n1.end(name, None, signal=11)
    return f"{name}/t"


@situation(Code.SUCCEEDED, "it succeeded, as `3 => succeed` of its `exit` says")
def an_arm_of_it_takes_the_code_for_a_success(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(arms=[{"codes": [[3, 3]], "action": "succeed"}])))
    n1.end(name, 3)
    return f"{name}/t"


@situation(Code.CANCELLED, "it was cancelled by uid:1000")
def it_was_cancelled_alone(play: Play) -> str:
    name = play.submit(job("j", tasks(size=2)))
    play.admin.ask(m.TaskCancel, f"{name}/t[1]")
    return f"{name}/t[1]"


@situation(
    Code.SKIPPED, "it was skipped: `after = first[i]` can no longer come true: `first[1]` failed",
    "`coordinator explain j-1/first[1]`",
)  # fmt: skip
def its_own_element_of_another_failed(play: Play) -> str:
    n1 = play.node("n1", slots=2)
    then = tasks("then", size=2, after=[{"group": 0, "axes": ["i"]}])
    name = play.submit(job("j", tasks("first", size=2), then, finish="manual"))
    n1.report([n1.task_end(*n1.running(name)[1], 1)])
    return f"{name}/then[1]"


@situation(
    Code.SKIPPED, "it was skipped: `after = first.failed` can no longer come true: all of `first` that it asks for"
)
def nothing_failed_that_it_waited_for(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first"), tasks("then", after=[{"group": 0, "when": "failed"}])))
    n1.end(name)
    return f"{name}/then"


@situation(Code.FAILED, "it failed for good: exit code 3 at attempt 2; its retries are spent (1)")
def its_retries_are_spent(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=1), tasks("more")))
    for _ in range(2):
        n1.report([n1.task_end(grant, at, 3) for grant, at in n1.running() if n1.grants[grant].run.group == 0])
        while not any(held.run.group == 0 for held in n1.grants.values()) and play.task(f"{name}/t")["result"] is None:
            n1.end(name)
    return f"{name}/t"


@situation(Code.SUCCEEDED, "it succeeded")
def it_succeeded(play: Play) -> str:
    name = play.submit(job("j"))
    play.node("n1")
    play.run_out(name)
    return f"{name}/t"


@situation(Code.CANCELLED, "it was cancelled: its job was ended (UserTerminate)")
def its_job_was_terminated(play: Play) -> str:
    name = play.submit(job("j"))
    play.terminate(name)
    return f"{name}/t"


@situation(Code.SKIPPED, "it was skipped: ")
def what_it_waited_for_failed(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first"), tasks("then", after=[0]), finish="manual"))
    n1.end(name, 1)
    return f"{name}/then"


@situation(
    Code.SKIPPED, "it was skipped: `after = first` can no longer come true: not every task of `first` succeeded",
    "`coordinator explain j-1/first[1]`",
)  # fmt: skip
def one_of_several_that_it_waited_for_failed(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first", size=3), tasks("then", after=[0]), finish="manual"))
    n1.end(name)
    n1.end(name, 1)
    return f"{name}/then"
