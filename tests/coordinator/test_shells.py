"""Debugging shells: only the owner is let in, none outlives what it looks into, and nobody makes anybody hold much."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.identities import Certificates
from coordinator.policy import Policy, PoolRules, ShellRules
from coordinator.records import ShellClosed, ShellOpened
from coordinator.shells import LINGER_S, MAX_OF_A_JOB, MAX_OF_A_PERSON, MAX_TYPED, OPEN_S, WINDOW
from tests.coordinator.playbook import FakeNode, Person, Play, document, job, prep, release, tasks
from wire import messages as m
from wire.bounds import MAX_TERMINAL

RULES = Policy({"p": PoolRules(elevation=["ann"])}, shells=ShellRules(idle_s=600.0))
NAME = "j-1"


def failed(**options: Any) -> tuple[Play, FakeNode, Person]:
    """Ann's job, held open, whose first task failed on n1 in its second attempt."""
    play = Play(policy=RULES, certificates=Certificates())
    n1 = play.node("n1", slots=2, elevation=True)
    ann = play.person("ann")
    retried = tasks(size=3, retries=1, backoff={"first_ms": 1, "cap_ms": 1}, **options)
    spec = job("j", retried, preparation=prep(), release=release(), finish="manual")
    play.admin.ask(m.Submit, submission="pool", document=document(pools=[{"name": "p", "elevation": "allowed"}]))
    play.submit(spec, by=ann)
    n1.prepared(NAME)
    for _ in range(2):
        n1.end(NAME, exit_code=1)
        play.wait(1.0)
    return play, n1, ann


def ask_for(person: Person, task: str = f"{NAME}/t[0]", **more: Any) -> int:
    fields = {"task": task, **more} if "job" not in more else more
    return person.start(m.ShellOpen, **fields)


def last_order(node: FakeNode) -> m.OpenShell:
    order: m.OpenShell = node.heard(m.OpenShell)[-1]
    return order


PREPARATION: dict[str, Any] = {"job": NAME, "node": "n1", "phase": m.Phase.PREPARATION}


def opened(person: Person, at: FakeNode, task: str = f"{NAME}/t[0]", **more: Any) -> int:
    """The number of a shell that runs."""
    request = ask_for(person, task, **more)
    number = last_order(at).shell
    at.say(m.ShellOpened(number, "/node/somewhere"))
    assert body(person, request) == {"shell": number, "node": at.name, "directory": "/node/somewhere"}
    return number


def body(person: Person, request: int) -> Any:
    answer = person.answers[request]
    assert isinstance(answer, m.Reply), answer
    return answer.body


def ended(person: Person, number: int) -> Any:
    return person.ask(m.ShellRead, number)["ended"]


# ---- where


def test_the_owner_is_let_in_where_the_last_attempt_ran() -> None:
    play, n1, ann = failed()
    request = ask_for(ann, columns=100, rows=30, term="xterm")
    assert request not in ann.answers, "not before it is open"
    order = last_order(n1)
    assert (order.job, order.group, order.index, order.attempt, order.phase) == (NAME, 0, 0, 2, None)
    assert (order.columns, order.rows, order.term) == (100, 30, "xterm")


def test_an_earlier_attempt_can_be_named_and_one_that_is_not_is_refused() -> None:
    play, n1, ann = failed()
    opened(ann, n1, attempt=1)
    assert last_order(n1).attempt == 1
    refused = ann.refused(m.ShellOpen, task=f"{NAME}/t[0]", attempt=3)
    assert (refused.code, "there are 1, 2" in refused.message) == (m.RefusalCode.UNKNOWN, True)


