"""Preparation and release on a node: once, in order, retried, interrupted; never while anything of the job lives."""

from __future__ import annotations

import pytest

from agentd.events import CleanJob, EmptyJob, JobCleaned, JobDirectoryMade, JobEmptied, MakeJob, TailsRead
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import NOTHING_WRITTEN, Outcome, Phase, RoundState
from wire.spec import Backoff, Command, DirSpec, ExitAction, ExitArm, ExitCause


def opened(spec=None, *, slots: int = 2, prepare: bool = True, config=CONFIG) -> Node:
    node = Node(config)
    node.join(slots=slots)
    node.open(spec or job_spec(preparation=preparation(), release=release()))
    if prepare:
        node.hear(m.Prepare("j-1", 1))
        node.greet()
    return node


def prepared(spec=None, *, slots: int = 2, leftovers: bool = False) -> Node:
    node = opened(spec, slots=slots)
    node.end("prep.1.1", leftovers=leftovers)
    return node


def state(node: Node) -> RoundState:
    return node.core.ledger.jobs["j-1"].rounds[1].state


# ---- preparation


def test_a_preparation_runs_once_however_often_it_is_asked_for() -> None:
    node = opened()
    node.hear(m.Prepare("j-1", 1))
    assert len(node.of(Purpose.PREPARATION)) == 1
    node.end("prep.1.1")
    node.hear(m.Prepare("j-1", 1))
    assert state(node) is RoundState.PREPARED
    assert [end.final for end in node.phase_ends()] == [True]
    assert node.of(Purpose.PREPARATION) == [], "a keeper that left nothing running has gone"


def test_a_failed_preparation_is_tried_again_as_often_as_it_may_then_bars_and_gives_back() -> None:
    node = opened(job_spec(preparation=preparation(retries=1)))
    node.run(1, 3)
    node.end("prep.1.1", code=1)
    node.end("prep.1.2", code=1)
    assert [(end.attempt, end.final, end.succeeded) for end in node.phase_ends()] == [
        (1, False, False),
        (2, True, False),
    ]
    assert state(node) is RoundState.BARRED
    assert node.said(m.Recalled) == [m.Recalled(1, [(0, 3)])]
    node.run(2, 1)
    assert node.said(m.Recalled)[-1] == m.Recalled(2, [(0, 1)])


def test_a_barred_round_can_be_prepared_again_with_all_its_retries() -> None:
    node = opened(job_spec(preparation=preparation(retries=1)))
    node.end("prep.1.1", code=1)
    node.end("prep.1.2", code=1)
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    node.end("prep.1.3", code=1)
    assert state(node) is RoundState.PREPARING
    node.end("prep.1.4")
    assert state(node) is RoundState.PREPARED


def test_unlimited_retries_are_unlimited() -> None:
    node = opened(job_spec(preparation=preparation(retries=None)))
    for attempt in range(1, 30):
        node.end(f"prep.1.{attempt}", code=1)
        assert bool(node.of(Purpose.PREPARATION)[0].queue) == (attempt <= 10), (
            "ten times at once, then slower and slower"
        )
        node.wait(60 if attempt > 10 else 0)
    assert state(node) is RoundState.PREPARING


def test_a_retry_waits_for_its_backoff() -> None:
    node = opened(job_spec(preparation=preparation(retries=1, backoff=Backoff(first_ms=60_000, cap_ms=60_000))))
    node.end("prep.1.1", code=1)
    assert node.of(Purpose.PREPARATION)[0].queue == []
    node.wait(60)
    assert node.of(Purpose.PREPARATION)[0].keys == ["prep.1.2"]


def test_a_preparation_whose_keeper_died_is_repeated_and_spends_nothing() -> None:
    node = opened(job_spec(preparation=preparation(retries=0)))
    node.die("k1", started=["prep.1.1"])
    del node.keepers["k1"]
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [(Outcome.LOST, False)]
    node.greet()
    node.end("prep.1.2")
    assert state(node) is RoundState.PREPARED


def test_what_a_preparation_left_running_lives_until_the_release() -> None:
    node = prepared(leftovers=True)
    keeper = node.of(Purpose.PREPARATION)[0]
    node.wait(600)
    assert not keeper.retiring
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    assert keeper.retiring


