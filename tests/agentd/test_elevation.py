"""Rights and limits of commands on a node: keepers apart, elevation by the node's own policy only, its environment."""

from __future__ import annotations

import msgspec
import pytest

from agentd import records
from agentd.desk import GATHER_S
from agentd.environment import TaskTexts, elevated_of, phase_template
from agentd.events import JobCleaned, JobDirectoryMade, KeeperDead, MakeJob
from agentd.keepers import MAX_STARTS, RESPAWN_S
from agentd.model import Grant, Job, Ledger, NodeConfig, Round
from agentd.records import Allowance, Purpose
from tests.agentd.node import CONFIG, Node, StandInKeeper, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome, Phase
from wire.spec import Command, JobSpec, Needs

ALLOWED = msgspec.structs.replace(CONFIG, elevation=True)
ELEVATED = Command(argv=["true"], elevated=True)
STEERING = [
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "IFS", "PATH", "PYTHONPATH", "PYTHONSTARTUP",
    "PERL5LIB", "PERL5OPT", "RUBYOPT", "NODE_OPTIONS", "GLIBC_TUNABLES", "GCONV_PATH", "HOME", "TMPDIR",
    "BASH_FUNC_id%%", "SHELLOPTS", "PS4",
]  # fmt: skip


def joined(spec: JobSpec, *, config: NodeConfig = ALLOWED, slots: int = 2) -> Node:
    node = Node(config)
    node.join(slots=slots)
    node.open(spec)
    return node


def for_tasks(node: Node) -> list[StandInKeeper]:
    return node.of(Purpose.TASKS)


# ---- keepers apart


def test_elevated_tasks_have_keepers_of_their_own_and_share_the_slots() -> None:
    node = joined(job_spec(group(name="a"), group(name="b", command=ELEVATED)), slots=2)
    node.run(1, 1)
    node.run(2, 1, group=1)
    node.greet()
    node.greet()
    by_right = {keeper.elevated: keeper.keys for keeper in for_tasks(node) if keeper.keys}
    assert by_right == {False: ["1.0.0.1"], True: ["2.0.1.1"]}
    node.run(3, 1, group=1, first=5)
    node.run(4, 1, first=5)
    assert sorted(node.tasks) == ["1.0.0.1", "2.0.1.1"], "no slot is free"
    node.end("1.0.0.1")
    node.greet()
    assert sorted(node.tasks) == ["2.0.1.1", "3.0.0.1"], "in the order of arrival, at an elevated keeper"
    assert all(keeper.elevated for keeper in for_tasks(node) if keeper.keys)


def test_preparation_and_release_have_keepers_by_their_own_right() -> None:
    spec = job_spec(preparation=preparation(elevated=True), release=release())
    node = joined(spec)
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    assert [keeper.elevated for keeper in node.of(Purpose.PREPARATION)] == [True]
    node.end("prep.1.1")
    node.hear(m.ReleaseRound("j-1", 1, "done"))
    node.greet()
    assert [keeper.elevated for keeper in node.of(Purpose.RELEASE)] == [False]


def test_tasks_of_different_limits_have_keepers_of_their_own() -> None:
    small, large = Needs(memory_bytes=1 << 20), Needs(cpus=1.0)
    node = joined(job_spec(group(name="a", needs=small), group(name="b", needs=large)), slots=2)
    node.run(1, 1)
    node.run(2, 1, group=1)
    node.greet()
    node.greet()
    assert {keeper.needs: keeper.keys for keeper in for_tasks(node) if keeper.keys} == {
        small: ["1.0.0.1"],
        large: ["2.0.1.1"],
    }


def test_a_keeper_of_an_earlier_life_is_looked_for_with_its_rights() -> None:
    needs = Needs(cpus=0.5)
    node = joined(job_spec(group(command=ELEVATED, needs=needs)))
    node.run(1, 1)
    node.greet()
    node.restart()
    assert [(order.elevated, order.needs) for order in node.surveyed] == [(True, needs)]
    assert node.core.ledger.keepers["k1"].allowance == Allowance(True, needs)