def test_the_owner_is_let_in_where_the_preparation_ran() -> None:
    play, n1, ann = failed()
    opened(ann, n1, **PREPARATION)
    order = last_order(n1)
    assert (order.phase, order.attempt) == (m.Phase.PREPARATION, 1)


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"task": f"{NAME}/x"}, m.RefusalCode.UNKNOWN, "no task"),
        ({"task": f"{NAME}/t[0]", "job": NAME}, m.RefusalCode.INVALID, "--phase prep"),
        ({"job": NAME, "node": "n1"}, m.RefusalCode.INVALID, "--phase prep"),
        ({"job": NAME, "node": "n1", "phase": m.Phase.RELEASE}, m.RefusalCode.INVALID, "--phase prep"),
        ({"job": NAME, "node": "n1", "phase": m.Phase.START}, m.RefusalCode.INVALID, "--phase prep"),
        ({"columns": 80}, m.RefusalCode.INVALID, "--phase prep"),
        ({"job": NAME, "node": "n9", "phase": m.Phase.PREPARATION}, m.RefusalCode.UNKNOWN, "no node"),
        ({"job": NAME, "node": "n2", "phase": m.Phase.PREPARATION}, m.RefusalCode.FAILED, "started nothing there"),
        ({"job": NAME, "node": "n1", "phase": m.Phase.PREPARATION, "attempt": 2}, m.RefusalCode.UNKNOWN, "attempt 2"),
        ({"task": "waits-1/t"}, m.RefusalCode.FAILED, "has not started"),
    ],
)
def test_where_there_is_nothing_to_look_into_that_is_said(fields: Any, code: m.RefusalCode, said: str) -> None:
    play, n1, ann = failed()
    play.node("n2", pool="q")
    play.submit(job("waits", pool="empty"), by=ann)
    refused = ann.refused(m.ShellOpen, **fields)
    assert (refused.code, said in refused.message) == (code, True), refused.message
    assert n1.heard(m.OpenShell) == [] and play.core.shells == {}


def test_a_node_out_of_contact_is_asked_for_no_shell() -> None:
    play, n1, ann = failed()
    n1.drop()
    assert "out of contact" in ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").message


def test_a_job_that_is_over_there_has_no_shells() -> None:
    play, n1, ann = failed()
    play.terminate(NAME)
    play.obey()
    assert "directories are gone" in ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").message


# ---- whose


def test_t5_not_even_operators_and_admins_are_let_into_anothers_job() -> None:
    play, n1, ann = failed()
    for person in (play.person("olga", m.Role.OPERATOR), play.person("ada", m.Role.ADMIN)):
        refused = person.refused(m.ShellOpen, task=f"{NAME}/t[0]")
        assert (refused.code, "ann alone" in refused.message) == (m.RefusalCode.REFUSED, True)
    assert n1.heard(m.OpenShell) == []


def test_t5_the_shell_of_another_connection_does_not_exist_not_even_ones_own() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellOutput(number, b"secret"))
    for person in (play.person("bob"), play.person("ann"), play.person("ada", m.Role.ADMIN)):
        for kind, more in ((m.ShellRead, ()), (m.ShellWrite, (b"x",)), (m.ShellResize, (1, 1)), (m.ShellClose, ())):
            refused = person.refused(kind, number, *more)
            absent = person.refused(kind, number + 1, *more)
            assert (refused.code, refused.message) == (m.RefusalCode.UNKNOWN, absent.message)
    assert n1.heard(m.ShellInput) == n1.heard(m.CloseShell) == []
    assert ann.ask(m.ShellRead, number)["content"] == b"secret"


def test_who_may_no_longer_elevate_gets_no_elevated_shell() -> None:
    play, n1, ann = failed(elevated=True)
    opened(ann, n1)
    play.core.policy = Policy({"p": PoolRules()})
    assert ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").code is m.RefusalCode.REFUSED


def test_t5_a_node_says_nothing_of_a_shell_that_is_not_on_it() -> None:
    play, n1, ann = failed()
    n2 = play.node("n2")
    number = opened(ann, n1)
    n2.say(m.ShellOutput(number, b"forged"))
    n2.say(m.ShellWritten(number, 5))
    n2.say(m.ShellEnded(number, 0))
    request = ann.start(m.ShellRead, number)
    assert request not in ann.answers
    n1.say(m.ShellOutput(number, b"true"))
    assert body(ann, request)["content"] == b"true"


# ---- what goes through it