def test_tasks_that_do_not_wait_start_beside_the_preparation_and_survive_its_failure() -> None:
    node = opened(job_spec(preparation=preparation(wait=False)))
    node.run(1, 2)
    node.greet()
    assert len(node.tasks) == 2
    node.end("prep.1.1", code=1)
    node.run(2, 1)
    assert node.said(m.Recalled) == []
    node.end()
    assert len(node.tasks) == 2


def test_the_command_of_a_preparation_may_leave_children_and_has_no_lease() -> None:
    node = opened(job_spec(preparation=preparation(timeout_ms=1500)))
    template = node.of(Purpose.PREPARATION)[0].templates["prep.1"]
    assert template.leave_running
    assert not template.leased
    assert template.timeout_s == 1.5


def test_a_directory_that_can_not_be_made_fails_the_attempt_with_the_reason() -> None:
    node = Node()
    node.join()
    node.answer_chores = False
    node.open(job_spec(preparation=preparation(retries=1)))
    node.hear(m.Prepare("j-1", 1))
    node.tell(JobDirectoryMade("j-1", "the disk is full"))
    node.wait(2)
    node.tell(JobDirectoryMade("j-1", "the disk is full"))
    ends = node.phase_ends()
    assert [(end.attempt, end.final, end.outcome) for end in ends] == [
        (1, False, Outcome.START_FAILED),
        (2, True, Outcome.START_FAILED),
    ]
    assert "the disk is full" in (ends[0].reason or "")


def test_fresh_directories_are_emptied_before_each_attempt_and_old_ones_thrown_away_once() -> None:
    node = opened(job_spec(preparation=preparation(retries=2), dirs=[DirSpec("a", None, True), DirSpec("b")]))
    node.end("prep.1.1", code=1)
    made = [chore for chore in node.chores if isinstance(chore, MakeJob)]
    assert [chore.fresh for chore in made][-2:] == [("a",), ("a",)]
    assert [bool(chore.discard) for chore in made][-2:] == [True, False]


def test_no_attempt_begins_while_its_fresh_directories_are_being_emptied() -> None:
    node = opened(job_spec(preparation=preparation(retries=2), dirs=[DirSpec("a", None, True)]))
    node.answer_chores = False
    node.end("prep.1.1", code=1)
    node.tell(TailsRead(node.of(Purpose.PREPARATION)[0].name, "prep.1.1", NOTHING_WRITTEN, NOTHING_WRITTEN))
    node.wait(120)
    assert [chore.fresh for chore in node.chores if isinstance(chore, MakeJob)][-1] == ("a",)
    assert "prep.1.2" not in node.of(Purpose.PREPARATION)[0].keys
    node.tell(JobDirectoryMade("j-1"))
    assert "prep.1.2" in node.of(Purpose.PREPARATION)[0].keys


def test_tails_of_an_attempt_are_in_its_report() -> None:
    node = opened()
    node.tails = (m.KeptStream(70_000, b"", b"out"), m.KeptStream(3, b"", b"err"))
    node.end("prep.1.1", code=4)
    [end] = node.phase_ends()
    assert (end.stdout_tail, end.stderr_tail) == (b"out", b"err")
    assert (end.stdout_size, end.stderr_size) == (70_000, 3)


def test_a_command_that_asks_for_elevation_is_refused_where_the_node_does_not_allow_it() -> None:
    node = opened(job_spec(preparation=preparation(elevated=True)))
    assert node.phase_ends()[0].outcome is Outcome.START_FAILED
    assert "elevation" in (node.phase_ends()[0].reason or "")


# ---- reboot


def test_a_reboot_makes_a_preparation_due_again_and_tells_the_command() -> None:
    node = prepared()
    node.restart(boot="b2")
    assert state(node) is RoundState.OPENED
    node.join()
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    assert node.of(Purpose.PREPARATION)[0].templates["prep.2"].env["BATCH_REBOOTED"] == "true"
    node.end("prep.1.2")
    assert state(node) is RoundState.PREPARED


def test_a_reboot_leaves_a_preparation_alone_that_need_not_run_again() -> None:
    node = prepared(job_spec(preparation=preparation(rerun_after_reboot=False)))
    node.restart(boot="b2")
    assert state(node) is RoundState.PREPARED


