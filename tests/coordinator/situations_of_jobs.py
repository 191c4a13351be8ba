"""Situations of jobs, as those of tasks in `situations`."""

from __future__ import annotations

from typing import Any

from coordinator.events import EndCallOver
from coordinator.reasons import Code
from tests.coordinator.playbook import Play, job, phase_end, prep, release, tasks
from tests.coordinator.situations import SITUATIONS as SITUATIONS
from tests.coordinator.situations import situation
from wire import messages as m

_STOP = {"codes": [[1, 1]], "action": "stop"}

# ---- a job


@situation(Code.NO_NODE, "`t`: 1 of 1 task wait: pool `p` has no node")
def a_job_of_a_pool_without_a_node(play: Play) -> str:
    return play.submit(job("j"))


@situation(Code.RUNNING, "2 tasks of it are out on 1 node")
def a_job_that_runs(play: Play) -> str:
    play.node("n1", slots=2)
    return play.submit(job("j", tasks(size=4)))


@situation(Code.RUNNING, "1 task of it is out on 1 node", "`coordinator logs j-1/t[1] -f`")
def a_job_that_runs_on_one_of_its_nodes_by_now(play: Play) -> str:
    n1, _ = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2)))
    n1.end(name)
    return name


@situation(
    Code.PREPARING, "2 tasks of it are out on 2 nodes, `n1` first: the job's preparation runs on node `n1`",
    "`coordinator logs j-1 --node n1 --phase prep`",
)  # fmt: skip
def a_job_that_prepares(play: Play) -> str:
    play.node("n1"), play.node("n2")
    return play.submit(job("j", tasks(size=2), preparation=prep()))


@situation(
    Code.PREPARING,
    "1 task of it is out on 1 node: the job's preparation runs on node `n1`, again: the node was restarted",
)
def a_job_that_prepares_again_after_a_reboot(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.prepared(name)
    n1.reboot("boot-2")
    n1.join()
    return name


@situation(
    Code.NODE_LOST, "1 task of it is out on 1 node: node `n2` is out of contact for 1m00s: in ", "bring the node back",
    also={Code.RUNNING: "1 task of it is out on 1 node"},
)  # fmt: skip
def a_job_with_its_last_tasks_on_a_lost_node_too(play: Play) -> str:
    _, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2)))
    n2.drop()
    play.wait(60)
    return name