def test_rows_of_keepers_from_before_they_had_rights_are_read() -> None:
    old = msgspec.msgpack.encode(["KeeperBegun", "k1", "j-1", 1, "tasks"])
    record = records.decode(old)
    assert record == records.KeeperBegun("k1", "j-1", 1, Purpose.TASKS, False, Needs())
    ledger = Ledger()
    ledger.apply(record)
    assert ledger.keepers["k1"].allowance == Allowance()


def test_rows_of_releases_from_before_clean_ups_gave_an_account_are_read() -> None:
    end = ["j-1", 1, "release", 1, True, True, "exited", 0, None, 1.0, 2.0, None, b"", b"", ["x is left"]]
    (phase,) = records.decode(msgspec.msgpack.encode(["Reported", 7, [], [end]])).phases
    assert (phase.job, phase.leftovers, phase.clean) == ("j-1", ["x is left"], None)


def test_elevated_keepers_that_can_not_be_started_fail_only_what_waits_for_them() -> None:
    node = joined(job_spec(group(name="a"), group(name="b", command=ELEVATED)), slots=1)
    node.run(1, 1)
    node.greet("k1")
    node.end(seconds=10.0)
    node.run(2, 1, group=1)
    node.run(3, 1, first=5)
    for _ in range(MAX_STARTS):
        last = [name for name, keeper in node.keepers.items() if keeper.elevated][-1]
        del node.keepers[last]
        node.tell(KeeperDead(last, reason="no namespaces here"))
        node.wait(RESPAWN_S)
    failed = [end for end in node.task_ends() if end.outcome is Outcome.START_FAILED]
    assert [(end.grant, "no namespaces here" in (end.reason or "")) for end in failed] == [(2, True)]
    node.greet()
    assert node.tasks == ["3.0.0.1"]


# ---- what tasks need of the node


def test_no_more_tasks_run_at_once_than_what_they_need_is_there_for() -> None:
    config = msgspec.structs.replace(CONFIG, resources={"cpus": 4.0, "memory": 1000.0})
    node = joined(job_spec(group(needs=Needs(cpus=1.5, memory_bytes=400))), config=config, slots=8)
    node.run(1, 8)
    node.greet()
    assert len(node.tasks) == 2
    assert len(for_tasks(node)) == 2, "no keeper is started that could be given nothing"
    node.end(seconds=10.0)
    assert len(node.tasks) == 2


def test_shares_that_fill_a_node_exactly_fit() -> None:
    config = msgspec.structs.replace(CONFIG, resources={"cpus": 1.0})
    node = joined(job_spec(group(needs=Needs(cpus=0.1))), config=config, slots=16)
    node.run(1, 16)
    node.greet()
    assert len(node.tasks) == 10


def test_what_needs_more_than_there_is_runs_alone() -> None:
    config = msgspec.structs.replace(CONFIG, resources={"cpus": 2.0})
    node = joined(job_spec(group(needs=Needs(cpus=64.0))), config=config, slots=4)
    node.run(1, 4)
    node.greet()
    assert len(node.tasks) == 1


def test_what_a_node_does_not_count_limits_nothing() -> None:
    node = joined(job_spec(group(needs=Needs(cpus=64.0))), config=CONFIG, slots=3)
    node.run(1, 4)
    node.greet()
    assert len(node.tasks) == 3


# ---- elevation is the node's own to allow


