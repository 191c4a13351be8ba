"""What people are told: names, states and shapes of the JSON, finding by any name, pages, waiting, refusals."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.model import TaskState
from coordinator.records import NodeJobState
from coordinator.requests import MAX_WAITS
from coordinator.views import time_text
from tests.coordinator.playbook import FakeNode, Play, document, job, phase_end, prep, release, tasks
from wire import messages as m

JOB_KEYS = {
    "id", "name", "pool", "state", "result", "owner", "priority", "submitted_at", "started_at", "tasks_done_at",
    "completed_at", "end_reason", "tasks", "release",
}  # fmt: skip
TASKS_KEYS = {"total", "active", "preparing", "running", "succeeded", "failed", "cancelled", "skipped"}
RELEASE_KEYS = {"owed", "succeeded", "failed", "unreached", "waived"}
ROW_KEYS = {"node", "round", "boot", "state", "prep", "release", "tasks_started", "clean"}
PHASE_KEYS = {
    "state", "attempts", "exit_code", "signal", "started_at", "ended_at", "reason", "stdout_tail", "stderr_tail",
}  # fmt: skip
TASK_KEYS = {
    "id", "job", "group", "index", "params", "state", "result", "exit_code", "signal", "attempts", "node",
    "created_at", "started_at", "ended_at", "reason", "usage",
}  # fmt: skip
NODE_KEYS = {
    "id", "pool", "state", "reason", "boot", "slots", "slots_used", "resources", "labels", "elevation", "containment",
    "version", "last_seen_s", "start", "owes",
}  # fmt: skip
JOB_STATES = {"active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"}
PHASE_STATES = {"owed", "waiting", "running", "succeeded", "failed", "interrupted", "unreached", "waived"}
NODE_STATES = {
    "joining", "starting", "start_failed", "idle", "running", "draining", "drained", "lost", "unusable", "left",
}  # fmt: skip
ROUND_STATES = {
    "absent", "preparing", "prepared", "barred", "releasing", "released", "release_failed", "unreached", "waived",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")


def sweep_job(**options: Any) -> dict[str, Any]:
    """`price[17,fx]` and the like, and a `report`."""
    axes = [
        {"names": ["scenario"], "range": [16, 18, 1], "values": None},
        {"names": ["desk"], "range": None, "values": ["fx", "rates"]},
    ]
    price = {**tasks("price"), "axes": axes}
    return job("daily", price, tasks("report", after=[0]), **options)


# ---- shapes


def check_times(plain: dict[str, Any]) -> None:
    for key, value in plain.items():
        if key.endswith("_at") and value is not None:
            assert TIME.match(value), f"{key} is {value}"


def check_job(plain: dict[str, Any]) -> None:
    assert plain.keys() >= JOB_KEYS
    assert plain["tasks"].keys() >= TASKS_KEYS
    assert plain["release"].keys() >= RELEASE_KEYS
    assert plain["state"] in JOB_STATES
    assert plain["result"] in {"success", "failure", "cancelled", "skipped", None}
    counts = plain["tasks"]
    assert counts["total"] == sum(counts[key] for key in TASKS_KEYS - {"total"})
    assert min(counts.values()) >= 0
    check_times(plain)


def check_row(plain: dict[str, Any]) -> None:
    assert plain.keys() >= ROW_KEYS
    assert plain["state"] in ROUND_STATES
    for phase in (plain["prep"], plain["release"]):
        if phase is not None:
            assert phase.keys() >= PHASE_KEYS
            assert phase["state"] in PHASE_STATES
            check_times(phase)


def check_task(plain: dict[str, Any]) -> None:
    assert plain.keys() >= TASK_KEYS
    assert plain["state"] in {"active", "preparing", "running", "completed"}
    assert (plain["result"] is not None) == (plain["state"] == "completed")
    if plain["usage"] is not None:
        assert plain["usage"].keys() == {"cpu_s", "max_rss_bytes", "wall_s"}
    check_times(plain)


def check_node(plain: dict[str, Any]) -> None:
    assert plain.keys() >= NODE_KEYS
    assert plain["state"] in NODE_STATES
    assert all(amount.keys() == {"total", "used"} for amount in plain["resources"].values())


def check_all(play: Play, name: str) -> None:
    check_job(play.show(name))
    for row in play.admin.ask(m.JobNodes, name):
        check_row(row)
    for plain in play.admin.ask(m.TaskList, name):
        check_task(plain)
        check_task(play.task(plain["id"]))
    for plain in play.admin.ask(m.NodeList):
        check_node(plain)


def test_everything_shown_has_its_names_and_states_at_every_step_of_a_job() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(sweep_job(preparation=prep(), release=release(), release_grace_ms=1000))
    check_all(play, name)
    n1.prepared(name)
    check_all(play, name)
    n2.prepared(name, ok=False)
    n2.give_back(name)
    check_all(play, name)
    n1.end(name)
    n1.end(name, exit_code=3)
    check_all(play, name)
    n2.drop()
    play.terminate(name)
    check_all(play, name)
    n1.released(name, ok=False)
    play.wait(30)
    check_all(play, name)
    assert play.show(name)["state"] == "completed"
    n2.join()
    check_all(play, name)
    play.admin.start(m.JobDelete, name)
    check_all(play, name)


def test_a_job_is_shown_like_this() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(sweep_job(preparation=prep(), release=release(), priority=7), by=play.person("ann"))
    assert play.show(name) == {
        "id": "daily-1", "name": "daily", "pool": "p", "state": "active", "result": None, "owner": "ann",
        "priority": 7, "parallel": None, "timeout_s": None,
        "submitted_at": "2027-01-15T08:16:40.000Z", "started_at": "2027-01-15T08:16:40.000Z",
        "tasks_done_at": None, "completed_at": None, "end_reason": None, "waits": None,
        "tasks": {
            "total": 7, "active": 5, "preparing": 2, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0,
            "skipped": 0,
        },
        "optional_failed": 0,
        "release": {"owed": 1, "succeeded": 0, "failed": 0, "unreached": 0, "waived": 0},
    }  # fmt: skip
    n1.prepared(name)
    assert play.show(name)["tasks"]["running"] == 2


def test_what_queues_at_a_node_counts_as_active() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=20)))
    n1.report([n1.task_end(1, 0, started_at=0.0, ended_at=0.001)])
    assert len(n1.running()) == 19
    counts = play.show(name)["tasks"]
    assert (counts["running"], counts["active"], counts["succeeded"]) == (1, 18, 1)
    assert [t["state"] for t in play.admin.ask(m.TaskList, name)][:3] == ["completed", "running", "active"]


def test_the_rounds_of_a_job_are_shown_like_this() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    n1.say(m.PhaseStarted(name, 1, m.Phase.PREPARATION, 2, play.wall))
    [row] = play.admin.ask(m.JobNodes, name)
    assert (row["node"], row["round"], row["boot"], row["state"], row["tasks_started"]) == (
        "n1", 1, "boot-1", "preparing", 1,
    )  # fmt: skip
    assert (row["prep"]["state"], row["prep"]["attempts"]) == ("running", 2)
    assert row["release"]["state"] == "owed"
    n1.rounds[name, 1] = m.RoundState.PREPARED
    tail = b"fetched\n\xff"
    end = phase_end(name, 1, m.Phase.PREPARATION, True, attempt=2, stdout_tail=tail, stderr_tail=b"slow\n")
    n1.report(phases=[end])
    [row] = play.admin.ask(m.JobNodes, name)
    assert (row["state"], row["prep"]["state"], row["prep"]["exit_code"]) == ("prepared", "succeeded", 0)
    assert (row["prep"]["stdout_tail"], row["prep"]["stderr_tail"]) == ("fetched\n\N{REPLACEMENT CHARACTER}", "slow\n")
    n1.end(name)
    assert play.admin.ask(m.JobNodes, name)[0]["release"]["state"] == "running"


def test_without_a_release_block_the_clean_up_is_shown_with_no_exit_code() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.end(name)
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, exit_code=None)])
    [row] = play.admin.ask(m.JobNodes, name)
    assert (row["state"], row["release"]["state"], row["release"]["exit_code"]) == ("released", "succeeded", None)


def test_a_finished_task_is_shown_like_this() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(sweep_job())
    n1.end(name)
    assert play.task(f"{name}/price[16,fx]") == {
        "id": "daily-1/price[16,fx]", "job": "daily-1", "group": "price", "index": 0,
        "params": {"scenario": 16, "desk": "fx"}, "state": "completed", "result": "success", "exit_code": 0,
        "signal": None, "attempts": 1, "node": "n1", "created_at": "2027-01-15T08:16:40.000Z",
        "started_at": "2027-01-15T08:16:39.000Z", "ended_at": "2027-01-15T08:16:40.000Z", "reason": None,
        "usage": {"cpu_s": 0.5, "max_rss_bytes": 4 << 20, "wall_s": 1.0},
        "history": [
            {
                "attempt": 1, "node": "n1", "outcome": "exited", "verdict": "succeeded", "exit_code": 0, "signal": None,
                "started_at": "2027-01-15T08:16:39.000Z", "ended_at": "2027-01-15T08:16:40.000Z", "reason": None,
            }
        ],
    }  # fmt: skip


def test_a_node_is_shown_like_this() -> None:
    play = Play()
    n1 = FakeNode(play, "n1", "p", 4, "boot-1")
    play.nodes["n1"] = n1
    n1.epoch = play.open(m.Role.NODE)
    play.links[n1.epoch] = n1
    n1.say(
        m.Join(
            pool="p", node="n1", incarnation="i", boot="boot-1", slots=4, resources={"cpus": 8.0, "gpus": 1.0},
            labels={"zone": "a"}, elevation=True, containment="cgroup", users="job", limits=["pids", "memory"],
            version="1.2",
        )
    )  # fmt: skip
    n1.inventory()
    name = play.submit(job("j", tasks(size=3)))
    play.t += 2.5
    assert play.admin.ask(m.NodeShow, "n1") == {
        "id": "n1", "pool": "p", "state": "running", "reason": None, "boot": "boot-1", "slots": 4, "slots_used": 3,
        "resources": {"cpus": {"total": 8.0, "used": 0}, "gpus": {"total": 1.0, "used": 0}}, "labels": {"zone": "a"},
        "elevation": True, "containment": "cgroup", "users": "job", "limits": ["pids", "memory"], "version": "1.2",
        "last_seen_s": 2.5, "start": None, "drain": None, "owes": [name], "quarantined": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("clean", "shown"),
    [
        (None, None),
        (m.Cleanliness(), {"processes": 0, "files": [], "uid": None, "cgroups": [], "mounts": []}),
        (
            m.Cleanliness(2, ["shared/x: it is not empty"], 1879048200, ["job-1"], ["/mnt"]),
            {
                "processes": 2, "files": ["shared/x: it is not empty"], "uid": 1879048200, "cgroups": ["job-1"],
                "mounts": ["/mnt"],
            },
        ),
    ],
)  # fmt: skip
def test_what_a_job_left_on_a_node_is_shown_with_its_round(clean: m.Cleanliness | None, shown: Any) -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.end()
    [row] = play.admin.ask(m.JobNodes, name)
    assert row["clean"] is None
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, exit_code=None, clean=clean)])
    [row] = play.admin.ask(m.JobNodes, name)
    assert row["clean"] == shown
    assert row["release"]["leftovers"] == (shown["files"] if shown else [])
    play.restart()
    assert play.admin.ask(m.JobNodes, name)[0]["clean"] == shown


def test_a_pool_is_shown_with_what_it_has() -> None:
    play = Play()
    play.node("n1", slots=3)
    n2 = play.node("n2", slots=2)
    name = play.submit(job("j", tasks(size=4)), pools=[{"name": "p", "nodes": 3, "elevation": "allowed"}])
    n2.drop()
    shown = play.admin.ask(m.PoolShow, "p")
    assert shown["id"] == "p"
    assert (shown["nodes"], shown["nodes_ready"], shown["nodes_wanted"]) == (2, 1, 3)
    assert (shown["slots"], shown["elevation"], shown["jobs"]) == (5, "allowed", [name])
    assert play.admin.ask(m.PoolList) == [shown]


# ---- names


@pytest.mark.parametrize(
    "name", ["daily-1/price[17,rates]", "daily/price-17-rates", "daily/price#3", "daily-1/price#3"]
)
def test_a_task_is_found_by_each_of_its_names(name: str) -> None:
    play = Play()
    play.submit(sweep_job())
    assert play.task(name)["id"] == "daily-1/price[17,rates]"


@pytest.mark.parametrize(
    "name",
    [
        "daily-1/price[19,fx]", "daily-1/price[17]", "daily-1/price#6", "daily-1/price", "daily-1/report#0x",
        "daily-1/", "daily-1/report[1]", "daily-1/price#" + "9" * 5000, "daily-1/price[" + "9" * 5000 + ",fx]",
        "daily-1/price-" + "9" * 5000 + "-fx", "daily-1/price#-1", "daily-1/price#\N{ARABIC-INDIC DIGIT NINE}",
    ],
)  # fmt: skip
def test_a_task_that_is_none_is_refused_with_a_sentence(name: str) -> None:
    play = Play()
    play.submit(sweep_job())
    refused = play.admin.refused(m.TaskShow, name)
    assert refused.code is m.RefusalCode.UNKNOWN
    assert refused.message.startswith("job `daily-1` has no task `")
    assert len(refused.message) < 300


def test_a_mistyped_task_is_answered_with_the_nearest() -> None:
    play = Play()
    play.submit(sweep_job())
    assert play.admin.refused(m.TaskShow, "daily/reprot").near == ["daily-1/report"]
    assert play.admin.refused(m.TaskShow, "daily/prise[17,fx]").near == ["daily-1/price[16,fx]"]
    assert "write JOB/TASK" in play.admin.refused(m.TaskShow, "daily").message


def test_a_jobs_name_means_its_newest() -> None:
    play = Play()
    play.submit(job("j"))
    play.submit(job("j"))
    other = play.submit(job("k"))
    assert play.show("j")["id"] == "j-2"
    assert play.show("j-1")["id"] == "j-1"
    assert [found["id"] for found in play.admin.ask(m.JobList)] == ["j-1", "j-2", other]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    play = Play()
    play.node("node-1")
    play.submit(job("daily"))
    for kind, name, near in (
        (m.JobShow, "dialy", ["daily"]),
        (m.JobShow, "daily-2", ["daily-1", "daily"]),
        (m.NodeShow, "nod-1", ["node-1"]),
        (m.PoolShow, "q", []),
    ):
        refused = play.admin.refused(kind, name)
        assert (refused.code, refused.near) == (m.RefusalCode.UNKNOWN, near)
        assert f"`{name}`" in refused.message
        assert refused.help is not None
    assert len(play.admin.refused(m.JobShow, "x" * 100_000).message) < 300


# ---- pages


def test_tasks_are_listed_in_order_and_page_by_page() -> None:
    play = Play()
    name = play.submit(job("j", tasks("a", size=5), tasks("b", size=4)))
    found: list[str] = []
    after = None
    while page := play.admin.ask(m.TaskList, job=name, limit=2, after=after):
        assert len(page) <= 2
        found += [task["id"] for task in page]
        after = page[-1]["id"]
    assert found == [f"j-1/a[{n}]" for n in range(5)] + [f"j-1/b[{n}]" for n in range(4)]


def test_a_page_may_begin_after_a_task_without_its_jobs_name() -> None:
    play = Play()
    name = play.submit(job("j", tasks("a", size=3)))
    assert [task["index"] for task in play.admin.ask(m.TaskList, job=name, after="a[0]")] == [1, 2]


def test_tasks_are_listed_by_group_and_by_state() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks("a", size=6), tasks("b", after=[0])))
    n1.end(exit_code=1)
    n1.end(count=2)

    def listed(**how: Any) -> list[str]:
        return [task["id"].removeprefix("j-1/") for task in play.admin.ask(m.TaskList, job=name, **how)]

    assert listed(group="b") == ["b"]
    assert listed(state="failed") == listed(state="failure") == ["a[0]"]
    assert listed(state="succeeded") == ["a[1]", "a[2]"]
    assert listed(state="skipped") == ["b"]
    assert listed(state="completed") == ["a[0]", "a[1]", "a[2]", "b"]
    assert listed(state="running") == ["a[3]", "a[4]"]
    assert listed(state="active") == ["a[5]"]
    assert listed(state="preparing") == []
    assert listed(state="completed", group="a", after="a[0]", limit=1) == ["a[1]"]


def test_a_state_or_group_that_is_none_is_refused() -> None:
    play = Play()
    name = play.submit(job("j", tasks("price")))
    refused = play.admin.refused(m.TaskList, job=name, state="runing")
    assert (refused.code, refused.near) == (m.RefusalCode.INVALID, ["running"])
    refused = play.admin.refused(m.TaskList, job=name, group="prise")
    assert (refused.code, refused.near) == (m.RefusalCode.UNKNOWN, ["price"])


def test_what_is_rare_is_found_among_very_many() -> None:
    play = Play(checking=False)
    name = play.submit(job("j", tasks("a", size=5_000_000)))
    play.core.cluster.jobs[name].groups[0].set_state(4_999_998, TaskState.FAILED)
    for state in ("failed", "completed"):
        found = play.admin.ask(m.TaskList, job=name, state=state)
        assert [task["index"] for task in found] == [4_999_998]
    assert [task["index"] for task in play.admin.ask(m.TaskList, job=name, state="active", limit=2)] == [0, 1]
    assert play.admin.ask(m.TaskList, job=name, state="running") == []


# ---- waiting


def test_waiting_for_a_job_is_answered_when_it_is_over() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    over = play.admin.start(m.JobWait, name)
    done = play.admin.start(m.JobWait, name, True)
    n1.end()
    assert done in play.admin.answers
    assert over not in play.admin.answers
    n1.released(name)
    answer = play.admin.answers[over]
    assert isinstance(answer, m.Reply)
    assert answer.body["state"] == "completed"
    assert play.admin.ask(m.JobWait, name)["state"] == "completed"


def test_waiting_for_the_tasks_of_a_terminated_job_ends_with_them() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", finish="manual"))
    done = play.admin.start(m.JobWait, name, True)
    play.terminate(name)
    assert done not in play.admin.answers
    n1.released(name)
    assert done in play.admin.answers


def test_waiting_for_a_job_that_is_deleted_meanwhile_ends() -> None:
    play = Play()
    name = play.submit(job("j"))
    ann = play.person("ann")
    waits = ann.start(m.JobWait, name)
    play.terminate(name)
    assert waits in ann.answers
    play.admin.start(m.JobDelete, name)
    assert name not in play.core.cluster.jobs


def test_who_is_gone_is_not_answered() -> None:
    play = Play()
    name = play.submit(job("j"))
    ann = play.person("ann")
    ann.start(m.JobWait, name)
    ann.drop()
    play.terminate(name)
    assert ann.answers == {}
    assert play.core.waiters == []


def test_only_so_many_requests_of_one_connection_wait_at_once() -> None:
    play = Play()
    name = play.submit(job("j"))
    for _ in range(MAX_WAITS):
        play.admin.start(m.JobWait, name)
    assert play.admin.refused(m.JobWait, name).code is m.RefusalCode.REFUSED
    assert play.admin.refused(m.JobDelete, name).code is m.RefusalCode.REFUSED
    assert play.show(name)["state"] == "active"
    play.person("ann").start(m.JobWait, name)
    assert len(play.core.waiters) == MAX_WAITS + 1


def test_an_overview_is_answered_at_once_and_then_with_each_change() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    first = play.admin.ask(m.Overview, jobs=[name])
    assert first["jobs"][0]["id"] == name
    assert [node["id"] for node in first["nodes"]] == ["n1"]
    request = play.admin.start(m.Overview, jobs=[name], changed=first["changed"])
    assert request not in play.admin.answers
    n1.heartbeat()
    assert request not in play.admin.answers
    n1.end()
    answer = play.admin.answers[request]
    assert isinstance(answer, m.Reply)
    assert answer.body["changed"] != first["changed"]
    assert answer.body["jobs"][0]["tasks"]["succeeded"] == 1


# ---- results


def ended(play: Play, way: str) -> str:
    """A job of two tasks that ended this way."""
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), release=release(), release_grace_ms=1000))
    n1.end(exit_code=1 if way == "failed" else 0)
    if way == "terminated":
        play.terminate(name)
    elif way == "unreached":
        n1.end()
        n1.drop()
        play.wait(60)
        return name
    else:
        n1.end()
    n1.released(name, ok=way != "release failed")
    return name


@pytest.mark.parametrize(
    ("way", "result"),
    [
        ("well", "success"),
        ("failed", "failure"),
        ("terminated", "cancelled"),
        ("release failed", "failure"),
        ("unreached", "failure"),
    ],
)
def test_the_result_of_a_job_is_known_when_it_is_over(way: str, result: str) -> None:
    play = Play()
    name = ended(play, way)
    shown = play.show(name)
    assert (shown["state"], shown["result"]) == ("completed", result)


def test_a_waived_release_spoils_nothing() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(name)
    n1.drop()
    n1.rounds.clear()
    n1.join()
    shown = play.show(name)
    assert play.rounds(name)[0][2] == NodeJobState.WAIVED.value
    assert (shown["state"], shown["result"], shown["release"]["waived"]) == ("completed", "success", 1)


# ---- who may not


def test_a_request_that_is_none_closes_the_connection() -> None:
    play = Play()
    play.admin.start(m.Upload, "0" * 64, 0, 1, b"x")
    assert play.admin.closed == ["Upload is no request"]


def test_every_request_is_answered_or_refused_once() -> None:
    play = Play()
    play.node("n1")
    name = play.submit(job("j"))
    ann = play.person("ann", m.Role.ADMIN)
    for message in (
        m.JobList, m.NodeList, m.PoolList,
    ):  # fmt: skip
        ann.ask(message)
    for kind in (m.JobShow, m.JobNodes, m.JobWait, m.JobTerminate, m.JobDelete, m.TaskShow, m.NodeShow, m.PoolShow):
        ann.refused(kind, "nothing/at all")
    ann.refused(m.TaskList, job="nothing")
    ann.refused(m.LogRead, task="nothing/at#0")
    ann.refused(m.LogRead, job=name)
    ann.refused(m.FilesRead, "nowhere", "x")
    ann.refused(m.FilesList, "nowhere", "x")
    ann.refused(m.Submit, submission="s", document=document(job("j", pool="nowhere")))
    ann.ask(m.Finish)
    assert sorted(ann.answers) == list(range(1, ann.requests + 1))


@given(st.one_of(st.floats(-1e9, 4e9), st.integers(0, 2**41).map(lambda n: n / 2**10 + 0.9999995)))
def test_a_time_is_told_to_the_millisecond_in_utc(wall: float) -> None:
    plain = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
    assert time_text(wall) == plain.removesuffix("+00:00") + "Z"


@pytest.mark.parametrize(("wall", "text"), [(0.9999996, "1970-01-01T00:00:01.000Z"), (None, None)])
def test_what_rounds_up_to_the_next_second_is_told_as_that(wall: float | None, text: str | None) -> None:
    assert time_text(wall) == text