@situation(Code.OPEN, "all its tasks are over, and `finish = manual` keeps it open", "`coordinator job terminate j-1`")
def a_job_that_is_kept_open(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", finish="manual"))
    n1.end(name)
    return name


@situation(Code.INELIGIBLE, "its preparation failed on every node that could run it: it ends as NoEligibleNodes in 10s")
def a_job_whose_preparation_failed_everywhere(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    return name


@situation(
    Code.DISABLING, "it is being disabled by uid:1000: 1 task of it to run to the end (`job disable --wait`)",
    "wait; when it is disabled, `coordinator job enable j-1` lets it go on",
    also={Code.RUNNING: "1 task of it is out on 1 node"},
)  # fmt: skip
def a_job_that_is_being_disabled(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.admin.ask(m.JobDisable, name, m.Disabling.WAIT)
    return name


@situation(Code.DISABLED, "it was disabled by uid:1000", "`coordinator job enable j-1`")
def a_job_that_is_disabled(play: Play) -> str:
    name = play.submit(job("j"))
    play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
    return name


@situation(
    Code.DRAINING, "`t`: 1 of 2 tasks wait: node `n1`: drained by uid:1000",
    also={Code.RELEASE_RUNS: "its release runs on node `n1`"},
)  # fmt: skip
def a_job_that_goes_on_and_is_owed_a_release(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=60.0)
    n1.end(name)
    return name


def _ended(play: Play, **options: Any) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", release=release(**options)))
    n1.end(name)
    return name


@situation(
    Code.RELEASE_RUNS, "its release runs on node `n1`",
    "`coordinator logs j-1 --node n1 --phase release` shows how far it is",
)  # fmt: skip
def a_release_runs(play: Play) -> str:
    return _ended(play)


@situation(Code.RELEASE_RUNS, "its release runs on node `n1` for 0.0s; attempt 1 failed: ")
def a_release_is_tried_again(play: Play) -> str:
    name = _ended(play, retries=2)
    n1 = play.nodes["n1"]
    n1.report(phases=[_release_end(name, ok=False, final=False)])
    n1.say(m.PhaseStarted(name, 1, m.Phase.RELEASE, 2, play.wall))
    return name


@situation(Code.RELEASE_OUT_OF_CONTACT, "node `n1` owes its release and is out of contact for 1m00s")
def a_release_waits_for_a_node_out_of_contact(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.drop()
    play.wait(60)
    play.terminate(name)
    return name


@situation(
    Code.RELEASE_RUNS, "its release runs on node `n1`",
    also={Code.RELEASE_WAITS: "node `n2` owes its release: `release` allows 1 node at once"},
)  # fmt: skip
def releases_take_turns(play: Play) -> str:
    nodes = [play.node("n1"), play.node("n2")]
    name = play.submit(job("j", tasks(size=2), release=release(parallel=1)))
    for node in nodes:
        node.end(name)
    return name


@situation(
    Code.OPEN, "all its tasks are over",
    also={
        Code.RELEASE_RUNS: "its release runs on node `n1`",
        Code.RELEASE_WAITS: "node `n2` owes its release: `release` allows 1 node at once",
    },
)  # fmt: skip
def releases_of_drained_nodes_take_turns(play: Play) -> str:
    nodes = [play.node("n1"), play.node("n2")]
    name = play.submit(job("j", tasks(size=2), release=release(parallel=1), finish="manual"))
    for node in nodes:
        node.end(name)
        play.admin.ask(m.NodeDrain, node=node.name, deadline_s=60.0)
    return name


@situation(Code.DELETING, "it is deleted: 1 node (`n1`) still to remove its directories")
def a_job_that_is_deleted(play: Play) -> str:
    name = _ended(play)
    play.nodes["n1"].released(name)
    play.admin.start(m.JobDelete, name)
    return name


@situation(Code.RELEASE_FAILED, "its release failed on node `n1`: exit code 1")
def a_job_whose_release_failed(play: Play) -> str:
    name = _ended(play)
    play.nodes["n1"].released(name, ok=False)
    return name


@situation(Code.RELEASE_OWED, "node `n1` still owes its release: out of contact when the job ended")
def a_job_that_ended_without_a_node(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.drop()
    play.wait(60)
    play.terminate(name, force=True)
    return name


@situation(
    Code.RELEASE_RUNS, "its release runs on node `n1`", "`coordinator logs j-1 --node n1 --phase release`",
    also={Code.COMPLETED: "it is completed (AllTasksComplete)"},
)  # fmt: skip
def a_job_that_is_over_and_is_released_late(play: Play) -> str:
    name = _ended(play)
    n1 = play.nodes["n1"]
    n1.drop()
    play.wait(1000)
    n1.join()
    return name


@situation(
    Code.RELEASE_OWED, "node `n1` still owes its release, and is out of contact for 1m00s", "bring the node back: it",
    also={Code.COMPLETED: "it is completed (AllTasksComplete)"},
)  # fmt: skip
def a_late_release_that_was_cut_off(play: Play) -> str:
    name = a_job_that_is_over_and_is_released_late(play)
    play.nodes["n1"].drop()
    play.wait(60)
    return name


@situation(
    Code.NOT_CONNECTED, "`t`: 1 of 2 tasks wait: node `n1`: out of contact for 1m00s",
    also={Code.RELEASE_OWED: "node `n1` still owes its release, and is out of contact for 1m00s"},
)  # fmt: skip
def a_drained_node_of_a_job_that_goes_on_is_out_of_contact(play: Play) -> str:
    name = a_job_that_goes_on_and_is_owed_a_release(play)
    play.nodes["n1"].drop()
    play.wait(60)
    return name


@situation(
    Code.RELEASE_STUCK, "node `n1` still owes its release: a process of the job can't be killed there",
    "`coordinator node show n1`; restarting the machine ends the process",
)  # fmt: skip
def a_job_that_is_over_and_of_which_a_process_cannot_be_killed(play: Play) -> str:
    name = a_release_waits_for_a_process_that_cannot_be_killed(play)
    play.wait(1000)
    return name


@situation(
    Code.RELEASE_WAIVED, "node `n1` never released it: its root directory was replaced",
    also={Code.COMPLETED: "it is completed (AllTasksComplete)"},
)  # fmt: skip
def a_job_of_which_a_nodes_root_was_replaced(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    n1.end(name)
    n1.wiped()
    n1.join()
    play.run_out(name)
    return name


@situation(Code.TASKS_FAILED, "1 task failed for good, first in order `t`: exit code 9")
def a_job_whose_task_failed(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.end(name, 9)
    play.run_out(name)
    return name


@situation(
    Code.ENDED_EARLY, "it was ended before all its tasks were done: UserTerminate",
    "`coordinator job nodes j-1` shows what happened where; `coordinator job retry j-1` runs what is left",
)  # fmt: skip
def a_job_that_was_terminated(play: Play) -> str:
    name = play.submit(job("j"))
    play.terminate(name)
    return name


@situation(Code.COMPLETED, "it is completed (AllTasksComplete); skipped by their own conditions: 1")
def a_job_of_which_a_task_was_not_needed(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first"), tasks("rescue", after=[{"group": 0, "when": "failed"}])))
    n1.end(name)
    play.run_out(name)
    return name


@situation(Code.COMPLETED, "it is completed (UserTerminate)")
def a_job_that_was_kept_open_and_terminated_when_all_was_done(play: Play) -> str:
    name = a_job_that_is_kept_open(play)
    play.terminate(name)
    play.nodes["n1"].released(name)
    return name


@situation(
    Code.PREP_FAILED, "no node was left for it: its preparation failed on node `n1`: exit code 1",
    "`coordinator logs j-1 --node n1 --phase prep` shows why",
    also={Code.TASKS_CANCELLED: "tasks of it were cancelled: 1"},
)  # fmt: skip
def a_job_that_ended_without_a_node_that_could_run_it(play: Play) -> str:
    name = a_job_whose_preparation_failed_everywhere(play)
    play.run_out(name)
    return name


@situation(
    Code.PREP_FAILED, "it was ended, as an arm of `exit` says: its preparation failed on node `n1`: exit code 1",
    also={Code.TASKS_CANCELLED: "tasks of it were cancelled: 1"},
)  # fmt: skip
def a_job_that_its_preparation_ended(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(arms=[_STOP])))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.run_out(name)
    return name


@situation(
    Code.TASKS_FAILED, "`u` ended it, as an arm of its `exit` says: exit code 1", "`coordinator logs j-1 --failed`",
    also={Code.TASKS_CANCELLED: "tasks of it were cancelled: 1"},
)  # fmt: skip
def a_job_that_an_optional_task_ended(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", {**tasks("u", arms=[_STOP]), "optional": True}, tasks()))
    n1.end(name, 1)
    play.run_out(name)
    return name


@situation(Code.COMPLETED, "it is completed (AllTasksComplete)")
def a_job_that_went_well(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j"))
    play.run_out(name)
    return name


@situation(
    Code.RELEASE_STUCK, "node `n1`: a process of the job can't be killed there: its release waits for that",
    "`coordinator node show n1`; restarting the machine ends the process",
    also={Code.ENDING: "it ends (AllTasksComplete)"},
)  # fmt: skip
def a_release_waits_for_a_process_that_cannot_be_killed(play: Play) -> str:
    name = _ended(play)
    play.nodes["n1"].say(m.Health("a process can't be killed", [name]))
    return name


@situation(
    Code.ENDED_EARLY, "it was ended before all its tasks were done: UserTerminate",
    also={
        Code.RELEASE_WAIVED: "node `n1` never released it: its node was forgotten by uid:1000",
        Code.TASKS_CANCELLED: "tasks of it were cancelled: 1",
    },
)  # fmt: skip
def a_job_of_which_a_node_was_forgotten(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    n1.end(name)
    n1.drop()
    play.wait(60)
    play.terminate(name)
    play.admin.ask(m.NodeForget, "n1")
    return name


@situation(Code.ON_END, "its `on_end` runs")
def a_job_whose_on_end_runs(play: Play) -> str:
    play.node("n1")
    name = play.submit(job("j", on_end=["notify"]))
    play.run_out(name)
    return name


@situation(Code.ON_END, "its `on_end` failed at attempt 1 (exit code 2): it is tried again in 5.0s")
def a_job_whose_on_end_is_tried_again(play: Play) -> str:
    name = a_job_whose_on_end_runs(play)
    play.happen(EndCallOver(name, 2, None, None, b""))
    return name


@situation(
    Code.ON_END_FAILED, "its `on_end` failed: SIGKILL, 3 attempts",
    "`coordinator job show j-1 -o json` shows what it wrote",
    also={Code.COMPLETED: "it is completed (AllTasksComplete)"},
)  # fmt: skip
def a_job_whose_on_end_failed(play: Play) -> str:
    name = a_job_whose_on_end_runs(play)
    for _ in range(3):
        play.happen(EndCallOver(name, None, 9, None, b""))
        play.wait(60)
    return name


@situation(
    Code.TASKS_FAILED, "1 task failed for good, first in order `first`: exit code 9",
    "`coordinator logs j-1 --failed` shows what they printed", also={Code.TASKS_SKIPPED: "tasks of it were skipped: 1"},
)  # fmt: skip
def a_job_of_which_tasks_were_skipped(play: Play) -> str:
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("first"), tasks("then", after=[0])))
    n1.end(name, 9)
    play.run_out(name)
    return name


def _release_end(name: str, *, ok: bool, final: bool) -> m.PhaseEnd:
    return phase_end(name, 1, m.Phase.RELEASE, ok, final=final)