@pytest.mark.parametrize("why", ["which this node does not allow (agentd --allow-elevation)", "which it can't give"])
def test_t8_an_order_to_elevate_is_refused_by_a_node_whose_own_policy_says_no(why: str) -> None:
    config = msgspec.structs.replace(CONFIG, elevation=False, elevation_refused=why)
    prep = preparation(elevated=True, wait=False)
    spec = job_spec(group(command=ELEVATED), preparation=prep, release=release(elevated=True))
    node = joined(spec, config=config)
    node.hear(m.Prepare("j-1", 1))
    node.run(1, 2)
    node.wait(GATHER_S)
    node.hear(m.ReleaseRound("j-1", 1, "done"))
    node.wait(GATHER_S)
    sentence = f"It asks for elevation, {why}."
    assert [(end.outcome, end.reason) for end in node.task_ends()] == [(Outcome.START_FAILED, sentence)] * 2
    phases = [(end.phase, end.outcome, end.succeeded, end.reason) for end in node.phase_ends()]
    assert phases == [
        (Phase.PREPARATION, Outcome.START_FAILED, False, sentence),
        (Phase.RELEASE, Outcome.START_FAILED, False, sentence),
    ]
    assert node.core.ledger.keepers_begun == 0, "no keeper was started for it, elevated or not"


def test_a_node_says_whether_it_elevates_and_what_else_it_is() -> None:
    config = msgspec.structs.replace(ALLOWED, users="job", limits=("pids", "memory"), life="w1")
    node = Node(config)
    node.join()
    (join,) = node.said(m.Join)
    assert (join.elevation, join.users, join.limits, join.life) == (True, "job", ["pids", "memory"], "w1")


# ---- directories


def test_directories_are_asked_for_with_the_names_of_elevated_commands() -> None:
    spec = job_spec(group(name="a"), group(name="b", command=ELEVATED), release=release(elevated=True))
    node = joined(spec)
    assert elevated_of(node.core.ledger.jobs["j-1"]) == ("task.b", "jobrelease")
    assert [chore.elevated for chore in node.chores if isinstance(chore, MakeJob)] == [("task.b", "jobrelease")]


def test_what_a_job_put_in_the_way_of_its_elevated_release_goes_before_it_starts() -> None:
    for elevated in (True, False):
        node = joined(job_spec(release=release(elevated=elevated)))
        node.run(1, 1)
        node.greet()
        node.end()
        node.chores.clear()
        node.hear(m.ReleaseRound("j-1", 1, "done"))
        made = [chore for chore in node.chores if isinstance(chore, MakeJob)]
        assert len(made) == elevated
        node.greet()
        assert [keeper.keys for keeper in node.of(Purpose.RELEASE)] == [["release.1.1"]]


def test_a_node_without_a_free_user_fails_what_waits_with_the_reason() -> None:
    node = Node()
    node.answer_chores = False
    node.join()
    node.open(job_spec())
    node.run(1, 2)
    node.tell(JobDirectoryMade("j-1", "All 65535 users for jobs are taken."))
    assert [(end.outcome, end.reason) for end in node.task_ends()] == [
        (Outcome.START_FAILED, "Its directory could not be made: All 65535 users for jobs are taken.")
    ] * 2


def test_a_node_that_can_not_prepare_a_job_gives_its_tasks_back_and_fails_none() -> None:
    node = Node()
    node.answer_chores = False
    node.join()
    node.open(job_spec(preparation=preparation()))
    node.hear(m.Prepare("j-1", 1))
    node.run(1, 2)
    node.tell(JobDirectoryMade("j-1", "All 65535 users for jobs are taken."))
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [(Outcome.START_FAILED, True)]
    assert node.task_ends() == []
    assert [(said.grant, said.spans) for said in node.said(m.Recalled)] == [(1, [(0, 2)])]


# ---- what is left