def test_a_preparation_cut_short_by_a_reboot_is_told_and_waits_to_be_asked_for() -> None:
    node = opened()
    node.restart(boot="b2")
    node.die("k1", started=["prep.1.1"])
    assert state(node) is RoundState.OPENED
    node.join()
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [(Outcome.LOST, False)]


def test_a_restart_of_the_agent_repeats_no_preparation() -> None:
    node = prepared()
    node.restart()
    assert state(node) is RoundState.PREPARED
    assert node.core.ledger.keepers == {}


def test_a_preparation_outlives_the_agent() -> None:
    node = opened()
    before = node.restart()
    node.attach(before["k1"], running="prep.1.1")
    node.join()
    node.end("prep.1.1")
    assert state(node) is RoundState.PREPARED
    assert [end.attempt for end in node.phase_ends()] == [1]


def test_an_end_that_the_dead_agent_never_recorded_is_told_again_and_taken_once() -> None:
    node = opened()
    keeper = node.keepers["k1"]
    node.answer_chores = False
    node.end("prep.1.1")
    node.answer_chores = True
    before = node.restart()
    keeper.seq = 0
    node.attach(before["k1"])
    # the harness's keeper answers the ping before it says the end again; a real one says it first, so here it is dead
    node.die("k1", ends=[node.ended(keeper, "prep.1.1")])
    node.join()
    assert state(node) is RoundState.PREPARED
    assert len(node.phase_ends()) == 1


def test_an_attempt_that_never_reached_its_keeper_is_given_to_it_again() -> None:
    node = opened()
    before = node.restart()
    before["k1"].queue.clear()
    node.attach(before["k1"])
    assert node.keepers["k1"].keys == ["prep.1.1"]


# ---- release


def test_a_release_waits_until_every_keeper_is_gone_and_the_job_is_empty() -> None:
    node = prepared(leftovers=True)
    node.run(1, 2)
    node.greet()
    node.answer_chores = False
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    assert node.of(Purpose.RELEASE) == []
    node.end(node.tasks[0], outcome=Outcome.KILLED)
    assert not [chore for chore in node.chores if isinstance(chore, EmptyJob)]
    node.end(node.tasks[0], outcome=Outcome.KILLED)
    assert isinstance(node.chores[-1], EmptyJob)
    assert node.of(Purpose.RELEASE) == []
    node.tell(JobEmptied("j-1"))
    assert len(node.of(Purpose.RELEASE)) == 1


def test_a_round_is_released_cleaned_and_reported_in_this_order() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.answer_chores = False
    node.end("release.1.1")
    node.tell(node.answer(node.chores[-1]))  # tails
    assert [end.phase for end in node.phase_ends()] == [Phase.PREPARATION]
    assert isinstance(node.chores[-1], EmptyJob)
    node.tell(JobEmptied("j-1"))
    assert node.chores[-1] == CleanJob("j-1", {})
    node.tell(JobCleaned("j-1", ("x could not be removed",)))
    end = node.phase_ends()[-1]
    assert (end.phase, end.final, end.succeeded, end.exit_code) == (Phase.RELEASE, True, True, 0)
    assert end.clean.files == ["x could not be removed"]
    assert state(node) is RoundState.RELEASED


def test_a_round_without_a_release_block_reports_the_clean_up() -> None:
    node = prepared(job_spec(preparation=preparation()))
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    end = node.phase_ends()[-1]
    assert (end.phase, end.final, end.succeeded, end.exit_code, end.outcome) == (
        Phase.RELEASE, True, True, None, Outcome.EXITED,
    )  # fmt: skip
    assert node.of(Purpose.RELEASE) == []


def test_a_release_is_never_run_twice_and_its_row_goes_with_the_ack() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.end("release.1.1")
    number = node.said(m.Report)[-1].number
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    assert node.of(Purpose.RELEASE) == []
    node.restart()
    assert state(node) is RoundState.RELEASED
    node.join()
    assert node.said(m.Report)[-1].number == number
    node.hear(m.Ack(number))
    assert node.core.ledger.jobs == {}
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    assert node.said(m.NotHeld) == [m.NotHeld("j-1", 1)]
    assert [scope for scope, _ in node.rows if scope.startswith("job")] == []