def test_what_it_writes_is_read_and_as_much_may_come_again() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellOutput(number, b"one "))
    n1.say(m.ShellOutput(number, b"two"))
    assert n1.heard(m.ShellTaken) == [], "nobody has read it yet"
    assert ann.ask(m.ShellRead, number) == {"content": b"one two", "ended": None}
    assert n1.heard(m.ShellTaken) == [m.ShellTaken(number, 7)]
    request = ann.start(m.ShellRead, number)
    assert request not in ann.answers
    n1.say(m.ShellOutput(number, b"three"))
    assert body(ann, request)["content"] == b"three"


def test_one_request_at_a_time_reads() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    ann.start(m.ShellRead, number)
    assert ann.refused(m.ShellRead, number).code is m.RefusalCode.REFUSED


def test_a_node_that_sends_more_than_it_may_loses_the_shell() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellOutput(number, bytes(WINDOW)))
    n1.say(m.ShellOutput(number, b"x"))
    assert n1.heard(m.CloseShell) == [m.CloseShell(number)]
    assert "sent more of it" in ended(ann, number)["reason"]


def test_what_is_typed_goes_there_as_far_as_there_is_room() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    full = b"x" * MAX_TYPED
    taken = [ann.ask(m.ShellWrite, number, full)["taken"] for _ in range(WINDOW // MAX_TYPED + 1)]
    assert taken == [MAX_TYPED] * (WINDOW // MAX_TYPED) + [0]
    assert sum(len(order.content) for order in n1.heard(m.ShellInput)) == WINDOW
    n1.say(m.ShellWritten(number, 10))
    assert ann.ask(m.ShellWrite, number, full)["taken"] == 10
    n1.say(m.ShellWritten(number, 2**62))
    n1.say(m.ShellWritten(number, -5))
    assert ann.ask(m.ShellWrite, number, full)["taken"] == MAX_TYPED


def test_too_much_at_once_is_refused() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    assert ann.refused(m.ShellWrite, number, bytes(MAX_TYPED + 1)).code is m.RefusalCode.INVALID


def test_of_many_sizes_the_node_is_told_the_last_once_it_has_the_first() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    for columns in (81, 82, 83):
        ann.ask(m.ShellResize, number, columns, 24)
    n1.say(m.ShellWritten(number, 0))
    n1.say(m.ShellWritten(number, 0))
    assert n1.heard(m.ShellSize) == [m.ShellSize(number, 81, 24), m.ShellSize(number, 83, 24)]
    ann.ask(m.ShellResize, number, -1, 10**9)
    assert n1.heard(m.ShellSize)[-1] == m.ShellSize(number, 1, MAX_TERMINAL)


# ---- how it ends


def test_its_exit_status_comes_behind_all_that_it_wrote() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellOutput(number, b"bye"))
    n1.say(m.ShellEnded(number, 3))
    over = {"exit_code": 3, "signal": None, "reason": None}
    assert ann.ask(m.ShellRead, number) == {"content": b"bye", "ended": over}
    assert play.core.shells == {}
    assert ann.refused(m.ShellRead, number).code is m.RefusalCode.UNKNOWN


def test_one_that_can_not_be_opened_is_refused_with_the_nodes_word() -> None:
    play, n1, ann = failed()
    request = ask_for(ann)
    n1.say(m.ShellEnded(last_order(n1).shell, None, None, "no room for terminals"))
    refused = ann.answers[request]
    assert isinstance(refused, m.Refused)
    assert "no room for terminals" in refused.message
    assert play.core.shells == {}


def test_a_node_that_opens_none_in_its_time_is_given_up() -> None:
    play, n1, ann = failed()
    request = ask_for(ann)
    play.wait(OPEN_S + 1)
    assert isinstance(ann.answers[request], m.Refused)
    assert n1.heard(m.CloseShell) != []
    n1.say(m.ShellOpened(last_order(n1).shell, "/late"))
    n1.say(m.ShellOutput(last_order(n1).shell, b"late"))
    play.wait(LINGER_S + 1)
    assert play.core.shells == {}


def test_it_ends_with_the_round() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    play.terminate(NAME)
    assert n1.heard(m.CloseShell) == [m.CloseShell(number)]
    assert "is over on node `n1`" in ended(ann, number)["reason"]


def test_it_ends_with_the_persons_connection() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    ann.drop()
    assert n1.heard(m.CloseShell) == [m.CloseShell(number)]
    n1.say(m.ShellEnded(number, None, None, "it was closed"))
    assert play.core.shells == {}


def test_it_ends_with_the_nodes_session() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    request = ann.start(m.ShellRead, number)
    n1.drop()
    assert "out of contact" in body(ann, request)["ended"]["reason"]
    assert play.core.shells == {}
    n1.join()
    n1.say(m.ShellOutput(number, b"late"))
    assert n1.closed == []


def test_who_closes_it_has_it_no_more() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    ann.ask(m.ShellClose, number)
    assert n1.heard(m.CloseShell) == [m.CloseShell(number)]
    assert ann.refused(m.ShellRead, number).code is m.RefusalCode.UNKNOWN


def test_one_in_which_nothing_is_typed_for_long_is_closed() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    play.wait(500.0)
    ann.ask(m.ShellWrite, number, b"x")
    play.wait(500.0)
    assert n1.heard(m.CloseShell) == []
    play.wait(200.0)
    assert n1.heard(m.CloseShell) == [m.CloseShell(number)]


def test_what_nobody_reads_and_no_node_confirms_is_forgotten() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellEnded(number, 0))
    play.wait(LINGER_S + 1)
    assert play.core.shells == {}
    number = opened(ann, n1)
    ann.ask(m.ShellClose, number)
    play.wait(LINGER_S + 1)
    assert play.core.shells == {}


def test_none_outlives_a_restart_and_no_number_comes_again() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    play.restart()
    n1.join()
    ann = play.person("ann")
    assert play.core.shells == {}
    assert opened(ann, n1) != number


# ---- how many


def test_shells_of_a_job_and_of_a_person_are_counted_until_the_node_has_ended_them() -> None:
    play, n1, ann = failed()
    numbers = [opened(ann, n1) for _ in range(MAX_OF_A_JOB)]
    assert f"of job `{NAME}`" in ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").message
    ann.ask(m.ShellClose, numbers[0])
    assert ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").code is m.RefusalCode.REFUSED
    n1.say(m.ShellEnded(numbers[0]))
    opened(ann, n1)


def test_shells_of_a_person_are_counted_over_all_jobs() -> None:
    play, n1, ann = failed()
    others = play.node("n2", slots=9, pool="q")
    for count in range(MAX_OF_A_PERSON // MAX_OF_A_JOB):
        name = play.submit(job(f"k{count}", pool="q", finish="manual"), by=ann)
        for _ in range(MAX_OF_A_JOB):
            opened(ann, others, f"{name}/t")
    assert "of ann" in ann.refused(m.ShellOpen, task=f"{NAME}/t[0]").message


# ---- what is kept


def test_who_was_where_is_kept_before_anybody_is_let_in() -> None:
    play, n1, ann = failed()
    number = opened(ann, n1)
    n1.say(m.ShellEnded(number, 0))
    [begun], [over] = play.kept_of(ShellOpened), play.kept_of(ShellClosed)
    assert (begun.job, begun.node, begun.group, begun.index, begun.attempt, begun.by) == (NAME, "n1", 0, 0, 2, "ann")
    assert (over.shell, over.by) == (begun.shell, "ann")


def test_its_beginning_and_end_are_events() -> None:
    play, n1, ann = failed()
    opened(ann, n1)
    number = opened(ann, n1, **PREPARATION)
    ann.ask(m.ShellClose, number)
    play.page_rows = 1000
    told = [event for event in ann.ask(m.EventsRead, 0, NAME)["events"] if event["kind"].startswith("shell.")]
    assert [(event["kind"], event["task"], event["data"]["by"]) for event in told] == [
        ("shell.opened", f"{NAME}/t[0]", "ann"), ("shell.opened", None, "ann"), ("shell.closed", None, "ann"),
    ]  # fmt: skip
