"""Following output: a request waits at the node until there is more, and hears of the attempt's end and of the next."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.files import MAX_RELAYS_EACH, RELAY_S
from tests.coordinator.playbook import FakeNode, Person, Play, job, phase_end, prep, release, tasks
from wire import messages as m


def orders(node: FakeNode) -> list[m.ReadFile]:
    return node.heard(m.ReadFile)


def follow(person: Person, task: str, **more: Any) -> int:
    return person.start(m.LogRead, task=task, follow=True, **more)


def body(person: Person, request: int) -> dict[str, Any]:
    answer = person.answers[request]
    assert isinstance(answer, m.Reply), answer
    found: dict[str, Any] = answer.body
    return found


def running(**options: Any) -> tuple[Play, FakeNode, str]:
    play = Play()
    n1 = play.node("n1")
    return play, n1, play.submit(job("j", tasks(**options), finish="manual"))


def test_who_follows_is_answered_when_the_node_has_more() -> None:
    play, n1, name = running()
    request = follow(play.admin, f"{name}/t", offset=7)
    [order] = orders(n1)
    assert (order.follow, order.offset) == (True, 7)
    assert request not in play.admin.answers
    n1.say(m.FileContents(order.request, b"more", 11, True))
    assert body(play.admin, request) == {
        "content": b"more", "size": 11, "end": True, "attempt": 1, "over": False, "last": False, "node": "n1",
    }  # fmt: skip
    assert play.core.follows == [] and play.core.relays == {}


def test_an_attempt_that_ends_is_read_to_its_end() -> None:
    play, n1, name = running()
    request = follow(play.admin, f"{name}/t", offset=7)
    n1.end()
    waiting, last = orders(n1)
    assert (last.follow, last.offset) == (False, 7)
    n1.say(m.FileContents(waiting.request, b"too late", 8, True))
    assert request not in play.admin.answers, "what was read before the end may not be all of it"
    n1.say(m.FileContents(last.request, b"bye", 10, True))
    answer = body(play.admin, request)
    assert (answer["content"], answer["over"], answer["last"]) == (b"bye", True, True)


def test_the_next_attempt_is_waited_for_and_followed_where_it_runs() -> None:
    play, n1, name = running(retries=1, backoff={"first_ms": 5000, "cap_ms": 5000})
    n1.end(exit_code=1)
    request = follow(play.admin, f"{name}/t", attempt=1)
    n1.say(m.FileContents(orders(n1)[-1].request, b"", 0, True))
    assert (body(play.admin, request)["over"], body(play.admin, request)["last"]) == (True, False)
    request = follow(play.admin, f"{name}/t", attempt=2)
    before = len(orders(n1))
    assert request not in play.admin.answers
    play.wait(20.0)
    assert [order.path for order in orders(n1)[before:]] == ["workitems/j-1/t/attempt-2/stdout.txt"]
    assert orders(n1)[-1].follow


def test_what_has_not_begun_is_waited_for() -> None:
    play = Play()
    name = play.submit(job("j"))
    request = follow(play.admin, f"{name}/t")
    assert request not in play.admin.answers
    n1 = play.node("n1")
    assert [order.follow for order in orders(n1)] == [True]


def test_what_never_began_is_refused_when_that_is_sure() -> None:
    play = Play()
    name = play.submit(job("j"))
    request = follow(play.admin, f"{name}/t")
    play.admin.ask(m.JobTerminate, job=name)
    refused = play.admin.answers[request]
    assert isinstance(refused, m.Refused)
    assert refused.message == "task `j-1/t` is over and never started"
    assert play.core.follows == []


def test_a_node_that_comes_back_is_asked_again() -> None:
    play, n1, name = running()
    request = follow(play.admin, f"{name}/t", offset=3)
    n1.drop()
    assert request not in play.admin.answers
    n1.join()
    assert [(order.follow, order.offset) for order in orders(n1)][-1] == (True, 3)
    n1.say(m.FileContents(orders(n1)[-1].request, b"on", 5, True))
    assert body(play.admin, request)["content"] == b"on"


def test_an_attempt_that_was_lost_does_not_end_following() -> None:
    play, n1, name = running()
    request = follow(play.admin, f"{name}/t")
    n1.drop()
    play.wait(1200.0)
    answer = body(play.admin, request)
    assert (answer["content"], answer["over"], answer["last"]) == (b"", True, False)
    assert answer["why"] == "node `n1` is out of contact, and nothing was kept here"


def test_who_is_gone_follows_no_more() -> None:
    play, n1, name = running()
    ann = play.person("ann", m.Role.ADMIN)
    follow(ann, f"{name}/t")
    ann.drop()
    assert play.core.follows == [] and play.core.relays == {}
    n1.end()


def test_a_deleted_job_is_followed_no_more() -> None:
    play = Play()
    name = play.submit(job("j"))
    request = follow(play.admin, f"{name}/t")
    play.admin.start(m.JobDelete, name)
    assert isinstance(play.admin.answers[request], m.Refused)


def test_a_preparation_is_followed_through_its_attempts_and_a_release_to_what_was_kept() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(retries=1), release=release()))
    what: dict[str, Any] = {"job": name, "node": "n1", "follow": True}
    request = play.admin.start(m.LogRead, **what, phase=m.Phase.PREPARATION)
    assert [order.follow for order in orders(n1)] == [True]
    n1.report(phases=[phase_end(name, 1, m.Phase.PREPARATION, False, final=False, attempt=1)])
    n1.say(m.FileContents(orders(n1)[-1].request, b"oh\n", 3, True))
    assert (body(play.admin, request)["over"], body(play.admin, request)["last"]) == (True, False)
    n1.prepared(name, attempt=2)
    request = play.admin.start(m.LogRead, **what, phase=m.Phase.PREPARATION, attempt=2)
    n1.say(m.FileContents(orders(n1)[-1].request, b"well\n", 5, True))
    assert (body(play.admin, request)["over"], body(play.admin, request)["last"]) == (True, True)
    n1.end(name)
    request = play.admin.start(m.LogRead, **what, phase=m.Phase.RELEASE, offset=2)
    n1.rounds[name, 1] = m.RoundState.RELEASED
    n1.report(phases=[phase_end(name, 1, m.Phase.RELEASE, True, stdout_tail=b"bye\n")])
    n1.say(m.FileRefused(orders(n1)[-1].request, "gone", True))
    answer = body(play.admin, request)
    assert (answer["content"], answer["over"], answer["last"]) == (b"e\n", True, True)


def test_a_preparation_that_runs_again_after_a_reboot_is_followed_and_not_the_one_before() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.prepared(name)
    n1.reboot("boot-2")
    n1.join()
    request = play.admin.start(m.LogRead, job=name, node="n1", follow=True, phase=m.Phase.PREPARATION)
    assert orders(n1)[-1].path == f"workitems/{name}/jobpreparation/attempt-2/stdout.txt"
    n1.prepared(name, attempt=2)
    n1.say(m.FileContents(orders(n1)[-1].request, b"again\n", 6, True))
    answer = body(play.admin, request)
    assert (answer["attempt"], answer["over"], answer["last"]) == (2, True, True)


# ---- nodes that do as they like


def test_a_node_that_never_answers_keeps_nobody_for_ever() -> None:
    play, n1, name = running()
    followed = follow(play.admin, f"{name}/t")
    asked = play.admin.start(m.LogRead, task=f"{name}/t")
    play.wait(RELAY_S + 1.0)
    assert (body(play.admin, followed)["content"], body(play.admin, followed)["over"]) == (b"", False)
    refused = play.admin.answers[asked]
    assert isinstance(refused, m.Refused)
    assert refused.message == "node `n1` does not answer"
    assert play.core.relays == {}


def test_more_than_was_asked_for_is_not_passed_on() -> None:
    play, n1, name = running()
    request = play.admin.start(m.LogRead, task=f"{name}/t", limit=10)
    n1.say(m.FileContents(orders(n1)[-1].request, bytes(11), 11, True))
    refused = play.admin.answers[request]
    assert isinstance(refused, m.Refused)
    assert refused.message == "n1: it answered with more than it was asked for"


@pytest.mark.parametrize(("size", "shown"), [(-5, 0), (1 << 63 - 1, (1 << 62) - 1)])
def test_a_size_that_no_file_has_is_not_passed_on(size: int, shown: int) -> None:
    play, n1, name = running()
    request = play.admin.start(m.LogRead, task=f"{name}/t")
    n1.say(m.FileContents(orders(n1)[-1].request, b"", size, False))
    assert (body(play.admin, request)["size"], body(play.admin, request)["end"]) == (shown, True)


def test_only_so_much_is_followed_at_once_by_one_connection() -> None:
    play = Play()
    name = play.submit(job("j"))
    for _ in range(MAX_RELAYS_EACH):
        follow(play.admin, f"{name}/t")
    assert play.admin.refused(m.LogRead, task=f"{name}/t", follow=True).code is m.RefusalCode.REFUSED
    other = play.person("ann", m.Role.ADMIN)
    assert follow(other, f"{name}/t") not in other.answers


# ---- what was kept


def stream(content: bytes) -> m.KeptStream:
    return m.KeptStream(len(content), content, b"")


def kept_on(node: FakeNode, name: str, attempt: int = 1, *, index: int = 0, job: str | None = None) -> None:
    output = m.TaskOutput(job or name, 0, index, attempt, stream(b"out\n"), stream(b"err\n"))
    node.say(m.TaskOutputs(1, [output]))


def test_what_a_failed_task_wrote_outlives_its_node() -> None:
    play, n1, name = running()
    n1.end(exit_code=1)
    kept_on(n1, name)
    assert [taken.number for taken in n1.heard(m.OutputsTaken)] == [1]
    n1.drop()
    answer = play.admin.ask(m.LogRead, task=f"{name}/t", stderr=True)
    assert (answer["content"], answer["kept"], answer["why"]) == (b"err\n", "all of it", "node `n1` is out of contact")


def test_what_is_gone_from_the_node_comes_from_what_was_kept() -> None:
    play, n1, name = running()
    n1.end(exit_code=1)
    kept_on(n1, name)
    request = play.admin.start(m.LogRead, task=f"{name}/t", offset=1)
    n1.say(m.FileRefused(orders(n1)[-1].request, "there is no such file", True))
    assert (body(play.admin, request)["content"], body(play.admin, request)["kept"]) == (b"ut\n", "all of it")


@pytest.mark.parametrize(
    "lie", [{"attempt": 2}, {"index": 5}, {"index": -1}, {"job": "j-9"}], ids=lambda lie: next(iter(lie.items()))
)
def test_a_node_is_believed_about_attempts_that_ended_there_and_no_others(lie: dict[str, Any]) -> None:
    play, n1, name = running()
    n1.end(exit_code=1)
    kept_on(n1, name, **lie)
    assert play.outputs == {}
    assert n1.heard(m.OutputsTaken), "and it is rid of them"


def test_another_node_can_not_put_its_words_in_place_of_a_tasks() -> None:
    play, n1, name = running()
    n2 = play.node("n2")
    kept_on(n1, name)
    assert play.outputs == {}, "it runs still"
    n1.end(exit_code=1)
    kept_on(n2, name)
    assert play.outputs == {}