def test_a_failed_release_is_tried_again_then_told_as_failed_and_cleaned_all_the_same() -> None:
    node = prepared(job_spec(preparation=preparation(), release=release(retries=1)))
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.end("release.1.1", code=None, outcome=Outcome.TIMED_OUT)
    node.greet()
    node.end("release.1.2", code=7)
    ends = [end for end in node.phase_ends() if end.phase is Phase.RELEASE]
    assert [(end.attempt, end.final, end.succeeded) for end in ends] == [(1, False, False), (2, True, False)]
    assert any(isinstance(chore, CleanJob) for chore in node.chores)


def test_a_release_whose_keeper_died_is_run_again() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    name = node.of(Purpose.RELEASE)[0].name
    node.die(name, started=["release.1.1"])
    del node.keepers[name]
    node.greet()
    node.end("release.1.2")
    assert state(node) is RoundState.RELEASED


def test_a_release_goes_on_when_the_agent_was_killed_in_the_middle() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    name = node.of(Purpose.RELEASE)[0].name
    before = node.restart()
    node.attach(before[name], running="release.1.1")
    node.end("release.1.1")
    assert state(node) is RoundState.RELEASED


@pytest.mark.parametrize("boot", [None, "b2"])
def test_a_release_is_run_again_when_agent_and_keeper_died_in_the_middle(boot: str | None) -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    name = node.of(Purpose.RELEASE)[0].name
    node.restart(boot=boot)
    node.die(name, started=["release.1.1"])
    node.greet()
    node.end("release.1.2")
    assert state(node) is RoundState.RELEASED


def test_a_crash_between_release_and_clean_up_repeats_only_the_clean_up() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.answer_chores = False
    node.end("release.1.1")
    node.tell(node.answer(node.chores[-1]))
    assert state(node) is RoundState.RELEASING
    node.answer_chores = True
    node.restart()
    assert state(node) is RoundState.RELEASED
    assert node.of(Purpose.RELEASE) == []


def test_a_release_asked_for_while_preparing_stops_the_preparation_and_says_interrupted() -> None:
    node = opened()
    node.run(1, 2)
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    assert node.keepers["k1"].stops == ["prep.1.1"]
    assert node.said(m.Recalled) == [m.Recalled(1, [(0, 2)])]
    node.end("prep.1.1", outcome=Outcome.KILLED)
    end = node.phase_ends()[0]
    assert (end.final, end.succeeded, end.outcome) == (True, False, Outcome.KILLED)
    node.greet()
    env = node.of(Purpose.RELEASE)[0].templates["release.1"].env
    assert env["BATCH_PREP_STATE"] == "interrupted"
    assert env["BATCH_END_REASON"] == "UserTerminate"


def test_a_release_is_told_what_went_before() -> None:
    node = prepared()
    node.run(1, 3)
    node.greet()
    for _ in range(3):
        node.end()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    env = node.of(Purpose.RELEASE)[0].templates["release.1"].env
    assert env["BATCH_PREP_STATE"] == "succeeded"
    assert env["BATCH_PREP_EXIT_CODE"] == "0"
    assert env["BATCH_TASKS_RUN"] == "3"


def test_a_round_of_which_nothing_began_owes_no_release_and_is_forgotten() -> None:
    node = opened(prepare=False)
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    node.greet()
    assert node.of(Purpose.RELEASE) == []
    assert node.said(m.NotHeld) == [m.NotHeld("j-1", 1)]
    assert node.core.ledger.jobs == {}


def test_a_release_runs_where_only_tasks_began() -> None:
    node = opened(job_spec(group(), release=release()), prepare=False)
    node.run(1, 1)
    node.greet()
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    node.end()
    node.greet()
    assert node.of(Purpose.RELEASE)[0].templates["release.1"].env["BATCH_PREP_STATE"] == "none"


def test_a_release_runs_outside_the_slots() -> None:
    node = prepared(slots=1)
    node.open(job_spec(group()), job="other-1")
    node.run(5, 1, job="other-1")
    node.greet()
    assert node.tasks == ["5.0.0.1"]
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    assert node.of(Purpose.RELEASE)[0].keys == ["release.1.1"]


