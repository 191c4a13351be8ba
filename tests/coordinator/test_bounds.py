"""I19: what one connection makes the core remember is bounded by constants, whatever it says and however often."""

from __future__ import annotations

import pytest

from coordinator import files, plausible, requests
from tests.coordinator.playbook import FakeNode, Person, Play, document, job, tasks
from tests.simulator.bounds import check, size_of
from wire import messages as m

POOL = {"name": "p", "slots": 1}


def newcomer(play: Play, name: str = "n0") -> FakeNode:
    node = FakeNode(play, name, "p", 1, "boot-1")
    node.epoch = play.open(m.Role.NODE)
    play.links[node.epoch] = node
    return node


def test_i19_requests_that_wait_are_so_many_and_name_so_much_and_no_more() -> None:
    play = Play()
    job_id = play.submit(job("j", tasks(size=2)), pools=[POOL])
    hog = play.person("mallory")
    for _ in range(3 * requests.MAX_WAITS):
        hog.start(m.Overview, jobs=["x" * 5_000] * requests.MAX_NAMED, changed=play.core.version)
        hog.start(m.JobWait, job_id)
        check(play.core)
    assert len(play.core.waiters) == requests.MAX_WAITS
    too_many = hog.refused(m.Overview, jobs=["j-1"] * (requests.MAX_NAMED + 1))
    assert too_many.code is m.RefusalCode.INVALID
    hog.drop()
    assert play.core.waiters == []


def test_i19_one_person_takes_no_more_than_a_share_of_the_reads_of_a_node_that_never_answers() -> None:
    play = Play()
    play.node("n0")
    hogs: list[Person] = [play.person(f"uid:{number}", m.Role.OPERATOR) for number in range(3)]
    for hog in hogs:
        for _ in range(2 * files.MAX_RELAYS_EACH):
            hog.start(m.FilesRead, "n0", "shared/x")
        check(play.core)
    assert len(play.core.relays) == 3 * files.MAX_RELAYS_EACH
    assert hogs[0].answers[files.MAX_RELAYS_EACH + 1].message.endswith("try again")  # type: ignore[union-attr]
    for hog in hogs:
        hog.drop()
    assert play.core.relays == {}


@pytest.mark.parametrize(
    "said",
    [
        {"labels": {"a": "b" * 500_000}},
        {"labels": {f"label-{number}": "" for number in range(10_000)}},
        {"resources": {f"resource-{number}": 1.0 for number in range(10_000)}},
        {"boot": "b" * 100_000},
        {"incarnation": "i" * 100_000},
        {"version": "v" * 100_000},
        {"limits": ["pids"] * 100_000},
        {"life": "l" * 100_000},
    ],
    ids=lambda said: next(iter(said)),
)
def test_i19_a_node_that_says_too_much_of_itself_is_refused_and_nothing_of_it_is_kept(said: dict[str, object]) -> None:
    play = Play()
    node = newcomer(play)
    node.say(m.Join(**{"pool": "p", "node": "n0", "incarnation": "i", "boot": "b", "slots": 1, **said}))  # type: ignore[arg-type]
    assert not node.joined
    (refusal,) = node.heard(m.JoinRefused)
    assert "at most" in refusal.reason
    assert "n0" not in play.core.cluster.nodes
    assert play.rows == []


def test_i19_an_inventory_without_end_is_cut() -> None:
    play = Play(checking=False)
    node = newcomer(play)
    node.join(inventory=False)
    sent = 0
    while node.epoch is not None and sent < 50:
        grants = [m.GrantHeld(sent * 10_000 + number, [(1_023, 1)]) for number in range(10_000)]
        node.say(m.Inventory([], grants, False))
        check(play.core)
        sent += 1
    assert node.epoch is None, "it is cut"
    assert sent <= 12


def test_i19_what_a_node_said_is_forgotten_with_its_session() -> None:
    play = Play()
    node = newcomer(play)
    node.join(inventory=False)
    session = play.core.sessions[node.epoch or 0]
    node.say(m.Inventory([m.RoundHeld(f"job-{n}", 1, m.RoundState.OPENED) for n in range(1_000)], [], False))
    assert size_of(session) > 50_000
    node.drop()
    assert size_of(session) == 0
    node.join(inventory=False)
    assert size_of(play.core.sessions[node.epoch or 0]) < 5_000


def test_i19_one_frame_makes_no_more_than_its_own_size_durable() -> None:
    """A source is kept with every job of a document, so it is a name and no book."""
    play = Play(checking=False)
    jobs = [job(f"j{number}") for number in range(300)]
    plain = document(*jobs, pools=[POOL])
    play.admin.ask(m.Submit, submission="big", document=plain, source="s" * 400_000)
    kept = sum(len(body) for _, body in play.rows)
    assert kept < 300 * 2_000 + 300 * 1_024


def test_i19_a_refusal_names_the_source_of_a_document_and_does_not_repeat_a_book() -> None:
    play = Play(checking=False)
    wrong = [job(f"j{number}", pool="nowhere") for number in range(300)]
    refused = play.admin.refused(m.Submit, submission="big", document=document(*wrong), source="s" * 400_000)
    assert sum(len(found["span"]["file"]) for found in refused.diagnostics) <= 300 * 1_024


def test_what_a_usual_node_says_is_not_too_much() -> None:
    join = m.Join(
        pool="p", node="n", incarnation="i" * 32, boot="b" * 200, slots=4, labels={"zone": "a"}, life="l" * 16
    )
    assert plausible.too_much(join) is None
