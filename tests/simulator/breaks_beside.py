"""Breaks of what the simulator has none of (debugging shells, `top`): each with the test that must fail by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.simulator.mutations import Mutation


@dataclass(frozen=True)
class Beside:
    """A break, and who notices: a test without arguments."""

    broken: Mutation
    module: str
    test: str


_SHELLS: Final = "tests.coordinator.test_shells"
_NODE: Final = "tests.agentd.test_shells"
_TOP: Final = "tests.coordinator.test_top"
BESIDE: Final = (
    # ---- whose a shell is
    Beside(
        Mutation(
            "everybody is let into everybody's shells",
            "coordinator",
            "return session.owner == job.owner",
            "return True",
        ),
        _SHELLS,
        "test_t5_not_even_operators_and_admins_are_let_into_anothers_job",
    ),
    Beside(
        Mutation(
            "a shell is everybody's who knows its number",
            "coordinator",
            "if shell is None or shell.session != session.epoch or shell.opening is not None or not shell.watched:",
            "if shell is None:",
        ),
        _SHELLS,
        "test_t5_the_shell_of_another_connection_does_not_exist_not_even_ones_own",
    ),
    Beside(
        Mutation(
            "who may no longer elevate keeps the shells of root",
            "coordinator",
            "if place.command.elevated and not desk.policy.may_elevate(session.owner, session.role, pool):",
            "if False:",
        ),
        _SHELLS,
        "test_who_may_no_longer_elevate_gets_no_elevated_shell",
    ),
    Beside(
        Mutation(
            "any node speaks for any shell",
            "coordinator",
            "if shell is None or not shell.held or shell.node_session != node.session:",
            "if shell is None or not shell.held:",
        ),
        _SHELLS,
        "test_t5_a_node_says_nothing_of_a_shell_that_is_not_on_it",
    ),
    # ---- how long there is one
    Beside(
        Mutation(
            "a shell goes on when its job is over",
            "coordinator",
            "elif shell.ended is None and (job is None or not _is_open(job, shell)):",
            "elif False:",
        ),
        _SHELLS,
        "test_it_ends_with_the_round",
    ),
    Beside(
        Mutation(
            "a shell outlives the connection of its person",
            "coordinator",
            "if shell.watched and shell.session not in desk.sessions:",
            "if False:",
        ),
        _SHELLS,
        "test_it_ends_with_the_persons_connection",
    ),
    Beside(
        Mutation(
            "a release does not wait for shells",
            "agentd",
            "keepers = self._keepers.of(held.job, Purpose.TASKS, Purpose.PREPARATION, Purpose.START, Purpose.SHELL)",
            "keepers = self._keepers.of(held.job, Purpose.TASKS, Purpose.PREPARATION, Purpose.START)",
        ),
        _NODE,
        "test_the_release_ends_it_first",
    ),
    Beside(
        Mutation(
            "a shell is opened where its job is being released",
            "agentd",
            "if job is None or held is None or not held.open or held.state is RoundState.RELEASING:",
            "if job is None or held is None:",
        ),
        _NODE,
        "test_no_shell_is_opened_once_the_release_was_asked_for",
    ),
    Beside(
        Mutation(
            "a shell outlives the session of its node",
            "agentd",
            "self._shells.session_over()",
            "pass",
        ),
        _NODE,
        "test_it_ends_with_the_session_and_nobody_is_told",
    ),
    # ---- what `top` shows
    Beside(
        Mutation(
            "top tells what nodes owe to jobs that there are not for whoever looks",
            "coordinator",
            "return [job_id for job_id in owed if _is_known(desk, session, job_id, node.pool)]",
            "return list(owed)",
        ),
        "tests.coordinator.test_rights",
        "test_a_job_that_one_may_not_look_at_does_not_exist",
    ),
    Beside(
        Mutation(
            "top sends more rows than it was asked for",
            "coordinator",
            "rows = max(0, min(message.rows, MAX_ROWS))",
            "rows = MAX_ROWS",
        ),
        _TOP,
        "test_an_answer_is_no_larger_than_what_was_asked_for",
    ),
    Beside(
        Mutation(
            "top is silent of what nodes out of contact owe",
            "coordinator",
            "if node_job.state in OPEN or node_job.state is NodeJobState.UNREACHED:",
            "if node_job.state is NodeJobState.UNREACHED:",
        ),
        _TOP,
        "test_sums_are_of_everything_and_what_runs_comes_first",
    ),
    Beside(
        Mutation(
            "top hides the nodes that have a trouble behind those that work",
            "coordinator",
            "return (node.state not in _TROUBLED, -node.used, node.name)",
            "return (False, -node.used, node.name)",
        ),
        _TOP,
        "test_sums_are_of_everything_and_what_runs_comes_first",
    ),
)