def test_a_release_goes_on_without_a_coordinator_and_after_the_lease() -> None:
    node = prepared(job_spec(preparation=preparation(), release=release(retries=5)))
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.wait(2000)
    node.end("release.1.1", code=1)
    node.greet()
    node.end("release.1.2")
    assert state(node) is RoundState.RELEASED


# ---- afterwards


def test_a_next_round_is_a_new_debt_with_its_own_preparation() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    node.end("release.1.1")
    node.open(job_spec(preparation=preparation(), release=release()), number=2)
    node.hear(m.Ack(node.said(m.Report)[-1].number), m.Prepare("j-1", 2))
    node.greet()
    node.end("prep.2.1")
    assert node.core.ledger.jobs["j-1"].rounds.keys() == {2}
    assert node.core.ledger.jobs["j-1"].rounds[2].state is RoundState.PREPARED


def test_kept_directories_go_when_their_time_has_come() -> None:
    node = prepared(job_spec(group(command=Command(argv=["x"], keep_ms=1000_000)), preparation=preparation()))
    node.kept_s = 1000.0
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.hear(m.Ack(node.said(m.Report)[-1].number))
    assert node.chores[-1] == CleanJob("j-1", {"t": 1000.0})
    assert node.core.ledger.jobs == {}, "all that is remembered of it is what to keep"
    node.restart()
    node.kept_s = None
    node.wait(1061)
    assert node.chores == [CleanJob("j-1", {"t": 1000.0})]
    assert [scope for scope, _ in node.rows if "j-1" in scope] == []


def test_what_is_kept_of_a_job_is_not_removed_while_the_job_is_back() -> None:
    spec = job_spec(group(command=Command(argv=["x"], keep_ms=1000_000)))
    node = opened(spec, prepare=False)
    node.run(1, 1)
    node.greet()
    node.end()
    node.kept_s = 1000.0
    node.hear(m.ReleaseRound("j-1", 1, "NodeDrained"))
    node.hear(m.Ack(node.said(m.Report)[-1].number))
    node.open(spec, number=2)
    node.chores.clear()
    node.wait(3000)
    assert not any(isinstance(chore, CleanJob) for chore in node.chores)
    node.kept_s = None
    node.hear(m.ReleaseRound("j-1", 2, "AllTasksComplete"))
    assert node.chores[-1] == CleanJob("j-1", {"t": 1000.0})
    assert node.core.ledger.retained == {}


def test_a_deleted_job_is_removed_at_once_and_that_is_said() -> None:
    node = prepared(job_spec(group(command=Command(argv=["x"], keep_ms=1000_000)), preparation=preparation()))
    node.kept_s = 1000.0
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.hear(m.Ack(node.said(m.Report)[-1].number), m.RemoveJob("j-1"))
    assert node.chores[-1] == CleanJob("j-1", {})
    assert node.said(m.Removed) == [m.Removed("j-1")]
    assert node.core.ledger.jobs == {}


def test_the_removal_of_a_job_waits_for_its_release() -> None:
    node = prepared()
    node.hear(m.RemoveJob("j-1"))
    assert node.said(m.Removed) == []
    node.hear(m.ReleaseRound("j-1", 1, "Deleted"))
    node.greet()
    node.end("release.1.1")
    assert node.said(m.Removed) == [m.Removed("j-1")]


def test_the_removal_of_a_job_never_heard_of_is_said_too() -> None:
    node = Node()
    node.join()
    node.hear(m.RemoveJob("j-9"))
    assert node.said(m.Removed) == [m.Removed("j-9")]


def test_a_round_never_opened_is_not_held() -> None:
    node = Node()
    node.join()
    node.hear(m.Prepare("j-1", 1), m.ReleaseRound("j-1", 2, "x"))
    assert node.said(m.NotHeld) == [m.NotHeld("j-1", 1), m.NotHeld("j-1", 2)]


@pytest.mark.parametrize("rerun", [True, False])
def test_a_preparation_that_ended_just_before_a_reboot_counts_only_where_it_need_not_run_again(rerun: bool) -> None:
    node = opened(job_spec(preparation=preparation(rerun_after_reboot=rerun)))
    keeper = node.keepers["k1"]
    node.restart(boot="b2")
    node.die("k1", ends=[node.ended(keeper, "prep.1.1")])
    assert state(node) is (RoundState.OPENED if rerun else RoundState.PREPARED)


