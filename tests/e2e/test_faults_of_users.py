"""Faults where jobs have users of their own: what is survived is the same, and a task that lies about its end is not
believed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from tests.e2e import test_faults as faults
from tests.e2e.cluster import Cluster
from tests.e2e.keeper_play import PYTHON
from tests.e2e.relay import Relay
from tests.e2e.test_keeper_fence import FORGER
from tests.e2e.test_users import WHY_NOT, Users, cluster  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.mark.parametrize(
    "fault",
    [
        faults.test_f7b_a_task_that_ends_while_its_agent_is_dead_is_reported_by_the_next,
        faults.test_f8_agent_and_keeper_killed_the_attempt_is_lost_and_nothing_is_left,
        faults.test_f8b_a_release_whose_keeper_died_is_repeated,
        faults.test_f23_a_preparation_that_hangs_is_killed_with_all_it_started,
        faults.test_f25_terminate_during_preparation_kills_it_and_releases,
        faults.test_f29_what_a_task_daemonised_is_dead_before_the_release,
        faults.test_f31_what_cannot_be_started_says_why_and_the_agent_lives,
        faults.test_a_vanished_directory_fails_the_attempt_and_the_agent_lives,
    ],
)
def test_a_fault_is_survived_with_users_of_jobs(
    cluster: Users,  # noqa: F811 - the fixture
    fault: Callable[[Cluster], None],
) -> None:
    fault(cluster)


@pytest.mark.slow
def test_f14_a_task_of_a_user_is_killed_at_its_lease_end_before_it_runs_elsewhere(cluster: Users) -> None:  # noqa: F811
    relay = Relay(cluster.directory / "relay.sock", cluster.socket)
    try:
        faults.test_f14_f15_a_partition_longer_than_the_lease_kills_before_it_restarts(cluster, relay, True, True)
    finally:
        relay.close()


def test_t13_a_task_that_forges_its_end_is_told_as_the_kernel_told_it(cluster: Users) -> None:  # noqa: F811
    cluster.agent("n", slots=2)
    forger = cluster.directory / "forger.py"
    forger.write_text(FORGER)
    forger.chmod(0o644)
    job = cluster.submit(
        textwrap.dedent(f"""
        job j {{ pool = p
          task forge {{ run = ["{PYTHON[0]}", "-I", "-S", "{forger}", "{cluster.root("n")}/.agent"] }}
          task kill {{ script = 'kill -9 $PPID; exit 0' }}
          task fine {{ run = ["true"] }}
        }}
        """)
    )
    cluster.wait(job)
    tasks = {task["group"]: task for task in cluster.ask("task", "list", job)}
    assert (tasks["fine"]["result"], tasks["fine"]["exit_code"]) == ("success", 0)
    assert (tasks["forge"]["result"], tasks["forge"]["exit_code"]) == ("failure", 3)
    assert (tasks["kill"]["result"], tasks["kill"]["exit_code"]) == ("failure", None)
    assert {entry["outcome"] for entry in cluster.ask("task", "show", f"{job}/kill")["history"]} == {"lost"}
    assert cluster.command("logs", f"{job}/forge").stdout == "could:\n"