def test_the_final_end_of_a_release_says_what_the_clean_up_left() -> None:
    for spec in (job_spec(), job_spec(release=release())):
        node = joined(spec)
        node.run(1, 1)
        node.greet()
        node.end()
        node.answer_chores = False
        node.hear(m.ReleaseRound("j-1", 1, "done"))
        node.tell(node.answer(node.chores[-1]))
        if spec.release is not None:
            node.greet()
            node.end("release.1.1")
            node.tell(node.answer(node.chores[-1]))
            node.tell(node.answer(node.chores[-1]))
        left = m.Cleanliness(1, [f"{n} is left." for n in range(50)], 1_879_048_192, ["/cgroup"], ["x" * 500])
        node.tell(JobCleaned("j-1", clean=left))
        (end,) = [end for end in node.phase_ends() if end.phase is Phase.RELEASE]
        assert end.clean is not None
        assert (end.clean.processes, end.clean.uid, end.clean.cgroups) == (1, 1_879_048_192, ["/cgroup"])
        assert (len(end.clean.files), len(end.clean.mounts[0])) == (20, 200)
        assert end.succeeded == (spec.release is not None)


def test_a_clean_node_says_so() -> None:
    node = joined(job_spec())
    node.run(1, 1)
    node.greet()
    node.end()
    node.hear(m.ReleaseRound("j-1", 1, "done"))
    (end,) = node.phase_ends()
    assert (end.succeeded, end.reason, end.clean) == (True, None, m.Cleanliness())


# ---- the environment of an elevated command


def environment(command: Command, spec: JobSpec, config: NodeConfig = ALLOWED) -> dict[str, str | int]:
    """Of a task with this command."""
    spec = msgspec.structs.replace(spec, groups=[group(command=command)])
    texts = TaskTexts(config, Job(m.JobBody("j-1", "me", spec)), 0, 1)
    if texts.failure is not None:
        raise AssertionError(texts.failure)
    return texts.item(Grant(1, "j-1", 1, 0, 0, 1, 1, 1, bytearray(b"\1"), 1), 0, 0)[0].env


def test_t7_nothing_of_the_jobs_environment_steers_an_elevated_command() -> None:
    spec = job_spec(env={**dict.fromkeys(STEERING, "/evil"), "PLAIN": "kept"})
    env = environment(ELEVATED, spec)
    assert "/evil" not in env.values()
    assert env["PLAIN"] == "kept"
    assert env["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    own = "/node/workitems/j-1/private-elevated"
    assert (env["HOME"], env["TMPDIR"]) == (f"{own}/home", f"{own}/tmp")
    plain = environment(Command(argv=["true"]), spec)
    assert plain["LD_PRELOAD"] == plain["PATH"] == "/evil", "of its own commands a job may steer what it likes"


def test_t7_the_release_and_the_preparation_are_held_to_it_too() -> None:
    spec = job_spec(
        preparation=preparation(elevated=True), release=release(elevated=True), env=dict.fromkeys(STEERING, "/evil")
    )
    held = Job(m.JobBody("j-1", "me", spec))
    for phase in (Phase.PREPARATION, Phase.RELEASE):
        env = phase_template(ALLOWED, held, Round("j-1", 1), phase, 1, 0).env
        assert "/evil" not in env.values()
        assert env["HOME"] == "/node/workitems/j-1/private-elevated/home"


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "BASH_ENV"])
def test_t7_what_steers_in_an_elevated_commands_own_environment_is_refused(name: str) -> None:
    command = Command(argv=["true"], elevated=True, env={name: "/evil"})
    texts = TaskTexts(ALLOWED, Job(m.JobBody("j-1", "me", job_spec(group(command=command)))), 0, 1)
    assert texts.failure == f"It is elevated and sets {name}, which steers what else is loaded or run."


def test_the_administrators_path_and_variables_hold_for_elevated_commands() -> None:
    config = msgspec.structs.replace(ALLOWED, path_additions=("/opt/bin",), site_env={"LD_LIBRARY_PATH": "/opt/lib"})
    env = environment(ELEVATED, job_spec(env={"LD_LIBRARY_PATH": "/evil"}), config)
    assert str(env["PATH"]).startswith("/opt/bin:")
    assert env["LD_LIBRARY_PATH"] == "/opt/lib"