# ---- arms of `exit`

AGAIN = ExitArm(codes=[(75, 75)], action=ExitAction.RETRY, times=2)


def finals(node: Node, phase: Phase = Phase.PREPARATION) -> list[tuple[int, bool, bool]]:
    return [(end.attempt, end.final, end.succeeded) for end in node.phase_ends() if end.phase is phase]


def test_a_preparation_succeeds_by_an_arm() -> None:
    node = opened(job_spec(preparation=preparation(arms=[ExitArm(codes=[(3, 3)], action=ExitAction.SUCCEED)])))
    node.end("prep.1.1", code=3)
    assert state(node) is RoundState.PREPARED
    assert finals(node) == [(1, True, True)]


@pytest.mark.parametrize("action", [ExitAction.FAIL, ExitAction.STOP])
def test_an_arm_that_fails_or_stops_spares_the_retries_of_a_preparation(action: ExitAction) -> None:
    node = opened(job_spec(preparation=preparation(retries=9, arms=[ExitArm(codes=[(4, 4)], action=action)])))
    node.end("prep.1.1", code=5)
    node.end("prep.1.2", code=4)
    assert state(node) is RoundState.BARRED
    assert finals(node) == [(1, False, False), (2, True, False)]


@pytest.mark.parametrize("restarts", [False, True])
def test_an_arm_with_a_number_is_counted_beside_the_retries_also_over_a_restart(restarts: bool) -> None:
    node = opened(job_spec(preparation=preparation(retries=1, arms=[AGAIN])))
    for number, code in enumerate((75, 1, 75), 1):
        node.end(f"prep.1.{number}", code=code)
    book = node.core.ledger.jobs["j-1"].rounds[1].book(Phase.PREPARATION)
    assert (book.failures, book.arm_retries) == (1, {0: 2})
    assert state(node) is RoundState.PREPARING
    if restarts:
        for keeper in node.restart().values():
            node.attach(keeper, running="prep.1.4")
        node.join()
    node.end("prep.1.4", code=75)
    assert state(node) is RoundState.BARRED


def test_an_arm_has_a_backoff_of_its_own() -> None:
    arm = ExitArm(causes=[ExitCause.TIMEOUT], action=ExitAction.RETRY, times=1, backoff=Backoff(60_000, 60_000))
    node = opened(job_spec(preparation=preparation(retries=1, arms=[arm])))
    node.end("prep.1.1", code=1)
    assert node.of(Purpose.PREPARATION)[0].keys == ["prep.1.2"]
    node.end("prep.1.2", outcome=Outcome.TIMED_OUT)
    assert node.of(Purpose.PREPARATION)[0].queue == []
    node.wait(60)
    assert node.of(Purpose.PREPARATION)[0].keys == ["prep.1.3"]


def test_arms_hold_for_a_release_too() -> None:
    arms = [AGAIN, ExitArm(codes=[(3, 3)], action=ExitAction.SUCCEED)]
    node = prepared(job_spec(preparation=preparation(), release=release(arms=arms)))
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    for number, code in enumerate((75, 75, 3), 1):
        node.greet()
        node.end(f"release.1.{number}", code=code)
    assert finals(node, Phase.RELEASE) == [(1, False, False), (2, False, False), (3, True, True)]


def test_a_preparation_that_is_begun_anew_has_the_retries_of_its_arms_again() -> None:
    node = opened(job_spec(preparation=preparation(arms=[ExitArm(codes=[(75, 75)], action=ExitAction.RETRY, times=1)])))
    for number in (1, 2):
        node.end(f"prep.1.{number}", code=75)
    assert state(node) is RoundState.BARRED
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    node.end("prep.1.3", code=75)
    assert state(node) is RoundState.PREPARING


@pytest.mark.parametrize(
    ("reason", "said"), [("NodeDrained", "Its node was drained."), ("UserTerminate", "Its job ended.")]
)
def test_what_is_stopped_for_a_release_is_told_why(reason: str, said: str) -> None:
    node = opened()
    node.hear(m.ReleaseRound("j-1", 1, reason))
    assert node.stop_reasons == [said]
