"""Shells of people on a node: in the place of a command, with what it had, and gone with the round, the session, us."""

from __future__ import annotations

from typing import Any

import pytest

from agentd.events import Disconnected
from agentd.model import NodeConfig
from agentd.records import Purpose
from agentd.shells import MAX_SHELLS
from tests.agentd.node import CONFIG, Node, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome, Phase
from wire.spec import Command, Needs


def asked(shell: int = 7, **more: Any) -> m.OpenShell:
    fields: dict[str, Any] = {"job": "j-1", "round": 1, "index": 4, "attempt": 2, "term": "xterm-256color", **more}
    return m.OpenShell(shell=shell, **fields)


def prepared(spec: Any = None, config: Any = CONFIG) -> Node:
    node = Node(config)
    node.join(slots=2)
    node.open(spec or job_spec(preparation=preparation(), release=release()))
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    node.end("prep.1.1")
    return node


def with_shell(node: Node | None = None, **more: Any) -> Node:
    node = node or prepared()
    node.hear(asked(**more))
    node.greet()
    return node


def test_a_shell_is_where_the_task_was_with_its_environment_on_a_terminal_of_its_own() -> None:
    node = with_shell()
    (keeper,) = node.of(Purpose.SHELL)
    ((key, template_id, values, directory),) = keeper.queue
    template = keeper.templates[template_id]
    assert (key, directory, template.terminal) == ("shell.7", "j-1/t-5/attempt-2", "/dev/pts/7")
    assert "t-5" in values
    assert template.env["TERM"] == "xterm-256color"
    assert template.env["BATCH_JOB_ID"] == "j-1"
    assert (template.leased, template.timeout_s, template.leave_running) == (False, None, False)
    assert node.said(m.ShellOpened) == [m.ShellOpened(7, "/node/workitems/j-1/t-5/attempt-2/wd")]


def test_a_shell_has_the_rights_and_limits_of_its_command() -> None:
    spec = job_spec(group(command=Command(argv=["x"], elevated=True), needs=Needs(cpus=2.0)))
    node = Node(NodeConfig(pool="p", node="p-1", root="/node", incarnation="i1", elevation=True))
    node.join(slots=2)
    node.open(spec)
    node.hear(asked(attempt=1))
    (keeper,) = node.of(Purpose.SHELL)
    assert (keeper.elevated, keeper.needs) == (True, Needs(cpus=2.0))


def test_a_shell_of_a_preparation_is_where_that_was() -> None:
    node = with_shell(phase=Phase.PREPARATION, attempt=1)
    (keeper,) = node.of(Purpose.SHELL)
    assert keeper.queue[0][3] == "j-1/jobpreparation"


def test_its_end_is_said_once_with_its_exit_code() -> None:
    node = with_shell()
    node.end("shell.7", code=3)
    assert node.said(m.ShellEnded) == [m.ShellEnded(7, 3, None, None)]
    assert node.of(Purpose.SHELL) == []
    assert node.terminals == set()


def test_a_shell_that_could_not_start_says_why() -> None:
    node = with_shell()
    node.end("shell.7", None, Outcome.START_FAILED)
    (ended,) = node.said(m.ShellEnded)
    assert ended.reason


@pytest.mark.parametrize(
    "order",
    [
        asked(job="other"), asked(round=2), asked(group=3), asked(group=-1), asked(index=10**6), asked(index=-1),
        asked(phase=Phase.RELEASE), asked(phase=Phase.START),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_with_a_sentence(order: m.OpenShell) -> None:
    node = prepared()
    node.hear(order)
    (ended,) = node.said(m.ShellEnded)
    assert ended.reason
    assert node.of(Purpose.SHELL) == []
    assert node.hung_up == []


def test_the_release_ends_it_first() -> None:
    node = with_shell()
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    (keeper,) = node.of(Purpose.SHELL)
    assert keeper.stops == ["shell.7"]
    assert node.of(Purpose.RELEASE) == []
    node.end("shell.7", None, Outcome.KILLED)
    assert [ended.shell for ended in node.said(m.ShellEnded)] == [7]
    assert node.of(Purpose.RELEASE) != []


def test_no_shell_is_opened_once_the_release_was_asked_for() -> None:
    node = prepared()
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"), asked())
    assert node.of(Purpose.SHELL) == []
    assert [ended.shell for ended in node.said(m.ShellEnded)] == [7]


def test_who_closes_it_ends_it() -> None:
    node = with_shell()
    (keeper,) = node.of(Purpose.SHELL)
    node.hear(m.CloseShell(7))
    assert node.killed == [keeper.name]
    assert node.terminals == set()
    node.die(keeper.name)
    assert len(node.said(m.ShellEnded)) == 1


def test_it_ends_with_the_session_and_nobody_is_told() -> None:
    node = with_shell()
    (keeper,) = node.of(Purpose.SHELL)
    node.tell(Disconnected())
    assert node.killed == [keeper.name]
    assert node.terminals == set()
    assert node.said(m.ShellEnded) == []


def test_one_whose_keeper_died_is_over_and_the_job_goes_on() -> None:
    node = with_shell()
    (keeper,) = node.of(Purpose.SHELL)
    node.die(keeper.name, started=["shell.7"])
    assert [ended.shell for ended in node.said(m.ShellEnded)] == [7]
    node.run(1, 1)
    node.greet()
    assert node.of(Purpose.TASKS) != []


def test_a_shell_of_an_earlier_life_of_the_agent_is_stopped() -> None:
    node = with_shell()
    kept = node.restart()
    (keeper,) = [keeper for keeper in kept.values() if keeper.purpose is Purpose.SHELL]
    node.attach(keeper, running="shell.7")
    assert keeper.stops == ["shell.7"]
    node.end("shell.7", None, Outcome.KILLED)
    assert node.of(Purpose.SHELL) == []
    assert node.said(m.ShellEnded) == []


def test_shells_of_one_node_are_counted() -> None:
    node = prepared()
    node.hear(*(asked(number) for number in range(MAX_SHELLS + 1)))
    assert len(node.of(Purpose.SHELL)) == MAX_SHELLS
    (ended,) = node.said(m.ShellEnded)
    assert "close one first" in (ended.reason or "")


def test_what_a_terminal_is_called_reaches_no_environment_unless_it_is_a_name() -> None:
    node = with_shell(term="x\n$(id)", columns=10**9, rows=-4)
    (keeper,) = node.of(Purpose.SHELL)
    assert keeper.templates["shell.7"].env["TERM"] == "dumb"
